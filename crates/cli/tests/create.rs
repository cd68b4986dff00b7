//! `casblock create` and `casblock info`, and what is said about files that are no stores.

mod common;

use common::{Folder, bytes_at, patch, skip, with_mounts};

#[test]
fn a_new_store_is_as_told_and_info_shows_it() {
    let folder = Folder::new();
    let arguments = "create a.casb --blocks 1K --block-size 4096 --frames 0x500 --words 8 --writers 4 --json";
    let created = folder.casblock(arguments).succeeds().json();
    let info = folder.casblock("info a.casb --json").succeeds().json();
    assert_eq!(created, info);
    let numbers = [("blocks", 1024), ("block_size", 4096), ("frames", 1280), ("words", 8), ("writers", 4)];
    for (name, value) in numbers.into_iter().chain([("blocks_written", 0), ("contents_bytes", 4 << 20)]) {
        assert_eq!(info[name], value, "{name}");
    }
    assert_eq!(info["durability"], "process");
    assert_eq!(info["file_bytes"], folder.path("a.casb").metadata().unwrap().len());
    assert!(info["allocated_bytes"].as_u64() >= info["file_bytes"].as_u64(), "{info}");
    assert!(info["beside_blocks_percent"].as_f64().unwrap() > 25.0, "a quarter more frames than blocks: {info}");
    let groups: Vec<_> = info["uuid"].as_str().unwrap().split('-').map(str::len).collect();
    assert_eq!(groups, [8, 4, 4, 4, 12]);

    folder.casblock_reading(&[1; 3 * 4096], "write a.casb 7").succeeds();
    assert_eq!(folder.casblock("--json info a.casb").succeeds().json()["blocks_written"], 3);
    let text = folder.casblock("info a.casb").succeeds().text();
    assert!(text.contains("blocks             1,024 of 4096 bytes\nblocks written     3\n"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn a_sparse_store_takes_little() {
    let folder = Folder::new();
    let info = folder.casblock("create a.casb --blocks 1M --sparse --json").succeeds().json();
    assert!(info["allocated_bytes"].as_u64().unwrap() < 1 << 20, "{info}");
    assert!(info["file_bytes"].as_u64().unwrap() > 512 << 20, "{info}");
}

#[test]
fn an_impossible_geometry_is_refused_with_the_bounds() {
    let folder = Folder::new();
    let cases = [
        ("--blocks 0", "0 blocks; 1 to 4294967294 are possible"),
        ("--blocks 4G", "4294967296 blocks; 1 to 4294967294 are possible"),
        ("--blocks 3G", "frames; 2 to 2147483648 are possible"),
        ("--blocks 8 --frames 1", "1 frames; 2 to"),
        ("--blocks 8 --words 17M", "17825792 words; 0 to 16777216 are possible"),
        ("--blocks 8 --writers 0", "0 writers; 1 to 65535 are possible"),
        ("--blocks 8 --events 5", "5 events; 0 or a power of two up to 1048576 is possible"),
    ];
    for (arguments, reason) in cases {
        folder.casblock(&format!("create a.casb {arguments}")).fails(&["not possible", reason]);
    }
    assert!(folder.names().is_empty());
}

#[test]
fn wrong_usage_is_status_2() {
    let folder = Folder::new();
    folder.store("a.casb");
    let cases = [
        "",
        "nonsense",
        "create",
        "create b.casb",
        "create b.casb --blocks many",
        "create b.casb --blocks 1.5K",
        "create b.casb --blocks 8 --block-size 1024",
        "create b.casb --blocks 8 --writers 64K",
        "read a.casb",
        "read a.casb -1",
        "read a.casb 0 --count 0",
        "caw a.casb 0 --expect zero",
        "caw a.casb 0 --expect - --new -",
        "caw a.casb 0 --expect hex:0 --new zero",
        "caw a.casb 0 --expect zero --new hex:zz",
        "word get a.casb first",
        "word cas a.casb 0 0 1K",
        "word cas a.casb 0 0",
        "info a.casb --log loudly",
        "create b.casb --blocks 8 --durability cut",
        "check a.casb --repair",
        "check a.casb --recover",
    ];
    for arguments in cases {
        let done = folder.casblock(arguments);
        assert_eq!(done.status, 2, "{arguments}: {}", done.stderr);
        let helpful = ["Usage: casblock", "try '--help'"].iter().any(|words| done.stderr.contains(words));
        assert!(helpful && !done.stderr.contains("casblock-cli"), "{arguments}: {}", done.stderr);
        assert_eq!(done.text(), "");
    }
    assert_eq!(folder.names(), ["a.casb"]);
}

#[test]
fn help_fits_80_columns_and_needs_no_store() {
    let folder = Folder::new();
    for command in
        ["", "create", "info", "read", "write", "caw", "word", "word cas", "import", "export", "check", "events"]
    {
        for flag in ["-h", "--help"] {
            let text = folder.casblock(&format!("{command} {flag}")).succeeds().text();
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        }
    }
}

/// Every command that opens a store, on the store `a.casb`.
const OPENING: [&str; 9] = [
    "info a.casb",
    "read a.casb 0",
    "write a.casb 0 --input block",
    "caw a.casb 0 --expect zero --new zero",
    "word get a.casb 0",
    "word cas a.casb 0 0 1",
    "export a.casb exported",
    "check a.casb",
    "events a.casb",
];

/// Every command refuses the file with these words, and none changes it.
#[track_caller]
fn all_refuse(folder: &Folder, words: &[&str]) {
    let before = std::fs::read(folder.path("a.casb")).ok();
    folder.file("block", &[1; 512]);
    for command in OPENING {
        folder.casblock(command).fails(words);
    }
    assert_eq!(std::fs::read(folder.path("a.casb")).ok(), before);
    assert!(!folder.path("exported").exists());
}

#[test]
fn what_is_no_store_is_refused() {
    let folder = Folder::new();
    all_refuse(&folder, &["a.casb: opening: No such file", "casblock create"]);
    folder.file("a.casb", &[b'x'; 100_000]);
    all_refuse(&folder, &["a.casb: not a casblock store", "magic", "casblock create"]);
    folder.file("a.casb", b"short");
    all_refuse(&folder, &["a.casb: not a casblock store", "too short"]);
    std::fs::remove_file(folder.path("a.casb")).unwrap();
    std::fs::create_dir(folder.path("a.casb")).unwrap();
    for command in OPENING {
        folder.casblock(command).fails(&["a.casb: "]);
    }
}

#[test]
fn a_newer_version_is_refused() {
    let folder = Folder::new();
    patch(&folder.store("a.casb"), 8, &7u32.to_le_bytes());
    all_refuse(&folder, &["a.casb: format version 7", "use a newer one"]);
}

#[test]
fn a_wrong_checksum_is_refused() {
    let folder = Folder::new();
    let path = folder.store("a.casb");
    let [byte] = bytes_at(&path, 60);
    patch(&path, 60, &[!byte]);
    all_refuse(&folder, &["a.casb: the superblock is damaged", "checksum", "from a copy"]);
}

#[test]
fn a_truncated_file_is_refused() {
    let folder = Folder::new();
    let path = folder.store("a.casb");
    let length = path.metadata().unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 1).unwrap();
    let (found, needed) = (format!("{} bytes", length - 1), format!("needs {length}"));
    all_refuse(&folder, &["a.casb: truncated", &found, &needed]);
}

#[test]
fn a_read_only_file_can_be_read_and_writing_says_why_not() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("ro")).unwrap();
    folder.store("ro/a.casb");
    let script = |command: &str| format!("mount --bind ro ro; mount -o remount,ro,bind ro; exec $CASBLOCK {command}");
    for command in
        ["info ro/a.casb", "read ro/a.casb 0", "word get ro/a.casb 0", "export ro/a.casb exported", "check ro/a.casb"]
    {
        let Some(done) = with_mounts(&folder, &script(command)) else {
            return skip("commands on a read-only file: this system allows no mounts (unshare --mount)");
        };
        done.succeeds();
    }
    assert_eq!(std::fs::read(folder.path("exported")).unwrap(), [0; 64 * 512]);
    for command in [
        "write ro/a.casb 0 --input exported",
        "caw ro/a.casb 0 --expect zero --new zero",
        "check ro/a.casb --exclusive",
    ] {
        let done = with_mounts(&folder, &script(command)).expect("it worked a moment ago");
        done.fails(&[
            "ro/a.casb: it may be read, but not written",
            "Read-only file system",
            "export, events and check work on it as it is",
        ]);
    }
}

