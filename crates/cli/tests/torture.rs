//! `casblock torture`, as a user runs it: clean where the store is sound, and not where a fault was planted.

#[path = "common/signals.rs"]
mod signals;

use std::fs;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use casblock::{Geometry, Store};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

/// Against hanging; nothing here is expected to take so long.
const WATCHDOG: Duration = Duration::from_secs(60);

fn torture(store: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_casblock"));
    command.arg("torture").arg(store).args(arguments).stdin(Stdio::null());
    signals::interruptible(&mut command);
    command
}

fn run(store: &Path, arguments: &[&str]) -> Output {
    torture(store, arguments).output().unwrap()
}

/// Runs it with `--json`; the report and the exit status.
fn report(store: &Path, arguments: &[&str]) -> (Value, Option<i32>) {
    let output = run(store, &[arguments, &["--json"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    (report, output.status.code())
}

#[track_caller]
fn number(report: &Value, name: &str) -> u64 {
    report[name].as_u64().unwrap_or_else(|| panic!("{name} in {report}"))
}

#[track_caller]
fn assert_clean(report: &Value) {
    for name in ["lost", "extra", "torn", "stuck", "failed", "frames_leaked", "frames_doubly_owned"] {
        assert_eq!(number(report, name), 0, "{name} in {report}");
    }
    assert_eq!(report["check_clean"], true, "{report}");
    let (confirmed, counted) = (number(report, "confirmed"), number(report, "counted"));
    assert!((confirmed..=confirmed + number(report, "unresolved")).contains(&counted), "{report}");
    assert_eq!(number(report, "attempts"), number(report, "written") + number(report, "miscompares"));
}

#[test]
fn a_sound_store_survives_kills() {
    let folder = tempfile::tempdir().unwrap();
    for blocks in ["1", "5"] {
        let store = folder.path().join(blocks);
        let arguments = ["--seconds", "2", "--kill-every", "20", "--blocks", blocks, "--seed", "7"];
        let (report, status) = report(&store, &arguments);
        assert_clean(&report);
        assert_eq!(status, Some(0), "{report}");
        assert!(number(&report, "kills") >= 3, "{report}");
        for name in ["written", "beats", "reads", "claims", "p50_ns"] {
            assert!(number(&report, name) > 0, "{name} in {report}");
        }
        let percentiles = ["p50_ns", "p99_ns", "p99_9_ns", "max_ns"].map(|name| number(&report, name));
        assert!(percentiles.is_sorted(), "{report}");
        assert_eq!((number(&report, "seed"), number(&report, "kill_every_ms")), (7, 20));
    }
}

#[test]
fn a_slot_for_each_thread_is_enough() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tight");
    drop(Store::create(&path, Geometry::blocks(2).writers(6).words(1)).unwrap());
    let arguments = ["--processes", "3", "--seconds", "2", "--kill-every", "10", "--blocks", "2"];
    let (report, status) = report(&path, &arguments);
    assert_clean(&report);
    assert_eq!((status, number(&report, "words")), (Some(0), 1), "{report}");
    assert!(number(&report, "kills") >= 3, "{report}");
}

#[test]
fn planted_faults_are_found() {
    let folder = tempfile::tempdir().unwrap();
    for fault in ["lost", "torn", "stuck"] {
        let store = folder.path().join(fault);
        let arguments = ["--plant", fault, "--seconds", "2", "--kill-every", "0", "--patience-ms", "1000"];
        let (report, status) = report(&store, &arguments);
        assert_eq!(status, Some(1), "{report}");
        assert!(number(&report, fault) > 0, "{fault} in {report}");
        if fault != "torn" {
            assert_eq!(number(&report, "torn"), 0, "{report}");
        }
    }
}

#[test]
fn a_child_that_fails_fails_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("full");
    // One frame for the block, one for the first writer: a second one has to be refused, again and again.
    drop(Store::create(&path, Geometry::blocks(1).frames(2)).unwrap());
    let (report, status) =
        report(&path, &["--seconds", "40", "--kill-every", "0", "--processes", "1", "--patience-ms", "1000"]);
    assert_eq!((status, number(&report, "failed")), (Some(1), 1), "{report}");
    assert!(number(&report, "refused") > 0, "{report}");
}

#[test]
fn the_text_fits_80_columns_and_names_what_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text");
    let output = torture(&path, &["--seconds", "1"]).env("NO_COLOR", "1").current_dir(&folder).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    let names = ["attempts", "miscompares", "p50", "p99", "p99.9", "max", "kills", "lost", "torn", "stuck", "check"];
    for name in names {
        assert!(text.lines().any(|line| line.split_whitespace().next() == Some(name)), "{name} in {text}");
    }
    for line in text.lines().filter(|line| !line.contains("text:")) {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn an_earlier_torture_is_continued_and_other_contents_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let arguments = ["--seconds", "1", "--blocks", "2"];
    for _ in 0..2 {
        let (report, status) = report(&path, &arguments);
        assert_clean(&report);
        assert_eq!(status, Some(0));
    }
    let store = Store::open(&path).unwrap();
    store.write(1, &[7; 512]).unwrap();
    drop(store);
    let output = run(&path, &arguments);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{complaint}");
    assert!(complaint.contains("block 1") && complaint.contains("--force"), "{complaint}");
    let mut block = [0; 512];
    Store::open(&path).unwrap().read(1, &mut block).unwrap();
    assert_eq!(block, [7; 512]);

    let (report, status) = report(&path, &[&arguments[..], &["--force"]].concat());
    assert_clean(&report);
    assert_eq!(status, Some(0));
}

#[test]
fn heartbeat_words_of_others_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = Store::create(&path, Geometry::blocks(1)).unwrap();
    store.word(2).unwrap().compare_exchange(0, 99).unwrap();
    drop(store);
    let output = run(&path, &["--seconds", "1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("word 2"));
    assert_eq!(Store::open(&path).unwrap().read_word(2).unwrap(), 99);
    assert_eq!(run(&path, &["--seconds", "1", "--force"]).status.code(), Some(0));
}

#[test]
fn a_store_that_is_too_small_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small");
    drop(Store::create(&path, Geometry::blocks(1).writers(3)).unwrap());
    for arguments in [&[][..], &["--blocks", "2", "--threads", "1"]] {
        let output = run(&path, arguments);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
        assert!(String::from_utf8_lossy(&output.stderr).contains("3 writer slots"));
    }
}

/// The children of a process that has one thread.
fn children_of(parent: u32) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn is_alive(pid: i32) -> bool {
    // `pid (name) state …`; who is a zombie or dead is not alive, whether or not somebody has waited for it.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    state.is_some_and(|state| !"ZXx".contains(state))
}

#[track_caller]
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < WATCHDOG, "{what} takes longer than {WATCHDOG:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Children that must not outlive a test that fails.
struct Children(Vec<i32>);

impl Children {
    fn any_alive(&self) -> bool {
        self.0.iter().any(|&pid| is_alive(pid))
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for &pid in self.0.iter().filter(|&&pid| is_alive(pid)) {
            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
    }
}

/// A long torture with no kills, in a process group of its own, and its children at work.
fn start_long(store: &Path) -> (Child, Children) {
    let mut command = torture(store, &["--seconds", "600", "--kill-every", "0", "--processes", "3", "--json"]);
    let torture = command.process_group(0).stdout(Stdio::piped()).spawn().unwrap();
    wait_until("starting three children", || children_of(torture.id()).len() == 3);
    // So that they have something to report.
    thread::sleep(Duration::from_millis(500));
    let children = Children(children_of(torture.id()));
    assert_eq!(children.0.len(), 3);
    (torture, children)
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed()).unwrap()
}

#[test]
fn ctrl_c_ends_it_with_a_report_and_leaves_nothing_running() {
    let folder = tempfile::tempdir().unwrap();
    let (mut torture, children) = start_long(&folder.path().join("store"));
    // As a terminal does: to all of them.
    kill_process_group(pid_of(&torture), Signal::INT).unwrap();
    wait_until("ending after Ctrl-C", || torture.try_wait().unwrap().is_some());
    let output = torture.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_clean(&report);
    assert_eq!((output.status.code(), &report["interrupted"]), (Some(0), &Value::Bool(true)));
    assert!(number(&report, "written") > 0, "{report}");
    assert!(!children.any_alive());
}

#[test]
fn children_die_with_the_parent() {
    let folder = tempfile::tempdir().unwrap();
    let (mut torture, children) = start_long(&folder.path().join("store"));
    kill_process(pid_of(&torture), Signal::KILL).unwrap();
    assert_eq!(torture.wait().unwrap().signal(), Some(9));
    wait_until("the children's end", || !children.any_alive());
}

#[test]
#[ignore = "half a minute; cargo xtask test runs it"]
fn hundreds_of_kills_on_one_block() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let arguments = ["--processes", "4", "--threads", "4", "--blocks", "1", "--seconds", "35", "--kill-every", "50"];
    let (report, status) = report(&path, &arguments);
    assert_clean(&report);
    assert_eq!(status, Some(0), "{report}");
    assert!(number(&report, "kills") >= 500, "{report}");
}
