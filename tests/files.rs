//! What the public API promises of a store's file: its mode and size, how it is opened, made and replaced.
#![cfg(target_os = "linux")]

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use casblock::{BlockSize, CreateOptions, Error, Geometry, OpenError, Store};

/// A path in a temporary folder, which goes with it.
fn new_path() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    (folder, path)
}

fn entries(folder: &tempfile::TempDir) -> usize {
    std::fs::read_dir(folder.path()).unwrap().count()
}

#[test]
fn a_store_keeps_its_contents_words_geometry_and_uuid() {
    for size in [BlockSize::B512, BlockSize::B4096] {
        let (_folder, path) = new_path();
        let geometry = Geometry::blocks(9).block_size(size).frames(12).words(3).writers(2).length_bytes(4001);
        let store = Store::create(&path, geometry).unwrap();
        assert_eq!((*store.geometry(), store.path()), (geometry, Some(&*path)));
        store.write(8, &vec![8; size.bytes()]).unwrap();
        store.word(2).unwrap().compare_exchange(0, 22).unwrap();
        let uuid = store.uuid();
        assert_eq!((uuid[6] >> 4, uuid[8] >> 6), (4, 2), "a UUID of version 4");
        let region_bytes = store.region_bytes();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), region_bytes);
        drop(store);
        for open in [Store::open, Store::open_read_only, Store::open_exclusive] {
            let store = open(&path).unwrap();
            assert_eq!((store.uuid(), store.region_bytes(), store.path()), (uuid, region_bytes, Some(&*path)));
            let geometry = store.geometry();
            assert_eq!((geometry.block_count(), geometry.frame_count(), geometry.size_of_block()), (9, 12, size));
            assert_eq!((geometry.word_count(), geometry.writer_count(), geometry.length()), (3, 2, 4001));
            let mut block = vec![0; size.bytes()];
            store.read(8, &mut block).unwrap();
            assert_eq!(block, vec![8; size.bytes()]);
            assert_eq!(store.read_word(2).unwrap(), 22);
            assert!(store.check().is_clean());
        }
    }
}

#[test]
fn the_length_is_all_blocks_unless_set() {
    assert_eq!(Geometry::blocks(9).length(), 9 * 512);
    assert_eq!(Geometry::blocks(9).length_bytes(0).length(), 0);
    let (folder, path) = new_path();
    let refused = Store::create(&path, Geometry::blocks(9).length_bytes(9 * 512 + 1));
    assert!(matches!(refused, Err(OpenError::Geometry { .. })), "{refused:?}");
    assert_eq!(entries(&folder), 0, "no file is left behind");
}

#[test]
fn impossible_geometries_make_no_file() {
    let (folder, path) = new_path();
    let plain = Geometry::blocks(8);
    for geometry in [
        Geometry::blocks(0),
        Geometry::blocks(u64::MAX),
        plain.frames(0),
        plain.frames(1),
        plain.frames((1 << 31) + 1),
        plain.frames(u64::MAX),
        plain.writers(0),
        plain.words(u64::MAX),
    ] {
        for result in [Store::create(&path, geometry), Store::in_memory(geometry)] {
            assert!(matches!(result, Err(OpenError::Geometry { .. })), "{geometry:?}: {result:?}");
        }
    }
    assert_eq!(entries(&folder), 0, "no file is left behind");
}

#[test]
fn a_new_file_is_its_owners_alone_unless_told_otherwise() {
    let (folder, path) = new_path();
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    Store::create(&path, Geometry::blocks(1)).unwrap();
    assert_eq!(mode(&path), 0o600);
    let plain = folder.path().join("plain");
    std::fs::File::create(&plain).unwrap();
    let umask = 0o666 & !mode(&plain);
    CreateOptions::new(Geometry::blocks(1)).mode(0o664).replace(true).create(&path).unwrap();
    assert_eq!(mode(&path), 0o664 & !umask);
}

#[test]
fn space_is_taken_when_the_store_is_made_or_with_sparse_when_blocks_are_written() {
    let (folder, path) = new_path();
    let options = CreateOptions::new(Geometry::blocks(1 << 13));
    let taken = |path| std::fs::metadata(path).unwrap().blocks() * 512;
    let store = options.create(&path).unwrap();
    assert!(taken(&path) >= store.region_bytes(), "{} of {} bytes", taken(&path), store.region_bytes());
    let path = folder.path().join("sparse");
    let store = options.sparse(true).create(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), store.region_bytes());
    assert!(taken(&path) < store.region_bytes() / 8, "{} of {} bytes", taken(&path), store.region_bytes());
    store.write(0, &vec![1; 512 << 13]).unwrap();
    assert!(store.check().is_clean());
}

