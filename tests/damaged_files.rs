//! Files that were damaged, by the thousand: at random, or in each bit of the state page. Whatever is asked of such a
//! store is answered by an error or by correct data; `ordeal` says what is correct. Never a panic, a crash, an endless
//! loop, or data of another block where that can be told.
//!
//! The cases run in child processes, so that a crash or a hang is seen, and by which file. A file that was treated wrongly
//! is kept, and its number said; with that it can be had again, alone and in a debugger:
//!
//! | variable | what it does |
//! | --- | --- |
//! | `CASBLOCK_TEST_SEED` | the seed: otherwise a new one each time, which is printed |
//! | `CASBLOCK_TEST_CASE` | runs this case alone: the file's number |
//! | `CASBLOCK_TEST_FILES` | how many files are damaged at random, for each durability: more for a night |
#![cfg(target_os = "linux")]

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::mpsc;
use std::time::Duration;

use casblock::{BlockSize, Durability, Geometry};

#[path = "common/children.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod children;
#[path = "common/damage.rs"]
mod damage;
#[path = "common/dice.rs"]
mod dice;
#[path = "common/image.rs"]
mod image;
#[path = "common/model.rs"]
mod model;
#[path = "common/ordeal.rs"]
mod ordeal;
#[path = "common/wreck.rs"]
mod wreck;

use children::Child;
use damage::{QUICK_FOLDER, quick_folder};
use dice::Dice;
use image::Image;
use model::Model;
use ordeal::{Tally, ordeal};

/// Files damaged at random for each durability, unless another number is asked for.
const FILES: u64 = 12_000;

/// As many files are dealt with between two signs of life, which must come within the time below.
const BATCH: u64 = 250;
const PATIENCE: Duration = Duration::from_secs(60);

/// The child's exit status if there are such files, and the most it keeps of them.
const TREATED_WRONGLY: i32 = 9;
const WRONG_MAX: u32 = 10;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// Says something that is not for the harness to keep.
fn say_aloud(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// A series of damaged files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Series {
    /// Of durability `process`, damaged at random.
    Process,
    /// Of durability `power`, damaged at random.
    Power,
    /// Of durability `power`, one bit of the state page flipped.
    State,
    /// Of either durability and with a flight recorder, damaged at random.
    Recorder,
}

/// All bits of the bytes before this one in the state page are flipped, and of each byte behind them, which means
/// nothing, one bit.
const STATE_BYTES_USED: u64 = 768;
const STATE_BITS: u64 = 8 * STATE_BYTES_USED + 4096 - STATE_BYTES_USED;

impl Series {
    const ALL: [Self; 4] = [Self::Process, Self::Power, Self::State, Self::Recorder];

    fn test(self) -> &'static str {
        match self {
            Self::Process => "damaged_stores_of_durability_process_give_errors_or_data",
            Self::Power => "damaged_stores_of_durability_power_give_errors_or_data_of_the_same_block",
            Self::Recorder => "damaged_stores_with_a_recorder_give_errors_or_data_and_events_that_were",
            Self::State => "a_bit_of_the_state_page_costs_a_recovery_at_most",
        }
    }

    /// How many files there are.
    fn files(self) -> u64 {
        match self {
            Self::Process | Self::Power => variable("CASBLOCK_TEST_FILES").unwrap_or(FILES),
            Self::Recorder => variable("CASBLOCK_TEST_FILES").unwrap_or(FILES / 2),
            Self::State => 2 * STATE_BITS,
        }
    }

    /// The stores that are damaged.
    fn models(self) -> Vec<Model> {
        if self == Self::Recorder {
            let both = [Durability::Process, Durability::Power];
            let geometry = |events| Geometry::blocks(8).words(4).writers(3).events(events);
            let geometries = both.iter().flat_map(|it| [1, 8, 64].map(|events| geometry(events).durability(*it)));
            return geometries.map(Model::new).collect();
        }
        let durability = if self == Self::Process { Durability::Process } else { Durability::Power };
        let geometry = |blocks| Geometry::blocks(blocks).words(4).writers(3).durability(durability).events(0);
        let geometries = [
            geometry(8),
            geometry(64),
            geometry(16).block_size(BlockSize::B4096),
            // Hardly a frame to spare.
            geometry(9).frames(13),
            geometry(1).writers(1).words(1),
        ];
        let all = if self == Self::State { &geometries[..1] } else { &geometries };
        all.iter().copied().map(Model::new).collect()
    }
}

