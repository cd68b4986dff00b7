//! The hosts as a table of text.

use casblock::heartbeat::SlotView;

use crate::number::grouped;

/// The columns' names.
pub const HEADER: [&str; 7] = ["SLOT", "NAME", "GENERATION", "STATE", "STILL FOR", "BEATS", "LEASES"];

/// One host's row.
pub fn row(slot: &SlotView, leases: u64) -> [String; 7] {
    let still = slot.still.filter(|_| slot.liveness.is_taken());
    [
        slot.slot.to_string(),
        slot.name.as_ref().map_or_else(|| "-".into(), ToString::to_string),
        slot.generation.to_string(),
        slot.liveness.name().into(),
        still.map_or_else(|| "-".into(), |still| format!("{:.1} s", still.as_secs_f64())),
        grouped(slot.beats),
        grouped(leases),
    ]
}

/// Columns of a name: longer ones are cut where there is no room.
const NAME_WIDTH: usize = 24;

/// The table, in 80 columns.
pub fn text(slots: &[(SlotView, u64)]) -> String {
    if slots.is_empty() {
        return "no host has been there yet".into();
    }
    let line = |row: [String; 7]| {
        let [slot, name, generation, state, still, beats, leases] = row;
        let name: String = name.chars().take(NAME_WIDTH).collect();
        format!("{slot:>5}  {name:NAME_WIDTH$}  {generation:>5}  {state:<7} {still:>9}  {beats:>9}  {leases:>6}")
    };
    let mut header = HEADER.map(str::to_owned);
    header[2] = "GEN".into();
    let rows = slots.iter().map(|(slot, leases)| line(row(slot, *leases)));
    std::iter::once(line(header)).chain(rows).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use casblock::heartbeat::{HostName, Liveness};

    use super::*;

    #[test]
    fn it_fits_a_terminal() {
        let slot = |name: &str| SlotView {
            slot: 65_535,
            generation: 99_999,
            name: HostName::new(name),
            liveness: Liveness::Stale,
            still: Some(Duration::from_secs(86_400)),
            beats: 9_999_999,
        };
        let text = text(&[(slot(&"x".repeat(64)), 100_000), (slot("é"), 0)]);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("stale") && text.contains("86400.0 s"), "{text}");
        assert_eq!(super::text(&[]), "no host has been there yet");
    }
}
