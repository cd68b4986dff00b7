//! Several blocks at once: what is not cached is read with as few requests as can be; updates go to the device first.

use std::ops::Range;
use std::sync::Arc;

use super::engine::{Begun, Flight, How, Reading, Ticket};
use super::{BlockCache, Consistency, one_of_many};
use crate::device::{BlockDevice, DeviceError};
use crate::environment::Environment;

/// Most blocks of one request to the device, where the cache splits them: while they are read, their places stay.
const RUN_BLOCKS_MAX: usize = 256;

impl<D: BlockDevice, E: Environment> BlockCache<D, E> {
    /// Copies blocks to `out`, from block `lba` on: as many as it is long.
    ///
    /// # Errors
    /// What the device answers. After an error the contents of `out` mean nothing.
    pub fn read(&self, lba: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        self.read_as(lba, out, self.consistency)
    }

    /// As [`read`](Self::read), as current as is said here.
    ///
    /// # Errors
    /// As there.
    pub fn read_as(&self, lba: u64, out: &mut [u8], consistency: Consistency) -> Result<(), DeviceError> {
        let block_bytes = self.device.block_bytes();
        if self.blocks(lba, out.len()).is_none() {
            // The device says what it says to that.
            return self.device.read(lba, out);
        }
        if out.len() == block_bytes {
            out.copy_from_slice(&self.get_as(lba, consistency)?);
            return Ok(());
        }
        for (lba, out) in (lba..).step_by(RUN_BLOCKS_MAX).zip(out.chunks_mut(RUN_BLOCKS_MAX * block_bytes)) {
            match consistency {
                Consistency::Current if !self.is_over_store => self.read_run_now(lba, out)?,
                _ => self.read_run(lba, out, consistency)?,
            }
        }
        Ok(())
    }

    /// Reads blocks that are not cached, so that they are.
    ///
    /// # Errors
    /// What the device answers.
    pub fn prefetch(&self, lba: u64, blocks: u64) -> Result<(), DeviceError> {
        let mut scratch = vec![0; blocks.clamp(1, RUN_BLOCKS_MAX as u64) as usize * self.device.block_bytes()];
        let end = lba.saturating_add(blocks);
        let mut lba = lba;
        while lba < end {
            let count = (end - lba).min(RUN_BLOCKS_MAX as u64);
            self.read(lba, &mut scratch[..count as usize * self.device.block_bytes()])?;
            lba += count;
        }
        Ok(())
    }

    /// Forgets blocks: after this, who reads them asks the device, and gets nothing that was asked for before. For when it is known from
    /// elsewhere that another host has changed them.
    pub fn invalidate(&self, lba: u64, blocks: u64) {
        let end = lba.saturating_add(blocks).min(self.device.block_count());
        self.engine.invalidate_all(lba..end);
    }

    /// Replaces blocks on the device, whatever they hold, and in the cache, from block `lba` on: as many as `data` is long.
    ///
    /// # Errors
    /// What the device answers. If nobody knows what became of it, the cache forgets the blocks.
    pub fn write(&self, lba: u64, data: &[u8]) -> Result<(), DeviceError> {
        let asking = self.ask(lba, data.len());
        let result = self.device.write(lba, data);
        match &result {
            Ok(()) => asking.learn(data),
            Err(DeviceError::Failed { .. }) => asking.learn_nothing(),
            // Forgets when dropped.
            Err(_) => drop(asking),
        }
        result
    }

    /// If the blocks from `lba` on hold `expected` on the device, replaces them there and in the cache by `new`; else says what they
    /// hold, and the cache has that then.
    ///
    /// # Errors
    /// What the device answers. If nobody knows what became of it, the cache forgets the blocks.
    pub fn compare_and_write(&self, lba: u64, expected: &[u8], new: &[u8]) -> Result<(), DeviceError> {
        let asking = self.ask(lba, new.len());
        let result = self.device.compare_and_write(lba, expected, new);
        match &result {
            Ok(()) => asking.learn(new),
            Err(DeviceError::Miscompare(miscompare)) => asking.learn(&miscompare.found),
            Err(DeviceError::Failed { .. }) => asking.learn_nothing(),
            Err(_) => drop(asking),
        }
        result
    }

