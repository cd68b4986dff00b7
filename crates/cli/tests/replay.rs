//! `casblock replay`: what it makes of traces that these tests write, and of what is no trace.

mod common;

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::time::Duration;

use casblock::Store;
use common::{CASBLOCK, Folder};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const READ: u16 = 0x28;
const WRITE: u16 = 0x2a;

/// A record of vscsi version 1.
fn vscsi_1(serial: u32, command: u16, lba: u64, bytes: u32) -> Vec<u8> {
    let mut record = Vec::new();
    [serial, bytes, 1].iter().for_each(|number| record.extend(number.to_le_bytes()));
    [command, 0x0100].iter().for_each(|number| record.extend(number.to_le_bytes()));
    [lba, 0].iter().for_each(|number| record.extend(number.to_le_bytes()));
    record
}

/// The same of version 2.
fn vscsi_2(serial: u32, command: u16, lba: u64, bytes: u32) -> Vec<u8> {
    let mut record = Vec::new();
    [command, 0x0200].iter().for_each(|number| record.extend(number.to_le_bytes()));
    [serial, bytes, 1].iter().for_each(|number| record.extend(number.to_le_bytes()));
    [lba, 0, 9].iter().for_each(|number| record.extend(number.to_le_bytes()));
    record
}

/// Eight requests of three places of a disk: 9 different blocks, 8 accesses that come back.
const REQUESTS: [(u16, u64, u32); 8] = [
    (WRITE, 1000, 1024),
    (READ, 1001, 512),
    (READ, 1000, 1024),
    (WRITE, 70_000_000_000, 2048),
    (READ, 70_000_000_000, 512),
    (READ, 70_000_000_003, 1024),
    (READ, 3, 1024),
    (READ, 3, 1024),
];

fn trace(record: fn(u32, u16, u64, u32) -> Vec<u8>) -> Vec<u8> {
    (0..).zip(REQUESTS).flat_map(|(serial, (command, lba, bytes))| record(serial, command, lba, bytes)).collect()
}

fn table() -> String {
    let line =
        |(command, lba, bytes): (u16, u64, u32)| format!("{},{lba},{bytes}\n", if command == READ { "r" } else { "w" });
    format!("op,lba,length_bytes\n{}", REQUESTS.map(line).concat())
}

/// The points of one policy: blocks, and hits.
fn points(report: &Value, policy: &str) -> Vec<(u64, u64)> {
    let number = |point: &Value, name: &str| point[name].as_u64().unwrap();
    let all = report["hit_ratios"].as_array().unwrap().iter().filter(|point| point["policy"] == policy);
    all.map(|point| (number(point, "cache_blocks"), number(point, "hits"))).collect()
}

#[test]
fn a_trace_is_the_same_however_it_is_written() {
    let folder = Folder::new();
    folder.file("one", &trace(vscsi_1));
    folder.file("two", &trace(vscsi_2));
    folder.file("table.csv", table().as_bytes());
    let mut reports = Vec::new();
    for name in ["one", "two", "table.csv"] {
        for (pack, packed) in [("cat", ""), ("gzip -n", ".gz")] {
            let packed = format!("{name}{packed}");
            if pack != "cat" {
                let script = format!("{pack} < {name} > {packed}");
                assert!(folder.command("sh").args(["-c", &script]).status().unwrap().success());
            }
            let mut report = folder.casblock(&format!("replay {packed} --json --sizes 2,100%")).succeeds().json();
            assert_eq!(report["trace"], packed);
            report["trace"] = Value::Null;
            reports.push(report);
        }
    }
    let first = &reports[0];
    assert!(reports.iter().all(|report| report == first), "{reports:?}");
    for (name, value) in [
        ("requests", 8),
        ("writes", 2),
        ("accesses", 16),
        ("blocks_read", 10),
        ("footprint_blocks", 9),
        ("unaligned", 0),
        ("oversized_or_empty", 0),
        ("out_of_range", 0),
        ("other_commands", 0),
        ("block_bytes", 512),
    ] {
        assert_eq!(first[name], value, "{name}");
    }
    for (policy, hits) in [("fifo", 6), ("lru", 6), ("clock", 6), ("sieve", 6), ("belady", 7)] {
        assert_eq!(points(first, policy), [(2, hits), (9, 7)], "{policy}");
    }
    let of_stdin = folder.casblock_reading(&trace(vscsi_2), "replay - --json --sizes 2,100%").succeeds().json();
    assert_eq!(of_stdin["hit_ratios"], first["hit_ratios"]);
}

