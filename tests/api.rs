//! What the public API promises: on both block sizes, in memory and in a file.

use casblock::{BlockSize, Comparison, Error, Geometry, Store, Writer};

const SIZES: [BlockSize; 2] = [BlockSize::B512, BlockSize::B4096];

/// Runs a test on a store of each block size, in memory and in a file.
fn on_each(geometry: Geometry, test: impl Fn(&Store)) {
    for geometry in SIZES.map(|size| geometry.block_size(size)) {
        test(&Store::in_memory(geometry).unwrap());
        let folder = tempfile::tempdir().unwrap();
        test(&Store::create(folder.path().join("store"), geometry).unwrap());
    }
}

fn bytes(store: &Store) -> usize {
    store.geometry().size_of_block().bytes()
}

/// A block full of one byte.
fn full(store: &Store, byte: u8) -> Vec<u8> {
    vec![byte; bytes(store)]
}

fn read(store: &Store, lba: u64) -> Vec<u8> {
    let mut block = full(store, 0xee);
    store.read(lba, &mut block).unwrap();
    block
}

/// Asserts that a result is the error of a pattern.
macro_rules! assert_error {
    ($result:expr, $($pattern:tt)+) => {
        match $result {
            Err($($pattern)+) => {}
            other => panic!("{}: {other:?}", stringify!($result)),
        }
    };
}

#[test]
fn unwritten_blocks_read_and_compare_as_zeros() {
    on_each(Geometry::blocks(8), |store| {
        let (zeros, ones) = (full(store, 0), full(store, 1));
        assert_eq!(read(store, 3), zeros);
        let Err(Error::Miscompare(miscompare)) = store.compare_and_write(3, &ones, &zeros) else {
            panic!("compared equal to ones");
        };
        assert_eq!((miscompare.lba, miscompare.offset, &*miscompare.found), (3, 0, &*zeros));
        assert!(!store.is_written(3).unwrap());
        store.compare_and_write(3, &zeros, &ones).unwrap();
        assert!(store.is_written(3).unwrap());
        assert_eq!(read(store, 3), ones);
        assert!(store.check().is_clean());
    });
}

#[test]
fn several_blocks_are_read_and_written_at_once() {
    on_each(Geometry::blocks(8), |store| {
        let size = bytes(store);
        let data: Vec<u8> = (0..3 * size).map(|at| (at / 7 % 251) as u8).collect();
        store.write(4, &data).unwrap();
        let mut out = vec![0xee; 5 * size];
        store.read(3, &mut out).unwrap();
        assert_eq!(out[..size], full(store, 0), "the block before is untouched");
        assert_eq!(out[size..4 * size], data);
        assert_eq!(out[4 * size..], full(store, 0), "the block after is untouched");
        assert_eq!(read(store, 5), data[size..2 * size]);
        store.write(0, &vec![9; 8 * size]).unwrap();
        let mut all = vec![0; 8 * size];
        store.read(0, &mut all).unwrap();
        assert!(all.iter().all(|&byte| byte == 9));
        store.write(7, &full(store, 7)).unwrap();
        assert_eq!(read(store, 7), full(store, 7), "the last block alone");
    });
}

#[test]
fn nothing_may_be_read_and_written_too() {
    on_each(Geometry::blocks(2), |store| {
        for lba in [0, 1] {
            store.read(lba, &mut []).unwrap();
            store.write(lba, &[]).unwrap();
        }
        assert_error!(store.compare_and_write(0, &[], &[]), Error::BufferLength { bytes: 0, .. });
        assert_eq!(store.check().blocks_written, 0);
    });
}