/// One damaged file.
struct Case<'m> {
    model: &'m Model,
    sound: &'m Image,
    damaged: Image,
    dice: Dice<'static>,
}

impl<'m> Case<'m> {
    fn new(series: Series, models: &'m [Model], seed: u64, number: u64) -> Self {
        let model = &models[(number % models.len() as u64) as usize];
        let mut dice = Dice::seeded(image::mix(seed ^ image::mix(number)));
        let sound = match series {
            Series::State if number < STATE_BITS => &model.closed,
            Series::State => &model.killed,
            Series::Process | Series::Power | Series::Recorder => dice.choose(&[&model.closed, &model.killed]),
        };
        let mut damaged = sound.clone();
        match (series, number % STATE_BITS) {
            (Series::Process | Series::Power | Series::Recorder, _) => {
                wreck::wreck(&mut damaged, &model.earlier, &mut dice)
            }
            (Series::State, bit) if bit < 8 * STATE_BYTES_USED => wreck::flip(&mut damaged, sound.at.state * 8 + bit),
            (Series::State, more) => {
                let byte = sound.at.state + STATE_BYTES_USED + more - 8 * STATE_BYTES_USED;
                wreck::flip(&mut damaged, byte * 8 + dice.below(8));
            }
        }
        Self { model, sound, damaged, dice }
    }

    fn run(mut self, tally: &mut Tally) {
        ordeal(&self.model.victim, self.sound, &self.damaged, &mut self.dice, tally);
    }
}

/// Keeps the file of a case that went wrong, and says how to have it again.
fn keep(series: Series, models: &[Model], seed: u64, number: u64) {
    let path = std::env::temp_dir().join(format!("casblock-damaged-{series:?}-{seed}-{number}"));
    std::fs::write(&path, &Case::new(series, models, seed, number).damaged.bytes).unwrap();
    say_aloud(&format!(
        "{series:?}: file {number} of seed {seed}, kept as {}; again by\n    \
         CASBLOCK_TEST_SEED={seed} CASBLOCK_TEST_CASE={number} cargo test --test damaged_files {}",
        path.display(),
        series.test()
    ));
}

/// Runs a case alone, in this process.
fn run_alone(series: Series, seed: u64, number: u64) {
    let models = series.models();
    let case = Case::new(series, &models, seed, number);
    say_aloud(&format!("damage: {:#?}", case.damaged.differences(case.sound)));
    case.run(&mut Tally::default());
    say_aloud("nothing went wrong");
}

/// Which cases a child runs: the number of the series, and the seed.
const CASES: &str = "CASBLOCK_TEST_CASES";

/// Where a child notes the case it is at.
fn case_file(folder: &Path) -> PathBuf {
    folder.join("case")
}

/// Runs a series in a child process; gives what it saw, if all of it was run.
fn run(series: Series) -> Option<Tally> {
    let seed = variable("CASBLOCK_TEST_SEED").unwrap_or_else(|| fastrand::u64(..));
    if let Some(number) = variable("CASBLOCK_TEST_CASE") {
        run_alone(series, seed, number);
        return None;
    }
    say_aloud(&format!("CASBLOCK_TEST_SEED={seed} ({} damaged files: {series:?})", series.files()));
    let folder = tempfile::tempdir_in(quick_folder()).unwrap();
    // Its files go with this folder, however it ends.
    let quick_folder = (QUICK_FOLDER, folder.path().to_str().unwrap());
    let cases = (CASES, &*format!("{} {seed}", series as u8));
    let child = Child::start("child_runs_cases", &[cases, quick_folder], folder.path());
    let (tally, status) = listen(child);
    if !status.success() {
        if status.code() != Some(TREATED_WRONGLY)
            && let Ok(number) = std::fs::read(case_file(folder.path()))
        {
            keep(series, &series.models(), seed, u64::from_le_bytes(number.try_into().unwrap()));
        }
        panic!("a child ended with {status}; the lines above tell at which file");
    }
    say_aloud(&format!("{series:?}: {tally:?}"));
    Some(tally)
}

