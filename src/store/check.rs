//! Checking and repairing a store.

use super::event::{Event, EventKind};
use super::mapping::with_memory;
use super::{Check, Repair, Store, fault};
use crate::error::Error;
use crate::protocol::{audit, repair};

impl Store {
    /// Verifies the invariants of the store: see [`Check`]. Proof of their holding only on a handle that was
    /// [opened exclusively](Store::open_exclusive); while others work, what it says is a strong hint.
    pub fn check(&self) -> Check {
        self.check_with(|_| {})
    }

    /// As [`check`](Self::check); calls `progress` now and then with the number of blocks looked at.
    pub fn check_with(&self, progress: impl FnMut(u64)) -> Check {
        with_memory!(&self.shared.engine, memory => audit::check(memory, self.shared.exclusive, progress))
    }

    /// Puts right what [`check`](Self::check) finds wrong, as far as that needs no invention; tells each change, and each
    /// fault it must leave, and gives the check made afterwards. A store that is well is not changed.
    ///
    /// No block that reads well reads otherwise afterwards. A block that no frame is known for is made whole from the newest
    /// frame whose stamp proves that it holds an update of it: with durability `process` there are no stamps, so it is left.
    /// If the process is killed meanwhile, what was done holds, and the rest can be done later.
    ///
    /// # Errors
    /// [`Error::NotExclusive`]; [`Error::ReadOnly`]; [`Error::Sync`].
    pub fn repair(&self, mut report: impl FnMut(Repair)) -> Result<Check, Error> {
        self.shared.check_writable()?;
        if !self.shared.exclusive {
            return Err(Error::NotExclusive);
        }
        let Some(_held) = self.shared.writers.hold_all(&self.shared) else { return Err(Error::NotExclusive) };
        let before = self.check();
        if before.is_clean() {
            return Ok(before);
        }
        let mut event = Event { count: 0, ..Event::new(EventKind::Repaired) };
        let mut tell = |repair: Repair| {
            event.count = event.count.saturating_add(repair.is_mended().into());
            event.found += u64::from(!repair.is_mended());
            event.lba = event.lba.or(repair.block());
            report(repair);
        };
        let repaired = with_memory!(&self.shared.engine, memory => repair::repair(memory, &mut tell));
        if event.count > 0 || event.found > 0 {
            self.shared.tell(event);
        }
        repaired.map_err(|it| fault(&self.shared, it, 0))?;
        self.sync()?;
        Ok(self.check())
    }
}
