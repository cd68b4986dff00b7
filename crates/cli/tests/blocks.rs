//! `casblock read`, `write`, `caw` and `word`.

mod common;

use std::io::Read as _;
use std::process::Stdio;

use common::{CASBLOCK, Folder};

#[test]
fn what_is_written_is_read() {
    let folder = Folder::new();
    folder.store("a.casb");
    let data: Vec<u8> = (0..1536u32).map(|index| (index % 251) as u8).collect();
    folder.file("data", &data);
    let written = folder.casblock("write a.casb 0x3E --input data");
    written.fails(&["a.casb: blocks 62 to 64 are out of range", "blocks 0 to 63"]);
    assert_eq!(folder.casblock("info a.casb --json").json()["blocks_written"], 0, "nothing changed");
    assert_eq!(folder.casblock("write a.casb 0x3D --input data").succeeds().text(), "wrote 3 blocks, 61 to 63\n");
    assert_eq!(folder.casblock("read a.casb 61 --count 3").succeeds().stdout, data);
    assert_eq!(folder.casblock("read a.casb 60").succeeds().stdout, [0; 512]);
    folder.casblock("read a.casb 62 --count 2 --output out").succeeds();
    assert_eq!(std::fs::read(folder.path("out")).unwrap(), data[512..]);
    assert_eq!(folder.casblock("read a.casb 61 --output -").succeeds().stdout, data[..512]);
}

#[test]
fn ranges_are_checked_before_anything_is_printed() {
    let folder = Folder::new();
    folder.store("a.casb");
    for arguments in ["64", "63 --count 2", "0 --count 65", "16777215T", "1 --count 0xffffffffffffffff"] {
        folder.casblock(&format!("read a.casb {arguments}")).fails(&["out of range", "blocks 0 to 63"]);
    }
    folder.casblock("write a.casb 64").fails(&["a.casb: block 64 is out of range"]);
    folder.casblock("caw a.casb 64 --expect zero --new zero").fails(&["a.casb: block 64 is"]);
    folder.casblock("word get a.casb 256").fails(&["a.casb: word 256 is out of range", "256 words"]);
    folder.casblock("word cas a.casb 256 0 1").fails(&["a.casb: word 256 is out of range"]);
}

#[test]
fn input_is_whole_blocks_unless_padded() {
    let folder = Folder::new();
    let path = folder.store("a.casb");
    let before = std::fs::read(&path).unwrap();
    let words = ["1000 bytes are not a whole number of blocks of 512", "--pad"];
    folder.casblock_reading(&[1; 1000], "write a.casb 0").fails(&words).complains(&["stdin"]);
    folder.file("odd", &[1; 1000]);
    folder.casblock("write a.casb 0 --input odd").fails(&words).complains(&["odd: "]);
    folder.casblock("write a.casb 0").fails(&["stdin: empty"]);
    folder.casblock("write a.casb 0 --pad").fails(&["stdin: empty"]);
    folder.casblock("write a.casb 0 --input missing").fails(&["missing: opening: No such file"]);
    folder.casblock("write a.casb 0 --input .").fails(&[".: is a folder"]);
    folder.casblock_reading(&[1; 65 * 512 + 5], "write a.casb 0 --pad").fails(&["out of range"]);
    assert!(before == std::fs::read(&path).unwrap(), "nothing changed");

    let padded = folder.casblock_reading(&[1; 1000], "write a.casb 0 --pad --json").succeeds().json();
    assert_eq!(padded, serde_json::json!({ "lba": 0, "blocks": 2, "padded_bytes": 24 }));
    let read = folder.casblock("read a.casb 0 --count 2").succeeds().stdout;
    assert_eq!((&read[..1000], &read[1000..]), (&[1; 1000][..], &[0; 24][..]));
}