#[test]
fn text_fits_80_columns_and_has_a_column_a_policy() {
    let folder = Folder::new();
    folder.file("a.csv", table().as_bytes());
    let text = folder.casblock("replay a.csv --sizes 1,50%,100%").succeeds().text();
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(
        text.contains("requests           8, of which 2 write\naccesses           16 of 512 bytes each\n"),
        "{text}"
    );
    let head = text.lines().find(|line| line.contains("FIFO")).unwrap();
    let names: Vec<&str> = head.split_whitespace().collect();
    assert_eq!(names, ["blocks", "FIFO", "LRU", "CLOCK", "SIEVE", "S3-FIFO", "optimum"]);
    let text = folder.casblock("replay a.csv --sizes 3 --policy lru --policy belady --policy lru").succeeds().text();
    assert!(text.lines().any(|line| line.split_whitespace().eq(["blocks", "LRU", "optimum"])), "{text}");
    assert_eq!(text.matches(" 33.3 % ").count(), 1, "{text}");
}

#[test]
fn requests_of_other_blocks_are_counted() {
    let folder = Folder::new();
    let text = "op,lba,length_bytes\nr,7,512\nr,8,4096\nw,0,0\nw,0,1000000000\nunmap,1,512\nr,8,100\n\
                r,36028797018963968,512\nw,99999999999999999999,512\n";
    folder.file("a.csv", text.as_bytes());
    let report = folder.casblock("replay a.csv --block-size 4096 --json").succeeds().json();
    for (name, value) in [
        ("requests", 3),
        ("unaligned", 2),
        ("oversized_or_empty", 2),
        ("out_of_range", 2),
        ("other_commands", 1),
        ("footprint_blocks", 2),
    ] {
        assert_eq!(report[name], value, "{name}");
    }
    let text = folder.casblock("replay a.csv --block-size 4096").succeeds().text();
    assert!(text.contains("\n                 2 not of whole blocks: all that they touch are taken\n"), "{text}");
}

/// What it keeps of a request does not grow with its length: here are 21 million accesses, and there is no room for even 5 bytes each.
#[test]
fn long_requests_take_no_more_memory_than_short_ones() {
    let folder = Folder::new();
    let lines: String = (0..160).map(|line| format!("r,{line},67108864\n")).collect();
    folder.file("a.csv", format!("op,lba,length_bytes\n{lines}").as_bytes());
    let script = format!("ulimit -d 100000; exec {CASBLOCK} replay a.csv --policy lru --sizes 1 --json");
    let output = folder.command("sh").args(["-c", &script]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["accesses"], &report["footprint_blocks"]), (&(160 * 131_072).into(), &131_231.into()));
}