#[test]
fn a_store_opened_read_only_reads_and_says_why_it_does_not_write() {
    let (_folder, path) = new_path();
    let store = Store::create(&path, Geometry::blocks(4)).unwrap();
    store.write(1, &[1; 512]).unwrap();
    store.word(1).unwrap().compare_exchange(0, 11).unwrap();
    drop(store);
    let before = std::fs::read(&path).unwrap();
    let store = Store::open_read_only(&path).unwrap();
    let mut block = [0; 512];
    store.read(1, &mut block).unwrap();
    assert_eq!(block, [1; 512]);
    assert_eq!(store.read_word(1).unwrap(), 11);
    assert!(store.is_written(1).unwrap() && !store.is_written(2).unwrap() && store.check().is_clean());
    for result in [
        store.write(1, &[2; 512]),
        store.write(9, &[2; 512]),
        store.write(0, &[]),
        store.compare_and_write(1, &[1; 512], &[2; 512]),
        store.compare_and_write(1, &[5; 512], &[2; 512]),
        store.writer().map(|_| ()),
        store.word(1).map(|_| ()),
    ] {
        assert!(matches!(result, Err(Error::ReadOnly)), "{result:?}");
    }
    drop(store);
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn readers_see_what_writers_of_another_handle_do() {
    let (_folder, path) = new_path();
    let store = Store::create(&path, Geometry::blocks(4)).unwrap();
    let reader = Store::open_read_only(&path).unwrap();
    for value in 1..20 {
        store.write(3, &[value; 512]).unwrap();
        let mut block = [0; 512];
        reader.read(3, &mut block).unwrap();
        assert_eq!(block, [value; 512]);
    }
}

#[test]
fn open_exclusive_is_alone() {
    let (_folder, path) = new_path();
    let store = Store::create(&path, Geometry::blocks(4)).unwrap();
    for other in [Store::open(&path), Store::open_read_only(&path)] {
        assert!(matches!(Store::open_exclusive(&path), Err(OpenError::InUse { .. })));
        drop(other.unwrap());
    }
    let clone = store.clone();
    drop(store);
    assert!(matches!(Store::open_exclusive(&path), Err(OpenError::InUse { .. })), "a clone has it open");
    drop(clone);
    let alone = Store::open_exclusive(&path).unwrap();
    alone.write(0, &[1; 512]).unwrap();
    for other in [Store::open(&path), Store::open_read_only(&path)] {
        assert!(matches!(other, Err(OpenError::Locked { .. })), "{other:?}");
    }
    assert!(matches!(Store::open_exclusive(&path), Err(OpenError::InUse { .. })));
    drop(alone);
    Store::open(&path).unwrap();
}

#[test]
fn a_store_can_be_reopened_and_replaced_only_on_purpose() {
    let (folder, path) = new_path();
    let store = Store::create(&path, Geometry::blocks(8)).unwrap();
    store.write(7, &[7; 512]).unwrap();
    let uuid = store.uuid();
    assert!(matches!(Store::create(&path, Geometry::blocks(1)), Err(OpenError::Exists { .. })));
    let replace = CreateOptions::new(Geometry::blocks(1)).replace(true);
    assert!(matches!(replace.create(&path), Err(OpenError::InUse { .. })));
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.uuid(), uuid);
    let mut block = [0; 512];
    store.read(7, &mut block).unwrap();
    assert_eq!(block, [7; 512]);
    drop(store);
    assert_eq!(replace.create(&path).unwrap().geometry().block_count(), 1);
    assert_eq!(entries(&folder), 1, "nothing else is left");
}

#[test]
fn a_store_that_is_filled_has_no_name_before_and_none_if_that_fails() {
    let (folder, path) = new_path();
    let options = CreateOptions::new(Geometry::blocks(8));
    let failed: Result<Store, Box<dyn std::error::Error>> = options.create_filled(&path, |store| {
        store.write(1, &[1; 512])?;
        assert!(!path.exists());
        Err("not today".into())
    });
    assert_eq!(failed.unwrap_err().to_string(), "not today");
    assert_eq!(entries(&folder), 0, "no file is left behind");
    let store = options.create_filled(&path, |store| {
        store.write(1, &[1; 512])?;
        Ok::<_, Box<dyn std::error::Error>>(())
    });
    drop(store.unwrap());
    let mut block = [0; 512];
    Store::open(&path).unwrap().read(1, &mut block).unwrap();
    assert_eq!(block, [1; 512]);

    let kept: Result<Store, Box<dyn std::error::Error>> =
        options.replace(true).create_filled(&path, |_| Err("not today".into()));
    assert!(kept.is_err());
    Store::open(&path).unwrap().read(1, &mut block).unwrap();
    assert_eq!((block, entries(&folder)), ([1; 512], 1), "the old store is still there, alone");
}

#[test]
fn a_store_in_memory_has_no_path_and_no_uuid() {
    let store = Store::in_memory(Geometry::blocks(8)).unwrap();
    assert_eq!((store.path(), store.uuid()), (None, [0; 16]));
}
