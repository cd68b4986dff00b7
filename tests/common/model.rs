//! The stores that tests of damage start from.

use casblock::{Event, EventKind, Geometry};

use super::damage::Victim;
use super::image::{Image, assert_sound, contents, mix};

/// A store that was used for a while, in the ways that one can be left.
pub struct Model {
    pub victim: Victim,
    /// As it was in the middle of that.
    pub earlier: Image,
    /// As it was before it was closed: what is there when all who used it are killed.
    pub killed: Image,
    /// As it is now.
    pub closed: Image,
}

impl Model {
    pub fn new(geometry: Geometry) -> Self {
        let (mut earlier, mut killed) = (Vec::new(), Vec::new());
        let victim = Victim::in_memory(geometry, |store| {
            let read = || std::fs::read(store.path().unwrap()).unwrap();
            let mut writer = (geometry.writer_count() > 1).then(|| store.writer().unwrap());
            for version in 1..=6 {
                for block in 0..geometry.block_count() {
                    // Some blocks are never written, some later than others, some more often.
                    if block % 8 == 7 || mix(block << 8 | version).is_multiple_of(2) {
                        continue;
                    }
                    let new = contents(block, version, geometry.size_of_block().bytes());
                    match &mut writer {
                        Some(writer) if block % 3 > 0 => writer.write(block, &new).unwrap(),
                        _ => store.write(block, &new).unwrap(),
                    }
                }
                match version {
                    2 => store.sync().unwrap(),
                    3 => earlier = read(),
                    4 => store.sync().unwrap(),
                    _ => {}
                }
            }
            for number in 0..40 {
                let mut event = Event::new(EventKind::LeaseBroken);
                event.found = number;
                store.record_event(&event).unwrap();
            }
            store.word(0).unwrap().compare_exchange(0, 99).unwrap();
            killed = read();
        });
        let [earlier, killed, closed] =
            [earlier, killed, victim.sound().to_vec()].map(|bytes| Image::new(bytes, geometry));
        [&killed, &closed].into_iter().for_each(assert_sound);
        Self { victim, earlier, killed, closed }
    }
}
