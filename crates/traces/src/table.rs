//! CSV: a line a request, the first line names the columns.

use std::io::Read;
use std::num::IntErrorKind;

use anyhow::{Context as _, bail};

use crate::trace::{Op, Request, SECTOR_BYTES, Trace, broken};

/// Names of the columns that are needed, in small letters; others are passed over.
const OP: [&str; 4] = ["op", "type", "operation", "rw"];
const LBA: [&str; 4] = ["lba", "lbn", "sector", "block"];
const OFFSET: [&str; 2] = ["offset_bytes", "offset"];
const BYTES: [&str; 4] = ["length_bytes", "bytes", "length", "size"];

/// Where a request begins.
#[derive(Clone, Copy)]
enum Start {
    /// In sectors of 512 bytes.
    Lba(usize),
    /// In bytes.
    Offset(usize),
}

/// Reads all lines.
pub fn read(input: impl Read) -> anyhow::Result<Trace> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).flexible(false).from_reader(input);
    let headers = reader.headers().context("the first line")?.clone();
    let column =
        |names: &[&str]| headers.iter().position(|header| names.contains(&header.to_ascii_lowercase().as_str()));
    let start = column(&LBA).map(Start::Lba).or_else(|| column(&OFFSET).map(Start::Offset));
    let (Some(op), Some(start), Some(bytes)) = (column(&OP), start, column(&BYTES)) else {
        bail!("the first line must name the columns: op, lba (or offset_bytes), length_bytes");
    };
    let mut trace = Trace::default();
    for (number, record) in (0..).zip(reader.records()) {
        let record = record.with_context(|| format!("record {number}"))?;
        let line = record.position().map(csv::Position::byte);
        let number_in = |column: usize| number_of(record.get(column).unwrap_or(""));
        let op = match record.get(op).unwrap_or("").to_ascii_lowercase().as_str() {
            "r" | "read" => Op::Read,
            "w" | "write" => Op::Write,
            "" => return broken(number, line, "it says neither read nor write"),
            _ => {
                trace.other_commands += 1;
                continue;
            }
        };
        let at = match start {
            Start::Lba(column) => number_in(column).map(|lba| lba.saturating_mul(SECTOR_BYTES)),
            Start::Offset(column) => number_in(column),
        };
        let (Some(start), Some(bytes)) = (at, number_in(bytes)) else {
            return broken(number, line, "where it begins, or its length, is no number");
        };
        trace.requests.push(Request { op, start, bytes });
    }
    Ok(trace)
}

/// A number; one of more than 64 bits is as large as they allow.
fn number_of(text: &str) -> Option<u64> {
    match text.parse::<u64>() {
        Ok(number) => Some(number),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => Some(u64::MAX),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_go_by_their_names() {
        let expected =
            [Request { op: Op::Read, start: 4096, bytes: 512 }, Request { op: Op::Write, start: 512, bytes: 1024 }];
        for text in [
            "op,lba,length_bytes\nr,8,512\nw,1,1024\n",
            "time_us,Length_Bytes,LBA,OP\n1,512,8,READ\n2,1024,1,Write\n3,0,0,flush\n",
            "offset,size,type\r\n4096, 512, R\r\n512, 1024, W\r\n",
        ] {
            assert_eq!(read(text.as_bytes()).unwrap().requests, expected, "{text}");
        }
    }

    #[test]
    fn what_lies_beyond_64_bits_ends_nothing() {
        for (column, start) in [
            ("lba", "36028797018963968"),
            ("lba", "18446744073709551615"),
            ("lba", "18446744073709551616"),
            ("offset", "18446744073709551616"),
        ] {
            let text = format!("op,{column},bytes\nr,{start},512\nw,512,99999999999999999999\n");
            let requests = read(text.as_bytes()).unwrap().requests;
            assert_eq!((requests[0].start, requests[1].bytes), (u64::MAX, u64::MAX), "{text}");
        }
    }

    #[test]
    fn damage_is_told_with_its_place() {
        let error = |text: &str| format!("{:#}", read(text.as_bytes()).unwrap_err());
        assert!(error("a,b\n1,2\n").contains("must name the columns"));
        assert_eq!(
            error("op,lba,bytes\nr,8,512\nr,x,512\n"),
            "record 1, at byte 21: where it begins, or its length, is no number"
        );
        assert!(error("op,lba,bytes\nr,-18446744073709551616,512\n").contains("record 0"));
        assert!(error("op,lba,bytes\nr,8\n").contains("record 0"));
        assert!(error("op,lba,bytes\n,8,512\n").contains("neither"));
    }
}
