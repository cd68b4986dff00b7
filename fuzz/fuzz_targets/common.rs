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
        // SAFETY: none. It is behind the box.
        let beyond = unsafe { bytes.as_ptr().add(std::hint::black_box(bytes.len())).read_volatile() };
        std::hint::black_box(beyond);
    }
}
