//! Watching others' hearts, by one's own clock.
//!
//! Two hosts' clocks are never compared. A watcher notes when it first saw a heartbeat, by its own clock, and what it was. If it
//! is another one at the next look, the host lived in between; if it is the same one, it stood still all the time, as no
//! value comes twice.

use std::collections::HashMap;
use std::time::Duration;

use super::beat::{Beat, State};
use super::config::Timing;
use super::slots::{HostName, Seen, Slots};
use crate::device::{BlockDevice, DeviceError};
use crate::environment::Environment;

/// How a host looks from outside.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Liveness {
    /// Nobody has the slot.
    Free,
    /// Its heart has beaten lately, or has not been watched for long enough to say otherwise.
    Alive,
    /// Two beats have not come. Late is not dead.
    Late,
    /// Its heart has stood still for the stale time: it may be fenced.
    Stale,
    /// It was found dead, and shut out.
    Fenced,
    /// The slot's block is damaged: nobody can tell, and nobody takes it. A lease that is held from it can be broken when the
    /// block has stood still for the stale time.
    Damaged,
}

impl Liveness {
    /// Whether somebody is known to have the slot, dead or alive.
    pub fn is_taken(self) -> bool {
        matches!(self, Self::Alive | Self::Late | Self::Stale)
    }

    /// Its name: `free`, `alive`, `late`, `stale`, `fenced`, `damaged`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Alive => "alive",
            Self::Late => "late",
            Self::Stale => "stale",
            Self::Fenced => "fenced",
            Self::Damaged => "damaged",
        }
    }
}

/// A slot as a watcher sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlotView {
    /// The slot.
    pub slot: u32,
    /// Which of its owners.
    pub generation: u32,
    /// The owner's name, or the last one's.
    pub name: Option<HostName>,
    /// How it looks.
    pub liveness: Liveness,
    /// For how long its heart has stood still, as far as this watcher knows; `None` at the first look.
    pub still: Option<Duration>,
    /// How often its heart has beaten.
    pub beats: u64,
}

/// What a watcher noted of a slot.
#[derive(Clone, Copy, Debug)]
struct Note {
    pulse: (Beat, u32),
    /// When it was first seen so, at the latest.
    since: Duration,
}

/// A watcher of a cluster's hearts. Looks at them when it is told to.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    notes: HashMap<u32, Note>,
}

impl Watch {
    /// Looks at a slot.
    pub fn look<D: BlockDevice, E: Environment>(
        &mut self,
        slots: &Slots<D, E>,
        slot: u32,
    ) -> Result<(Seen, SlotView), DeviceError> {
        let environment = slots.ats.environment();
        let before = environment.now();
        let seen = slots.read(slot)?;
        let view = self.note(slot, &seen, before, environment.now(), slots.cluster.timing());
        Ok((seen, view))
    }

    /// Looks at all slots.
    pub fn look_at_all<D: BlockDevice, E: Environment>(
        &mut self,
        slots: &Slots<D, E>,
    ) -> Result<Vec<(Seen, SlotView)>, DeviceError> {
        let environment = slots.ats.environment();
        let before = environment.now();
        let all = slots.read_all()?;
        let (after, timing) = (environment.now(), slots.cluster.timing());
        let note = |(slot, seen): (u32, Seen)| {
            let view = self.note(slot, &seen, before, after, timing);
            (seen, view)
        };
        Ok((0..).zip(all).map(note).collect())
    }

    /// Notes what was seen of a slot at a moment between two.
    fn note(&mut self, slot: u32, seen: &Seen, before: Duration, after: Duration, timing: Timing) -> SlotView {
        let (beat, pulse) = (seen.beat, seen.pulse());
        let known = self.notes.get(&slot).filter(|note| note.pulse == pulse).copied();
        if known.is_none() {
            // It changed at some moment before; counting from the latest possible one errs on the side of life.
            self.notes.insert(slot, Note { pulse, since: after });
        }
        // It was still so when this look began, which again errs on the side of life.
        let still = known.map(|note| before.saturating_sub(note.since));
        let liveness = match beat.state() {
            _ if seen.damage.is_some() => Liveness::Damaged,
            State::Free => Liveness::Free,
            State::Fenced => Liveness::Fenced,
            State::Taken => match still {
                Some(still) if still >= timing.stale => Liveness::Stale,
                Some(still) if still > timing.late() => Liveness::Late,
                _ => Liveness::Alive,
            },
        };
        let (generation, name, beats) = (beat.generation(), seen.name.clone(), beat.count());
        SlotView { slot, generation, name, liveness, still, beats }
    }
}
