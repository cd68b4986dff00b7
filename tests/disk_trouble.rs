//! A disk that is full, and a file that is cut short or removed while a store is open: what comes of it.
#![cfg(target_os = "linux")]

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};

use casblock::{CreateOptions, Durability, Geometry, OpenError, OpenOptions, Store};

#[path = "common/children.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod children;
#[path = "common/damage.rs"]
mod damage;

use children::{Child, alone};
use damage::Sections;

const DURABILITIES: [Durability; 2] = [Durability::Process, Durability::Power];

/// Says something that is not for the harness to keep.
fn say_aloud(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

fn geometry(blocks: u64, durability: Durability) -> Geometry {
    Geometry::blocks(blocks).words(4).writers(4).durability(durability)
}

fn names(folder: &Path) -> Vec<String> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Names the part a child of a test plays.
const PART: &str = "CASBLOCK_TEST_PART";

/// The size of the disk that children are given.
const DISK_BYTES: u64 = 512 << 10;

/// Runs `test` as a child, for which `folder` is a small disk of its own. That takes the right to mount, or to make a user
/// namespace, which some systems refuse; then nothing is tested, and that is said.
fn on_a_small_disk(test: &str, part: &str, folder: &Path) {
    let target = CString::new(folder.as_os_str().as_bytes()).unwrap();
    let options = CString::new(format!("size={DISK_BYTES},mode=0777")).unwrap();
    // SAFETY: it gives a number.
    let user = unsafe { libc::getuid() };
    // SAFETY: likewise.
    let group = unsafe { libc::getgid() };
    let (user, group) = (format!("0 {user} 1"), format!("0 {group} 1"));
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--ignored", "--nocapture"]).env("CASBLOCK_TEST_FOLDER", folder).env(PART, part);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mount = move || {
        let done = |result: i32| if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) };
        // SAFETY: changes what this process sees of the system, and touches no memory.
        if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
            // SAFETY: as above.
            done(unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) })?;
            for (file, line) in [("setgroups", "deny"), ("uid_map", &user), ("gid_map", &group)] {
                let file = match file {
                    "setgroups" => c"/proc/self/setgroups",
                    "uid_map" => c"/proc/self/uid_map",
                    _ => c"/proc/self/gid_map",
                };
                // SAFETY: the path ends in a zero byte.
                let descriptor = unsafe { libc::open(file.as_ptr(), libc::O_WRONLY) };
                // SAFETY: reads as many bytes as `line` has.
                let written = unsafe { libc::write(descriptor, line.as_ptr().cast(), line.len()) };
                done(if written == line.len() as isize { 0 } else { -1 })?;
            }
        }
        let (none, root, tmpfs) = (std::ptr::null(), c"/".as_ptr(), c"tmpfs".as_ptr());
        // SAFETY: the strings end in zero bytes; no data is passed.
        let private = unsafe { libc::mount(none, root, none, libc::MS_REC | libc::MS_PRIVATE, none.cast()) };
        done(private)?;
        // SAFETY: the strings end in zero bytes.
        done(unsafe { libc::mount(tmpfs, target.as_ptr(), tmpfs, 0, options.as_ptr().cast()) })
    };
    // SAFETY: the closure makes system calls only, and allocates nothing: it may run between fork and exec.
    unsafe { command.pre_exec(mount) };
    match command.spawn() {
        Ok(child) => {
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "the child that plays {part} ended with {}: {said}", output.status);
            assert!(said.contains(DONE), "it did nothing: {said}");
        }
        Err(error) => say_aloud(&format!("NOT TESTED on a small disk: this user may not mount one ({error})")),
    }
}

/// What a child says that has done its part.
const DONE: &str = "all of it";

#[test]
fn a_full_disk_is_an_error_when_a_store_is_made_and_none_later() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    on_a_small_disk("child_on_a_small_disk", "full", folder.path());
}

