//! Boots User-Mode Linux, and sees that it ends.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, PipeReader, Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process_group, setrlimit,
    test_kill_process_group, waitid, waitpgid,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::folder::{Ended, Folder, Stage, Step};
use super::kernel::Kernel;

/// The machine's memory. The host gives as much of it as is used.
const MEMORY_MIB: u64 = 512;

/// How long the machine may take to boot, to go from one step to the next, and to halt. It takes a few seconds.
const AROUND_LIMIT: Duration = Duration::from_secs(120);

/// How often it is looked at.
const POLL: Duration = Duration::from_millis(20);

/// A machine.
pub struct Machine<'a> {
    /// Its kernel.
    pub kernel: &'a Kernel,
    /// Whether what steps write is passed on at once.
    pub follows: bool,
}

/// How a machine ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// All steps ran, and it halted.
    Done,
    /// The disks could not be made: why.
    Trouble(String),
    /// The kernel panicked: what it said.
    Panicked(String),
    /// A step took too long: its index, and its limit.
    StepLimit(usize, Duration),
    /// It did not boot, go on to the next step, or halt, in time: how many steps had ended.
    AroundLimit(usize),
    /// A signal asked for it.
    Interrupted,
    /// The process ended for none of these reasons.
    Stopped(ExitStatus),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => write!(f, "all steps ran"),
            Self::Trouble(why) => write!(f, "inside User-Mode Linux: {why}"),
            Self::Panicked(line) => write!(f, "{line}"),
            Self::StepLimit(step, limit) => write!(f, "step {} took longer than {limit:?}", step + 1),
            Self::AroundLimit(0) => write!(f, "User-Mode Linux did not boot within {AROUND_LIMIT:?}"),
            Self::AroundLimit(steps) => write!(f, "User-Mode Linux hangs after step {steps}"),
            Self::Interrupted => write!(f, "interrupted"),
            Self::Stopped(status) => write!(f, "User-Mode Linux stopped ({status})"),
        }
    }
}

/// What came of a machine.
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// What came of each step.
    pub steps: Vec<Ended>,
    /// What the kernel and the first process said.
    pub console: String,
    /// What must be gone by now.
    pub traces: Traces,
}

/// What a machine leaves behind: nothing.
pub struct Traces {
    group: Pid,
    folder: PathBuf,
}

impl Traces {
    /// What is still there.
    pub fn left(&self) -> Option<String> {
        if test_kill_process_group(self.group).is_ok() {
            return Some(format!("processes of the group {} are left", self.group.as_raw_nonzero()));
        }
        self.folder.exists().then(|| format!("{} is left", self.folder.display()))
    }
}

impl Machine<'_> {
    /// Boots a machine which runs the steps one after another, whether they succeed or not, and halts.
    pub fn run(&self, steps: &[Step]) -> Result<Outcome> {
        let interrupt = Interrupt::new()?;
        let folder = Folder::new(self.kernel, steps)?;
        let (mut process, console) = Process::start(self.kernel, &folder)?;
        let mut follower = self.follows.then(|| Follower::new(&folder, steps.len()));
        let mut clock = Clock::new(Instant::now());
        let end = loop {
            if let Some(follower) = &mut follower {
                follower.pass_on();
            }
            if process.has_ended()? {
                break None;
            }
            if interrupt.is_set() {
                break Some(End::Interrupted);
            }
            if let Some(end) = clock.over(folder.stage(steps.len()), steps, Instant::now()) {
                break Some(end);
            }
            thread::sleep(POLL);
        };
        let status = process.end()?;
        let console = console.join().expect("the thread only reads");
        if let Some(follower) = &mut follower {
            follower.pass_on();
        }
        let end = end.unwrap_or_else(|| why(&folder, &console, status));
        let traces = Traces { group: process.pid, folder: folder.path().to_owned() };
        let steps = (0..steps.len()).map(|step| folder.ended(step)).collect();
        Ok(Outcome { end, steps, console, traces })
    }
}

/// Why the process ended by itself.
fn why(folder: &Folder, console: &str, status: ExitStatus) -> End {
    if folder.is_done() {
        return End::Done;
    }
    if let Some(trouble) = folder.trouble() {
        return End::Trouble(trouble);
    }
    match panic_line(console) {
        Some(line) => End::Panicked(line.to_owned()),
        None => End::Stopped(status),
    }
}

