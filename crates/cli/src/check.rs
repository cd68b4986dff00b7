//! `casblock check`.

use std::fmt;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use casblock::OpenOptions;
use clap::Args;
use serde::Serialize;

use crate::durable;
use crate::number::grouped;
use crate::output::Output;
use crate::target::Target;

/// Verifies a store's invariants, and puts right what can be
///
/// Others may use the store meanwhile: then what moves is looked at several times, and what is told is a strong hint.
/// With --exclusive it is proof. In a store of durability `power` each block is also compared with its checksum.
///
/// Exit status: 0 if all hold (after a repair: then), 1 if not or if the store cannot be checked.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// The store
    store: Target,
    /// Only if nobody else has it open; nobody can open it until that is done
    #[arg(long)]
    exclusive: bool,
    /// Put right what is wrong, as far as nothing has to be invented, and say what was done, block by block
    ///
    /// Frames that were lost are given back, slots that make no sense emptied; blocks whose cell is damaged are rebuilt
    /// from the stamps of a store of durability `power`.
    #[arg(long, requires = "exclusive")]
    repair: bool,
    /// Before that, recover it as after a cut of the power, even if it does not look as if it needed to be
    ///
    /// After a disk was pulled out while the machine went on, or after a copy of a store in use was written over its file.
    #[arg(long, requires = "exclusive")]
    recover: bool,
}

/// `casblock check`.
pub fn check(args: &CheckArgs, output: &Output) -> anyhow::Result<ExitCode> {
    let options = match args {
        CheckArgs { recover: true, .. } => OpenOptions::new().recover(),
        CheckArgs { exclusive: true, .. } => OpenOptions::new().exclusive(),
        _ => OpenOptions::new().read_only(),
    };
    let store = durable::open(args.store.store("invariants to check")?, options, output)?;
    if args.recover && store.recovery().is_none() {
        bail!("{}: durability `process` has nothing to recover from", args.store);
    }
    let geometry = *store.geometry();
    let progress = output.progress("checking", geometry.block_count());
    let mut found = store.check_with(|blocks| progress.set(blocks));
    drop(progress);
    if args.repair {
        let mut told = Ok(());
        let repaired = store.repair(|repair| {
            let line = output.result(&Repaired {
                repair: repair.name(),
                mended: repair.is_mended(),
                text: repair.to_string(),
            });
            told = std::mem::replace(&mut told, Ok(())).and(line);
        });
        found = repaired.with_context(|| args.store.to_string())?;
        told.context("writing to stdout")?;
    }
    let report = Report {
        blocks_written: found.blocks_written,
        frames_in_use: found.frames_in_use,
        frames_leaked: found.frames_leaked,
        frames_doubly_owned: found.frames_doubly_owned,
        cells_out_of_range: found.cells_out_of_range,
        slots_damaged: found.slots_damaged,
        blocks_misstamped: found.blocks_misstamped,
        blocks_damaged: found.blocks_damaged,
        frames_in_limbo: found.frames_in_limbo,
        exclusive: found.exclusive,
        clean: found.is_clean(),
        blocks: geometry.block_count(),
        frames: geometry.frame_count(),
    };
    output.result(&report)?;
    Ok(if report.clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a repair did, or could not.
#[derive(Serialize)]
struct Repaired {
    repair: &'static str,
    mended: bool,
    text: String,
}

impl fmt::Display for Repaired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a check found.
#[derive(Serialize)]
struct Report {
    blocks_written: u64,
    frames_in_use: u64,
    frames_leaked: u64,
    frames_doubly_owned: u64,
    cells_out_of_range: u64,
    slots_damaged: u64,
    blocks_misstamped: u64,
    blocks_damaged: u64,
    frames_in_limbo: u64,
    exclusive: bool,
    clean: bool,
    #[serde(skip)]
    blocks: u64,
    #[serde(skip)]
    frames: u64,
}

impl Report {
    /// The faults: how many of each, what they are called, and what each means.
    fn faults(&self) -> [(u64, &'static str, &'static str); 6] {
        [
            (
                self.frames_leaked,
                "frames leaked      ",
                "That many frames hold no block and serve no writer: room is lost, contents are not.",
            ),
            (
                self.frames_doubly_owned,
                "frames doubly owned",
                "That many frames are in two places at once: a write of one block may change another.\n\
                 Stop using the store; export what you need, or restore it from a copy.",
            ),
            (
                self.cells_out_of_range,
                "cells out of range ",
                "That many blocks name a frame that does not exist: their contents cannot be read.\n\
                 The file was damaged from outside; restore it from a copy.",
            ),
            (
                self.slots_damaged,
                "slots damaged      ",
                "That many writer slots name what does not exist: a writer that gets one is refused.\n\
                 The file was damaged from outside; the blocks can be read and exported.",
            ),
            (
                self.blocks_misstamped,
                "blocks misstamped  ",
                "That many blocks have a frame that is stamped as holding something else: they may be another's,\n\
                 and would not survive a cut of the power.",
            ),
            (
                self.blocks_damaged,
                "blocks damaged     ",
                "That many blocks do not match their checksum. Restore them from a copy.",
            ),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "blocks written       {} of {}", grouped(self.blocks_written), grouped(self.blocks))?;
        writeln!(f, "frames in use        {} of {}", grouped(self.frames_in_use), grouped(self.frames))?;
        if self.frames_in_limbo > 0 {
            writeln!(f, "waiting for a sync   {}", grouped(self.frames_in_limbo))?;
        }
        for (count, name, meaning) in self.faults() {
            writeln!(f, "{name}  {}", grouped(count))?;
            if count > 0 {
                for line in meaning.lines() {
                    writeln!(f, "  {line}")?;
                }
            }
        }
        f.write_str(match (self.clean, self.exclusive) {
            (true, true) => "clean: every invariant holds",
            (true, false) => "clean, as far as one can tell while others may use it; --exclusive makes sure",
            (false, true) => "NOT clean",
            (false, false) => "NOT clean, as far as one can tell while others may use it; --exclusive makes sure",
        })
    }
}
