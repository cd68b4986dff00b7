//! `casblock conformance` as others meet it: interrupted, and with updates that are lost.

mod common;

use std::time::{Duration, Instant};

use common::{CASBLOCK, Folder};
use rustix::process::{Pid, Signal, kill_process};

/// The result of the case "processes".
fn of_processes(lines: &str) -> (String, String) {
    let line = lines.lines().find(|line| line.contains(r#""case":"processes""#)).unwrap_or_else(|| panic!("{lines}"));
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
    (text("result"), text("reason"))
}

#[test]
fn updates_that_processes_lose_are_noticed() {
    let folder = Folder::new();
    folder.store("a.casb");
    let arguments = "conformance a.casb --increments 300 --processes 3 --json";
    let done = folder.casblock(arguments).succeeds().text();
    assert_eq!(of_processes(&done).0, "passed");
    let done = folder.casblock(&format!("{arguments} --plant-lost-updates"));
    assert_eq!(done.status, 1, "{}", done.stderr);
    let (result, reason) = of_processes(&done.text());
    assert!(result == "broken" && reason.contains("but its counter is"), "{reason}");
    // However it ends, zeros are left.
    folder.casblock(arguments).succeeds();
}

#[test]
fn one_process_meets_nobody_and_shows_nothing() {
    let folder = Folder::new();
    folder.store("a.casb");
    let done = folder.casblock("conformance a.casb --increments 1 --processes 1 --json").succeeds().text();
    assert_eq!(of_processes(&done).0, "not_applicable");
}

/// How many processes count in a store.
fn counting(path: &std::path::Path) -> usize {
    let of_the_store = |entry: std::io::Result<std::fs::DirEntry>| {
        let words = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        let has = |word: &[u8]| words.split(|byte| *byte == 0).any(|its| its == word);
        (has(b"--count-only") && has(path.as_os_str().as_encoded_bytes())).then_some(())
    };
    std::fs::read_dir("/proc").unwrap().filter_map(of_the_store).count()
}

fn wait_until(what: &str, is: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_signal_ends_it_and_its_processes_and_leaves_zeros() {
    let folder = Folder::new();
    let path = folder.store("a.casb");
    let store = path.display();
    // In the middle of a case; in the middle of the processes' counting.
    for (arguments, has_processes) in [
        (format!("conformance {store} --increments 1000000000"), false),
        (format!("conformance {store} --increments 500 --processes 3"), true),
    ] {
        let child = folder.command(CASBLOCK).args(arguments.split(' ')).spawn().unwrap();
        if has_processes {
            wait_until("the processes count", || counting(&path) == 3);
        } else {
            std::thread::sleep(Duration::from_millis(300));
        }
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let done = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(143), "{stderr}");
        assert!(stderr.contains("interrupted"), "{stderr}");
        assert!(!String::from_utf8_lossy(&done.stdout).contains("BROKEN"), "a signal is no fault of the device");
        assert_eq!(counting(&path), 0, "nobody writes any more");
        let zeros = folder.casblock("read a.casb 0 --count 64").succeeds().stdout;
        assert!(zeros.len() == 64 * 512 && zeros.iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_process_does_not_outlive_the_one_that_started_it() {
    let folder = Folder::new();
    let path = folder.store("a.casb");
    // It would count for minutes.
    let script = format!("{CASBLOCK} conformance --count-only --increments 1000000000 {} & wait", path.display());
    let mut parent = folder.command("sh").args(["-c", &script]).spawn().unwrap();
    wait_until("the process counts", || counting(&path) == 1);
    std::thread::sleep(Duration::from_millis(100));
    parent.kill().unwrap();
    parent.wait().unwrap();
    wait_until("the process ends", || counting(&path) == 0);
}