#[test]
fn a_full_disk_kills_who_makes_a_sparse_store_grow_and_leaves_it_whole() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    on_a_small_disk("child_on_a_small_disk", "sparse", folder.path());
}

#[test]
#[ignore = "run in a process of its own, by the tests above"]
fn child_on_a_small_disk() {
    let Some((folder, part)) = children::settings(PART) else { return };
    let here = rustix::fs::statfs(&folder).unwrap();
    assert_eq!(here.f_blocks * here.f_bsize as u64, DISK_BYTES, "this is not the small disk");
    for durability in DURABILITIES {
        match part.as_str() {
            "full" => full_disk(&folder, durability),
            _ => sparse_store_grows(&folder, durability),
        }
    }
    children::say(DONE);
}

/// Fills the disk up, but for as much.
fn fill(folder: &Path, but_bytes: u64) {
    let mut filler = File::create(folder.join("filler")).unwrap();
    while filler.write_all(&[1; 4096]).is_ok() {}
    let bytes = filler.metadata().unwrap().len();
    filler.set_len(bytes.saturating_sub(but_bytes)).unwrap();
}

fn full_disk(folder: &Path, durability: Durability) {
    let path = folder.join("store");
    let large = geometry(4096, durability);
    let needed = match Store::create(&path, large) {
        Err(OpenError::DiskFull { needed, .. }) => needed,
        other => panic!("{other:?}"),
    };
    assert_eq!(needed, Sections::of(&large).end);
    assert_eq!(names(folder), [""; 0], "nothing is left behind");

    // One that fits has all it needs, whatever happens to the disk.
    let store = Store::create(&path, geometry(64, durability)).unwrap();
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(CreateOptions::new(large).replace(true).create(&path), Err(OpenError::InUse { .. })));
    fill(folder, 0);
    for round in 1..=3 {
        (0..64).for_each(|lba| store.write(lba, &[round; 512]).unwrap());
        store.sync().unwrap();
    }
    assert!(store.check().is_clean());
    drop(store);
    assert_ne!(std::fs::read(&path).unwrap(), before);

    // A store that cannot be made replaces none.
    let sound = std::fs::read(&path).unwrap();
    for geometry in [large, geometry(64, durability)] {
        let replaced = CreateOptions::new(geometry).replace(true).create(&path);
        assert!(matches!(replaced, Err(OpenError::DiskFull { .. })), "{replaced:?}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), sound);
    assert_eq!(names(folder).len(), 2, "the store, and what fills the disk: {:?}", names(folder));
    names(folder).iter().for_each(|name| std::fs::remove_file(folder.join(name)).unwrap());
}

/// How many blocks a sparse store has that does not fit on the disk.
const SPARSE_BLOCKS: u64 = 4096;

fn sparse_store_grows(folder: &Path, durability: Durability) {
    let path = folder.join("store");
    let geometry = geometry(SPARSE_BLOCKS, durability);
    drop(CreateOptions::new(geometry).sparse(true).create(&path).unwrap());
    fill(folder, 128 << 10);
    let mut child = Child::start("child_fills_a_store", &[(PART, "grow")], folder);
    let mut written = 0;
    while let Some(line) = child.hear() {
        written = line.parse().unwrap();
    }
    let status = child.process.wait().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
    assert!(written > 8 && written < SPARSE_BLOCKS - 8, "{written} blocks were written until the disk was full");

    // Others work on, in blocks that have their place; and once there is room again, in all.
    std::fs::remove_file(folder.join("filler")).unwrap();
    let store = Store::open(&path).unwrap();
    let mut block = [0; 512];
    for lba in 0..SPARSE_BLOCKS {
        store.read(lba, &mut block).unwrap();
        let known = [block_of(lba), [0; 512]];
        assert!(known[usize::from(lba >= written)] == block || lba == written && known.contains(&block), "block {lba}");
    }
    store.write(written + 1, &block_of(written + 1)).unwrap();
    store.sync().unwrap();
    drop(store);
    let store = Store::open_exclusive(&path).unwrap();
    assert!(store.check().is_clean(), "{:?}", store.check());
    drop(store);
    std::fs::remove_file(&path).unwrap();
}

fn block_of(lba: u64) -> [u8; 512] {
    [lba as u8 | 1; 512]
}

/// Writes block after block, and says how many it wrote.
#[test]
#[ignore = "run in a process of its own, by the tests above"]
fn child_fills_a_store() {
    let Some((folder, _)) = children::settings(PART) else { return };
    no_core();
    let store = Store::open(folder.join("store")).unwrap();
    children::say("0");
    for lba in 0..store.geometry().block_count() {
        store.write(lba, &block_of(lba)).unwrap();
        children::say(&(lba + 1).to_string());
    }
}

/// A death that is expected leaves no core file.
fn no_core() {
    let limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: reads one `rlimit`, which `limit` is.
    let limited = unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const limit) };
    assert_eq!(limited, 0);
}