    /// The blocks that a request of so many bytes is about; `None` if the device does not have them.
    fn blocks(&self, lba: u64, bytes: usize) -> Option<Range<u64>> {
        let block_bytes = self.device.block_bytes();
        let end = lba.checked_add((bytes / block_bytes) as u64)?;
        (bytes > 0 && bytes.is_multiple_of(block_bytes) && end <= self.device.block_count()).then_some(lba..end)
    }

    /// Before an update. Over a store nothing need begin: whoever reads a block there sees that it has changed.
    fn ask(&self, lba: u64, bytes: usize) -> Asking<'_, D, E> {
        let blocks = self.blocks(lba, bytes).unwrap_or(0..0);
        let mut begun = if self.is_over_store { 0..0 } else { blocks.clone() }.map(|lba| self.engine.begin(lba));
        let tickets = Tickets { first: begun.next(), others: begun.collect() };
        // What the device answers is no older than the question.
        Asking { cache: self, blocks, tickets, asked_ns: self.now_ns() }
    }

    /// Takes in what a block of a store holds after an update. Only the store can say which version that is.
    fn refresh(&self, lba: u64) {
        let ticket = self.engine.begin(lba);
        let mut buffer = self.engine.buffer();
        match self.fetch(lba, &mut buffer) {
            Ok(stamp) => drop(self.engine.end(&ticket, buffer, stamp)),
            // The update was made; who reads the block hears of it.
            Err(_) => self.engine.stop(&ticket),
        }
    }

    /// Reads blocks as the device has them now.
    fn read_run_now(&self, lba: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        let asking = self.ask(lba, out.len());
        asking.tickets.iter().for_each(|ticket| self.count(ticket.how()));
        let result = self.device.read_current(lba, out);
        match &result {
            Ok(()) => asking.learn(out),
            Err(_) => asking.learn_nothing(),
        }
        result
    }

    /// Reads blocks, those that are not cached with one request for each run of them.
    fn read_run(&self, lba: u64, out: &mut [u8], consistency: Consistency) -> Result<(), DeviceError> {
        let block_bytes = self.device.block_bytes();
        let (mut ours, mut others) = (Vec::new(), Vec::new());
        for (index, out) in out.chunks_exact_mut(block_bytes).enumerate() {
            let lba = lba + index as u64;
            let how = match self.look(lba, consistency) {
                Ok(block) => {
                    self.count(How::Hit);
                    out.copy_from_slice(&block);
                    continue;
                }
                Err(how) => how,
            };
            match self.engine.begin_reading(lba, self.freshness(lba, consistency)) {
                Begun::Fresh(block) => {
                    self.count(How::Hit);
                    out.copy_from_slice(&block);
                }
                Begun::Join(flight) => others.push((index, how, flight)),
                Begun::Read(reading) => ours.push((index, reading)),
            }
        }
        self.read_ours(lba, out, ours)?;
        // Nobody waits for us any more when we wait for others: so there is no circle.
        self.read_others(lba, out, others, consistency)
    }

    fn read_ours(
        &self,
        lba: u64,
        out: &mut [u8],
        mut ours: Vec<(usize, Reading<'_, DeviceError>)>,
    ) -> Result<(), DeviceError> {
        let block_bytes = self.device.block_bytes();
        while let Some(&(first, _)) = ours.first() {
            let run = ours.iter().zip(first..).take_while(|((index, _), expected)| index == expected).count();
            let out = &mut out[first * block_bytes..][..run * block_bytes];
            let stamps = self.fetch_run(lba + first as u64, out).map_err(Arc::new);
            for (at, (_, reading)) in ours.drain(..run).enumerate() {
                match &stamps {
                    Ok(stamps) => {
                        self.count(reading.how());
                        let stamp = stamps.get(at).or(stamps.first()).copied().unwrap_or_default();
                        reading.fill(&out[at * block_bytes..][..block_bytes], stamp);
                    }
                    Err(error) => {
                        self.count(reading.how());
                        reading.fail(error);
                    }
                }
            }
            // The runs that are left are dropped: whoever waits for them reads them.
            stamps.map_err(one_of_many)?;
        }
        Ok(())
    }

    /// Reads blocks from the device; their stamps, or one for all.
    fn fetch_run(&self, lba: u64, out: &mut [u8]) -> Result<Vec<u64>, DeviceError> {
        if self.is_over_store {
            let blocks = out.chunks_exact_mut(self.device.block_bytes());
            return (lba..).zip(blocks).map(|(lba, out)| self.fetch(lba, out)).collect();
        }
        self.fetch(lba, out).map(|stamp| vec![stamp])
    }

    fn read_others(
        &self,
        lba: u64,
        out: &mut [u8],
        others: Vec<(usize, How, Arc<Flight<DeviceError>>)>,
        consistency: Consistency,
    ) -> Result<(), DeviceError> {
        let block_bytes = self.device.block_bytes();
        for (index, how, flight) in others {
            let out = &mut out[index * block_bytes..][..block_bytes];
            flight.wait().map_err(|error| {
                self.count(how);
                one_of_many(error)
            })?;
            let lba = lba + index as u64;
            match self.look(lba, consistency) {
                Ok(block) => {
                    self.count(how);
                    out.copy_from_slice(&block);
                }
                Err(_) => out.copy_from_slice(&self.get_from_device(lba, consistency)?),
            }
        }
        Ok(())
    }
}

