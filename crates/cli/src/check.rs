//! `casblock check`.

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use casblock::Store;
use clap::Args;
use serde::Serialize;

use crate::number::grouped;
use crate::output::Output;

/// Verifies a store's invariants; nobody else may have it open
///
/// Exit status: 0 if all hold, 1 if not or if the store cannot be checked.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// The store
    store: PathBuf,
}

/// `casblock check`.
pub fn check(args: &CheckArgs, output: &Output) -> anyhow::Result<ExitCode> {
    let store = Store::open_exclusive(&args.store)?;
    let geometry = *store.geometry();
    let progress = output.progress("checking", geometry.block_count());
    let found = store.check_with(|blocks| progress.set(blocks));
    drop(progress);
    let report = Report {
        blocks_written: found.blocks_written,
        frames_in_use: found.frames_in_use,
        frames_leaked: found.frames_leaked,
        frames_doubly_owned: found.frames_doubly_owned,
        cells_out_of_range: found.cells_out_of_range,
        slots_damaged: found.slots_damaged,
        clean: found.is_clean(),
        blocks: geometry.block_count(),
        frames: geometry.frame_count(),
    };
    output.result(&report)?;
    Ok(if report.clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
    clean: bool,
    #[serde(skip)]
    blocks: u64,
    #[serde(skip)]
    frames: u64,
}

impl Report {
    /// The faults: how many of each, what they are called, and what each means.
    fn faults(&self) -> [(u64, &'static str, &'static str); 4] {
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
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "blocks written       {} of {}", grouped(self.blocks_written), grouped(self.blocks))?;
        writeln!(f, "frames in use        {} of {}", grouped(self.frames_in_use), grouped(self.frames))?;
        for (count, name, meaning) in self.faults() {
            writeln!(f, "{name}  {}", grouped(count))?;
            if count > 0 {
                for line in meaning.lines() {
                    writeln!(f, "  {line}")?;
                }
            }
        }
        f.write_str(if self.clean { "clean: every invariant holds" } else { "NOT clean" })
    }
}