#[test]
fn a_full_disk_leaves_no_partial_file() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("small")).unwrap();
    let mount = "mount -t tmpfs -o size=1M none small";
    for command in ["create small/a.casb --blocks 1M", "import image small/a.casb", "import holes small/a.casb"] {
        folder.file("image", &[7; 4 << 20]);
        let holes = std::fs::File::create(folder.path("holes")).unwrap();
        holes.set_len(16 << 20).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&holes, &[7; 4 << 20], 4 << 20).unwrap();
        let script = format!("{mount}; s=0; $CASBLOCK {command} || s=$?; ls -A small; exit $s");
        let Some(done) = with_mounts(&folder, &script) else {
            return skip("a full disk: this system allows no mounts (unshare --mount)");
        };
        // `ls` saw nothing: stdout is empty.
        done.fails(&["small/a.casb: no room"]);
    }
    // The space that a sparse store lacks is missed only when it is written.
    let sparse = "$CASBLOCK create small/a.casb --blocks 1M --sparse >out";
    let script = format!("{mount}; {sparse}; exec $CASBLOCK write small/a.casb 0 --input image");
    let done = with_mounts(&folder, &script).expect("it worked a moment ago");
    done.fails(&["the file system could not give a page", "full", "--sparse"]);
}

#[test]
fn a_file_size_limit_leaves_no_partial_file() {
    let folder = Folder::new();
    // 64 KiB, in the blocks of 512 bytes that POSIX has for it; some shells have 1,024.
    let script = "ulimit -f 128; exec \"$CASBLOCK\" create a.casb --blocks 1M";
    let output = folder.command("sh").args(["-c", script]).env("CASBLOCK", common::CASBLOCK).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("casblock: ") && stderr.contains("too many for this file system"), "{stderr}");
    assert!(folder.names().is_empty());
}