/// Sums what a child says until it ends; kills it if it says nothing for too long.
fn listen(mut child: Child) -> (Tally, ExitStatus) {
    let id = child.process.id();
    let (send, heard) = mpsc::channel();
    let mut tally = Tally::default();
    let status = std::thread::scope(|scope| {
        let listening = scope.spawn(move || {
            while let Some(line) = child.hear() {
                // Nobody listens any more: the child is being killed.
                let _ = send.send(line);
            }
            drop(send);
            child.process.wait().unwrap()
        });
        loop {
            match heard.recv_timeout(PATIENCE) {
                Ok(line) => {
                    let counts: Vec<u64> = line.split(' ').map(|count| count.parse().unwrap()).collect();
                    tally.add(counts.try_into().unwrap());
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    say_aloud("it hangs");
                    // SAFETY: a signal to a child that nobody has waited for yet.
                    unsafe { libc::kill(id as libc::pid_t, libc::SIGKILL) };
                    break;
                }
            }
        }
        listening.join().unwrap()
    });
    (tally, status)
}

#[test]
fn damaged_stores_of_durability_process_give_errors_or_data() {
    let Some(tally) = run(Series::Process) else { return };
    assert_enough_was_seen(&tally);
}

#[test]
fn damaged_stores_of_durability_power_give_errors_or_data_of_the_same_block() {
    let Some(tally) = run(Series::Power) else { return };
    assert_enough_was_seen(&tally);
    assert!(tally.recovered > tally.files / 10, "{tally:?}");
}

fn assert_enough_was_seen(tally: &Tally) {
    let Tally { files, refused, read_only, sound, unclean, data, corrupt, .. } = *tally;
    assert_eq!(files, Series::Process.files());
    let least = files / 100;
    let enough = [refused, read_only, sound, unclean, corrupt].iter().all(|count| *count > least) && data > 4 * files;
    assert!(enough, "too little was seen: {tally:?}");
}

#[test]
fn damaged_stores_with_a_recorder_give_errors_or_data_and_events_that_were() {
    let Some(tally) = run(Series::Recorder) else { return };
    assert_eq!(tally.files, Series::Recorder.files());
    assert!(tally.recovered > tally.files / 20 && tally.sound > tally.files / 20, "too little was seen: {tally:?}");
}

/// Files by which something was found: the displaced frame of a slot was its reserve, too; two blocks named a frame that was
/// stamped as a third's.
#[test]
fn those_that_were_treated_wrongly_are_treated_rightly() {
    run_alone(Series::Process, 13_712_211_924_279_906_350, 8794);
    run_alone(Series::Power, 2_497_802_701_388_404_177, 2543);
}

#[test]
fn a_bit_of_the_state_page_costs_a_recovery_at_most() {
    let Some(tally) = run(Series::State) else { return };
    assert_eq!(tally.files, Series::State.files());
    assert_eq!((tally.unclean, tally.corrupt), (0, 0), "only the state page is damaged");
    // Refused are those that need a recovery, to one who may only read.
    assert!(tally.refused > 40 && tally.recovered > 1000, "too little was seen: {tally:?}");
}

#[test]
#[ignore = "run in a process of its own, by the tests above"]
fn child_runs_cases() {
    let Some((folder, cases)) = children::settings(CASES) else { return };
    let (series, seed) = cases.split_once(' ').unwrap();
    let (series, seed) = (Series::ALL[series.parse::<usize>().unwrap()], seed.parse().unwrap());
    let models = series.models();
    let at = File::create(case_file(&folder)).unwrap();
    let (mut tally, mut wrong) = (Tally::default(), 0);
    for number in 0..series.files() {
        at.write_all_at(&number.to_le_bytes(), 0).unwrap();
        let case = Case::new(series, &models, seed, number);
        if catch_unwind(AssertUnwindSafe(|| case.run(&mut tally))).is_err() {
            keep(series, &models, seed, number);
            wrong += 1;
        }
        if wrong == WRONG_MAX {
            break;
        }
        if (number + 1).is_multiple_of(BATCH) || number + 1 == series.files() {
            children::say(&std::mem::take(&mut tally).counts().map(|count| count.to_string()).join(" "));
        }
    }
    if wrong > 0 {
        std::process::exit(TREATED_WRONGLY);
    }
}

/// Whoever looks for faults of memory must find this one.
#[test]
#[ignore = "a fault, for `cargo xtask sanitize` to find"]
fn planted_overflow() {
    if variable("CASBLOCK_TEST_PLANT").is_none() {
        return;
    }
    let bytes = vec![0u8; 16].into_boxed_slice();
    let behind = bytes.as_ptr().wrapping_add(std::hint::black_box(bytes.len()));
    // SAFETY: none. It is behind the box.
    let beyond = unsafe { behind.read_volatile() };
    std::hint::black_box(beyond);
}
