//! The flight recorder's ring: the last events of a store, kept where they outlive every process.
//!
//! Recorders take **tickets** from one counter, the **head**. A ticket says where in the ring the record goes, and on which
//! **lap** round it. Each word of a record carries the lap in its upper 16 bits, its tag, and in the 48 below a part of what
//! is recorded. That makes a record prove itself:
//!
//! > A word with the tag of a ticket's lap, in the ticket's place, was stored by who has the ticket, and it stores each
//! > word once. So if all words of a place carry that tag, they are that one record, and all of it.
//!
//! That proof needs no order among words, or between them and the head. A word that is seen late is a record that is not
//! there yet, and the same if its recorder was stopped, or killed, in the middle. Nobody waits for it: whoever comes one lap
//! later finds words of the lap before, and replaces them.
//!
//! Words only go forward. A recorder that was stopped for a whole lap finds a tag that is ahead of its own, of a ticket that
//! the head has passed, and leaves the word alone: each word is exchanged, not stored, so it cannot harm a later record
//! between its look and its store. The latest record of a place is therefore whole once its recorder has come to its end.
//! (That, not the proof above, is what the one ordered pair here is for.)
//!
//! A tag of a ticket that the head has not reached is nobody's, and is replaced: a ring that was damaged works again. So it
//! is after a cut of the power, which may leave an old head beside newer records; recovery [raises](raise_head) it. Where
//! tickets are handed out for a second time, the proof does not hold: the store adds a checksum to what it records.
//!
//! **The limit.** Tags are compared in half-range arithmetic and come back after 65,536 laps: as many events times the ring's
//! capacity, 268 million in a ring of 4,096, but 65,536 in a ring of one. A recorder that sleeps in the middle of a record
//! for half of that may spoil one later record; a reader that sleeps in the middle of one for all of it, or meets with a recorder
//! that did, may take two for one. The checksum tells.

use std::ops::Range;

use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::{AtomicU64, fence};

/// A record: `N` words, each a tag and a part. 8 in a store, 2 in a loom model.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Record<const N: usize>(pub [AtomicU64; N]);

/// Bits of a word that are a part of what is recorded; those above are the tag.
pub const PART_BITS: u32 = 48;

const PART: u64 = (1 << PART_BITS) - 1;

/// What the ring lies in: a mapping in production, the heap in a model.
pub trait Ring<const N: usize> {
    /// The number of the next ticket.
    fn head(&self) -> &AtomicU64;
    /// How many records there are: a power of two.
    fn capacity(&self) -> u64;
    /// The record at `index`; `None` if that is not below the capacity.
    fn record(&self, index: u64) -> Option<&Record<N>>;
}

/// Where the record of a ticket goes, and the tag it has there.
fn place(capacity: u64, ticket: u64) -> (u64, u16) {
    // The lap counts from one: a word that was never stored carries the tag 0.
    (ticket % capacity, (ticket / capacity).wrapping_add(1) as u16)
}

/// How many laps a word is ahead of `tag`; less than 0 if it is behind.
fn laps_ahead(word: u64, tag: u16) -> i16 {
    ((word >> PART_BITS) as u16).wrapping_sub(tag) as i16
}

/// The ticket that has the same place so many laps later, or earlier.
fn laps_later(capacity: u64, ticket: u64, laps: i16) -> u64 {
    ticket.wrapping_add_signed(i64::from(laps).wrapping_mul(capacity as i64))
}

/// A recorder found a later record in its place.
struct Lapped;

/// How often an event is recorded anew if it was lapped: it is a whole lap old then, and others came meanwhile.
const ATTEMPTS: u32 = 2;

/// Records what `parts` gives for the ticket; each part has [`PART_BITS`] bits, and what is above is cut off. Gives the
/// ticket, or `None` if it was lapped again and again.
///
/// Waits for nobody: an exchange of a word is repeated only where another recorder has changed it.
pub fn record<const N: usize>(ring: &impl Ring<N>, parts: impl Fn(u64) -> [u64; N]) -> Option<u64> {
    (0..ATTEMPTS).find_map(|_| {
        let ticket = ring.head().fetch_add(1, Relaxed);
        fill(ring, ticket, parts(ticket)).is_ok().then_some(ticket)
    })
}