/// What the kernel says as it panics.
fn panic_line(console: &str) -> Option<&str> {
    let line = console.lines().find(|line| line.contains("Kernel panic"))?;
    Some(&line[line.find("Kernel panic").expect("it was found")..])
}

/// How long the machine has been where it is.
struct Clock {
    stage: Stage,
    since: Instant,
}

impl Clock {
    fn new(now: Instant) -> Self {
        Self { stage: Stage::Around { ended: 0 }, since: now }
    }

    /// The machine is at `stage`; is its time there over?
    fn over(&mut self, stage: Stage, steps: &[Step], now: Instant) -> Option<End> {
        if stage != self.stage {
            *self = Self { stage, since: now };
        }
        let (limit, end) = match stage {
            Stage::Step(step) => (steps[step].limit, End::StepLimit(step, steps[step].limit)),
            Stage::Around { ended } => (AROUND_LIMIT, End::AroundLimit(ended)),
        };
        (now - self.since > limit).then_some(end)
    }
}

/// Whether a signal asked to end.
struct Interrupt {
    flag: Arc<AtomicBool>,
    handlers: Vec<signal_hook::SigId>,
}

impl Interrupt {
    fn new() -> Result<Self> {
        let mut interrupt = Self { flag: Arc::default(), handlers: Vec::new() };
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            interrupt.handlers.push(signal_hook::flag::register(signal, Arc::clone(&interrupt.flag))?);
        }
        Ok(interrupt)
    }

    fn is_set(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.handlers.drain(..).for_each(|handler| {
            signal_hook::low_level::unregister(handler);
        });
    }
}

/// The process, and the processes that it makes for those inside. They end when it is dropped.
struct Process {
    child: Child,
    pid: Pid,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts it; gives what it says, too, when it has ended.
    fn start(kernel: &Kernel, folder: &Folder) -> Result<(Self, JoinHandle<String>)> {
        // What the first process leaves behind is for this process to wait for: in a container nobody else may.
        #[cfg(target_os = "linux")]
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let (reader, writer) = io::pipe()?;
        let mut command = Command::new(&kernel.linux);
        command.args(arguments(folder.path())).stdin(Stdio::null());
        command.stdout(writer.try_clone()?).stderr(writer).current_dir(folder.path());
        command.env("TMPDIR", memory_folder(folder.path())).process_group(0);
        let limits = || {
            // It aborts when it panics; nobody looks at what it would leave.
            setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
            // If this process is killed, so is the machine; it takes this signal as a reason to end its processes.
            #[cfg(target_os = "linux")]
            rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
            Ok(())
        };
        // SAFETY: between fork and exec it makes system calls, and nothing else.
        unsafe { command.pre_exec(limits) };
        let child = command.spawn().with_context(|| format!("cannot run {}", kernel.linux.display()))?;
        let pid = Pid::from_child(&child);
        // The command has the pipe's other end, which would keep the reader waiting.
        drop(command);
        Ok((Self { child, pid, status: None }, thread::spawn(|| read_all(reader))))
    }

    /// Whether the first of its processes has ended by itself. It is not waited for, so nobody else gets its number.
    fn has_ended(&self) -> Result<bool> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(waitid(WaitId::Pid(self.pid), options)?.is_some())
    }

    /// Ends all that is left of it.
    fn end(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        // The group has a member as long as the first process was not waited for.
        kill_process_group(self.pid, Signal::KILL)?;
        let status = self.child.wait()?;
        self.status = Some(status);
        // The others are children of this process by now.
        while waitpgid(self.pid, WaitOptions::empty()).is_ok() {}
        Ok(status)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nobody is left to be told.
        let _ = self.end();
    }
}

fn read_all(mut reader: PipeReader) -> String {
    let mut bytes = Vec::new();
    // What came before an error counts.
    let _ = reader.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).replace('\r', "")
}

