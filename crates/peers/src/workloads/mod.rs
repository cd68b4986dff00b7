//! What is measured: each file gives sections of the report.

mod alone;
mod caches;
mod contended;
mod durable;
mod growth;
mod limits;
mod old_way;
mod processes;
mod stopped;
mod team;

use std::path::{Path, PathBuf};

use anyhow::Result;
use casblock_traces::Trace;

use crate::cores::Cores;
use crate::measure::Effort;
use crate::results::{Contestant, Measure, Row, Section, Unit};

pub use processes::{Errand, run_errand};

/// How each contestant is used, and what of it survives.
pub fn contestants() -> Vec<Contestant> {
    [team::contestants(), caches::contestants()].concat()
}

/// What all workloads need.
pub struct Ground {
    /// How long they may take.
    pub effort: Effort,
    /// The machine's cores.
    pub cores: Cores,
    /// A folder in memory, if there is such a file system: for what is not flushed.
    pub memory: PathBuf,
    /// A folder on a disk.
    pub disk: PathBuf,
    /// A trace of a disk's requests, and its file, if there is one.
    pub trace: Option<(PathBuf, Trace)>,
}

/// A new folder in `within`, which goes with what it holds.
fn folder(within: &Path) -> Result<tempfile::TempDir> {
    Ok(tempfile::tempdir_in(within)?)
}

/// A part of the run: what it is called, and what it measures.
pub type Part = (&'static str, fn(&Ground) -> Result<Vec<Section>>);

/// All parts, in the order of the report.
pub const PARTS: [Part; 9] = [
    ("alone", alone::run),
    ("together", contended::two_threads),
    ("contended", contended::run),
    ("processes", processes::run),
    ("stopped", stopped::run),
    ("durable", durable::run),
    ("old-way", old_way::run),
    ("growth", growth::run),
    ("caches", caches::run),
];

/// A section that measures the time of an operation.
fn timed(id: &str, title: &str, about: &str, rows: Vec<Row>) -> Section {
    section(id, title, about, &[("time", Unit::Nanoseconds, true, true)], rows)
}

/// A section; each measure is its label, unit, whether less is better, whether a plot shows it.
fn section(id: &str, title: &str, about: &str, measures: &[(&str, Unit, bool, bool)], rows: Vec<Row>) -> Section {
    let measure = |&(label, unit, less_is_better, plotted): &(&str, Unit, bool, bool)| Measure {
        label: label.to_owned(),
        unit,
        less_is_better,
        plotted,
    };
    let measures = measures.iter().map(measure).collect();
    Section { id: id.to_owned(), title: title.to_owned(), about: about.to_owned(), measures, axis: None, rows }
}
