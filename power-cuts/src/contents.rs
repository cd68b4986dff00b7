//! What the workload writes: blocks that can be told from each other, and whole ones from torn ones.

/// A well-mixed number for each number.
pub fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The contents number `id`, of so many bytes. Number 0 is zeros.
pub fn block(id: u64, bytes: usize) -> Vec<u8> {
    if id == 0 {
        return vec![0; bytes];
    }
    let words = (0..bytes as u64 / 8).map(|at| if at == 0 { id } else { mixed(id ^ at << 48) });
    words.flat_map(u64::to_le_bytes).collect()
}

/// The number of these contents, if they are whole.
pub fn id_of(contents: &[u8]) -> Option<u64> {
    let id = crate::layout::number_at(contents, 0);
    (block(id, contents.len()) == contents).then_some(id)
}
