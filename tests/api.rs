//! What a user of the library sees: one thread, then many.

use casblock::{BlockSize, Comparison, CreateOptions, Error, Geometry, OpenError, Store};

/// A store in a file in a temporary folder, which goes with it.
fn on_disk(geometry: Geometry) -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path().join("store"), geometry).unwrap();
    (folder, store)
}

#[test]
fn unwritten_blocks_read_and_compare_as_zeros() {
    for size in [BlockSize::B512, BlockSize::B4096] {
        let (_folder, store) = on_disk(Geometry::blocks(8).block_size(size));
        let zeros = vec![0; size.bytes()];
        let ones = vec![1; size.bytes()];
        let mut block = ones.clone();
        store.read(3, &mut block).unwrap();
        assert_eq!(block, zeros);
        let Err(Error::Miscompare(miscompare)) = store.compare_and_write(3, &ones, &zeros) else {
            panic!("compared equal to ones");
        };
        assert_eq!((miscompare.lba, miscompare.offset, &*miscompare.found), (3, 0, &*zeros));
        assert!(!store.is_written(3).unwrap());
        store.compare_and_write(3, &zeros, &ones).unwrap();
        assert!(store.is_written(3).unwrap());
        store.read(3, &mut block).unwrap();
        assert_eq!(block, ones);
        assert!(store.check().is_clean());
    }
}

#[test]
fn threads_increment_without_loss_and_never_see_a_torn_block() {
    let (_folder, store) = on_disk(Geometry::blocks(2));
    const THREADS: u64 = 4;
    const INCREMENTS: u64 = 20_000;
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut writer = store.writer().unwrap();
                let mut current = [0; 512];
                for _ in 0..INCREMENTS {
                    loop {
                        let count = u64::from_le_bytes(current[..8].try_into().unwrap());
                        let wanted: Vec<u8> = (count + 1).to_le_bytes().repeat(64);
                        match writer.compare_and_write_or_load(1, &mut current, &wanted).unwrap() {
                            Comparison::Written => break,
                            Comparison::Miscompare { .. } => {
                                assert!(current.chunks(8).all(|word| *word == current[..8]), "torn");
                            }
                        }
                    }
                }
            });
        }
    });
    let mut block = [0; 512];
    store.read(1, &mut block).unwrap();
    assert_eq!(u64::from_le_bytes(block[..8].try_into().unwrap()), THREADS * INCREMENTS);
    assert!(store.check().is_clean());
}

#[test]
fn a_store_can_be_reopened_and_replaced_only_on_purpose() {
    let (folder, store) = on_disk(Geometry::blocks(8));
    let path = folder.path().join("store");
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
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
}
