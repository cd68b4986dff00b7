//! Making a cluster, in the place of another if need be.

use std::collections::BTreeMap;

use super::beat::{Beat, State};
use super::region::{Cluster, ClusterError, ClusterOptions, HOSTS_MAX, kind};
use super::slots::{Exchange, HostName, Seen, Slots, make_durable, read_blocks, slot_of_block, slot_payload};
use crate::ats::{Ats, Draft, Owner, Verdict};
use crate::device::{BlockDevice, DeviceError};
use crate::environment::Environment;
use crate::lease::LeaseView;

/// Who makes a cluster is none of its hosts.
const NOBODY: Owner = Owner { host: u64::MAX, generation: 0 };

impl Cluster {
    /// Makes a cluster on a device, in blocks that hold zeros. On a store, the heartbeat words that it takes must be zero,
    /// too.
    ///
    /// With `replace` they may hold anything, another cluster too. Its hosts find themselves fenced, each with its next beat, or
    /// else when its deadline has passed: what they hold till then must not be given to others. The generations of slots, and the
    /// tokens of leases, go on from where they were, as far as its header and blocks can be read. If it is interrupted,
    /// there is no cluster until it is made again.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn create<D: BlockDevice, E: Environment>(
        ats: &Ats<D, E>,
        options: ClusterOptions,
        replace: bool,
    ) -> Result<Self, ClusterError> {
        let device = ats.device();
        let cluster = Self::planned(device, options, ats.environment().random())?;
        let device_error = |source| ClusterError::Device { device: device.name().into_owned(), source };
        let mut header = vec![0; device.block_bytes()].into_boxed_slice();
        device.read_current(cluster.first_lba, &mut header).map_err(device_error)?;
        if replace {
            header = Replacement { ats, cluster: &cluster }.clear(header).map_err(device_error)?;
        } else {
            cluster.check_unused(device)?;
        }
        let payload = cluster.payload();
        let draft = Draft { kind: kind::CLUSTER, owner: Owner::default(), payload: &payload };
        match ats.write_record(cluster.first_lba, &header, draft).verdict {
            Verdict::Written | Verdict::OwnWriteLanded { .. } => {
                make_durable(device).map_err(device_error)?;
                Ok(cluster)
            }
            Verdict::PeerChanged { .. } => {
                Err(ClusterError::InUse { device: device.name().into_owned(), lba: cluster.first_lba })
            }
            Verdict::Unwritten { source } | Verdict::Indeterminate { source, .. } => Err(device_error(source)),
        }
    }

    /// The cluster of these options, if they are possible.
    fn planned(device: &(impl BlockDevice + ?Sized), options: ClusterOptions, id: u128) -> Result<Self, ClusterError> {
        let ClusterOptions { first_lba, hosts, leases, timing } = options;
        timing.check()?;
        let words = device.as_store().map(|store| store.geometry().word_count());
        let reason = if hosts == 0 || hosts > HOSTS_MAX {
            Some(format!("{hosts} hosts; 1 to {HOSTS_MAX} are possible"))
        } else if let Some(words) = words.filter(|words| *words < hosts.into()) {
            Some(format!("{hosts} hosts; the store has {words} heartbeat words, and each needs one"))
        } else {
            (device.compare_and_write_blocks_max() == 0).then(|| "the device has no compare-and-write".into())
        };
        if let Some(reason) = reason {
            return Err(ClusterError::Options { reason });
        }
        let cluster = Self { first_lba, hosts, leases, timing, in_words: words.is_some(), id };
        cluster.check_room(device)?;
        Ok(cluster)
    }

    /// An error if a block or a word that it would take holds something.
    fn check_unused(&self, device: &(impl BlockDevice + ?Sized)) -> Result<(), ClusterError> {
        let name = || device.name().into_owned();
        let device_error = |source| ClusterError::Device { device: name(), source };
        let mut found = None;
        let first_in_use = read_blocks(device, self.first_lba..self.end(), |lba, block| {
            found = found.or(block.iter().any(|byte| *byte != 0).then_some(lba));
            Ok(())
        });
        first_in_use.map_err(device_error)?;
        if let Some(lba) = found {
            return Err(ClusterError::InUse { device: name(), lba });
        }
        let Some(store) = device.as_store() else { return Ok(()) };
        for word in 0..self.hosts.into() {
            if store.read_word(word).map_err(|error| device_error(error.into()))? != 0 {
                return Err(ClusterError::WordInUse { device: name(), word });
            }
        }
        Ok(())
    }
}