/// Stores the words of a ticket's record.
fn fill<const N: usize>(ring: &impl Ring<N>, ticket: u64, parts: [u64; N]) -> Result<(), Lapped> {
    let (index, tag) = place(ring.capacity(), ticket);
    let Some(record) = ring.record(index) else { return Ok(()) };
    for (word, part) in record.0.iter().zip(parts) {
        let new = u64::from(tag) << PART_BITS | part & PART;
        let mut seen = word.load(Relaxed);
        loop {
            let ahead = laps_ahead(seen, tag);
            if ahead > 0 && is_given(ring, laps_later(ring.capacity(), ticket, ahead)) {
                return Err(Lapped);
            }
            // ORDERING [lapped]: pairs with the fence in `is_given`.
            // - Who sees what we store, and asks, sees that the head has passed our ticket.
            // - Who does not see it cannot replace it: its exchange fails, and shows it.
            match word.compare_exchange(seen, new, Release, Relaxed) {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
    }
    Ok(())
}

/// Whether the head has passed this ticket, of which the caller has seen a word.
fn is_given<const N: usize>(ring: &impl Ring<N>, ticket: u64) -> bool {
    // ORDERING [lapped]: pairs with the exchange in `fill`.
    // - A recorder with that ticket stored the word: we see that the head had passed it.
    // - None did, since it is damage or from before a cut of the power: the head may be anywhere.
    fence(Acquire);
    ring.head().load(Relaxed).wrapping_sub(ticket) as i64 > 0
}

/// What a ticket's place holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found<const N: usize> {
    /// The ticket's record: its parts.
    Whole([u64; N]),
    /// Not all of it: its recorder is at work, or stopped, or was killed.
    Unfinished,
    /// A later record, or a part of one.
    Overwritten,
}

/// Reads the record of a ticket.
pub fn read<const N: usize>(ring: &impl Ring<N>, ticket: u64) -> Found<N> {
    let (index, tag) = place(ring.capacity(), ticket);
    let Some(record) = ring.record(index) else { return Found::Unfinished };
    let words = record.0.each_ref().map(|word| word.load(Relaxed));
    let ahead = words.map(|word| laps_ahead(word, tag));
    if ahead.iter().any(|laps| *laps > 0) {
        Found::Overwritten
    } else if ahead.iter().all(|laps| *laps == 0) {
        Found::Whole(words.map(|word| word & PART))
    } else {
        Found::Unfinished
    }
}

/// The tickets whose records may be in the ring: the last ones given, as many as it has room for.
pub fn extent<const N: usize>(ring: &impl Ring<N>) -> Range<u64> {
    let head = ring.head().load(Relaxed);
    head.saturating_sub(ring.capacity())..head
}

/// Puts the head past all records in the ring of which `is_one` holds: after a cut of the power it may be older than they
/// are. Only while nobody else is at work.
pub fn raise_head<const N: usize>(ring: &impl Ring<N>, is_one: impl Fn(u64, [u64; N]) -> bool) {
    let head = ring.head().load(Relaxed);
    for index in 0..ring.capacity() {
        let Some(record) = ring.record(index) else { return };
        let ticket = (head - head % ring.capacity()) + index;
        let (_, tag) = place(ring.capacity(), ticket);
        let ahead = laps_ahead(record.0[0].load(Relaxed), tag);
        let later = laps_later(ring.capacity(), ticket, ahead);
        if ahead >= 0
            && let Found::Whole(parts) = read(ring, later)
            && is_one(later, parts)
        {
            ring.head().fetch_max(later.wrapping_add(1), Relaxed);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    struct Small {
        head: AtomicU64,
        records: [Record<2>; 4],
    }

    impl Small {
        fn new() -> Self {
            let record = || Record([AtomicU64::new(0), AtomicU64::new(0)]);
            Self { head: AtomicU64::new(0), records: [record(), record(), record(), record()] }
        }

        /// Records the ticket itself; the second part is its complement.
        fn note(&self) -> Option<u64> {
            record(self, |ticket| [ticket, !ticket])
        }

        fn whole(&self, ticket: u64) -> bool {
            match read(self, ticket) {
                Found::Whole(parts) => {
                    assert_eq!(parts, [ticket & PART, !ticket & PART]);
                    true
                }
                _ => false,
            }
        }
    }

    impl Ring<2> for Small {
        fn head(&self) -> &AtomicU64 {
            &self.head
        }

        fn capacity(&self) -> u64 {
            4
        }

        fn record(&self, index: u64) -> Option<&Record<2>> {
            self.records.get(index as usize)
        }
    }

    #[test]
    fn the_last_of_many_are_there_and_the_others_are_known_to_be_gone() {
        let ring = Small::new();
        assert_eq!(extent(&ring), 0..0);
        assert_eq!(read(&ring, 0), Found::Unfinished);
        for ticket in 0..11 {
            assert_eq!(ring.note(), Some(ticket));
        }
        assert_eq!(extent(&ring), 7..11);
        for ticket in 0..7 {
            assert_eq!(read(&ring, ticket), Found::Overwritten);
        }
        assert!((7..11).all(|ticket| ring.whole(ticket)));
        assert_eq!(read(&ring, 11), Found::Unfinished);
    }

    #[test]
    fn tags_and_tickets_wrap() {
        for start in [4 * 32_766, 4 * 65_533, u64::MAX - 13] {
            let ring = Small::new();
            // As if all before had been recorded.
            for back in 1..=4 {
                let (index, tag) = place(4, start.wrapping_sub(back));
                let Record(words) = &ring.records[index as usize];
                words.iter().for_each(|word| word.store(u64::from(tag) << PART_BITS, Relaxed));
            }
            ring.head.store(start, Relaxed);
            for ticket in (0..30).map(|more| start.wrapping_add(more)) {
                assert_eq!(ring.note(), Some(ticket));
                assert!(ring.whole(ticket));
                assert_eq!(read(&ring, ticket.wrapping_sub(4)), Found::Overwritten);
            }
        }
    }

    #[test]
    fn an_old_head_beside_new_records_is_raised_or_catches_up() {
        let ring = Small::new();
        (0..23).for_each(|ticket| assert_eq!(ring.note(), Some(ticket)));
        ring.head.store(2, Relaxed);
        raise_head(&ring, |ticket, parts| parts[0] == ticket && ticket != 22);
        assert_eq!(extent(&ring), 18..22);
        raise_head(&ring, |_, _| true);
        assert_eq!(extent(&ring), 19..23);
        assert!((19..23).all(|ticket| ring.whole(ticket)));

        ring.head.store(2, Relaxed);
        assert!((2..40).all(|ticket| ring.note() == Some(ticket) && ring.whole(ticket)));
    }

    #[test]
    fn who_is_lapped_leaves_later_records_alone() {
        let ring = Small::new();
        (0..9).for_each(|ticket| assert_eq!(ring.note(), Some(ticket)));
        assert!((1..9).all(|ticket| fill(&ring, ticket, [7; 2]).is_err() == (ticket < 5)));
    }

    #[test]
    fn whatever_the_ring_holds_it_works() {
        let mut random = 1u64;
        let mut dice = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            random ^ random >> 29
        };
        for _ in 0..2000 {
            let ring = Small::new();
            ring.head.store(dice() >> (dice() % 64), Relaxed);
            ring.records.iter().flat_map(|record| &record.0).for_each(|word| word.store(dice(), Relaxed));
            if dice() % 2 == 0 {
                raise_head(&ring, |_, parts| parts[0] % 2 == 0);
            }
            extent(&ring).for_each(|ticket| assert_ne!(read(&ring, ticket), Found::Whole([1; 2])));
            let last = [(); 4].map(|()| ring.note().expect("nobody laps"));
            assert!(last.iter().all(|ticket| ring.whole(*ticket)), "{last:?}");
        }
    }
}
