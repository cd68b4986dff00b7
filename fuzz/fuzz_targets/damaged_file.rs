//! A real store, damaged as the input says, and a sequence of operations on it, also as the input says. What is demanded
//! of it is what the tests of damaged files demand: see `ordeal`.
#![no_main]

use std::sync::LazyLock;

use casblock::{Durability, Geometry};
use libfuzzer_sys::fuzz_target;

mod common;
#[path = "../../tests/common/damage.rs"]
mod damage;
#[path = "../../tests/common/dice.rs"]
mod dice;
#[path = "../../tests/common/image.rs"]
mod image;
#[path = "../../tests/common/model.rs"]
mod model;
#[path = "../../tests/common/ordeal.rs"]
mod ordeal;
#[path = "../../tests/common/wreck.rs"]
mod wreck;

use dice::Dice;
use model::Model;
use ordeal::{Tally, ordeal};

static MODELS: LazyLock<[Model; 2]> = LazyLock::new(|| {
    [Durability::Process, Durability::Power]
        .map(|durability| Model::new(Geometry::blocks(8).words(4).writers(3).durability(durability)))
});

/// Inputs of any bytes are as good as any.
fn seeds() -> Vec<Vec<u8>> {
    let bytes = |seed: u64, count: u64| (0..count).map(|index| image::mix(seed << 32 | index) as u8).collect();
    (0..64).map(|seed| bytes(seed, 32 + 8 * seed)).collect()
}

fuzz_target!(init: common::start(seeds), |input: &[u8]| {
    common::planted();
    let mut dice = Dice::fed(input);
    let model = &MODELS[dice.below(2) as usize];
    let sound = [&model.closed, &model.killed][dice.below(2) as usize];
    let mut damaged = sound.clone();
    wreck::wreck(&mut damaged, &model.earlier, &mut dice);
    ordeal(&model.victim, sound, &damaged, &mut dice, &mut Tally::default());
});
