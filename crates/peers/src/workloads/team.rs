//! The contestants of a workload, all made ready at once, so that their rounds can take turns.

use std::path::Path;

use anyhow::{Context, Result};

use crate::measure::Entrant;
use crate::peers::{
    ArcSwapped, AtomicCells, Casblock, Durability, Lmdb, Mutexes, Ofd, OfdWhole, Peer, Redb, Robust, RwLocks, SeqLocks,
    Sqlite, Whole,
};
use crate::results::{Contestant, Kind};

/// Does one round after another: a value for each measure.
pub type Rounds<'p> = Box<dyn FnMut() -> Result<Vec<f64>> + 'p>;

/// What contestants do.
pub trait Workload {
    /// Makes one ready.
    fn enter<'p, P: Peer>(&self, peer: &'p P) -> Result<Rounds<'p>>;
}

/// What a contestant is.
pub fn kind_of<P: Peer>() -> Kind {
    if P::NAME == Casblock::NAME { Kind::Casblock } else { Kind::Peer }
}

/// An entrant of a workload.
fn entrant<'p, P: Peer>(peer: &'p P, workload: &impl Workload) -> Result<Entrant<'p>> {
    Ok(Entrant { who: P::NAME.to_owned(), kind: kind_of::<P>(), run: workload.enter(peer).context(P::NAME)? })
}

fn create<P: Peer>(folder: &Path, blocks: u64, durability: Durability) -> Result<P> {
    let own = folder.join(P::NAME.replace(|c: char| !c.is_alphanumeric(), "-"));
    std::fs::create_dir(&own)?;
    P::create(&own, blocks, durability).with_context(|| format!("making {}", P::NAME))
}

/// A team: who is in it.
macro_rules! team {
    ($(#[$doc:meta])* $team:ident: $($field:ident $peer:ty),*) => {
        $(#[$doc])*
        pub struct $team {
            $($field: $peer,)*
        }

        impl $team {
            /// Makes a store of each.
            pub fn create(folder: &Path, blocks: u64, durability: Durability) -> Result<Self> {
                Ok(Self { $($field: create(folder, blocks, durability)?,)* })
            }

            /// Makes each ready for a workload.
            pub fn enter<'p>(&'p self, workload: &impl Workload) -> Result<Vec<Entrant<'p>>> {
                Ok(vec![$(entrant(&self.$field, workload)?,)*])
            }
        }
    };
}

team! {
    /// All who can be used by the threads of one process.
    All: casblock Casblock, mutexes Mutexes, rw_locks RwLocks, atomic_cells AtomicCells, seq_locks SeqLocks,
        arc_swapped ArcSwapped, robust Robust, ofd Ofd, lmdb Lmdb, redb Redb, sqlite Sqlite
}

team! {
    /// Those whose attempts take at most microseconds, so that many threads at once get their turns.
    Contended: casblock Casblock, mutexes Mutexes, rw_locks RwLocks, atomic_cells AtomicCells, seq_locks SeqLocks,
        arc_swapped ArcSwapped, robust Robust, ofd Ofd, lmdb Lmdb
}

team! {
    /// casblock and a lock beside each block, for threads and for processes.
    Nearest: casblock Casblock, mutexes Mutexes, robust Robust
}

team! {
    /// Those that keep what they were told when the power is cut.
    OnDisk: casblock Casblock, ofd Ofd, lmdb Lmdb, redb Redb, sqlite Sqlite
}

team! {
    /// One lock for the whole store, beside compare-and-write of a block.
    OneLock: casblock Casblock, whole Whole, ofd_whole OfdWhole
}

team! {
    /// Likewise, on a disk.
    OneLockOnDisk: casblock Casblock, ofd Ofd, ofd_whole OfdWhole
}

/// How each contestant is used, and what of it survives.
pub fn contestants() -> Vec<Contestant> {
    fn of<P: Peer>() -> Contestant {
        Contestant { name: P::NAME.to_owned(), used: P::USE.to_owned(), survives: P::SURVIVES.to_owned() }
    }
    vec![
        of::<Casblock>(),
        of::<Mutexes>(),
        of::<RwLocks>(),
        of::<AtomicCells>(),
        of::<SeqLocks>(),
        of::<ArcSwapped>(),
        of::<Whole>(),
        of::<Robust>(),
        of::<Ofd>(),
        of::<OfdWhole>(),
        of::<Lmdb>(),
        of::<Redb>(),
        of::<Sqlite>(),
    ]
}
