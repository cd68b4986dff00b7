//! What a run ran on.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::cores::Cores;
use crate::results::Machine;

/// Asks the system; what it does not say is "unknown".
pub fn describe(cores: &Cores, memory: &Path, disk: &Path) -> Machine {
    let unknown = || "unknown".to_owned();
    let rustc = Command::new("rustc").arg("--version").output().ok().filter(|output| output.status.success());
    let pinned = cores.pin(0);
    cores.unpin();
    Machine {
        processor: processor().unwrap_or_else(unknown),
        cores: cores.count(),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
            .map_or_else(|_| unknown(), |it| format!("Linux {}", it.trim())),
        rustc: rustc.map_or_else(unknown, |output| String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        pinned,
        file_systems: [memory, disk].map(|folder| file_system(folder).unwrap_or_else(unknown)),
    }
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The kind of the file system that a folder is on.
fn file_system(folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    // The last of the longest: later mounts hide earlier ones.
    mounts.filter(|(at, _)| folder.starts_with(at)).max_by_key(|(at, _)| at.len()).map(|(_, kind)| kind.to_owned())
}