/// The same where no disk can be had: the system says that there is no room.
#[test]
fn no_room_is_an_error_whoever_says_so() {
    for (number, is_expected) in [
        (libc::ENOSPC, (|error| matches!(error, OpenError::DiskFull { .. })) as fn(&OpenError) -> bool),
        (libc::EDQUOT, |error| matches!(error, OpenError::DiskFull { .. })),
        (libc::EFBIG, |error| matches!(error, OpenError::Geometry { .. })),
        (libc::EOPNOTSUPP, |error| matches!(error, OpenError::Io { .. })),
    ] {
        std::thread::scope(|scope| {
            let failing = scope.spawn(|| {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("store");
                drop(Store::create(&path, geometry(8, Durability::Process)).unwrap());
                let sound = std::fs::read(&path).unwrap();
                fail_fallocate(number);
                for durability in DURABILITIES {
                    let other = Store::create(folder.path().join("other"), geometry(8, durability)).unwrap_err();
                    let replace = CreateOptions::new(geometry(8, durability)).replace(true);
                    let replaced = replace.create(&path).unwrap_err();
                    assert!([&other, &replaced].into_iter().all(is_expected), "{other:?}, {replaced:?}");
                    assert_eq!(names(folder.path()), ["store"], "nothing is left behind");
                    // One that takes no room yet can be had.
                    drop(replace.sparse(true).create(folder.path().join("sparse")).unwrap());
                    std::fs::remove_file(folder.path().join("sparse")).unwrap();
                }
                assert_eq!(std::fs::read(&path).unwrap(), sound);
            });
            failing.join().unwrap();
        });
    }
}

