//! The data of a COMPARE AND WRITE: what is expected, then what is new.

/// Bytes of a page.
const PAGE_BYTES: usize = 4096;

/// Both images, one after the other, from the beginning of a page on.
///
/// The alignment is not for speed. Linux's LIO target, where it is in the same kernel and so gets the caller's own pages
/// (`tcm_loop`), takes it for granted that both images of a block of 512 bytes lie in one page: where the page ends between
/// them, it wrote other bytes than the new image (seen with Linux 6.1; `compare_and_write_callback` in its
/// `target_core_sbc.c`).
pub(super) struct Images {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Images {
    pub fn new(expected: &[u8], new: &[u8]) -> Self {
        let mut bytes = vec![0; expected.len() + new.len() + PAGE_BYTES];
        let start = bytes.as_ptr().align_offset(PAGE_BYTES);
        let (middle, end) = (start + expected.len(), start + expected.len() + new.len());
        bytes[start..middle].copy_from_slice(expected);
        bytes[middle..end].copy_from_slice(new);
        Self { bytes, start, end }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_lie_behind_each_other_from_a_pages_beginning() {
        for _ in 0..100 {
            let images = Images::new(&[1; 512], &[2; 512]);
            assert_eq!(images.bytes().as_ptr().addr() % PAGE_BYTES, 0);
            assert_eq!(images.bytes(), [[1; 512], [2; 512]].concat());
        }
    }
}
