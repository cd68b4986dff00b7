//! Processes in different PID namespaces, as in different containers, on one file: what a process is called does not
//! matter to the others.
#![cfg(target_os = "linux")]

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use casblock::{Comparison, Error, Geometry, Store, Writer};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[path = "common/children.rs"]
mod children;
use children::Child;

/// How long a child waits for what must come before it calls that a hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// Makes a PID namespace, as root or, by a user namespace, as anybody.
const UNSHARE: [&[&str]; 2] =
    [&["--pid", "--fork", "--kill-child"], &["--user", "--map-root-user", "--pid", "--fork", "--kill-child"]];

/// The first of the ways to make a PID namespace that works here.
fn way_to_unshare() -> Result<usize, String> {
    let mut reasons = String::new();
    for (way, flags) in UNSHARE.iter().enumerate() {
        match Command::new("unshare").args(*flags).arg("true").stdin(Stdio::null()).output() {
            Ok(output) if output.status.success() => return Ok(way),
            Ok(output) => reasons += &String::from_utf8_lossy(&output.stderr),
            Err(error) => reasons += &error.to_string(),
        }
    }
    Err(reasons)
}

/// A process in a PID namespace of its own.
struct Contained {
    child: Child,
    /// What it takes for its own process id.
    inner: i32,
    /// Its process id as the test sees it.
    outer: Pid,
}

impl Contained {
    /// Starts one, which counts in word number `word`.
    fn start(way: usize, word: u64, folder: &Path) -> Self {
        let variables = [("WAY", &*way.to_string()), ("WORD", &*word.to_string())];
        let mut child = Child::start("child_enters_a_namespace", &variables, folder);
        let said = child.hear().expect("the contained process is there");
        let (inner, outer) = said.split_once(' ').unwrap();
        Self { child, inner: inner.parse().unwrap(), outer: Pid::from_raw(outer.parse().unwrap()) }
    }
}

#[test]
fn processes_of_the_same_id_in_different_namespaces_work_side_by_side_and_outlive_each_other() {
    let _alone = children::alone();
    let way = match way_to_unshare() {
        Ok(way) => way,
        Err(reasons) => {
            let text = format!("NOT TESTED: this machine permits no PID namespace (unshare): {reasons}");
            assert!(std::env::var_os("CI").is_none(), "{text}");
            // Not by a macro, whose output the harness keeps to itself.
            return std::io::stderr().write_all(format!("\n{text}\n").as_bytes()).unwrap();
        }
    };
    let folder = tempfile::tempdir().unwrap();
    // One frame for the block, one for each writer.
    let store = Store::create(folder.path().join("store"), Geometry::blocks(1).writers(2).frames(3)).unwrap();
    let [mut killed, mut heir] = COUNTS.map(|word| Contained::start(way, word, folder.path()));
    assert_eq!(killed.inner, heir.inner, "they take themselves for the same process");
    assert_ne!(killed.outer, heir.outer);

    command(&store, WORK);
    for contained in [&mut killed, &mut heir] {
        assert_eq!(contained.child.hear().as_deref(), Some("all slots are in use"));
    }
    let began = Instant::now();
    while counts(&store).iter().any(|count| *count < 1000) {
        assert!(began.elapsed() < PATIENCE, "they work side by side: {:?}", counts(&store));
    }
    kill(killed.outer, Signal::SIGKILL).unwrap();
    assert!(!killed.child.process.wait().unwrap().success(), "it ends with the process it contains");
    let [_, before] = counts(&store);
    command(&store, ADOPT);
    assert_eq!(heir.child.finish(), ["adopted"]);

    let [dead, living] = counts(&store);
    assert!(living >= before + INCREMENTS, "the heir goes on, by both slots");
    drop(store);
    let store = Store::open_exclusive(folder.path().join("store")).unwrap();
    let done = read_counter(&store);
    assert!((dead + living..=dead + living + 1).contains(&done), "{dead} + {living} counted, {done} done");
    let check = store.check();
    assert!(check.is_clean() && check.frames_in_use == 1, "{check:?}");
}

/// The word by which the test commands the contained processes, and what it says.
const COMMAND: u64 = 0;
const WORK: u64 = 1;
const ADOPT: u64 = 2;

/// The words in which they count what they have done.
const COUNTS: [u64; 2] = [1, 2];

/// How much the heir does by the dead one's slot.
const INCREMENTS: u64 = 1000;

fn command(store: &Store, command: u64) {
    store.word(COMMAND).unwrap().compare_exchange(command - 1, command).unwrap();
}

fn counts(store: &Store) -> [u64; 2] {
    COUNTS.map(|word| store.read_word(word).unwrap())
}

fn image(counter: u64) -> Vec<u8> {
    counter.to_le_bytes().repeat(64)
}

fn counter(block: &[u8]) -> u64 {
    assert!(block.chunks(8).all(|word| *word == block[..8]), "torn: {block:?}");
    u64::from_le_bytes(block[..8].try_into().unwrap())
}

fn read_counter(store: &Store) -> u64 {
    let mut block = [0; 512];
    store.read(0, &mut block).unwrap();
    counter(&block)
}

/// Adds one to the block, and then to the word.
fn increment(store: &Store, writer: &mut Writer, word: u64) {
    let mut guess = image(read_counter(store));
    loop {
        let wanted = image(counter(&guess) + 1);
        match writer.compare_and_write_or_load(0, &mut guess, &wanted).unwrap() {
            Comparison::Written => break,
            Comparison::Miscompare { .. } => {}
        }
    }
    let word = store.word(word).unwrap();
    word.compare_exchange(word.load(), word.load() + 1).unwrap();
}

/// Becomes `unshare`, which starts [`child_in_a_namespace`].
#[test]
#[ignore = "a child of the tests here"]
fn child_enters_a_namespace() {
    let Some((_, way)) = children::settings("WAY") else { return };
    let error = Command::new("unshare")
        .args(UNSHARE[way.parse::<usize>().unwrap()])
        .arg(std::env::current_exe().unwrap())
        .args(["child_in_a_namespace", "--exact", "--ignored", "--nocapture"])
        .exec();
    panic!("{error}");
}

/// Says who it is, inside and outside; works by one writer until it is to adopt the slot of another.
#[test]
#[ignore = "a child of the tests here"]
fn child_in_a_namespace() {
    let Some((folder, word)) = children::settings("WORD") else { return };
    let word: u64 = word.parse().unwrap();
    let store = Store::open(folder.join("store")).unwrap();
    let mut writer = store.writer().unwrap();
    // The mount is that of the namespace outside.
    let outer = std::fs::read_link("/proc/self").unwrap();
    children::say(&format!("{} {}", std::process::id(), outer.display()));
    let began = Instant::now();
    let commanded = |command| {
        assert!(began.elapsed() < PATIENCE, "the test is gone");
        store.read_word(COMMAND).unwrap() >= command
    };
    while !commanded(WORK) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(matches!(store.writer(), Err(Error::TooManyWriters { writers: 2 })));
    children::say("all slots are in use");
    while !commanded(ADOPT) {
        increment(&store, &mut writer, word);
    }
    let mut adopted = store.writer().unwrap();
    (0..INCREMENTS).for_each(|_| increment(&store, &mut adopted, word));
    increment(&store, &mut writer, word);
    drop((writer, adopted, store));
    children::say("adopted");
}
