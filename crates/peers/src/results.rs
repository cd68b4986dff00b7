//! What a run measured: what the reports show, and what is in the JSON.

use serde::{Deserialize, Serialize};

/// A median with its spread over the rounds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Figure {
    /// The median.
    pub median: f64,
    /// The first quartile.
    pub low: f64,
    /// The third quartile.
    pub high: f64,
}

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The command.
    pub command: String,
    /// When it began, in seconds since 1970.
    pub began_unix_s: u64,
    /// How long it took.
    pub took_s: f64,
    /// What it ran on.
    pub machine: Machine,
    /// The contestants: name, and how each is used.
    pub contestants: Vec<Contestant>,
    /// What was measured, in the order in which one reads it.
    pub sections: Vec<Section>,
    /// The targets of this project, and whether this run met them.
    pub targets: Vec<Target>,
}

/// What a run ran on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Threads that run at once.
    pub cores: usize,
    /// The kernel.
    pub kernel: String,
    /// The compiler.
    pub rustc: String,
    /// Whether threads were pinned to cores.
    pub pinned: bool,
    /// The file system that the files were on, and of those that are flushed.
    pub file_systems: [String; 2],
}

/// A contestant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Contestant {
    /// Its name, as in the rows.
    pub name: String,
    /// Its version and options.
    pub used: String,
    /// What of it survives the death of a process that uses it, in a few words.
    pub survives: String,
}

/// One workload, and what each contestant made of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Section {
    /// What JSON and links call it.
    pub id: String,
    /// Its heading.
    pub title: String,
    /// What one operation is, and what is compared: a sentence or two.
    pub about: String,
    /// What was measured of each row, the most important first.
    pub measures: Vec<Measure>,
    /// If the rows lie along an axis: what it is.
    pub axis: Option<Axis>,
    /// casblock first, limits last.
    pub rows: Vec<Row>,
}

/// An axis along which rows lie.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Axis {
    /// What it shows: threads, blocks, …
    pub label: String,
    /// Whether each step of it is twice the last.
    pub doubles: bool,
}

/// What was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measure {
    /// Its label: time, p99.9, …
    pub label: String,
    /// Its unit: ns, ops/s, bytes, …
    pub unit: Unit,
    /// Whether less of it is better.
    pub less_is_better: bool,
    /// Whether a plot shows it.
    pub plotted: bool,
}

/// A unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Nanoseconds.
    Nanoseconds,
    /// Operations, or attempts, a second.
    PerSecond,
    /// Bytes.
    Bytes,
    /// Percent.
    Percent,
    /// A count.
    Count,
}

/// What a row is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// casblock.
    Casblock,
    /// Another contestant.
    Peer,
    /// What no store can beat.
    Limit,
}

/// What was measured of one contestant, at one place of the axis.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Whose.
    pub who: String,
    /// What that is.
    pub kind: Kind,
    /// Where on the axis.
    pub at: Option<f64>,
    /// One for each of the section's measures; none where it was not measured.
    pub figures: Vec<Option<Figure>>,
    /// casblock's first measure in the same rounds, divided by this one's.
    pub ratio: Option<Figure>,
}

/// A target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Target {
    /// What should hold.
    pub text: String,
    /// What was measured.
    pub measured: f64,
    /// What it should be, at most or at least.
    pub limit: f64,
    /// Whether less is better.
    pub less_is_better: bool,
    /// Whether it held.
    pub met: bool,
}
