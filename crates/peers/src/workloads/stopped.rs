//! One thread stands still in the middle of what it does: who waits for it?

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fastrand::Rng;

use super::alone::SEED;
use super::team::{Contended, Rounds, Workload};
use super::{Ground, folder, section};
use crate::block::{FIRST, next};
use crate::cores::Cores;
use crate::measure::compete;
use crate::peers::{Durability, Handle, Peer};
use crate::results::{Section, Unit};

/// How long a thread is stopped.
const STOP: Duration = Duration::from_millis(10);

/// Stops the thread that gets the signal.
extern "C" fn stand_still(_: libc::c_int) {
    let time = libc::timespec { tv_sec: 0, tv_nsec: STOP.as_nanos() as libc::c_long };
    // SAFETY: nanosleep may be called in a signal handler; `time` is valid, and nobody asks for what is left of it.
    unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) };
}

/// Has SIGUSR1 stop the thread that gets it.
fn install() -> Result<()> {
    // SAFETY: all zeros are a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = stand_still as *const () as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler is a function for signals that calls only what it may.
    let done = unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) };
    ensure!(done == 0, "no handler for SIGUSR1: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Three threads update one block; the third is stopped now and then.
#[derive(Clone)]
struct Stops {
    count: usize,
    cores: Cores,
}

/// Counts attempts until it is over.
fn work(mut handle: impl Handle, attempts: &AtomicU64, over: &AtomicBool) {
    let mut known = FIRST;
    handle.read(0, &mut known);
    while !over.load(Relaxed) {
        let new = next(&known);
        if handle.compare_and_write(0, &mut known, &new) {
            known = new;
        }
        attempts.fetch_add(1, Relaxed);
    }
}

/// What the others did in a stop.
struct Stop {
    /// Attempts of the one of the two that did less.
    fewest: u64,
    /// Attempts of both, a second.
    rate: f64,
}

impl Stops {
    /// Stops the victim once at a random moment.
    fn stop(random: &mut Rng, victim: libc::pthread_t, counts: [&AtomicU64; 2]) -> Stop {
        thread::sleep(Duration::from_micros(random.u64(200..1500)));
        // SAFETY: the thread runs until it is over, which it is not yet; its handler is installed.
        unsafe { libc::pthread_kill(victim, libc::SIGUSR1) };
        // It may take a moment until it is stopped.
        thread::sleep(STOP / 10);
        let start = Instant::now();
        let before = counts.map(|count| count.load(Relaxed));
        thread::sleep(STOP * 8 / 10);
        let after = counts.map(|count| count.load(Relaxed));
        let took = start.elapsed();
        let made = [after[0] - before[0], after[1] - before[1]];
        thread::sleep(STOP / 5);
        Stop { fewest: made[0].min(made[1]), rate: (made[0] + made[1]) as f64 / took.as_secs_f64() }
    }
}

impl Workload for Stops {
    fn enter<'p, P: Peer>(&self, peer: &'p P) -> Result<Rounds<'p>> {
        install()?;
        let (this, mut random) = (self.clone(), Rng::with_seed(SEED));
        Ok(Box::new(move || {
            let (over, counts) = (AtomicBool::new(false), [const { AtomicU64::new(0) }; 3]);
            let (send, receive) = mpsc::channel();
            let stops: Vec<Stop> = thread::scope(|scope| {
                let spawn = |index: usize, count| {
                    let (over, cores, send) = (&over, &this.cores, send.clone());
                    scope.spawn(move || {
                        cores.pin(index);
                        let handle = peer.handle().expect("a handle");
                        // SAFETY: it is always there.
                        send.send((index, unsafe { libc::pthread_self() })).expect("somebody listens");
                        work(handle, count, over);
                    })
                };
                let workers: Vec<_> = counts.iter().enumerate().map(|(index, count)| spawn(index, count)).collect();
                let threads = [(); 3].map(|()| receive.recv().expect("all three come"));
                let (_, victim) = threads.into_iter().find(|(index, _)| *index == 2).expect("the third");
                let stops = (0..this.count).map(|_| Self::stop(&mut random, victim, [&counts[0], &counts[1]]));
                let stops = stops.collect();
                over.store(true, Relaxed);
                // A scope does not wait for what threads do when they end, which LMDB's still need their store for.
                workers.into_iter().for_each(|worker| worker.join().expect("no panic"));
                stops
            });
            let stood_still = stops.iter().filter(|stop| stop.fewest == 0).count();
            let rate = stops.iter().map(|stop| stop.rate).sum::<f64>() / stops.len() as f64;
            Ok(vec![100.0 * stood_still as f64 / stops.len() as f64, rate])
        }))
    }
}

/// The sections of this file.
pub fn run(ground: &Ground) -> Result<Vec<Section>> {
    let temporary = folder(&ground.memory)?;
    let team = Contended::create(temporary.path(), 1, Durability::Process)?;
    let count = (ground.effort.long_slice.as_millis() / 12).max(5) as usize;
    let workload = Stops { count, cores: ground.cores.clone() };
    let rows = compete(team.enter(&workload)?, ground.effort.long_rounds, None)?;
    let about = "Three threads count in one block; one of them is stopped for 10 ms at random moments, as by a scheduler, a \
                 debugger or a page that is not in memory. In how many of these stops did another do nothing at all, and how \
                 many attempts did the others make in a second of them?";
    let measures = [("stood still", Unit::Percent, true, true), ("attempts", Unit::PerSecond, false, true)];
    Ok(vec![section("stopped", "One thread stopped in the middle", about, &measures, rows)])
}