#[test]
fn buffers_of_a_wrong_length_are_refused() {
    on_each(Geometry::blocks(4), |store| {
        let size = bytes(store);
        let block = full(store, 1);
        let mut writer = store.writer().unwrap();
        for wrong in [1, size - 1, size + 1, 2 * size - 1] {
            let mut buffer = vec![1; wrong];
            let whole = "a whole number of blocks";
            for result in [store.read(0, &mut buffer), store.write(0, &buffer), writer.write(0, &buffer)] {
                let Err(Error::BufferLength { bytes, expected, block_size }) = result else { panic!("{result:?}") };
                assert_eq!((bytes, expected, block_size), (wrong, whole, size));
            }
        }
        for wrong in [0, 1, size - 1, size + 1, 2 * size] {
            let mut buffer = vec![1; wrong];
            let mut current = block.clone();
            for result in [
                store.compare_and_write(0, &buffer, &block),
                store.compare_and_write(0, &block, &buffer),
                writer.compare_and_write(0, &buffer, &block),
                writer.compare_and_write_or_load(0, &mut buffer, &block).map(|_| ()),
                writer.compare_and_write_or_load(0, &mut current, &vec![1; wrong]).map(|_| ()),
            ] {
                let Err(Error::BufferLength { bytes, expected, block_size }) = result else { panic!("{result:?}") };
                assert_eq!((bytes, expected, block_size), (wrong, "one block", size));
            }
            assert!(buffer.iter().all(|&byte| byte == 1) && current == block, "the buffers are untouched");
        }
        assert_eq!(store.check().blocks_written, 0, "nothing changed");
    });
}

#[test]
fn blocks_out_of_range_are_refused() {
    on_each(Geometry::blocks(4), |store| {
        let size = bytes(store);
        let mut writer = store.writer().unwrap();
        store.write(3, &full(store, 3)).unwrap();
        for (first, blocks) in [(4, 1), (3, 2), (0, 5), (5, 1), (u64::MAX, 1), (u64::MAX - 1, 3), (1 << 32, 1)] {
            let mut buffer = vec![1; blocks * size];
            for result in [store.read(first, &mut buffer), store.write(first, &buffer), writer.write(first, &buffer)] {
                let Err(Error::LbaOutOfRange { lba, count, blocks: 4 }) = result else { panic!("{result:?}") };
                assert_eq!((lba, count), (first, blocks as u64));
            }
        }
        for first in [4, 1 << 32, (1 << 32) - 1, u64::MAX - 1, u64::MAX] {
            let (mut old, new) = (full(store, 0), full(store, 1));
            for result in [
                store.compare_and_write(first, &old, &new),
                writer.compare_and_write(first, &old, &new),
                writer.compare_and_write_or_load(first, &mut old, &new).map(|_| ()),
                store.is_written(first).map(|_| ()),
            ] {
                let Err(Error::LbaOutOfRange { lba, count: 1, blocks: 4 }) = result else { panic!("{result:?}") };
                assert_eq!(lba, first);
            }
        }
        assert_eq!(store.check().blocks_written, 1, "nothing changed");
        assert_eq!(read(store, 3), full(store, 3), "nothing changed");
        let error = store.read(u64::MAX, &mut vec![0; 2 * size]).unwrap_err().to_string();
        assert_eq!(error, format!("blocks {0} to {0} are out of range: the store has blocks 0 to 3", u64::MAX));
    });
}

/// The first byte that differs is named, wherever it is, and the block found is given whole.
#[test]
fn a_miscompare_names_the_first_byte_that_differs_and_gives_what_was_found() {
    on_each(Geometry::blocks(2), |store| {
        let size = bytes(store);
        let held: Vec<u8> = (0..size).map(|at| (at * 31 % 256) as u8).collect();
        store.write(1, &held).unwrap();
        let new = full(store, 1);
        let mut writer = store.writer().unwrap();
        for offset in 0..size {
            let mut expected = held.clone();
            expected[offset] ^= 1 << (offset % 8);
            // What differs behind the first difference does not matter.
            if offset % 2 == 1 {
                expected[offset..].iter_mut().for_each(|byte| *byte ^= 0x55);
            }
            let Err(Error::Miscompare(miscompare)) = store.compare_and_write(1, &expected, &new) else {
                panic!("byte {offset} differs, and was taken as equal");
            };
            assert_eq!((miscompare.lba, miscompare.offset), (1, offset));
            assert_eq!(*miscompare.found, held);
            let result = writer.compare_and_write_or_load(1, &mut expected, &new).unwrap();
            assert_eq!(result, Comparison::Miscompare { offset });
            assert_eq!(expected, held, "loaded");
        }
        assert_eq!(read(store, 1), held, "left alone");
        store.compare_and_write(1, &held, &new).unwrap();
        assert_eq!(read(store, 1), new);
    });
}

#[test]
fn a_miscompare_with_an_unwritten_block_names_the_first_byte_that_is_not_zero() {
    on_each(Geometry::blocks(2), |store| {
        for offset in 0..bytes(store) {
            let mut expected = full(store, 0);
            expected[offset..].fill(1);
            let Err(Error::Miscompare(miscompare)) = store.compare_and_write(0, &expected, &full(store, 2)) else {
                panic!("byte {offset} differs, and was taken as equal");
            };
            assert_eq!((miscompare.offset, &*miscompare.found), (offset, &*full(store, 0)));
        }
        assert!(!store.is_written(0).unwrap());
    });
}