/// From now on, fallocate by this thread fails.
fn fail_fallocate(number: i32) {
    let step = |code: u32, yes: u8, no: u8, k: u32| libc::sock_filter { code: code as u16, jt: yes, jf: no, k };
    let mut program = [
        // The call's number is at 0 of `seccomp_data`.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_fallocate as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | number as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: these arguments are numbers.
    let privileges = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(privileges, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: `filter` points to `program`, which lives until the call returns; the kernel copies it.
    let filtered = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    assert_eq!(filtered, 0, "this test needs seccomp: {}", std::io::Error::last_os_error());
}

/// A file of 16 blocks, all written, with the store still open.
fn open_store(folder: &Path, durability: Durability) -> Store {
    let store = Store::create(folder.join("store"), geometry(16, durability)).unwrap();
    (0..16).for_each(|lba| store.write(lba, &block_of(lba)).unwrap());
    store.sync().unwrap();
    store
}

/// The frames of the last blocks are gone: who touches them dies of SIGBUS, who does not goes on. Nobody opens the file
/// any more; once it has its length again, what was cut off reads as zeros, or, recovered, as never written.
#[test]
fn a_file_cut_short_while_open_kills_who_touches_what_is_gone() {
    let _alone = alone();
    // SAFETY: it gives a number.
    if unsafe { libc::sysconf(libc::_SC_PAGESIZE) } != 4096 {
        say_aloud("NOT TESTED: what a file is that was cut short, where pages are not of 4,096 bytes");
        return;
    }
    for durability in DURABILITIES {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        // Pages, not frames, go: of those of 512 bytes, which begin with the page, the second eight.
        let cut_at = Sections::of(&geometry(16, durability)).frames + 4096;
        drop(open_store(folder.path(), durability));
        let whole = std::fs::read(&path).unwrap();
        let mut child = Child::start("child_reads_what_is_gone", &[(PART, "read")], folder.path());
        assert_eq!(child.hear().as_deref(), Some("open"));
        File::options().write(true).open(&path).unwrap().set_len(cut_at).unwrap();
        std::fs::write(folder.path().join("cut"), "").unwrap();
        assert_eq!(child.hear().as_deref(), Some("blocks 0 to 7 are there"));
        assert_eq!(child.hear(), None);
        let status = child.process.wait().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");

        for options in [OpenOptions::new(), OpenOptions::new().read_only(), OpenOptions::new().exclusive()] {
            match options.open(&path) {
                Err(OpenError::Truncated { bytes, needed, .. }) => {
                    assert_eq!((bytes, needed), (cut_at, whole.len() as u64));
                }
                other => panic!("{other:?}"),
            }
        }
        let file = File::options().read(true).write(true).open(&path).unwrap();
        file.set_len(whole.len() as u64).unwrap();
        let store = OpenOptions::new().recover().open(&path).unwrap();
        for lba in 0..16 {
            let mut block = [1; 512];
            store.read(lba, &mut block).unwrap();
            assert_eq!(block, if lba < 8 { block_of(lba) } else { [0; 512] }, "block {lba}");
            assert_eq!(store.is_written(lba).unwrap(), lba < 8 || durability == Durability::Process);
        }
        assert!(store.check().is_clean());
        drop(store);
        file.write_all_at(&whole, 0).unwrap();
        assert!(OpenOptions::new().recover().open(&path).unwrap().check().is_clean());
    }
}

#[test]
#[ignore = "run in a process of its own, by the test above"]
fn child_reads_what_is_gone() {
    let Some((folder, _)) = children::settings(PART) else { return };
    no_core();
    let store = Store::open(folder.join("store")).unwrap();
    children::say("open");
    while !folder.join("cut").exists() {
        std::thread::yield_now();
    }
    let mut block = [0; 512];
    for lba in 0..8 {
        store.read(lba, &mut block).unwrap();
        assert_eq!(block, block_of(lba));
    }
    children::say("blocks 0 to 7 are there");
    store.read(8, &mut block).unwrap();
    unreachable!("it read what is gone: {:?}", &block[..8]);
}

/// Those who have it open go on; by its name it is not found, or another is.
#[test]
fn a_file_removed_while_open_serves_those_who_have_it() {
    let _alone = alone();
    for durability in DURABILITIES {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let store = open_store(folder.path(), durability);
        let other = Store::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Store::open(&path), Err(OpenError::Io { .. })));
        let new = open_store(folder.path(), durability);
        assert_ne!(new.uuid(), store.uuid());
        let mut block = [0; 512];
        store.write(3, &[99; 512]).unwrap();
        other.compare_and_write(3, &[99; 512], &[98; 512]).unwrap();
        store.sync().unwrap();
        store.read(3, &mut block).unwrap();
        assert_eq!(block, [98; 512]);
        new.read(3, &mut block).unwrap();
        assert_eq!(block, block_of(3));
        assert!(store.check().is_clean());
        drop((store, other));
        drop(new);
        let new = Store::open(&path).unwrap();
        new.read(3, &mut block).unwrap();
        assert_eq!((block, new.recovery()), (block_of(3), None));
    }
}
