//! `casblock cluster`, `lease` and `run`, with real processes that are killed and stopped.

mod common;

use std::io::Read as _;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{CASBLOCK, Folder};
use rustix::process::{Pid, Signal, kill_process};

/// A folder with a cluster whose hearts beat fast: dead after 600 ms, stopped after 490.
fn cluster() -> Folder {
    let folder = Folder::new();
    let times = "--interval 100ms --io-timeout 300ms --stale 600ms";
    folder.casblock(&format!("cluster init c.casb --hosts 8 --leases 16 {times}")).succeeds();
    folder
}

/// A `casblock run` that goes on.
struct Running(Child);

impl Running {
    fn start(folder: &Folder, options: &str, script: &str) -> Self {
        let mut command = folder.command(CASBLOCK);
        command.arg("run").args(options.split_whitespace()).args(["c.casb", "--", "sh", "-c", script]);
        Self(command.spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Its exit status, what it printed, and what it complained of.
    fn wait(mut self) -> (Option<i32>, String, String) {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.0.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (self.0.wait().unwrap().code(), stdout, stderr)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits till a file is there.
fn wait_for(folder: &Folder, name: &str) {
    let until = Instant::now() + Duration::from_secs(20);
    while !folder.path(name).exists() {
        assert!(Instant::now() < until, "{name} does not come");
        sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_cluster_is_made_once() {
    let folder = cluster();
    let made = folder.casblock("cluster init d.casb --hosts 4 --json").succeeds().json();
    assert_eq!((&made["hosts"], &made["beats_in"], &made["deadline_ms"]), (&4.into(), &"words".into(), &13_090.into()));
    folder.casblock("cluster init c.casb --hosts 8 --leases 16").fails(&["block 0 holds something"]);
    folder.casblock("cluster init c.casb --hosts 8 --leases 16 --force").succeeds();
    folder.casblock("cluster init e.casb --stale 12s").fails(&["choose a longer stale time"]);
    assert!(!folder.path("e.casb").exists());
    folder.store("plain.casb");
    folder.casblock("cluster hosts plain.casb").fails(&["no cluster at block 0", "casblock cluster init"]);
    folder.casblock("cluster init plain.casb --hosts 8 --leases 1000").fails(&["the device has 64 blocks"]);
    let text = folder.casblock("cluster init plain.casb --hosts 8 --leases 8 --at 40").succeeds().text();
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert_eq!(folder.casblock("cluster hosts plain.casb --at 40").succeeds().text(), "no host has been there yet\n");
    // A store's words serve one cluster, whose hosts have used them.
    folder.casblock("run --lease 3 --at 40 plain.casb -- true").succeeds();
    folder.casblock("cluster init plain.casb --hosts 8 --leases 8").fails(&["word 0 holds something"]);
    assert_eq!(folder.casblock("cluster init c.casb --interval 1").status, 2);
}

#[test]
fn a_command_runs_with_the_lease_and_gives_it_back() {
    let folder = cluster();
    let (status, stdout, stderr) =
        Running::start(&folder, "--lease 3", "echo $CASBLOCK_LEASE $CASBLOCK_TOKEN; exit 7").wait();
    assert_eq!((status, stdout.as_str(), stderr.as_str()), (Some(7), "3 1\n", ""));
    let show = folder.casblock("lease show c.casb 3 --json").succeeds().json();
    assert_eq!((&show["mode"], &show["token"]), (&().into(), &1.into()));
    assert_eq!(Running::start(&folder, "--lease 3", "kill -9 $$").wait().0, Some(128 + 9));
    let done = folder.casblock("run --lease 3 c.casb -- no-such-command");
    assert_eq!(done.status, 127);
    assert_eq!(folder.casblock("run --lease 3 c.casb -- /").status, 126);
    assert_eq!(folder.casblock("run --lease 3 c.casb").status, 2);
    folder.casblock("run --lease 16 c.casb -- true").fails(&["there is no lease 16"]);
    assert_eq!(folder.casblock("lease list c.casb").succeeds().text(), "no lease is held\n");
}

#[test]
fn one_runs_and_others_wait_or_do_not() {
    let folder = cluster();
    let first = Running::start(&folder, "--lease 3", "touch first; while [ -e first ]; do sleep 0.02; done");
    wait_for(&folder, "first");
    let refused = folder.casblock("run --no-wait --lease 3 c.casb -- touch wrong");
    assert_eq!(refused.status, 75);
    refused.complains(&["lease 3 is held by slot 0 generation 1"]);
    assert_eq!(folder.casblock("run --wait 200ms --lease 3 c.casb -- touch wrong").status, 75);
    assert_eq!(folder.casblock("run --no-wait --shared --lease 3 c.casb -- touch wrong").status, 75);
    // Another lease is another matter.
    assert_eq!(folder.casblock("run --no-wait --lease 4 c.casb -- true").status, 0);
    let list = folder.casblock("lease list c.casb --json").succeeds().json();
    assert_eq!((&list["lease"], &list["holders"][0]["slot"]), (&3.into(), &0.into()));
    folder.casblock("lease break c.casb 3").fails(&["who lives; it was not broken"]);
    let second = Running::start(&folder, "--lease 3", "echo token $CASBLOCK_TOKEN");
    sleep(Duration::from_millis(300));
    std::fs::remove_file(folder.path("first")).unwrap();
    assert_eq!(first.wait().0, Some(0));
    assert_eq!(second.wait().1, "token 2\n");
    assert!(!folder.path("wrong").exists());
}

#[test]
fn several_share_a_lease() {
    let folder = cluster();
    let script = |name| format!("touch {name}; while [ -e {name} ]; do sleep 0.02; done");
    let (one, two) = (
        Running::start(&folder, "--lease 3 --shared", &script("one")),
        Running::start(&folder, "--lease 3 --shared", &script("two")),
    );
    wait_for(&folder, "one");
    wait_for(&folder, "two");
    assert_eq!(folder.casblock("run --no-wait --lease 3 c.casb -- true").status, 75);
    let text = folder.casblock("lease show c.casb 3").succeeds().text();
    assert!(text.contains("shared, token 2") && text.matches("generation").count() == 2, "{text}");
    for name in ["one", "two"] {
        std::fs::remove_file(folder.path(name)).unwrap();
    }
    assert_eq!((one.wait().0, two.wait().0), (Some(0), Some(0)));
}

#[test]
fn who_is_killed_takes_its_command_along_and_loses_the_lease() {
    let folder = cluster();
    let first = Running::start(&folder, "--lease 3", "echo $$ > pid; touch first; exec sleep 1000");
    wait_for(&folder, "first");
    let pid = std::fs::read_to_string(folder.path("pid")).unwrap().trim().to_owned();
    first.signal(Signal::KILL);
    let started = Instant::now();
    let (status, stdout, _) = Running::start(&folder, "--lease 3", "echo token $CASBLOCK_TOKEN").wait();
    assert_eq!((status, stdout.as_str()), (Some(0), "token 2\n"));
    assert!(started.elapsed() >= Duration::from_millis(600), "its heart was watched for the stale time");
    // Whoever reaps orphans may not have done so yet.
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "the command lives: {state}");
    let hosts = folder.casblock("cluster hosts c.casb").succeeds().text();
    assert!(hosts.contains("fenced"), "{hosts}");
}

#[test]
fn who_is_stopped_for_too_long_ends_its_command() {
    let folder = cluster();
    let first = Running::start(&folder, "--lease 3", "trap '' TERM; touch first; while :; do sleep 0.02; done");
    wait_for(&folder, "first");
    first.signal(Signal::STOP);
    let (status, stdout, _) = Running::start(&folder, "--lease 3", "echo token $CASBLOCK_TOKEN").wait();
    assert_eq!((status, stdout.as_str()), (Some(0), "token 2\n"));
    first.signal(Signal::CONT);
    let (status, stdout, stderr) = first.wait();
    // Others may have had it for long: there is no time left to end in.
    assert_eq!((status, stdout.as_str()), (Some(128 + 9), ""));
    assert!(stderr.contains("lease 3 is lost"), "{stderr}");
}

#[test]
fn a_command_that_does_not_end_is_killed() {
    let folder = cluster();
    let first = Running::start(
        &folder,
        "--lease 3 --kill-after 50ms",
        "trap '' TERM; touch first; while :; do sleep 0.02; done",
    );
    wait_for(&folder, "first");
    first.signal(Signal::STOP);
    sleep(Duration::from_secs(1));
    first.signal(Signal::CONT);
    assert_eq!(first.wait().0, Some(128 + 9));
}

#[test]
fn signals_are_passed_on() {
    let folder = cluster();
    let first =
        Running::start(&folder, "--lease 3", "trap 'echo told; exit 5' INT; touch first; while :; do sleep 0.02; done");
    wait_for(&folder, "first");
    first.signal(Signal::INT);
    let (status, stdout, _) = first.wait();
    assert_eq!((status, stdout.as_str()), (Some(5), "told\n"));
    // The lease was given back, not left to go stale.
    assert_eq!(folder.casblock("run --no-wait --lease 3 c.casb -- true").status, 0);
}

#[test]
fn whoever_waits_can_be_interrupted() {
    let folder = cluster();
    let _first = Running::start(&folder, "--lease 3", "touch first; exec sleep 1000");
    wait_for(&folder, "first");
    let second = Running::start(&folder, "--lease 3", "touch wrong");
    sleep(Duration::from_millis(300));
    second.signal(Signal::TERM);
    assert_eq!(second.wait().0, Some(128 + 15));
    assert!(!folder.path("wrong").exists());
}

#[test]
fn the_lease_of_the_dead_is_broken_on_request() {
    let folder = cluster();
    let first = Running::start(&folder, "--lease 3 --name alpha", "touch first; exec sleep 1000");
    wait_for(&folder, "first");
    let hosts = folder.casblock("cluster watch c.casb --once --json").succeeds().json();
    assert_eq!((&hosts["name"], &hosts["state"], &hosts["leases"]), (&"alpha".into(), &"alive".into(), &1.into()));
    first.signal(Signal::KILL);
    let broken = folder.casblock("lease break c.casb 3 --json").succeeds().json();
    assert_eq!((&broken["mode"], &broken["token"]), (&().into(), &1.into()));
    assert_eq!(folder.casblock("run --no-wait --lease 3 c.casb -- true").status, 0);
    let list = folder.casblock("lease list c.casb --all --json").succeeds().json();
    assert_eq!((&list["lease"], &list["token"]), (&3.into(), &2.into()));
}

#[test]
fn watch_prints_changes_where_there_is_no_terminal() {
    let folder = cluster();
    let mut watch = folder.command(CASBLOCK);
    let watch = Running(watch.args(["cluster", "watch", "c.casb", "--json"]).spawn().unwrap());
    sleep(Duration::from_millis(300));
    assert_eq!(Running::start(&folder, "--lease 3 --name alpha", "sleep 1").wait().0, Some(0));
    sleep(Duration::from_millis(700));
    watch.signal(Signal::INT);
    let (status, stdout, stderr) = watch.wait();
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    let states: Vec<String> = stdout
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["state"].as_str().unwrap().to_owned())
        .collect();
    assert!(states.contains(&"alive".to_owned()) && states.last().unwrap() == "free", "{states:?}");
}

#[test]
fn disks_are_no_stores() {
    let folder = Folder::new();
    folder.casblock("probe scsi:/dev/null").fails(&["scsi:/dev/null"]);
    folder.casblock("read scsi:/no/such/disk 0").fails(&["scsi:/no/such/disk"]);
    folder.casblock("word get scsi:/dev/sda 0").fails(&["a disk has no heartbeat words"]);
    folder.casblock("check scsi:/dev/sda").fails(&["a disk has no invariants to check"]);
    let file = folder.file("file", &[0; 4096]);
    folder.casblock(&format!("info scsi:{}", file.display())).fails(&["neither a block device nor"]);
    folder.store("a.casb");
    let probe = folder.casblock("probe a.casb --json").succeeds().json();
    assert_eq!((&probe["kind"], &probe["compare_and_write_blocks_max"]), (&"store".into(), &1.into()));
    let text = folder.casblock("probe a.casb").succeeds().text();
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn a_store_conforms_and_is_left_as_it_was() {
    let folder = Folder::new();
    folder.store("a.casb");
    let done = folder.casblock("conformance a.casb --increments 50 --processes 3 --json").succeeds().text();
    let lines: Vec<serde_json::Value> = done.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.last().unwrap()["broken"], 0);
    assert!(lines.iter().any(|line| line["case"] == "processes" && line["result"] == "passed"), "{done}");
    let text = folder.casblock("conformance a.casb --increments 10").succeeds().text();
    assert!(text.ends_with("a.casb: it conforms: 14 promises kept\n"), "{text}");
    folder.casblock_reading(&[1; 512], "write a.casb 5").succeeds();
    folder.casblock("conformance a.casb --blocks 8").fails(&["block 5 holds something"]);
    folder.casblock("conformance a.casb --lba 10 --blocks 8 --increments 10").succeeds();
    folder.casblock("conformance a.casb --blocks 65").fails(&["65 blocks from block 0 on"]);
    folder.casblock("conformance a.casb --blocks 3").fails(&["at least 4"]);
}
