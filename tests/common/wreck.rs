//! Random damage: bits that flip, words that are wrong but look right, sectors that were lost, zeroed or written to the
//! wrong place, and files that were cut short.
#![allow(dead_code, reason = "each test uses its part")]

use super::damage::{
    BOOT, CHECK, COMPLETED, EPOCH, FAILED, FLUSHING, FREED, HEAD, INTENT_BLOCK, INTENT_CELL, LAST_RECOVERY, MADE_GOOD,
    MISCOMPARES, NEXT, PHASE, RECORD_BYTES, RECORDS, RESERVE, SPARE, STARTED, SUPERBLOCK_BYTES, UPDATE,
};
use super::dice::Dice;
use super::image::Image;

const SECTOR_BYTES: u64 = 512;

type Way = fn(&mut Image, &mut Dice<'_>);

/// Damages the image in one to eight ways at once. `earlier` is the same store a while ago.
pub fn wreck(image: &mut Image, earlier: &Image, dice: &mut Dice<'_>) {
    let mut ways: Vec<Way> = vec![frame, frame, bits];
    let extent = dice.below(3);
    if extent > 0 {
        let more: [Way; 2] = [cell, cell];
        ways.extend(more);
    }
    if extent > 1 {
        // Who owns which frame.
        let more: [Way; 6] = [tag, tag, slot, slot, intent, word];
        ways.extend(more);
    }
    if image.is_power() {
        let more: [Way; 7] = [stamp, stamp, stamp, moved_frame, state, state, cut_off];
        ways.extend(more);
    }
    if image.geometry.event_count() > 0 {
        ways.push(events);
    }
    let ways_at_once = dice.below(8);
    for _ in 0..=dice.below(ways_at_once + 1) {
        match dice.below(16) {
            0 => sectors(image, earlier, dice),
            _ => dice.choose(&ways)(image, dice),
        }
    }
    if dice.once_in(50) {
        superblock(image, dice);
    }
    if dice.once_in(50) {
        length(image, dice);
    }
}

/// Flips a bit of the file: eight times the byte's offset, and the bit in that.
pub fn flip(image: &mut Image, bit: u64) {
    let flipped = image.bytes[(bit / 8) as usize] ^ 1 << (bit % 8);
    image.put(bit / 8, &[flipped]);
}

fn any_block(image: &Image, dice: &mut Dice<'_>) -> u64 {
    dice.below(image.geometry.block_count())
}

fn any_frame(image: &Image, dice: &mut Dice<'_>) -> u64 {
    dice.below(image.geometry.frame_count())
}

fn any_writer(image: &Image, dice: &mut Dice<'_>) -> u64 {
    dice.below(image.geometry.writer_count().into())
}

/// A cell as another might be, or as it was or will be.
fn likely_cell(image: &Image, dice: &mut Dice<'_>) -> u64 {
    let other = image.number(image.cell_at(any_block(image, dice)));
    let sequence = other >> (image.index_bits() + 1);
    match dice.below(4) {
        0 => other,
        1 => image.cell(sequence.wrapping_sub(1), any_frame(image, dice)),
        2 => image.cell(sequence + 1, any_frame(image, dice)),
        _ => image.cell(sequence, any_frame(image, dice)),
    }
}

fn cell(image: &mut Image, dice: &mut Dice<'_>) {
    let at = image.cell_at(any_block(image, dice));
    let value = match dice.below(8) {
        0 => 0,
        1 => dice.number(8),
        2 => image.number(at) ^ 1 << dice.below(64),
        3 => image.cell(dice.nasty(4), dice.nasty(image.geometry.frame_count())),
        4 => image.number(at) | 1 << image.index_bits(),
        // The last of all sequences.
        5 => image.cell(u64::MAX, 0) | any_frame(image, dice),
        _ => likely_cell(image, dice),
    };
    image.put_number(at, value);
}

fn tag(image: &mut Image, dice: &mut Dice<'_>) {
    let at = image.at.tags + 2 * any_frame(image, dice);
    let value = match dice.below(5) {
        0 => 0,
        1 => u16::MAX,
        2 => dice.number(2) as u16,
        _ => dice.nasty(u64::from(image.geometry.writer_count()) + 1) as u16,
    };
    image.put(at, &value.to_le_bytes());
}

fn slot(image: &mut Image, dice: &mut Dice<'_>) {
    let field = dice.choose(&[SPARE, SPARE, RESERVE, INTENT_BLOCK, INTENT_CELL, FREED]);
    let value = match field {
        SPARE | RESERVE => dice.nasty(image.geometry.frame_count() + 1),
        INTENT_BLOCK => dice.number(4) << 32 | dice.nasty(image.geometry.block_count() + 2) & u64::from(u32::MAX),
        INTENT_CELL => likely_cell(image, dice),
        _ => dice.number(8),
    };
    let at = image.slot_at(any_writer(image, dice), field);
    image.put_number(at, value);
}

/// A slot as a writer might have left it that died in the middle of an update.
fn intent(image: &mut Image, dice: &mut Dice<'_>) {
    let (writer, frame) = (any_writer(image, dice), any_frame(image, dice));
    let value = dice.number(4) << 32 | (any_block(image, dice) + 1);
    image.put_number(image.slot_at(writer, INTENT_BLOCK), value);
    image.put_number(image.slot_at(writer, INTENT_CELL), likely_cell(image, dice));
    image.put_number(image.slot_at(writer, dice.choose(&[SPARE, RESERVE])), frame + 1);
    if dice.once_in(2) {
        image.put(image.at.tags + 2 * frame, &(writer as u16 + 1).to_le_bytes());
    }
}

fn frame(image: &mut Image, dice: &mut Dice<'_>) {
    let at = image.frame_at(any_frame(image, dice)) + dice.below(image.block_bytes() as u64 / 8) * 8;
    match dice.below(3) {
        0 => flip(image, 8 * at + dice.below(64)),
        _ => image.put_number(at, dice.nasty(image.geometry.frame_count())),
    }
}

fn stamp(image: &mut Image, dice: &mut Dice<'_>) {
    let (frame, other) = (any_frame(image, dice), any_frame(image, dice));
    let at = |field| image.stamp_at(frame, field);
    let (update, check, epoch) = (at(UPDATE), at(CHECK), at(EPOCH));
    match dice.below(9) {
        // Whether it is committed.
        0 => image.put_number(update, image.number(update) ^ 1),
        // Its sequence: one more or less, or far more.
        1 => image.put_number(update, image.number(update).wrapping_add(2)),
        2 => image.put_number(update, image.number(update).wrapping_sub(2)),
        3 => image.put_number(check, image.number(check) ^ 1 << dice.below(32)),
        // Its block.
        4 => image.put_number(update, any_block(image, dice) << 32 | image.number(update) & u64::from(u32::MAX)),
        // Another's.
        5 => [UPDATE, CHECK, EPOCH].into_iter().for_each(|field| {
            let value = image.number(image.stamp_at(other, field));
            image.put_number(image.stamp_at(frame, field), value);
        }),
        6 | 7 => image.put_number(epoch, dice.nasty(image.number(image.at.state + STARTED).saturating_add(1))),
        _ => image.put_number(dice.choose(&[update, check, epoch]), dice.number(8)),
    }
}

/// A frame with its stamp in the place of another: as a disk leaves it that writes to the wrong place.
fn moved_frame(image: &mut Image, dice: &mut Dice<'_>) {
    let (from, to) = (any_frame(image, dice), any_frame(image, dice));
    for field in [UPDATE, CHECK, EPOCH] {
        let value = image.number(image.stamp_at(from, field));
        image.put_number(image.stamp_at(to, field), value);
    }
    let bytes = image.frame(from).to_vec();
    image.put(image.frame_at(to), &bytes);
}

/// The flight recorder: its head, when it may record, a record as it is or as another.
fn events(image: &mut Image, dice: &mut Dice<'_>) {
    let capacity = u64::from(image.geometry.event_count());
    let records = image.at.events + RECORDS;
    let [one, other] = [(); 2].map(|()| records + RECORD_BYTES * dice.below(capacity));
    let word = one + 8 * dice.below(8);
    match dice.below(7) {
        0 => image.put_number(image.at.events + HEAD, dice.nasty(2 * capacity)),
        1 => image.put_number(image.at.events + NEXT + 128 * dice.below(3), dice.nasty(1 << 41)),
        2 => image.put_number(word, dice.number(8)),
        // Its lap.
        3 => image.put_number(word, image.number(word).wrapping_add(dice.number(2) << 48)),
        4 => (0..8).for_each(|word| image.put_number(one + 8 * word, image.number(other + 8 * word))),
        5 => image.put_number(image.slot_at(any_writer(image, dice), MISCOMPARES), dice.number(8)),
        // Nothing but garbage.
        _ => (0..capacity * 8).for_each(|word| {
            let value = dice.number(8);
            image.put_number(records + 8 * word, value);
        }),
    }
}

fn state(image: &mut Image, dice: &mut Dice<'_>) {
    let field =
        dice.choose(&[STARTED, COMPLETED, FAILED, MADE_GOOD, FLUSHING, PHASE, BOOT, BOOT + 24, LAST_RECOVERY + 8]);
    let at = image.at.state + field;
    let value = match dice.below(3) {
        0 => image.number(at) ^ 1 << dice.below(64),
        1 => image.number(at).wrapping_add(dice.below(5)).wrapping_sub(2),
        _ => dice.nasty(image.number(at).saturating_add(1)),
    };
    image.put_number(at, value);
}

/// It was in use when the machine went down.
fn cut_off(image: &mut Image, _: &mut Dice<'_>) {
    image.put_number(image.at.state + PHASE, 1);
    image.put_number(image.at.state + BOOT, !image.number(image.at.state + BOOT));
}

/// One bit, or a few beside one another, anywhere.
fn bits(image: &mut Image, dice: &mut Dice<'_>) {
    let start = SUPERBLOCK_BYTES as u64;
    let at = start + dice.below(image.at.end - start);
    for _ in 0..=dice.below(4) {
        flip(image, 8 * at + dice.below(8));
    }
}

/// A heartbeat word, or one of another section that changes in the same way.
fn word(image: &mut Image, dice: &mut Dice<'_>) {
    let at = image.at.state + dice.below((image.at.end - image.at.state) / 8) * 8;
    image.put_number(at, dice.nasty(image.geometry.frame_count()));
}

/// A sector that was zeroed, lost, or written to the wrong place.
fn sectors(image: &mut Image, earlier: &Image, dice: &mut Dice<'_>) {
    let first = image.at.state / SECTOR_BYTES;
    let any = |dice: &mut Dice<'_>| (first + dice.below(image.at.end / SECTOR_BYTES - first)) * SECTOR_BYTES;
    let (from, to) = (any(dice), any(dice));
    let sector = |image: &Image, at: u64| image.bytes[at as usize..][..SECTOR_BYTES as usize].to_vec();
    let bytes = match dice.below(4) {
        0 => vec![0; SECTOR_BYTES as usize],
        1 => sector(image, from),
        2 => (0..SECTOR_BYTES).map(|_| dice.number(1) as u8).collect(),
        _ => sector(earlier, to),
    };
    image.put(to, &bytes);
}

fn superblock(image: &mut Image, dice: &mut Dice<'_>) {
    let bit = dice.below(8 * 2 * SUPERBLOCK_BYTES as u64);
    flip(image, bit);
}

/// The file is cut short, or longer, at the border of a section or a sector.
fn length(image: &mut Image, dice: &mut Dice<'_>) {
    let (_, border) = dice.choose(&image.at.named());
    let length = match dice.below(4) {
        0 => dice.below(image.at.end),
        1 => (border + SECTOR_BYTES).saturating_sub(dice.below(3) * SECTOR_BYTES),
        _ => (border + 1).saturating_sub(dice.below(3)),
    };
    image.bytes.resize(length as usize, 0);
}
