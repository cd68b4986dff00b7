//! What the targets share: seeds, and a fault to be found.

use std::path::PathBuf;

/// Puts inputs into the folder for them, if there is one.
pub fn start(seeds: impl Fn() -> Vec<Vec<u8>>) {
    let Some(folder) = std::env::var_os("CASBLOCK_FUZZ_SEEDS").map(PathBuf::from) else { return };
    std::fs::create_dir_all(&folder).unwrap();
    for (number, seed) in seeds().into_iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{number}")), seed).unwrap();
    }
}

/// Reads beyond its bounds, where that was asked for: what finds nothing there finds nothing elsewhere.
pub fn planted() {
    if std::env::var_os("CASBLOCK_FUZZ_PLANT").is_some() {
        let bytes = vec![0u8; 16].into_boxed_slice();
        let beyond = bytes.as_ptr().wrapping_add(std::hint::black_box(bytes.len()));
        // SAFETY: none. It is behind the box.
        std::hint::black_box(unsafe { beyond.read_volatile() });
    }
}
