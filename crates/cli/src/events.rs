//! `casblock events`.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use casblock::{Event, EventBatch, EventKind, EventReader, Store};
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde::Serialize;

use crate::number::grouped;
use crate::output::Output;
use crate::signals::Interruptible;
use crate::target::store_file;

/// Shows what the store's flight recorder has, oldest first
///
/// The last events of all processes, also of those that have died: miscompares (a sample of one a second, each with how
/// many its writer met with), writer slots taken over from the dead, recoveries, damage, repairs, failed syncs, leases
/// broken. In brackets is the process that recorded it; times are UTC. At the end, how many miscompares there were in
/// all: that is counted, not sampled.
///
/// Works on read-only files. With --json each event is an object that has "kind"; the last object has "miscompares".
#[derive(Args, Debug)]
pub struct EventsArgs {
    /// The store
    #[arg(value_parser = store_file())]
    store: PathBuf,
    /// Go on with what is recorded from now on, until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Only events of this kind; may be given several times
    #[arg(long, value_name = "KIND", value_parser = PossibleValuesParser::new(EventKind::ALL.map(EventKind::name)))]
    kind: Vec<String>,
}

/// How often to look for new events.
const PERIOD: Duration = Duration::from_millis(100);

/// `casblock events`.
pub fn events(args: &EventsArgs, output: &Output) -> anyhow::Result<ExitCode> {
    let signals = args.follow.then(Interruptible::new).transpose().context("catching signals")?;
    let store = Store::open_read_only(&args.store)?;
    if store.geometry().event_count() == 0 {
        bail!("{}: has no flight recorder: it was made without, or by an older casblock", args.store.display());
    }
    let mut reader = store.event_reader();
    let mut is_read = show(&mut reader, args, output)?;
    if let Some(signals) = &signals {
        while is_read && signals.check().is_ok() {
            std::thread::sleep(PERIOD);
            is_read = show(&mut reader, args, output)?;
        }
    }
    output.result(&Summary {
        miscompares: store.miscompares().unwrap_or(0),
        events_recorded: store.events_recorded().unwrap_or(0),
        events_max: store.geometry().event_count(),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Shows what there is to read; whether anybody reads it.
fn show(reader: &mut EventReader, args: &EventsArgs, output: &Output) -> io::Result<bool> {
    let EventBatch { events, missed, .. } = reader.read();
    if missed > 0 && !output.stream(&Missed { missed })? {
        return Ok(false);
    }
    let is_wanted = |event: &&Event| args.kind.is_empty() || args.kind.iter().any(|kind| kind == event.kind.name());
    for event in events.iter().filter(is_wanted) {
        if !output.stream(&Shown::of(event))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// An event as it is shown.
#[derive(Serialize)]
struct Shown {
    number: u64,
    at: String,
    at_unix_ms: u64,
    kind: &'static str,
    process: u32,
    writer: Option<u16>,
    lba: Option<u64>,
    offset: u16,
    /// As numbers; those of a miscompare as the block's bytes.
    expected: Value,
    found: Value,
    count: u32,
    #[serde(skip)]
    text: String,
}

/// What an event expected or found.
#[derive(Serialize)]
#[serde(untagged)]
enum Value {
    Number(u64),
    Bytes(String),
}

impl Shown {
    fn of(event: &Event) -> Self {
        let value = |value: u64| match event.kind {
            EventKind::Miscompare => Value::Bytes(hex(value)),
            _ => Value::Number(value),
        };
        Self {
            number: event.number,
            at: time(event.at_unix_ms),
            at_unix_ms: event.at_unix_ms,
            kind: event.kind.name(),
            process: event.process,
            writer: event.writer,
            lba: event.lba,
            offset: event.offset,
            expected: value(event.expected),
            found: value(event.found),
            count: event.count,
            text: describe(event),
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.text.lines();
        let (at, kind, first) = (&self.at[..self.at.len() - 1], self.kind, lines.next().unwrap_or_default());
        write!(f, "{}  {kind:<14}  {first}  [{}]", at.replacen('T', " ", 1), self.process)?;
        lines.try_for_each(|line| write!(f, "\n    {line}"))
    }
}

/// What happened, in words: where, and on lines of their own what else is known.
fn describe(event: &Event) -> String {
    let Event { expected, found, offset, .. } = *event;
    let block = event.lba.map_or_else(|| "a block".into(), |lba| format!("block {lba}"));
    let writer = event.writer.map_or_else(|| "a writer".into(), |writer| format!("writer {writer}"));
    let since = match event.count {
        0 | 1 => String::new(),
        count => format!("; {} of these", grouped(count.into())),
    };
    match event.kind {
        EventKind::Miscompare => {
            format!("{block}, byte {offset}\nfound {}, expected {}{since}", hex(found), hex(expected))
        }
        EventKind::WriterAdopted if event.lba.is_some() => {
            format!("{writer}\nits last user died, perhaps while it updated {block}")
        }
        EventKind::WriterAdopted => format!("{writer}\nits last user died"),
        EventKind::LeaseBroken => format!("{block}\nfencing token {expected} became {found}{since}"),
        EventKind::HostFenced => format!("{block}\nhost {found} was shut out"),
        EventKind::Recovered => {
            format!("the store\n{} blocks; {} updates were lost", grouped(expected), grouped(found))
        }
        EventKind::Corruption if event.lba.is_some() && offset == 0 => {
            format!("{block}\nits cell holds {found:#018x}, which names no frame{since}")
        }
        EventKind::Corruption if event.lba.is_some() => {
            format!("{block}\nits frame {found} is stamped as another's{since}")
        }
        EventKind::Corruption => format!("{writer}\nits slot names what does not exist{since}"),
        EventKind::Repaired => {
            format!("{block}, the first\n{} mended, {} could not be", grouped(event.count.into()), grouped(found))
        }
        EventKind::SyncFailed => {
            let reason = i32::try_from(found).map(io::Error::from_raw_os_error);
            let reason = reason.map_or_else(|_| format!("error {found}"), |reason| reason.to_string());
            format!("the disk\n{reason}{since}")
        }
        EventKind::Unknown(number) => format!("kind {number} of a newer casblock"),
        _ => String::new(),
    }
}

/// The bytes of a block that a little-endian number is, in their order.
fn hex(value: u64) -> String {
    format!("{:016x}", value.swap_bytes())
}

/// A time as RFC 3339 writes it. Years may have more than four digits.
fn time(unix_ms: u64) -> String {
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000)
}

/// The date so many days after 1970-01-01, in the Gregorian calendar. (Days are counted from a 1 March: a leap day is
/// then a year's last. Howard Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`.)
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (400 * era + year_of_era + u64::from(month <= 2), month, day)
}

/// Events that were gone before they were read, or were damaged.
#[derive(Serialize)]
struct Missed {
    missed: u64,
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "... {} events cannot be shown: overwritten meanwhile, or damaged", grouped(self.missed))
    }
}

/// What comes after the events.
#[derive(Serialize)]
struct Summary {
    miscompares: u64,
    events_recorded: u64,
    events_max: u32,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [miscompares, recorded] = [self.miscompares, self.events_recorded].map(grouped);
        let kept = grouped(self.events_max.into());
        writeln!(f, "miscompares        {miscompares} since the store was made")?;
        write!(f, "events             {recorded} recorded, the last {kept} are kept")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates() {
        for (unix_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_000_000_000_123, "2001-09-09T01:46:40.123Z"),
            (1_735_689_599_000, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(time(unix_ms), text);
        }
        assert!(time((1 << 48) - 1).starts_with("10889-"));
    }

    #[test]
    fn what_is_shown_fits_80_columns() {
        let kinds = EventKind::ALL.into_iter().chain([EventKind::Unknown(200)]);
        for kind in kinds {
            let mut event = Event::new(kind);
            (event.at_unix_ms, event.process, event.count) = (4_107_542_400_000, 4_194_304, u32::MAX);
            (event.lba, event.writer, event.offset) = (Some(4_294_967_293), Some(65_534), 4095);
            for (expected, found) in [(0, 5), (1 << 32, 1 << 32)] {
                (event.expected, event.found) = (expected, found);
                let text = Shown::of(&event).to_string();
                assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
            }
        }
    }
}