#[test]
fn compare_and_write_or_load_keeps_or_loads_what_was_expected() {
    on_each(Geometry::blocks(2), |store| {
        let mut writer = store.writer().unwrap();
        let mut current = full(store, 0);
        assert_eq!(writer.compare_and_write_or_load(0, &mut current, &full(store, 1)).unwrap(), Comparison::Written);
        assert_eq!(current, full(store, 0), "what was expected stays as it was");
        assert_eq!(
            writer.compare_and_write_or_load(0, &mut current, &full(store, 2)).unwrap(),
            Comparison::Miscompare { offset: 0 }
        );
        assert_eq!(current, full(store, 1), "what is there was loaded");
        assert_eq!(writer.compare_and_write_or_load(0, &mut current, &full(store, 2)).unwrap(), Comparison::Written);
        assert_eq!(read(store, 0), full(store, 2));
    });
}

#[test]
fn when_the_frames_are_used_up_nothing_changes_and_written_blocks_stay_writable() {
    // Two blocks and one writer's spare.
    on_each(Geometry::blocks(4).frames(3).writers(2), |store| {
        let (zeros, ones, twos) = (full(store, 0), full(store, 1), full(store, 2));
        let mut writer = store.writer().unwrap();
        writer.write(0, &ones).unwrap();
        writer.compare_and_write(3, &zeros, &ones).unwrap();
        let before = store.check();
        assert_eq!((before.blocks_written, before.frames_in_use), (2, 3));
        for _ in 0..3 {
            assert_error!(writer.write(1, &ones), Error::NoSpace { frames: 3 });
            assert_error!(writer.compare_and_write(1, &zeros, &ones), Error::NoSpace { frames: 3 });
            assert_error!(writer.compare_and_write(1, &ones, &twos), Error::Miscompare(_));
            assert_error!(store.writer().map(|_| ()), Error::NoSpace { frames: 3 });
            assert_error!(store.write(0, &ones), Error::NoSpace { frames: 3 });
        }
        assert_eq!(store.check(), before);
        assert!(before.is_clean() && !store.is_written(1).unwrap() && !store.is_written(2).unwrap());
        assert_eq!([read(store, 0), read(store, 1), read(store, 3)], [ones.clone(), zeros, ones.clone()]);
        writer.write(0, &twos).unwrap();
        writer.compare_and_write(3, &ones, &twos).unwrap();
        assert_eq!([read(store, 0), read(store, 3)], [twos.clone(), twos.clone()]);

        // Of several blocks those before the one that finds no frame are written.
        let size = bytes(store);
        assert_error!(writer.write(0, &vec![5; 2 * size]), Error::NoSpace { .. });
        assert_eq!([read(store, 0), read(store, 1)], [full(store, 5), full(store, 0)]);
        drop(writer);
        assert_eq!(store.check().frames_in_use, 2, "a writer gives its spare back when it goes");
        store.writer().unwrap().write(0, &ones).unwrap();
        assert!(store.check().is_clean());
    });
}

#[test]
fn a_dropped_writer_gives_its_slot_and_its_frame_back() {
    on_each(Geometry::blocks(4).writers(3), |store| {
        for round in 1..=10 {
            let mut writers: Vec<Writer> = (0..3).map(|_| store.writer().unwrap()).collect();
            assert_error!(store.writer().map(|_| ()), Error::TooManyWriters { writers: 3 });
            assert_error!(store.write(0, &full(store, 1)), Error::TooManyWriters { writers: 3 });
            for (lba, writer) in (0..).zip(&mut writers) {
                writer.write(lba, &full(store, round)).unwrap();
            }
            assert_eq!((store.check().blocks_written, store.check().frames_in_use), (3, 6));
            drop(writers.pop());
            assert_eq!(store.check().frames_in_use, 5);
            writers.push(store.writer().unwrap());
            assert!(store.check().is_clean());
            drop(writers);
            assert_eq!(store.check().frames_in_use, 3);
            assert!(store.check().is_clean());
        }
    });
}

