//! `casblock run`: commands that end in time with all they have started, signals, and waits that go on.

mod common;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{CASBLOCK, Folder};
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(20);

/// A folder with a cluster whose leases are lost 1,227 ms after a beat, of which there is one each 100 ms.
fn cluster(hosts: u32) -> Folder {
    let folder = Folder::new();
    let times = "--interval 100ms --io-timeout 300ms --stale 1500ms";
    folder.casblock(&format!("cluster init c.casb --hosts {hosts} --leases 16 {times}")).succeeds();
    folder
}

/// A `casblock run` of a script.
fn command(folder: &Folder, options: &str, script: &str) -> Command {
    let mut command = folder.command(CASBLOCK);
    command.arg("run").args(options.split_whitespace()).args(["c.casb", "--", "sh", "-c", script]);
    command
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn start(mut command: Command) -> Self {
        Self(command.spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Its exit status, and what it printed where that was a pipe.
    fn wait(mut self) -> (Option<i32>, String) {
        let mut stdout = String::new();
        if let Some(mut pipe) = self.0.stdout.take() {
            pipe.read_to_string(&mut stdout).unwrap();
        }
        (self.0.wait().unwrap().code(), stdout)
    }

    /// Stops its heart, alone of its threads, as if it waited for a disk.
    fn stop_heart(&self) -> Heart {
        let tasks = format!("/proc/{}/task", self.0.id());
        let is_heart = |path: &std::path::Path| {
            std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with("heart of"))
        };
        let mut tasks = std::fs::read_dir(tasks).unwrap().map(|task| task.unwrap().path());
        let heart = tasks.find(|path| is_heart(path)).expect("it has one");
        let thread: i32 = heart.file_name().unwrap().to_str().unwrap().parse().unwrap();
        for request in [libc::PTRACE_SEIZE, libc::PTRACE_INTERRUPT] {
            // SAFETY: neither request reads or writes memory.
            assert_eq!(unsafe { libc::ptrace(request, thread, 0, 0) }, 0, "{}", std::io::Error::last_os_error());
        }
        Heart(thread)
    }
}

/// A thread that is traced: who traces it must wait for its end.
struct Heart(i32);

impl Drop for Heart {
    fn drop(&mut self) {
        let mut status = 0;
        // SAFETY: it writes the status, no more.
        while unsafe { libc::waitpid(self.0, &raw mut status, libc::__WALL) } == self.0 && libc::WIFSTOPPED(status) {}
    }
}

/// Waits till a file is there, and has something in it or not.
fn wait_for(folder: &Folder, name: &str) -> String {
    let until = Instant::now() + PATIENCE;
    while !folder.path(name).exists() {
        assert!(Instant::now() < until, "{name} does not come");
        sleep(Duration::from_millis(5));
    }
    sleep(Duration::from_millis(50));
    std::fs::read_to_string(folder.path(name)).unwrap().trim().to_owned()
}

fn is_gone(pid: &str) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.is_empty() || state.contains(") Z ")
}

#[test]
fn a_command_is_told_to_end_before_others_may_take_its_lease() {
    let folder = cluster(8);
    let script = "trap 'touch told' TERM; touch first; while :; do sleep 0.02; done";
    let running = Running::start(command(&folder, "--lease 3 --kill-after 600ms", script));
    wait_for(&folder, "first");
    let (started, heart) = (Instant::now(), running.stop_heart());
    while !folder.path("told").exists() {
        assert!(started.elapsed() < PATIENCE, "it is not told");
        sleep(Duration::from_millis(5));
    }
    let told = started.elapsed();
    drop(heart);
    let (status, _) = running.wait();
    let ended = started.elapsed();
    assert_eq!(status, Some(128 + 9), "it does not end by itself");
    // 627 ms after a beat, and 1,227 ms after it.
    let ms = Duration::from_millis;
    assert!((ms(400)..ms(1_100)).contains(&told) && (ms(1_000)..ms(1_450)).contains(&ended), "{told:?}, {ended:?}");
}

#[test]
fn what_the_command_has_started_ends_with_it() {
    for trap in ["", "trap '' TERM;"] {
        let folder = cluster(8);
        let inner = format!("{trap} echo $$ > inner; while :; do sleep 0.02; done");
        std::fs::write(folder.path("inner.sh"), inner).unwrap();
        // The second one's parent has ended already.
        let script =
            format!("{trap} (sh inner.sh &); while ! [ -s inner ]; do sleep 0.02; done; touch first; sleep 1000; true");
        let running = Running::start(command(&folder, "--lease 3 --kill-after 300ms", &script));
        wait_for(&folder, "first");
        drop(running.stop_heart());
        let status = running.wait().0;
        assert_eq!(status, Some(128 + if trap.is_empty() { 15 } else { 9 }));
        assert!(is_gone(&wait_for(&folder, "inner")), "{trap}");
    }
}