/// A cluster that is made in the place of whatever is there.
struct Replacement<'a, D, E> {
    ats: &'a Ats<D, E>,
    cluster: &'a Cluster,
}

/// What is kept of the cluster that was there.
#[derive(Default)]
struct Kept {
    /// The last heartbeats of slots that had an owner, who has been shut out, and their names.
    beats: BTreeMap<u32, (Beat, Option<HostName>)>,
    /// The greatest tokens of leases that were held.
    tokens: BTreeMap<u64, u64>,
}

impl<D: BlockDevice, E: Environment> Replacement<'_, D, E> {
    /// Brings all blocks but the header to what they are to hold, given the old header; the header as it is then.
    fn clear(&self, header: Box<[u8]>) -> Result<Box<[u8]>, DeviceError> {
        let (device, lba) = (self.ats.device(), self.cluster.first_lba);
        let old = Cluster::of_header(device, lba, &header);
        // From here on nobody joins the old one. Its header still says what there is, for whoever has to do this again.
        let header = match &old {
            Some(old) => self.write(lba, header, kind::CLUSTER, |_| old.payload_being_replaced())?,
            None => {
                device.write(lba, &vec![0; header.len()])?;
                vec![0; header.len()].into()
            }
        };
        // Where there is no header, blocks may still be those of a cluster of the same size.
        let old = old.unwrap_or(*self.cluster);
        self.fence_words(old.hosts.max(self.cluster.hosts).into())?;
        let kept = self.shut_out(old)?;
        self.lay_out(&old, &kept)?;
        Ok(header)
    }

    fn fence_words(&self, count: u64) -> Result<(), DeviceError> {
        let Some(store) = self.ats.device().as_store() else { return Ok(()) };
        for word in 0..count.min(store.geometry().word_count()) {
            let word = store.word(word)?;
            let mut beat = Beat::from_bits(word.load());
            while beat.state() == State::Taken {
                match word.compare_exchange(beat.bits(), beat.fenced().bits()) {
                    Ok(()) => break,
                    Err(found) => beat = Beat::from_bits(found),
                }
            }
        }
        Ok(())
    }

    /// Fences the old cluster's hosts, then looks at its leases.
    fn shut_out(&self, old: Cluster) -> Result<Kept, DeviceError> {
        let device = self.ats.device();
        let mut kept = Kept::default();
        if !old.in_words {
            let slots = Slots { cluster: old, ats: Ats::in_environment(device, self.ats.environment()) };
            for (slot, seen) in (0..).zip(slots.read_all()?) {
                let seen = shut_out(&slots, slot, seen)?;
                if seen.damage.is_none() {
                    kept.beats.insert(slot, (seen.beat, seen.name));
                }
            }
        }
        let first = old.first_lba + 1 + u64::from(old.hosts);
        read_blocks(device, first..old.end(), |lba, block| {
            let lease = lba - first;
            if let Ok(view) = LeaseView::of_block(lease, lba, block)
                && view.token > 0
            {
                kept.tokens.insert(lease, view.token);
            }
            Ok(())
        })?;
        Ok(kept)
    }

    /// Writes all blocks of the old cluster and the new, but for the header. Where the new one's leases stand behind the old one's
    /// places, from behind: each is written before what stood in its old place is.
    fn lay_out(&self, old: &Cluster, kept: &Kept) -> Result<(), DeviceError> {
        const AT_ONCE: u64 = 128;
        let device = self.ats.device();
        let (first, end) = (self.cluster.first_lba + 1, self.cluster.end().max(old.end()));
        let (backwards, chunks) = (self.cluster.hosts > old.hosts, (end - first).div_ceil(AT_ONCE));
        let turn = |index: u64, count: u64| if backwards { count - 1 - index } else { index };
        for chunk in 0..chunks {
            let start = first + turn(chunk, chunks) * AT_ONCE;
            let mut blocks = Vec::new();
            read_blocks(device, start..end.min(start + AT_ONCE), |lba, block| {
                blocks.push((lba, Box::<[u8]>::from(block)));
                Ok(())
            })?;
            if backwards {
                blocks.reverse();
            }
            for (lba, block) in blocks {
                self.lay(lba, block, kept)?;
            }
        }
        Ok(())
    }

    /// Writes one block, which holds `block` now. What grows never shrinks: if there is more than was kept, that counts.
    fn lay(&self, lba: u64, block: Box<[u8]>, kept: &Kept) -> Result<(), DeviceError> {
        let Cluster { first_lba, hosts, leases, in_words, .. } = *self.cluster;
        let index = lba - first_lba - 1;
        match (u32::try_from(index).ok().filter(|slot| *slot < hosts), index.checked_sub(hosts.into())) {
            (Some(slot), _) if !in_words => self.lay_slot(lba, slot, block, kept),
            (None, Some(lease)) if lease < leases => self.lay_lease(lba, lease, block, kept),
            _ => self.lay_zeros(lba, &block),
        }
    }

    fn lay_slot(&self, lba: u64, slot: u32, block: Box<[u8]>, kept: &Kept) -> Result<(), DeviceError> {
        let (beat, name) = kept.beats.get(&slot).cloned().unwrap_or_default();
        let last = |block: &[u8]| slot_of_block(lba, block).map_or(beat, |(its, ..)| later(beat, its));
        if last(&block).generation() == 0 {
            return self.lay_zeros(lba, &block);
        }
        self.write(lba, block, kind::HOST, |block| slot_payload(shut(last(block)), name.as_ref(), 0)).map(|_| ())
    }

    fn lay_lease(&self, lba: u64, lease: u64, block: Box<[u8]>, kept: &Kept) -> Result<(), DeviceError> {
        let token = kept.tokens.get(&lease).copied().unwrap_or(0);
        let last = |block: &[u8]| LeaseView::of_block(lease, lba, block).map_or(token, |its| token.max(its.token));
        if last(&block) == 0 {
            return self.lay_zeros(lba, &block);
        }
        let free = |block: &[u8]| LeaseView { token: last(block), ..LeaseView::free(lease) }.payload();
        self.write(lba, block, kind::LEASE, free).map(|_| ())
    }

    fn lay_zeros(&self, lba: u64, block: &[u8]) -> Result<(), DeviceError> {
        let is_zero = block.iter().all(|byte| *byte == 0);
        if is_zero { Ok(()) } else { self.ats.device().write(lba, &vec![0; block.len()]) }
    }

    /// Puts a record in the place of `block`, or of what a host that does not know yet has written there since; the block then.
    fn write(
        &self,
        lba: u64,
        mut block: Box<[u8]>,
        kind: u32,
        payload: impl Fn(&[u8]) -> Vec<u8>,
    ) -> Result<Box<[u8]>, DeviceError> {
        loop {
            let payload = payload(&block);
            let outcome = self.ats.write_record(lba, &block, Draft { kind, owner: NOBODY, payload: &payload });
            match outcome.verdict {
                Verdict::Written | Verdict::OwnWriteLanded { .. } => return Ok(outcome.block),
                Verdict::PeerChanged { found, .. } => block = found,
                Verdict::Unwritten { source } | Verdict::Indeterminate { source, .. } => return Err(source),
            }
        }
    }
}

/// Fences a slot's owner, whoever has it: what it holds then.
fn shut_out<D: BlockDevice, E: Environment>(
    slots: &Slots<D, E>,
    slot: u32,
    mut seen: Seen,
) -> Result<Seen, DeviceError> {
    while seen.beat.state() == State::Taken {
        seen = match slots.exchange(slot, &seen, seen.beat.fenced(), None) {
            Exchange::Done(seen) | Exchange::Found(seen) => seen,
            Exchange::Failed(error) => return Err(error),
        };
    }
    Ok(seen)
}

/// A slot's heartbeat without its owner.
fn shut(beat: Beat) -> Beat {
    if beat.state() == State::Taken { beat.fenced() } else { beat }
}

/// The one of the later generation.
fn later(one: Beat, other: Beat) -> Beat {
    if other.generation() > one.generation() { other } else { one }
}