#[test]
fn words_are_independent_and_start_at_zero() {
    on_each(Geometry::blocks(1).words(5), |store| {
        for index in 0..5 {
            assert_eq!(store.read_word(index).unwrap(), 0);
            let word = store.word(index).unwrap();
            assert_eq!(word.compare_exchange(0, u64::MAX - index), Ok(()));
            assert_eq!(word.compare_exchange(0, 1), Err(u64::MAX - index), "gives what it found");
            assert_eq!(word.load(), u64::MAX - index);
            assert_eq!(format!("{word:?}"), format!("Word({})", u64::MAX - index));
        }
        for index in 0..5 {
            assert_eq!(store.read_word(index).unwrap(), u64::MAX - index, "no word changed another");
        }
        for out in [5, 6, 1 << 60, u64::MAX] {
            for result in [store.word(out).map(|_| ()), store.read_word(out).map(|_| ())] {
                let Err(Error::WordOutOfRange { index, words: 5 }) = result else { panic!("{result:?}") };
                assert_eq!(index, out);
            }
        }
        assert_eq!(store.check().blocks_written, 0, "words are no blocks");
    });
    on_each(Geometry::blocks(1).words(0), |store| {
        assert_error!(store.read_word(0), Error::WordOutOfRange { index: 0, words: 0 });
    });
}

#[test]
fn clones_are_the_same_store_and_any_of_them_keeps_it() {
    on_each(Geometry::blocks(4), |store| {
        let clone = store.clone();
        clone.write(2, &full(store, 2)).unwrap();
        assert_eq!(read(store, 2), full(store, 2));
        assert_eq!((clone.uuid(), clone.path()), (store.uuid(), store.path()));
    });
    let store = Store::in_memory(Geometry::blocks(4)).unwrap();
    let clone = store.clone();
    store.write(1, &[1; 512]).unwrap();
    drop(store);
    assert_eq!(read(&clone, 1), [1; 512]);
}

#[test]
fn a_writer_goes_to_another_thread_and_outlives_the_handle() {
    fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Store>();
    fn is_send<T: Send>(_: &T) {}
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = Store::create(&path, Geometry::blocks(4)).unwrap();
    let mut writer = store.writer().unwrap();
    is_send(&writer);
    drop(store);
    assert!(Store::open_exclusive(&path).is_err(), "the writer keeps the store open");
    let writer = std::thread::spawn(move || {
        writer.write(1, &[1; 512]).unwrap();
        writer
    });
    let writer = writer.join().unwrap();
    let mut block = [0; 512];
    writer.read(1, &mut block).unwrap();
    assert_eq!(block, [1; 512]);
    drop(writer);
    let store = Store::open_exclusive(&path).unwrap();
    assert_eq!(store.check().frames_in_use, 1);
    assert!(store.check().is_clean());
}

#[test]
fn check_counts_what_is_there() {
    on_each(Geometry::blocks(10).writers(4), |store| {
        let check = store.check();
        assert!(check.is_clean());
        assert_eq!((check.blocks_written, check.frames_in_use), (0, 0));
        let mut writer = store.writer().unwrap();
        let other = store.writer().unwrap();
        for lba in [0, 3, 9, 3, 0] {
            writer.write(lba, &full(store, 1)).unwrap();
        }
        let mut progress = Vec::new();
        let check = store.check_with(|blocks| progress.push(blocks));
        assert!(check.is_clean());
        assert_eq!((check.blocks_written, check.frames_in_use), (3, 3 + 2));
        assert!(progress.is_sorted() && progress.iter().all(|&blocks| blocks <= 10), "{progress:?}");
        drop((writer, other));
        assert_eq!(store.check().frames_in_use, 3);
    });
}

