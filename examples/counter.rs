//! Several threads (and several copies of this program, on one file) count in one block by compare-and-write.
//!
//! `cargo run --release --example counter [FILE]`

use std::error::Error;
use std::path::Path;
use std::thread;

use casblock::{Comparison, Geometry, OpenError, Store, Writer};

/// Adds 1 to the counter in the first 8 bytes of block 0.
fn increment(writer: &mut Writer, current: &mut [u8; 512]) -> Result<(), casblock::Error> {
    loop {
        let mut wanted = *current;
        let count = u64::from_le_bytes(*current.first_chunk().expect("512 bytes"));
        wanted[..8].copy_from_slice(&count.wrapping_add(1).to_le_bytes());
        match writer.compare_and_write_or_load(0, current, &wanted)? {
            Comparison::Written => {
                *current = wanted;
                return Ok(());
            }
            // Somebody else was faster; `current` is now what it wrote.
            Comparison::Miscompare { .. } => {}
        }
    }
}

/// Opens the store, or makes it.
fn open(path: &Path) -> Result<Store, OpenError> {
    match Store::create(path, Geometry::blocks(1)) {
        Err(OpenError::Exists { .. }) => Store::open(path),
        made => made,
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let store = match std::env::args_os().nth(1) {
        Some(path) => open(Path::new(&path))?,
        None => Store::in_memory(Geometry::blocks(1))?,
    };
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let mut writer = store.writer()?;
            Ok(thread::spawn(move || {
                let mut current = [0; 512];
                (0..250_000).try_for_each(|_| increment(&mut writer, &mut current))
            }))
        })
        .collect::<Result<_, casblock::Error>>()?;
    for thread in threads {
        thread.join().expect("no panic")?;
    }
    let mut block = [0; 512];
    store.read(0, &mut block)?;
    println!("4 threads added 250,000 each: {}", u64::from_le_bytes(*block.first_chunk().expect("512 bytes")));
    Ok(())
}
