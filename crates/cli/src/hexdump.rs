//! Bytes for people: as `hexdump -C` shows them.

use std::fmt::Write as _;
use std::io::{self, Write};

/// Bytes in a row.
pub const ROW: usize = 16;

/// The columns of a row: two groups of eight bytes, then the characters.
pub fn row(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(3 * ROW + ROW + 4);
    for (index, byte) in bytes.iter().enumerate() {
        text.push_str(if index == ROW / 2 { " " } else { "" });
        let _ = write!(text, "{byte:02x} ");
    }
    let characters = bytes.iter().map(|&byte| if byte == b' ' || byte.is_ascii_graphic() { byte as char } else { '.' });
    let _ = write!(text, "{:1$}|{2}|", "", column(ROW) + 1 - text.len(), characters.collect::<String>());
    text
}

/// Where in a row the byte at `index` begins.
pub fn column(index: usize) -> usize {
    3 * index + usize::from(index >= ROW / 2)
}

/// Prints rows with their offsets; rows like the one before become one `*`.
#[derive(Debug)]
pub struct Hexdump<W> {
    out: W,
    offset: u64,
    last: Option<[u8; ROW]>,
    repeats: bool,
}

impl<W: Write> Hexdump<W> {
    /// A dump to `out` of bytes that begin at `offset`.
    pub fn new(out: W, offset: u64) -> Self {
        Self { out, offset, last: None, repeats: false }
    }

    /// Dumps a whole number of rows.
    pub fn rows(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (rows, rest) = bytes.as_chunks::<ROW>();
        assert!(rest.is_empty(), "blocks are whole rows");
        for bytes in rows {
            if self.last.as_ref() != Some(bytes) {
                writeln!(self.out, "{:08x}  {}", self.offset, row(bytes))?;
                self.last = Some(*bytes);
                self.repeats = false;
            } else if !self.repeats {
                writeln!(self.out, "*")?;
                self.repeats = true;
            }
            self.offset += ROW as u64;
        }
        Ok(())
    }

    /// Ends the dump with the offset that comes next.
    pub fn finish(mut self) -> io::Result<()> {
        writeln!(self.out, "{:08x}", self.offset)?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_looks_like_hexdump_c_also_in_pieces() {
        let mut bytes = [0; 96];
        bytes[..13].copy_from_slice(b"Hello, world\n");
        bytes[80] = 0xff;
        let mut text = Vec::new();
        let mut dump = Hexdump::new(&mut text, 0xe00);
        for piece in bytes.chunks(32) {
            dump.rows(piece).unwrap();
        }
        dump.finish().unwrap();
        let expected = "\
00000e00  48 65 6c 6c 6f 2c 20 77  6f 72 6c 64 0a 00 00 00  |Hello, world....|
00000e10  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|
*
00000e50  ff 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|
00000e60
";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn a_byte_is_at_its_column() {
        let bytes: [u8; ROW] = std::array::from_fn(|index| index as u8 + 0xa0);
        let row = row(&bytes);
        for (index, byte) in bytes.iter().enumerate() {
            assert_eq!(row[column(index)..][..2], format!("{byte:02x}"));
        }
    }
}
