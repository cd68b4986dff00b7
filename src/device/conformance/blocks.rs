//! Cases of one caller: what is read, compared and written.

use super::{Context, Finding, Verdict};

pub(super) fn write_read(context: &Context<'_>) -> Verdict {
    let region = context.region;
    for (what, lba) in (1..).zip([region.first_lba, context.middle(), context.last()]) {
        let image = context.image(what);
        context.write(lba, &image)?;
        context.holds(lba, &image, "after a write")?;
    }
    // All at once, each block another.
    let count = region.blocks.min(64);
    let images: Vec<u8> = (0..count).flat_map(|block| context.image(100 + block as u8)).collect();
    context.write(region.first_lba, &images)?;
    context.holds(region.first_lba, &images, "after a write of many blocks")?;
    for (lba, image) in (region.first_lba..).zip(images.chunks(context.block_bytes())) {
        context.holds(lba, image, "after a write of many blocks, read one by one")?;
    }
    Ok(())
}

pub(super) fn zeros(context: &Context<'_>) -> Verdict {
    let (zeros, image) = (vec![0; context.block_bytes()], context.image(1));
    context.holds(context.middle(), &zeros, "after zeros were written")?;
    context.replace(context.middle(), &zeros, &image)?;
    context.holds(context.middle(), &image, "after a compare-and-write of zeros")
}

pub(super) fn written_alone(context: &Context<'_>) -> Verdict {
    let (first, last, count) = (context.region.first_lba, context.last(), context.region.blocks.min(64));
    let mut images: Vec<Vec<u8>> = (0..count).map(|block| context.image(block as u8)).collect();
    for (lba, image) in (first..).zip(&images) {
        context.write(lba, image)?;
    }
    for block in [0, count / 2, count - 1] {
        let new = context.image(128 + block as u8);
        context.replace(first + block, &images[block as usize], &new)?;
        images[block as usize] = new;
        context.holds(first, &images.concat(), &format!("after a compare-and-write of block {}", first + block))?;
    }
    // The region's last block, and so perhaps the device's.
    let image = context.image(77);
    context.write(last, &image)?;
    context.replace(last, &image, &context.image(78))
}

pub(super) fn miscompare(context: &Context<'_>) -> Verdict {
    let (lba, image) = (context.middle(), context.image(1));
    let around = [context.image(2), image.clone(), context.image(3)].concat();
    context.write(lba - 1, &around)?;
    for offset in 0..context.block_bytes() {
        let mut expected = image.clone();
        expected[offset] ^= 1 << (offset % 8);
        context.miscompares(lba, &expected, &context.image(9), offset, &image)?;
    }
    context.holds(lba - 1, &around, "after miscompares")
}

pub(super) fn first_difference(context: &Context<'_>) -> Verdict {
    let (lba, image) = (context.middle(), context.image(1));
    context.write(lba, &image)?;
    let last = context.block_bytes() - 1;
    for offset in [0, 1, 7, 8, 63, 255, 256, last - 1] {
        let mut expected = image.clone();
        expected[offset..].iter_mut().for_each(|byte| *byte = !*byte);
        context.miscompares(lba, &expected, &context.image(9), offset, &image)?;
        let mut expected = image.clone();
        (expected[offset], expected[last]) = (!expected[offset], !expected[last]);
        context.miscompares(lba, &expected, &context.image(9), offset, &image)?;
    }
    context.holds(lba, &image, "after miscompares")
}

pub(super) fn same_again(context: &Context<'_>) -> Verdict {
    let (lba, image) = (context.middle(), context.image(1));
    context.write(lba, &image)?;
    context.replace(lba, &image, &image)?;
    context.holds(lba, &image, "after it was replaced by the same")?;
    let other = context.image(2);
    context.miscompares(lba, &other, &other, crate::device::first_difference(&image, &other).unwrap_or(0), &image)
}

pub(super) fn back_and_forth(context: &Context<'_>) -> Verdict {
    let (lba, one, other) = (context.middle(), context.image(1), context.image(2));
    context.write(lba, &one)?;
    for _ in 0..20 {
        context.replace(lba, &one, &other)?;
        context.replace(lba, &other, &one)?;
    }
    context.holds(lba, &one, "after going back and forth")
}

pub(super) fn many_blocks(context: &Context<'_>) -> Verdict {
    if context.most() == 1 {
        return Err(Finding::NotApplicable("a compare-and-write takes one block".into()));
    }
    let (first, count) = (context.region.first_lba, context.most().min(context.region.blocks - 1));
    let images = |what: u8| (0..count).flat_map(|block| context.image(what ^ block as u8)).collect::<Vec<u8>>();
    let (old, new) = (images(1), images(0x80));
    let after = context.image(77);
    context.write(first, &old)?;
    context.write(first + count, &after)?;
    for block in [0, count / 2, count - 1] {
        let offset = block as usize * context.block_bytes() + 5;
        let mut expected = old.clone();
        expected[offset] = !expected[offset];
        context.miscompares(first, &expected, &new, offset, &old)?;
        context.holds(first, &old, "after a miscompare of many blocks")?;
    }
    context.replace(first, &old, &new)?;
    context.holds(first, &new, "after a compare-and-write of many blocks")?;
    context.holds(first + count, &after, "after a compare-and-write of the blocks before it")
}