#[test]
fn long_input_comes_whole_from_files_and_pipes() {
    let folder = Folder::new();
    folder.casblock("create a.casb --blocks 16K --block-size 4096 --sparse").succeeds();
    let mut data = vec![0; (5 << 20) + 4096];
    fastrand::Rng::with_seed(5).fill(&mut data);
    folder.casblock_reading(&data, "write a.casb 1").succeeds();
    assert!(folder.casblock("read a.casb 1 --count 1281").succeeds().stdout == data);
    folder.file("data", &data);
    folder.casblock("write a.casb 2K --input data").succeeds();
    assert!(folder.casblock("read a.casb 2K --count 1281").succeeds().stdout == data);
}

#[test]
fn running_out_of_frames_tells_what_was_written() {
    let folder = Folder::new();
    folder.casblock("create a.casb --blocks 8 --frames 3 --writers 1").succeeds();
    let words = ["a.casb: writing block 4; blocks 2 to 3 before it were written", "no space: all 3 frames"];
    folder.casblock_reading(&[1; 3 * 512], "write a.casb 2").fails(&words);
    assert_eq!(folder.casblock("info a.casb --json").json()["blocks_written"], 2);
    folder.casblock("check a.casb").succeeds();
}

#[test]
fn compare_and_write_writes_or_shows_what_it_found() {
    let folder = Folder::new();
    folder.store("a.casb");
    assert_eq!(folder.casblock("caw a.casb 7 --expect zero --new hex:00112233").succeeds().text(), "written\n");
    let done = folder.casblock("caw a.casb 7 --expect hex:00112200 --new zero");
    let expected = "\
miscompare: block 7 differs at offset 3 (0x3); bytes 0x0 to 0xf:
expected  00 11 22 00 00 00 00 00  00 00 00 00 00 00 00 00  |..\".............|
found     00 11 22 33 00 00 00 00  00 00 00 00 00 00 00 00  |..\"3............|
                   ^^
";
    assert_eq!((done.status, done.text().as_str(), done.stderr.as_str()), (14, expected, ""));

    let mut block = [0; 512];
    block[..4].copy_from_slice(&[0, 0x11, 0x22, 0x33]);
    folder.file("old", &block);
    block[511] = 0xee;
    let caw = "caw a.casb 7 --expect old --new - --json";
    assert_eq!(folder.casblock_reading(&block, caw).succeeds().json()["outcome"], "written");
    let done = folder.casblock_reading(&block, caw);
    assert_eq!((done.status, done.stderr.as_str()), (14, ""));
    let miscompare = done.json();
    assert_eq!(miscompare["outcome"], "miscompare");
    assert_eq!((&miscompare["lba"], &miscompare["offset"]), (&7.into(), &511.into()));
    let found = miscompare["found"].as_str().unwrap();
    assert!(found.len() == 1024 && found.starts_with("00112233") && found.ends_with("00ee"), "{found}");
    assert!(miscompare["expected"].as_str().unwrap().ends_with("0000"));
    assert_eq!(folder.casblock("read a.casb 7").stdout, block);
}

#[test]
fn sources_that_are_not_one_block_are_refused() {
    let folder = Folder::new();
    folder.store("a.casb");
    folder.file("short", &[0; 511]);
    folder.file("long", &[0; 513]);
    let caw = |source: &str| folder.casblock(&format!("caw a.casb 0 --expect {source} --new hex:01"));
    caw("short").fails(&["short: 511 bytes", "512"]);
    caw("long").fails(&["long: longer than a block", "512"]);
    caw("missing").fails(&["missing: opening: No such file"]);
    caw("-").fails(&["stdin: 0 bytes"]);
    caw(&format!("hex:{}", "00".repeat(513))).fails(&["hex: 513 bytes", "512"]);
    assert_eq!(folder.casblock("info a.casb --json").json()["blocks_written"], 0);
}

