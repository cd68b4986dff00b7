//! Building and running the loom models, each in a process of its own.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::mutants::{Mutant, Part};
use super::tree::Tree;
use crate::binaries::{self, Binary, is_twin};
use crate::suites::libtest;
use crate::workspace::{LONG, cargo, for_loom, pretty, target};

/// What came of a weakening.
#[derive(Debug)]
pub enum Verdict {
    /// A model failed.
    Caught {
        /// Its name.
        model: String,
        /// How it failed, where not by an assertion.
        how: Option<&'static str>,
    },
    /// All models passed.
    Survived,
    /// None failed, but the time was up.
    TimedOut {
        /// A model that was running then.
        model: String,
    },
    /// The sources did not compile.
    NotBuilt {
        /// What the compiler said.
        log: PathBuf,
    },
}

impl Verdict {
    /// Whether a model failed.
    pub fn is_caught(&self) -> bool {
        matches!(self, Self::Caught { .. })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caught { model, how: None } => write!(f, "caught by {model}"),
            Self::Caught { model, how: Some(how) } => write!(f, "caught by {model} ({how})"),
            Self::Survived => write!(f, "SURVIVED"),
            Self::TimedOut { model } => write!(f, "TIMED OUT in {model}"),
            Self::NotBuilt { log } => write!(f, "DOES NOT BUILD, see {}", log.display()),
        }
    }
}

/// A model: a test function of a test binary.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Model {
    binary: String,
    name: String,
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.binary, self.name)
    }
}

/// The models of a part, without the twins: those fail as they are.
pub struct Models {
    part: &'static Part,
    tree: PathBuf,
    logs: PathBuf,
    /// How long each takes when nothing is weakened.
    times: HashMap<Model, Duration>,
    /// Which of them caught a weakening of a function.
    catchers: HashSet<(String, Model)>,
}

impl Models {
    /// Runs the models whose name contains `pattern` over the copy as it is: all must pass.
    pub fn control(tree: &Tree, part: &'static Part, pattern: Option<&str>) -> Result<Self> {
        let logs = target().join("weaken/logs");
        fs::create_dir_all(&logs)?;
        let (times, catchers) = (HashMap::new(), HashSet::new());
        let mut models = Self { part, tree: tree.folder.clone(), logs, times, catchers };
        let log = models.logs.join("control.log");
        let Some(binaries) = models.build(&log)? else { bail!("the models do not build; see {}", log.display()) };
        let mut queue = VecDeque::new();
        for binary in &binaries {
            let model = |name| Model { binary: binary.name.clone(), name };
            queue.extend(binary.tests()?.into_iter().map(model));
        }
        queue.retain(|model| !is_twin(&model.name));
        queue.retain(|model| pattern.is_none_or(|pattern| model.to_string().contains(pattern)));
        if queue.is_empty() {
            return Ok(models);
        }
        let run = Run::new(&binaries, queue, None, log.clone());
        let (ended, times) = run.all()?;
        if let Some((model, end)) = ended {
            bail!("the control failed: {model}: {end:?} over the orderings as they are; see {}", log.display());
        }
        models.times = times;
        Ok(models)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Builds the weakened copy and runs the models over it until one fails.
    pub fn judge(&mut self, mutant: &Mutant, number: usize, limit: Duration) -> Result<Verdict> {
        let log = self.logs.join(format!("{number:03}.log"));
        let deadline = Instant::now() + limit;
        let Some(binaries) = self.build(&log)? else { return Ok(Verdict::NotBuilt { log }) };
        let mut order: Vec<_> = self.times.keys().cloned().collect();
        // The likeliest first, then the fastest: one failure ends it.
        let is_new = |model: &Model| !self.catchers.contains(&(mutant.function.clone(), model.clone()));
        order.sort_by_key(|model| (is_new(model), self.times[model], model.to_string()));
        let (ended, _) = Run::new(&binaries, order.into(), Some(deadline), log).all()?;
        Ok(match ended {
            None => Verdict::Survived,
            Some((model, End::TimedOut)) => Verdict::TimedOut { model: model.to_string() },
            Some((model, End::Failed(how))) => {
                let name = model.to_string();
                self.catchers.insert((mutant.function.clone(), model));
                Verdict::Caught { model: name, how }
            }
        })
    }

    /// Builds the test binaries; nothing if they do not compile.
    fn build(&self, log: &Path) -> Result<Option<Vec<Binary>>> {
        let mut command = cargo("test -p loom-tests --release");
        let flags = format!("--cap-lints warn -A unused {}", self.part.flags);
        for_loom(&mut command, &flags, &target().join(self.part.build));
        command.current_dir(&self.tree);
        let binaries = binaries::build(&mut command, File::create(log)?)?;
        let is_meant = |binary: &Binary| self.part.binaries.is_empty() || self.part.binaries.contains(&&*binary.name);
        Ok(binaries.map(|binaries| binaries.into_iter().filter(is_meant).collect()))
    }
}

/// How a model that did not pass ended.
#[derive(Clone, Copy, Debug)]
enum End {
    Failed(Option<&'static str>),
    TimedOut,
}

/// Models being run, as many at once as there are processors.
struct Run<'r> {
    binaries: &'r [Binary],
    deadline: Option<Instant>,
    /// Whether nothing is weakened. The control takes as long as it takes, and says what it does.
    is_control: bool,
    log: PathBuf,
    queue: Mutex<VecDeque<Model>>,
    /// The first that did not pass.
    ended: Mutex<Option<(Model, End)>>,
    times: Mutex<HashMap<Model, Duration>>,
}

/// Locks, whatever became of the thread that had it.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Ended = (Option<(Model, End)>, HashMap<Model, Duration>);

impl<'r> Run<'r> {
    fn new(binaries: &'r [Binary], queue: VecDeque<Model>, deadline: Option<Instant>, log: PathBuf) -> Self {
        let (queue, ended, times) = (Mutex::new(queue), Mutex::new(None), Mutex::new(HashMap::new()));
        Self { binaries, deadline, is_control: deadline.is_none(), log, queue, ended, times }
    }

