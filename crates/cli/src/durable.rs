//! Durability on the command line: `--durability`, opening a store that may have to be recovered, `casblock sync`.

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use casblock::{Durability, Error, OpenOptions, Store};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::number::grouped;
use crate::output::Output;
use crate::target::{Device, Target};

/// `--durability`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum DurabilityArg {
    /// It survives the death of any process; the fastest
    Process,
    /// It survives a cut of the power as well
    Power,
}

impl From<DurabilityArg> for Durability {
    fn from(durability: DurabilityArg) -> Self {
        match durability {
            DurabilityArg::Process => Self::Process,
            DurabilityArg::Power => Self::Power,
        }
    }
}

impl DurabilityArg {
    /// The word for it on the command line.
    pub fn name(durability: Durability) -> &'static str {
        match durability {
            Durability::Process => "process",
            Durability::Power => "power",
            _ => "unknown",
        }
    }
}

/// Opens a store; if it must be recovered, shows a bar, and says afterwards on stderr what was done.
pub fn open(path: &Path, options: OpenOptions, output: &Output) -> anyhow::Result<Store> {
    let mut progress = None;
    let store = options.open_with_progress(path, |done, all| {
        progress.get_or_insert_with(|| output.progress("recovering", all)).set(done);
    })?;
    drop(progress);
    if let Some(recovery) = store.recovery() {
        eprintln!(
            "casblock: {}: recovered {} blocks in {:.1} s; {} updates of {} blocks had not been synced, and were lost",
            path.display(),
            grouped(recovery.blocks),
            recovery.duration_us as f64 / 1e6,
            grouped(recovery.updates_discarded),
            grouped(recovery.blocks_rolled_back),
        );
    }
    Ok(store)
}

/// An error unless updates of the target can be made durable.
pub fn require_power(device: &Device, target: &Target) -> anyhow::Result<()> {
    match device.as_store().map(|store| store.geometry().durability_class()) {
        None | Some(Durability::Power) => Ok(()),
        Some(_) => Err(Error::NotPower).with_context(|| target.to_string()),
    }
}

/// Puts on the disk all updates made so far, by whomever
///
/// Returns when they are there. In a store of durability `power` they then survive a cut of the power, whatever is updated
/// afterwards; in one of durability `process` only if nothing is. A disk empties its write cache.
#[derive(Args, Debug)]
pub struct SyncArgs {
    /// The store, or scsi:/dev/sdX
    target: Target,
}

/// `casblock sync`.
pub fn sync(args: &SyncArgs, output: &Output) -> anyhow::Result<ExitCode> {
    let opened = match &args.target {
        // Emptying its cache harms no one who uses it.
        Target::Scsi(_) => args.target.open_to_read()?,
        Target::Store(path) => Device::Store(open(path, OpenOptions::new(), output)?),
    };
    opened.as_device().flush().with_context(|| args.target.to_string())?;
    let durability = opened.as_store().map(|store| DurabilityArg::name(store.geometry().durability_class()));
    output.result(&Synced { synced: true, durability })?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Serialize)]
struct Synced {
    synced: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    durability: Option<&'static str>,
}

impl fmt::Display for Synced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("synced")
    }
}