#[test]
fn words_are_read_and_exchanged() {
    let folder = Folder::new();
    folder.store("a.casb");
    assert_eq!(folder.casblock("word get a.casb 3").succeeds().text(), "0\n");
    assert_eq!(folder.casblock("word cas a.casb 3 0 0xffffffffffffffff").succeeds().text(), "written\n");
    let done = folder.casblock("word cas a.casb 3 5 6");
    let found = "miscompare: word 3 holds 18446744073709551615 (0xffffffffffffffff), not 5 (0x5)\n";
    assert_eq!((done.status, done.text().as_str(), done.stderr.as_str()), (14, found, ""));
    let done = folder.casblock("word cas a.casb 3 5 6 --json");
    let found = serde_json::json!({ "outcome": "miscompare", "index": 3, "expected": 5, "found": u64::MAX });
    assert_eq!((done.status, done.json()), (14, found));
    let value = folder.casblock("word get a.casb 3 --json").succeeds().json();
    assert_eq!(value, serde_json::json!({ "index": 3, "value": u64::MAX }));
}

#[test]
fn json_shows_each_block_on_a_line() {
    let folder = Folder::new();
    folder.store("a.casb");
    folder.casblock("caw a.casb 1 --expect zero --new hex:ab").succeeds();
    let text = folder.casblock("read a.casb 0 --count 2 --json").succeeds().text();
    let blocks: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(blocks.len(), 2);
    assert_eq!((&blocks[0]["lba"], &blocks[0]["written"]), (&0.into(), &false.into()));
    assert_eq!((&blocks[1]["lba"], &blocks[1]["written"]), (&1.into(), &true.into()));
    assert_eq!(blocks[1]["hex"], format!("ab{}", "00".repeat(511)));
}

#[test]
fn a_reader_that_stops_reading_ends_it_quietly() {
    let folder = Folder::new();
    folder.casblock("create a.casb --blocks 64K --sparse").succeeds();
    for arguments in ["read a.casb 0 --count 64K", "read a.casb 0 --count 64K --json"] {
        let mut child = folder.command(CASBLOCK).args(arguments.split(' ')).spawn().unwrap();
        child.stdout.take().unwrap().read_exact(&mut [0; 100]).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr), (Some(0), vec![]), "{arguments}");
    }
    // A status that is certain stays what it is.
    let mut command = folder.command(CASBLOCK);
    let mut child = command.args("word cas a.casb 0 1 2".split(' ')).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(14));
}

#[test]
fn a_full_stdout_is_an_error() {
    let folder = Folder::new();
    folder.store("a.casb");
    for arguments in ["read a.casb 0", "info a.casb", "read a.casb 0 --json"] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = folder.command(CASBLOCK).args(arguments.split(' ')).stdout(full).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments}: {stderr}");
        assert!(stderr.starts_with("casblock: ") && stderr.contains("No space left"), "{stderr}");
    }
}

#[test]
fn output_never_overwrites_the_store() {
    let folder = Folder::new();
    let path = folder.store("a.casb");
    std::os::unix::fs::symlink(&path, folder.path("link")).unwrap();
    for target in ["a.casb", "link"] {
        folder.casblock(&format!("read a.casb 0 --output {target}")).fails(&["is the same file as a.casb"]);
    }
    folder.casblock("check a.casb").succeeds();
}

#[test]
fn a_terminal_gets_a_hexdump() {
    let folder = Folder::new();
    folder.store("a.casb");
    folder.casblock("caw a.casb 7 --expect zero --new hex:48656c6c6f").succeeds();
    let master = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
    rustix::pty::grantpt(&master).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let name = rustix::pty::ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let terminal = std::fs::OpenOptions::new().read(true).write(true).open(name).unwrap();
    let mut command = folder.command(CASBLOCK);
    let status = command.args("read a.casb 7 --count 2".split(' ')).stdout(terminal).status().unwrap();
    assert!(status.success());
    drop(command);
    let mut text = Vec::new();
    // The end of a pseudoterminal whose other side is closed is an error.
    let _ = std::fs::File::from(master).read_to_end(&mut text);
    let expected = "\
00000e00  48 65 6c 6c 6f 00 00 00  00 00 00 00 00 00 00 00  |Hello...........|
00000e10  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|
*
00001200
";
    assert_eq!(String::from_utf8(text).unwrap().replace('\r', ""), expected);
}
