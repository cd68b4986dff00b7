//! What others notice of a process that is stopped in the middle of an update: nothing, if nobody waits for anybody.
//!
//! `cargo bench --bench stopped`. Rounds with a stopped process take turns with rounds without one; each figure is the
//! median of its rounds. The store's file lies in memory where there is a file system for that, so that no disk is
//! measured.

#[cfg(target_os = "linux")]
fn main() {
    match std::env::var_os(linux::VICTIM) {
        Some(path) => linux::be_victim(path.as_ref()),
        // Not in `cargo test`.
        None if std::env::args().any(|argument| argument == "--bench") => linux::compare(),
        None => {}
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
mod linux {
    use std::path::Path;
    use std::process::{Child, Command, Stdio};
    use std::sync::Barrier;
    use std::time::{Duration, Instant};

    use casblock::{Comparison, Geometry, Store, Writer};
    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    use nix::unistd::Pid;

    /// Names the store's file to the victim, and by that tells it what it is.
    pub const VICTIM: &str = "CASBLOCK_BENCH_VICTIM";

    const BLOCK: usize = 512;
    const THREADS: usize = 2;
    const ROUNDS: usize = 21;
    const ATTEMPTS: usize = 1_000_000;

    /// The words in which the victim counts the updates it has begun, and those it has done.
    const BEGUN: u64 = 0;
    const DONE: u64 = 1;

    /// Compare-and-writes of random blocks, each with what it last found there as what it expects.
    struct Worker {
        writer: Writer,
        random: fastrand::Rng,
        known: Vec<[u8; BLOCK]>,
        fill: u8,
    }

    impl Worker {
        fn new(store: &Store, seed: u64) -> Self {
            let writer = store.writer().expect("a slot");
            let known = vec![[0; BLOCK]; store.geometry().block_count() as usize];
            Self { writer, random: fastrand::Rng::with_seed(seed), known, fill: 0 }
        }

        fn attempt(&mut self) {
            let lba = self.random.usize(..self.known.len());
            self.fill = self.fill.wrapping_add(1);
            let (known, new) = (&mut self.known[lba], [self.fill; BLOCK]);
            match self.writer.compare_and_write_or_load(lba as u64, known, &new).expect("in range") {
                Comparison::Written => *known = new,
                Comparison::Miscompare { .. } => {}
            }
        }
    }

    /// In the victim: updates until it is killed, or its parent is gone.
    pub fn be_victim(path: &Path) {
        let parent = std::os::unix::process::parent_id();
        let store = Store::open(path).expect("a store");
        let mut worker = Worker::new(&store, 0);
        let (begun, done) = (store.word(BEGUN).expect("a word"), store.word(DONE).expect("a word"));
        while std::os::unix::process::parent_id() == parent {
            for _ in 0..1000 {
                begun.compare_exchange(begun.load(), begun.load() + 1).expect("nobody else's");
                worker.attempt();
                done.compare_exchange(done.load(), done.load() + 1).expect("nobody else's");
            }
        }
    }

    /// A process that stands still in the middle of an update, until this goes out of scope.
    struct Victim {
        process: Child,
    }

    impl Victim {
        fn stop(path: &Path, store: &Store) -> Self {
            let executable = std::env::current_exe().expect("this executable");
            let process = Command::new(executable).env(VICTIM, path).stdin(Stdio::null()).spawn().expect("a process");
            let victim = Self { process };
            let pid = Pid::from_raw(victim.process.id() as i32);
            let word = |index| store.read_word(index).expect("a word");
            let before = word(DONE);
            loop {
                std::thread::sleep(Duration::from_micros(fastrand::u64(1000..3000)));
                kill(pid, Signal::SIGSTOP).expect("the victim is there");
                let stopped = waitpid(pid, Some(WaitPidFlag::WUNTRACED)).expect("the victim is there");
                assert_eq!(stopped, WaitStatus::Stopped(pid, Signal::SIGSTOP));
                if word(DONE) > before && word(BEGUN) != word(DONE) {
                    return victim;
                }
                kill(pid, Signal::SIGCONT).expect("the victim is there");
            }
        }
    }

    impl Drop for Victim {
        fn drop(&mut self) {
            self.process.kill().expect("the victim is there");
            self.process.wait().expect("the victim is there");
        }
    }

    /// What a round gives: nanoseconds, and attempts a microsecond.
    const FIGURES: [&str; 5] = ["p50, ns", "p99, ns", "p99.9, ns", "max, ns", "per µs"];
    type Figures = [f64; FIGURES.len()];

    /// A round of attempts by all threads.
    fn round(store: &Store) -> Figures {
        let barrier = Barrier::new(THREADS);
        let run = |seed| {
            let mut worker = Worker::new(store, seed);
            (0..ATTEMPTS / 10).for_each(|_| worker.attempt());
            let mut times = Vec::with_capacity(ATTEMPTS);
            barrier.wait();
            let start = Instant::now();
            let mut last = start;
            for _ in 0..ATTEMPTS {
                worker.attempt();
                let now = Instant::now();
                times.push((now - last).as_nanos() as u64);
                last = now;
            }
            (times, last - start)
        };
        let (mut times, durations): (Vec<_>, Vec<_>) = std::thread::scope(|scope| {
            let threads: Vec<_> = (1..=THREADS as u64).map(|seed| scope.spawn(move || run(seed))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).unzip()
        });
        let mut times: Vec<u64> = times.drain(..).flatten().collect();
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize] as f64;
        let slowest = durations.iter().max().expect("threads").as_secs_f64();
        [at(0.5), at(0.99), at(0.999), at(1.0), (THREADS * ATTEMPTS) as f64 / slowest / 1e6]
    }

    fn medians(rounds: &[Figures]) -> Figures {
        std::array::from_fn(|figure| {
            let mut values: Vec<_> = rounds.iter().map(|round| round[figure]).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        })
    }

    /// Runs all and prints the table.
    pub fn compare() {
        println!("Compare-and-writes by {THREADS} threads, while another process is stopped in the middle");
        println!("of an update of the same blocks, and without it. Medians of {ROUNDS} rounds each.\n");
        print!("{:<24}", "");
        FIGURES.iter().for_each(|figure| print!("{figure:>11}"));
        println!();
        for (name, blocks) in [("one block", 1), ("random, 1,024 blocks", 1024)] {
            let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
            let path = folder.path().join("store");
            let store = Store::create(&path, Geometry::blocks(blocks)).expect("room");
            let (mut without, mut with) = (Vec::new(), Vec::new());
            for number in 0..2 * ROUNDS {
                // One without, two with, two without, and so on: what drifts does so for both.
                if [0, 3].contains(&(number % 4)) {
                    without.push(round(&store));
                } else {
                    let _victim = Victim::stop(&path, &store);
                    with.push(round(&store));
                }
            }
            let (without, with) = (medians(&without), medians(&with));
            println!("{name}");
            print_row("  nobody stopped", &without);
            print_row("  one stopped", &with);
            print!("{:<24}", "  ratio");
            without.iter().zip(&with).for_each(|(without, with)| print!("{:>11.2}", with / without));
            println!("\n");
        }
    }

    fn print_row(name: &str, figures: &Figures) {
        print!("{name:<24}");
        figures.iter().zip(FIGURES).for_each(|(value, figure)| {
            let decimals = if figure.ends_with("ns") { 0 } else { 2 };
            print!("{value:>11.decimals$}");
        });
        println!();
    }
}
