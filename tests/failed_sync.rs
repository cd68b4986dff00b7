//! A sync that fails: said so, and made good by the next that does not.
#![cfg(target_os = "linux")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use casblock::{Durability, Error, EventKind, Geometry, OpenError, Store};

const STATE: u64 = 4096;
const COMPLETED: u64 = STATE + 128;
const FAILED: u64 = STATE + 256;
const MADE_GOOD: u64 = STATE + 384;

fn number(path: &Path, offset: u64) -> u64 {
    let mut bytes = [0; 8];
    File::open(path).unwrap().read_exact_at(&mut bytes, offset).unwrap();
    u64::from_le_bytes(bytes)
}

/// The descriptors of this process that lead to `path`.
fn descriptors(path: &Path) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().map(Result::unwrap);
    let open = entries.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|target| target == path));
    let mut numbers: Vec<u32> = open.map(|entry| entry.file_name().to_str().unwrap().parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

/// From now on, fdatasync of `descriptor` by this thread fails with EIO; of all descriptors, if there is none.
fn fail_fdatasync(descriptor: Option<u32>) {
    let step = |code: u32, yes: u8, no: u8, k: u32| libc::sock_filter { code: code as u16, jt: yes, jf: no, k };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let is = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let answer = libc::BPF_RET | libc::BPF_K;
    // The call's number is at 0 of `seccomp_data`, the low half of its first argument at 16.
    let fails = libc::SECCOMP_RET_ERRNO | libc::EIO as u32;
    let mut program = vec![step(load, 0, 0, 0)];
    match descriptor {
        Some(descriptor) => program.extend([
            step(is, 0, 3, libc::SYS_fdatasync as u32),
            step(load, 0, 0, 16),
            step(is, 0, 1, descriptor),
        ]),
        None => program.push(step(is, 0, 1, libc::SYS_fdatasync as u32)),
    }
    program.extend([step(answer, 0, 0, fails), step(answer, 0, 0, libc::SECCOMP_RET_ALLOW)]);
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: these arguments are numbers.
    let privileges = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(privileges, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: `filter` points to `program`, which lives until the call returns; the kernel copies it.
    let filtered = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    assert_eq!(filtered, 0, "this test needs seccomp: {}", std::io::Error::last_os_error());
}

/// Runs a test in a thread of its own, since a filter stays for good.
fn in_a_thread(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| scope.spawn(test).join().unwrap());
}

/// How much of the mappings of `path` differs from the file, as far as this process changed it.
fn dirty_bytes(path: &Path) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut ours = false;
    let mut kilobytes = 0;
    for line in maps.lines() {
        match line.split_once(':') {
            Some((field, value)) if !field.contains(' ') => {
                if ours && field.ends_with("_Dirty") {
                    kilobytes += value.trim().trim_end_matches(" kB").parse::<u64>().unwrap();
                }
            }
            _ => ours = line.ends_with(path.to_str().unwrap()),
        }
    }
    1024 * kilobytes
}

fn geometry(blocks: u64) -> Geometry {
    Geometry::blocks(blocks).words(64).writers(64).durability(Durability::Power)
}

#[test]
fn a_failed_sync_is_said_and_the_next_writes_everything_anew() {
    in_a_thread(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        drop(Store::create(&path, geometry(64).writers(8).frames(66)).unwrap());
        // Opened by its name, so that the system tells it by that.
        let bad = Store::open(&path).unwrap();
        (0..64).for_each(|lba| bad.write(lba, &[7; 512]).unwrap());
        bad.sync().unwrap();
        let descriptor = descriptors(&path)[0];
        let good = Store::open(&path).unwrap();
        fail_fdatasync(Some(descriptor));

        let completed = number(&path, COMPLETED);
        let failed = bad.durable().unwrap().write(4, &[8; 512]);
        assert!(matches!(failed, Err(Error::NotSynced { .. })), "{failed:?}");
        let mut out = [0; 512];
        good.read(4, &mut out).unwrap();
        assert_eq!(out, [8; 512], "the update took effect all the same");
        assert_eq!((number(&path, FAILED), number(&path, MADE_GOOD)), (1, 0));
        assert_eq!(number(&path, COMPLETED), completed, "no frame leaves limbo by it");

        // This one fails as well, but has changed every page before.
        assert!(matches!(bad.sync(), Err(Error::Sync { .. })));
        assert_eq!((number(&path, FAILED), number(&path, MADE_GOOD)), (2, 0));
        let pages = bad.region_bytes() - 4096;
        assert!(dirty_bytes(&path) >= pages, "{} of {pages} bytes", dirty_bytes(&path));

        let event = good.events()[0];
        assert_eq!((event.kind, event.found), (EventKind::SyncFailed, libc::EIO as u64));

        good.sync().unwrap();
        assert_eq!((number(&path, FAILED), number(&path, MADE_GOOD)), (2, 2));
        assert!(number(&path, COMPLETED) > completed);
        assert!(good.check().is_clean());
    });
}

#[test]
fn a_store_that_cannot_be_noted_as_in_use_is_not_opened() {
    in_a_thread(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        drop(Store::create(&path, geometry(64)).unwrap());
        fail_fdatasync(None);
        assert!(matches!(Store::open(&path), Err(OpenError::Io { .. })));
        assert!(matches!(Store::create(folder.path().join("other"), geometry(64)), Err(OpenError::Io { .. })));
    });
}

#[test]
fn a_store_whose_last_sync_fails_is_not_closed() {
    in_a_thread(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let store = Store::create(&path, geometry(64)).unwrap();
        store.write(3, &[7; 512]).unwrap();
        fail_fdatasync(None);
        drop(store);
        assert_eq!(number(&path, STATE + 640), 2, "in use still: the next boot recovers it");
    });
}

/// What a recovery that failed has changed may not be on the disk, though the kernel holds it for written.
#[test]
fn a_recovery_that_failed_is_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("store"), folder.path().join("copy"));
    let store = Store::create(&path, geometry(64)).unwrap();
    store.write(3, &[7; 512]).unwrap();
    std::fs::copy(&path, &copy).unwrap();
    in_a_thread(|| {
        fail_fdatasync(None);
        assert!(matches!(Store::open(&copy), Err(OpenError::Io { .. })));
    });
    assert_eq!((number(&copy, FAILED), number(&copy, MADE_GOOD)), (1, 0));
    let recovered = Store::open(&copy).unwrap();
    assert!(recovered.recovery().is_some());
    assert_eq!((number(&copy, FAILED), number(&copy, MADE_GOOD)), (1, 1));
}

/// An update that needs a sync, and cannot have it, changes nothing.
#[test]
fn an_update_that_must_sync_first_says_why_it_cannot() {
    in_a_thread(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let store = Store::create(&path, geometry(4).writers(1).frames(5)).unwrap();
        (0..4).for_each(|lba| store.write(lba, &[1; 512]).unwrap());
        store.sync().unwrap();
        store.write(0, &[2; 512]).unwrap();
        fail_fdatasync(None);
        let failed = store.write(1, &[2; 512]);
        assert!(matches!(failed, Err(Error::Sync { .. })), "{failed:?}");
        let mut out = [0; 512];
        store.read(1, &mut out).unwrap();
        assert_eq!(out, [1; 512]);
    });
}