#[test]
fn on_a_store_it_writes_and_reads_what_the_trace_did() {
    let folder = Folder::new();
    folder.store("a.casb");
    folder.file("trace", &trace(vscsi_1));
    let report = folder.casblock("replay trace a.casb --cache 9 --json").succeeds().json();
    let replayed = &report["replayed"];
    let found = ["requests", "reads", "writes", "cache_blocks", "hits", "misses", "writes_left_out"].map(|name| {
        let value = &replayed[name];
        value.get("requests").unwrap_or(value).clone()
    });
    // What was written or read once is there. Three blocks were not: two of the first disk's place 3, one beside what was written.
    assert_eq!(json!(found), json!([8, 6, 2, 9, 7, 3, 0]));
    // The trace's blocks lie side by side: 3 and 4, then 1000 and 1001, then the others; a block has its number in it.
    let store = Store::open(folder.path("a.casb")).unwrap();
    let mut block = [0; 512];
    for (lba, request) in [(0, 0), (1, 0), (2, 1), (3, 1), (4, 4), (7, 4), (8, 0), (9, 0)] {
        store.read(lba, &mut block).unwrap();
        let number = |at: usize| u64::from_le_bytes(block[at..at + 8].try_into().unwrap());
        let expected = if request == 0 { (0, 0) } else { (lba, request) };
        assert_eq!((number(0), number(504)), expected, "block {lba}");
    }
    drop(store);
    // Now it holds something.
    let words = ["block 2 holds something", "--i-know-what-is-on-it", "--read-only"];
    folder.casblock("replay trace a.casb").fails(&words);
    let report = folder.casblock("replay trace a.casb --read-only --json").succeeds().json();
    let found = ["requests", "writes_left_out", "misses"].map(|name| report["replayed"][name].clone());
    assert_eq!(json!(found), json!([6, 2, 10]));
    let text = folder.casblock("replay trace a.casb --i-know-what-is-on-it --cache 4").succeeds().text();
    assert!(text.contains("cache              4 blocks\nblocks read        10, of which "), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn blocks_stay_where_they_were_if_that_is_wanted() {
    let folder = Folder::new();
    folder.store("a.casb");
    folder.file("a.csv", b"op,lba,length_bytes\nw,60,1024\nw,63,1024\nw,64,512\nr,60,1024\nw,18446744073709551,512\n");
    let report = folder.casblock("replay a.csv a.casb --raw-lba --json").succeeds().json();
    assert_eq!((&report["requests"], &report["out_of_range"]), (&2.into(), &3.into()));
    let store = Store::open(folder.path("a.casb")).unwrap();
    let mut block = [0; 512];
    for (lba, written) in [(59, false), (60, true), (61, true), (62, false), (63, false)] {
        store.read(lba, &mut block).unwrap();
        assert_eq!(block != [0; 512], written, "{lba}");
    }
    folder.file("many.csv", b"op,lba,length_bytes\nr,0,33280\n");
    folder.casblock("replay many.csv a.casb --read-only").fails(&["the trace uses 65 blocks, and the target has 64"]);
}

#[test]
fn the_page_stands_alone() {
    let folder = Folder::new();
    folder.file("a<b&c.csv", table().as_bytes());
    folder.casblock("replay a<b&c.csv --html page.html").succeeds();
    let page = std::fs::read_to_string(folder.path("page.html")).unwrap();
    assert!(page.contains("<h1>Hit ratios</h1>") && page.contains("a&lt;b&amp;c.csv") && !page.contains("a<b"));
    assert!(!page.contains("http") && !page.contains("src=") && !page.contains("NaN") && !page.contains("inf"));
    assert_eq!(page.matches("<polyline").count(), 6);
    for name in ["FIFO", "LRU", "CLOCK", "SIEVE", "S3-FIFO", "optimum"] {
        assert!(page.contains(&format!(">{name}<")), "{name}");
    }
    // Where the page cannot be, that is told before the work.
    std::fs::create_dir(folder.path("folder")).unwrap();
    folder.casblock("replay a<b&c.csv --html none/page.html").fails(&["writing none/page.html: No such file"]);
    folder.casblock("replay a<b&c.csv --html folder").fails(&["writing folder: it is a directory"]);
    folder.store("a.casb");
    for page in ["a<b&c.csv", "a.casb"] {
        folder.casblock(&format!("replay a<b&c.csv a.casb --html {page}")).fails(&["is the same file as", page]);
    }
    folder.casblock("check a.casb").succeeds();
    // Where it fails all the same, what was found is not lost.
    let done = folder.casblock("replay a<b&c.csv --json --html /dev/full").complains(&["writing /dev/full: No space"]);
    assert_eq!((done.status, &done.json()["requests"]), (1, &8.into()));
}

#[test]
fn what_is_no_trace_is_told() {
    let folder = Folder::new();
    folder.file("empty", b"");
    folder.file("noise", &[0xff; 1000]);
    folder.file("text", b"to be, or not to be\nthat is the question\n");
    folder.file("short", &trace(vscsi_1)[..100]);
    folder.file("broken.gz", &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3]);
    folder.file("broken.zst", &[0x28, 0xb5, 0x2f, 0xfd, 1, 2, 3]);
    folder.file("a.csv", b"op,lba,length_bytes\nr,1,512\nr,-1,512\n");
    for (arguments, words) in [
        ("nothing", &["nothing: No such file"][..]),
        ("empty", &["empty: it is empty"]),
        ("noise", &["noise: neither vscsi nor CSV", "--format"]),
        ("noise --format vscsi", &["noise: record 0, at byte 0", "version"]),
        ("text", &["text: the first line must name the columns: op, lba (or offset_bytes), length_bytes"]),
        ("short", &["short: record 3, at byte 96: it ends after 4 of 32 bytes"]),
        ("broken.gz", &["broken.gz: "]),
        ("broken.zst", &["broken.zst: "]),
        ("a.csv", &["a.csv: record 1, at byte 28: where it begins"]),
        ("a.csv --cache 10", &["--cache 10 is for a target"]),
        ("/", &["/: "]),
    ] {
        folder.casblock(&format!("replay {arguments}")).fails(words);
    }
    folder.file("b.csv", table().as_bytes());
    folder.casblock("replay b.csv none.casb").fails(&["none.casb", "No such file"]);
    for wrong in ["--sizes 0", "--sizes 101%", "--sizes x", "--policy best", "--block-size 513", "--cache -1"] {
        assert_eq!(folder.casblock(&format!("replay b.csv {wrong}")).status, 2, "{wrong}");
    }
    // A trace without a request is one.
    folder.file("c.csv", b"op,lba,length_bytes\n");
    let report = folder.casblock("replay c.csv --json --html c.html").succeeds().json();
    assert_eq!((&report["requests"], &report["footprint_blocks"]), (&0.into(), &0.into()));
}

#[test]
fn ctrl_c_shows_what_was_done_so_far() {
    let folder = Folder::new();
    folder.casblock("create a.casb --blocks 10000").succeeds();
    // Seconds of work, the first of it at block 0.
    let mut text = String::from("op,lba,length_bytes\nw,0,512\n");
    let mut dice = fastrand::Rng::with_seed(7);
    (0..20_000).for_each(|_| text.push_str(&format!("w,{},262144\n", dice.u32(1..9000))));
    folder.file("a.csv", text.as_bytes());
    let mut command = folder.command(CASBLOCK);
    let arguments = ["replay", "a.csv", "a.casb", "--json", "--policy", "fifo", "--sizes", "1", "--cache", "1000"];
    let child = command.args(arguments).spawn().unwrap();
    let store = Store::open(folder.path("a.casb")).unwrap();
    let mut block = [0; 512];
    while block == [0; 512] {
        std::thread::sleep(Duration::from_millis(1));
        store.read(0, &mut block).unwrap();
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("interrupted") && stderr.lines().count() == 1, "{stderr}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["requests"], 20_001);
    assert!(report["replayed"]["requests"].as_u64().unwrap() < 20_001);
    folder.casblock("check a.casb").succeeds();
}

/// Whatever a disk holds, it is not written without consent; that is told before anything is opened or read.
#[test]
fn every_disk_needs_consent() {
    let folder = Folder::new();
    folder.file("a.csv", table().as_bytes());
    let words = ["scsi:/dev/null: the disk's blocks would be overwritten", "--i-know-what-is-on-it", "--read-only"];
    for trace in ["a.csv", "none.csv"] {
        folder.casblock(&format!("replay {trace} scsi:/dev/null")).fails(&words);
    }
    for with_it in ["--i-know-what-is-on-it", "--read-only"] {
        let done = folder.casblock(&format!("replay a.csv scsi:/dev/null {with_it}")).fails(&["scsi:/dev/null"]);
        assert!(!done.stderr.contains("overwritten"), "{}", done.stderr);
    }
}

/// Who pipes a trace that never ends can still stop.
#[test]
fn ctrl_c_ends_it_while_it_reads() {
    let folder = Folder::new();
    let mut command = folder.command(CASBLOCK);
    let mut child = command.args(["replay", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"op,lba,length_bytes\n").unwrap();
    std::thread::sleep(Duration::from_millis(500));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let stdin = child.stdin.take();
    let status = child.wait().unwrap();
    drop(stdin);
    assert_eq!(status.signal(), Some(libc::SIGINT));
}