#[test]
fn a_time_to_end_that_does_not_fit_is_refused() {
    let folder = cluster(8);
    folder
        .casblock("run --lease 3 --kill-after 900ms c.casb -- touch wrong")
        .fails(&["--kill-after 900ms: 827", "a longer stale time"]);
    assert!(!folder.path("wrong").exists());
}

#[test]
fn signals_of_all_kinds_are_passed_on() {
    let folder = cluster(8);
    for (name, signal) in [("USR1", Signal::USR1), ("USR2", Signal::USR2), ("HUP", Signal::HUP), ("QUIT", Signal::QUIT)]
    {
        let script = format!("trap 'echo told; exit 5' {name}; touch {name}; while :; do sleep 0.02; done");
        let running = Running::start(command(&folder, "--lease 3", &script));
        wait_for(&folder, name);
        running.signal(signal);
        assert_eq!(running.wait(), (Some(5), "told\n".to_owned()), "{name}");
    }
}

#[test]
fn whoever_waits_for_a_slot_can_be_interrupted() {
    let folder = cluster(1);
    let _first = Running::start(command(&folder, "--lease 3", "touch first; exec sleep 1000"));
    wait_for(&folder, "first");
    for signal in [Signal::INT, Signal::TERM, Signal::USR1] {
        let second = Running::start(command(&folder, "--lease 4", "touch wrong"));
        sleep(Duration::from_millis(200));
        second.signal(signal);
        assert_eq!(second.wait().0, Some(128 + signal.as_raw()));
    }
    assert!(!folder.path("wrong").exists());
}

#[test]
fn who_is_shut_out_while_it_waits_joins_again() {
    let folder = cluster(8);
    let first = Running::start(command(&folder, "--lease 3", "touch first; exec sleep 1000"));
    wait_for(&folder, "first");
    let second = Running::start(command(&folder, "--lease 3", "echo token $CASBLOCK_TOKEN"));
    sleep(Duration::from_millis(300));
    let times = "--interval 100ms --io-timeout 300ms --stale 1500ms";
    folder.casblock(&format!("cluster init c.casb --hosts 8 --leases 16 {times} --force")).succeeds();
    assert_eq!(second.wait(), (Some(0), "token 2\n".to_owned()));
    assert_eq!(first.wait().0, Some(128 + 15));
}

/// A terminal, and what stands on its screen.
struct Terminal(File);

impl Terminal {
    fn new() -> (Self, String) {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
        (Self(File::from(terminal)), name)
    }

    /// Runs a command in its foreground.
    fn start(mut command: Command) -> (Self, Running) {
        let (terminal, name) = Self::new();
        let end = File::options().read(true).write(true).open(name).unwrap();
        command.stdin(end.try_clone().unwrap()).stdout(end.try_clone().unwrap()).stderr(end.try_clone().unwrap());
        let become_its_session = || {
            rustix::process::setsid()?;
            // SAFETY: the request takes a number.
            match unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: between fork and exec two system calls are made, no more.
        unsafe { command.pre_exec(become_its_session) };
        let running = Running::start(command);
        assert!(end.as_raw_fd() >= 0);
        (terminal, running)
    }

    fn press_control_c(&mut self) {
        self.0.write_all(b"\x03").unwrap();
    }

    /// All that was printed, when nobody has it open any more.
    fn text(mut self) -> String {
        let mut text = Vec::new();
        // Its end is an error.
        let _ = self.0.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    }
}

const COUNTS: &str =
    "trap 'echo told' INT; touch first; n=0; while [ $n -lt 40 ]; do sleep 0.02; n=$((n+1)); done; exit 7";

#[test]
fn a_key_at_the_terminal_reaches_the_command_once() {
    let folder = cluster(8);
    let (mut terminal, running) = Terminal::start(command(&folder, "--lease 3", COUNTS));
    wait_for(&folder, "first");
    terminal.press_control_c();
    assert_eq!(running.wait().0, Some(7));
    assert_eq!(terminal.text().matches("told").count(), 1);
}

#[test]
fn a_signal_from_elsewhere_reaches_a_command_at_a_terminal() {
    let folder = cluster(8);
    let (terminal, running) = Terminal::start(command(&folder, "--lease 3", COUNTS));
    wait_for(&folder, "first");
    running.signal(Signal::INT);
    assert_eq!(running.wait().0, Some(7));
    assert_eq!(terminal.text().matches("told").count(), 1);
}

#[test]
fn a_key_before_the_command_starts_ends_the_wait() {
    let folder = cluster(8);
    let _first = Running::start(command(&folder, "--lease 3", "touch first; exec sleep 1000"));
    wait_for(&folder, "first");
    let (mut terminal, second) = Terminal::start(command(&folder, "--lease 3", "touch wrong"));
    sleep(Duration::from_millis(300));
    terminal.press_control_c();
    assert_eq!(second.wait().0, Some(128 + 2));
    assert!(!folder.path("wrong").exists());
}