#[test]
fn threads_increment_without_loss_and_never_see_a_torn_block() {
    const THREADS: u64 = 4;
    const INCREMENTS: u64 = 10_000;
    on_each(Geometry::blocks(2), |store| {
        let words = bytes(store) / 8;
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let mut writer = store.writer().unwrap();
                    let mut current = full(store, 0);
                    for _ in 0..INCREMENTS {
                        loop {
                            let count = u64::from_le_bytes(current[..8].try_into().unwrap());
                            let wanted: Vec<u8> = (count + 1).to_le_bytes().repeat(words);
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
        assert_eq!(read(store, 1)[..8], (THREADS * INCREMENTS).to_le_bytes());
        assert!(store.check().is_clean());
    });
}

/// Random operations against the plainest of stores, on few frames, so that NoSpace comes up.
fn as_a_model_does(store: &Store, seed: u64) -> [u64; 4] {
    let (blocks, frames) = (store.geometry().block_count(), store.geometry().frame_count());
    let mut random = fastrand::Rng::with_seed(seed);
    let mut model: Vec<Option<Vec<u8>>> = vec![None; blocks as usize];
    let mut writer = store.writer().unwrap();
    let [mut written, mut miscompares, mut full_up, mut reads] = [0; 4];
    for step in 0..600 {
        let lba = random.u64(..blocks);
        let held = model[lba as usize].clone().unwrap_or(full(store, 0));
        let new = full(store, random.u8(..3));
        let free = frames > 1 + model.iter().flatten().count() as u64;
        let room = free || model[lba as usize].is_some();
        let (what, result) = match random.u8(..4) {
            0 => ("write", Some(writer.write(lba, &new))),
            1 => ("compare-and-write", Some(writer.compare_and_write(lba, &held, &new))),
            2 => {
                let mut expected = held.clone();
                let offset = random.usize(..held.len());
                expected[offset] ^= random.u8(1..);
                let Err(Error::Miscompare(it)) = writer.compare_and_write(lba, &expected, &new) else {
                    panic!("seed {seed}, step {step}: no miscompare");
                };
                assert_eq!((it.offset, &*it.found), (offset, &*held), "seed {seed}, step {step}");
                miscompares += 1;
                ("miscompare", None)
            }
            _ => {
                let count = random.u64(1..=blocks - lba) as usize;
                let mut out = vec![0xee; count * held.len()];
                store.read(lba, &mut out).unwrap();
                let held = model[lba as usize..][..count].iter().cloned().map(|it| it.unwrap_or(full(store, 0)));
                assert_eq!(out, held.flatten().collect::<Vec<_>>(), "seed {seed}, step {step}");
                reads += 1;
                ("read", None)
            }
        };
        match result {
            None => {}
            Some(Ok(())) if room => {
                model[lba as usize] = Some(new);
                written += 1;
            }
            Some(Err(Error::NoSpace { .. })) if !room => full_up += 1,
            Some(other) => panic!("seed {seed}, step {step}: {what} of block {lba}, room {room}: {other:?}"),
        }
    }
    let check = store.check();
    assert!(check.is_clean(), "seed {seed}: {check:?}");
    assert_eq!(check.blocks_written, model.iter().flatten().count() as u64, "seed {seed}");
    assert_eq!(check.frames_in_use, check.blocks_written + 1, "seed {seed}");
    [written, miscompares, full_up, reads]
}

#[test]
fn random_operations_do_as_the_model_does() {
    let first = std::env::var("CASBLOCK_TEST_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("CASBLOCK_TEST_SEED={first}");
    for seed in (0..10).map(|more| first.wrapping_add(more)) {
        on_each(Geometry::blocks(7).frames(6).writers(2), |store| {
            let seen = as_a_model_does(store, seed);
            assert!(seen.iter().all(|&count| count > 10), "seed {seed}: too little of something: {seen:?}");
        });
    }
}

#[test]
fn a_writer_is_to_be_had_though_the_store_keeps_an_idle_one() {
    let store = Store::in_memory(Geometry::blocks(4).writers(1)).unwrap();
    store.write(0, &[1; 512]).unwrap();
    drop(store.writer().expect("nobody is using the only slot"));
    store.write(0, &[2; 512]).unwrap();
}

/// The last unwritten block of a store with a writer in every slot: the loser of the race is told what it lost to.
#[test]
fn two_writers_of_the_last_new_block_both_find_a_frame() {
    for _ in 0..2000 {
        let store = Store::in_memory(Geometry::blocks(1).writers(2).words(0)).unwrap();
        let start = std::sync::Barrier::new(2);
        let results = std::thread::scope(|scope| {
            let threads = [1, 2].map(|value| {
                let (store, start) = (&store, &start);
                scope.spawn(move || {
                    let mut writer = store.writer().unwrap();
                    start.wait();
                    writer.compare_and_write(0, &[0; 512], &[value; 512])
                })
            });
            threads.map(|thread| thread.join().unwrap())
        });
        assert!(
            matches!(results, [Ok(()), Err(Error::Miscompare(_))] | [Err(Error::Miscompare(_)), Ok(())]),
            "{results:?}"
        );
    }
}