/// The words of the machine's kernel command line.
fn arguments(folder: &Path) -> Vec<OsString> {
    // The quotation marks are for the kernel, which splits the line at spaces.
    let mut init = OsString::from("init=\"");
    init.push(folder.join("init.sh"));
    init.push("\"");
    // Where it keeps its number, for tools that are not used here.
    let mut state = OsString::from("uml_dir=");
    state.push(folder.join("state/"));
    let memory = format!("mem={MEMORY_MIB}M");
    let fixed = [
        &*memory,
        "umid=casblock",
        // The host's root is the machine's, read-only.
        "root=/dev/root",
        "rootfstype=hostfs",
        "rootflags=/",
        "ro",
        // One console, which only writes; of the kernel's messages, those that say it is broken.
        "con=null",
        "con0=null,fd:1",
        "quiet",
        "loglevel=3",
        // A fault in the kernel is the end, not something to carry on after.
        "oops=panic",
    ];
    fixed.into_iter().map(Into::into).chain([init, state]).collect()
}

/// Where the machine's memory lies, in a file: in the host's memory if there is room, and if it may be executed.
fn memory_folder(else_in: &Path) -> &Path {
    let shared = Path::new("/dev/shm");
    if has_room(shared) { shared } else { else_in }
}

#[cfg(target_os = "linux")]
fn has_room(folder: &Path) -> bool {
    use rustix::fs::{StatVfsMountFlags, statvfs};
    statvfs(folder).is_ok_and(|info| {
        info.f_bavail * info.f_frsize >= MEMORY_MIB << 20 && !info.f_flag.contains(StatVfsMountFlags::NOEXEC)
    })
}

#[cfg(not(target_os = "linux"))]
fn has_room(_: &Path) -> bool {
    false
}

/// Passes on what steps write, as they do.
struct Follower {
    files: Vec<(PathBuf, u64, Box<dyn Write>)>,
}

impl Follower {
    fn new(folder: &Folder, steps: usize) -> Self {
        let mut files = Vec::<(_, _, Box<dyn Write>)>::new();
        for step in 0..steps {
            files.push((folder.result(step, "stdout"), 0, Box::new(io::stdout())));
            files.push((folder.result(step, "stderr"), 0, Box::new(io::stderr())));
        }
        Self { files }
    }

    fn pass_on(&mut self) {
        for (path, offset, to) in &mut self.files {
            // There is no file yet; or nobody reads: neither ends the machine.
            let _ = pass_on(path, offset, to);
        }
    }
}

/// Copies what the file has from `offset` on.
fn pass_on(path: &Path, offset: &mut u64, to: &mut dyn Write) -> io::Result<()> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(*offset))?;
    *offset += io::copy(&mut file, to)?;
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_by_its_line() {
        let console = "init: hello\n[    3.2] Kernel panic - not syncing: sysrq triggered crash\nCPU: 0\n";
        assert_eq!(panic_line(console), Some("Kernel panic - not syncing: sysrq triggered crash"));
        assert_eq!(panic_line("no such thing"), None);
    }

    #[test]
    fn each_stage_has_its_own_limit() {
        let step = |seconds| Step { words: Vec::new(), folder: "/".into(), limit: Duration::from_secs(seconds) };
        let steps = [step(5), step(500)];
        let start = Instant::now();
        let mut clock = Clock::new(start);
        let mut over = |stage, seconds| clock.over(stage, &steps, start + Duration::from_secs(seconds));
        assert_eq!(over(Stage::Around { ended: 0 }, 100), None);
        assert_eq!(over(Stage::Around { ended: 0 }, 121), Some(End::AroundLimit(0)));
        assert_eq!(over(Stage::Step(0), 200), None);
        assert_eq!(over(Stage::Step(0), 205), None);
        assert_eq!(over(Stage::Step(0), 206), Some(End::StepLimit(0, Duration::from_secs(5))));
        assert_eq!(over(Stage::Step(1), 300), None);
        assert_eq!(over(Stage::Step(1), 800), None);
        assert_eq!(over(Stage::Around { ended: 2 }, 801), None);
        assert_eq!(over(Stage::Around { ended: 2 }, 922), Some(End::AroundLimit(2)));
    }

    #[test]
    fn output_is_passed_on_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.stdout");
        let (mut offset, mut passed) = (0, Vec::new());
        assert!(pass_on(&path, &mut offset, &mut passed).is_err());
        std::fs::write(&path, "one").unwrap();
        pass_on(&path, &mut offset, &mut passed).unwrap();
        std::fs::write(&path, "one, two").unwrap();
        pass_on(&path, &mut offset, &mut passed).unwrap();
        pass_on(&path, &mut offset, &mut passed).unwrap();
        assert_eq!(passed, b"one, two");
    }
}