/// Tickets, in the order of their blocks. One needs no memory.
struct Tickets {
    first: Option<Ticket>,
    others: Vec<Ticket>,
}

impl Tickets {
    fn iter(&self) -> impl Iterator<Item = &Ticket> {
        self.first.iter().chain(&self.others)
    }

    fn drain(&mut self) -> impl Iterator<Item = Ticket> {
        self.first.take().into_iter().chain(self.others.drain(..))
    }
}

/// Blocks about which the device is asked. If this is dropped without an end, the cache forgets them.
struct Asking<'c, D: BlockDevice, E: Environment> {
    cache: &'c BlockCache<D, E>,
    blocks: Range<u64>,
    tickets: Tickets,
    asked_ns: u64,
}

impl<D: BlockDevice, E: Environment> Asking<'_, D, E> {
    /// The device has told, or was told, that the blocks hold this.
    fn learn(mut self, data: &[u8]) {
        if self.cache.is_over_store {
            let blocks = std::mem::replace(&mut self.blocks, 0..0);
            return blocks.for_each(|lba| self.cache.refresh(lba));
        }
        let block_bytes = self.cache.device.block_bytes();
        if data.len() != self.tickets.iter().count() * block_bytes {
            return;
        }
        for (ticket, bytes) in self.tickets.drain().zip(data.chunks_exact(block_bytes)) {
            let mut buffer = self.cache.engine.buffer();
            buffer.copy_from_slice(bytes);
            drop(self.cache.engine.end(&ticket, buffer, self.asked_ns));
        }
        self.blocks = 0..0;
    }

    /// The device did nothing, and told nothing of what they hold.
    fn learn_nothing(mut self) {
        self.tickets.drain().for_each(|ticket| self.cache.engine.stop(&ticket));
        self.blocks = 0..0;
    }
}

impl<D: BlockDevice, E: Environment> Drop for Asking<'_, D, E> {
    fn drop(&mut self) {
        self.blocks.clone().for_each(|lba| self.cache.engine.invalidate(lba));
    }
}