    /// Runs the models until one does not pass. Gives that, and the times of those that did.
    fn all(self) -> Result<Ended> {
        let workers = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            let threads: Vec<_> = (0..workers)
                .map(|worker| {
                    scope.spawn({
                        let run = &self;
                        move || run.work(worker)
                    })
                })
                .collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("a worker does not panic"))
        })?;
        Ok((lock(&self.ended).take(), std::mem::take(&mut *lock(&self.times))))
    }

    fn work(&self, worker: usize) -> Result<()> {
        let log = self.log.with_extension(format!("{worker}.log"));
        while lock(&self.ended).is_none() {
            let Some(model) = lock(&self.queue).pop_front() else { break };
            let started = Instant::now();
            match self.one(&model, &log)? {
                Some(end) => {
                    let mut ended = lock(&self.ended);
                    if ended.is_none() {
                        *ended = Some((model, end));
                        fs::rename(&log, &self.log)?;
                    }
                }
                None => {
                    let time = started.elapsed();
                    if self.is_control {
                        println!("  {model} ({})", pretty(time));
                    }
                    lock(&self.times).insert(model, time);
                }
            }
        }
        let _ = fs::remove_file(log);
        Ok(())
    }

    /// Runs one model; `None` if it passed, or does not matter any more.
    fn one(&self, model: &Model, log: &Path) -> Result<Option<End>> {
        let binary = self.binaries.iter().find(|binary| binary.name == model.binary);
        let binary = binary.with_context(|| format!("{} was not built", model.binary))?;
        let output = File::create(log)?;
        let mut command = binary.command(&["--exact", &model.name, "--test-threads", "1", "--nocapture"]);
        command.env(LONG, "1");
        let mut child = command.stdout(output.try_clone()?).stderr(output).spawn()?;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            let timed_out = self.deadline.is_some_and(|deadline| Instant::now() > deadline);
            if timed_out || lock(&self.ended).is_some() {
                child.kill()?;
                child.wait()?;
                return Ok(timed_out.then_some(End::TimedOut));
            }
            thread::sleep(Duration::from_millis(10));
        };
        let text = String::from_utf8_lossy(&fs::read(log)?).into_owned();
        if status.success() {
            ensure!(libtest::count(&text).passed == 1, "{model} did not run; see {}", log.display());
            return Ok(None);
        }
        let how = if text.contains("exceeded maximum number of branches") {
            Some("does not end")
        } else if status.code().is_none() {
            Some("aborts")
        } else {
            None
        };
        Ok(Some(End::Failed(how)))
    }
}
