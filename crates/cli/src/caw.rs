//! `casblock caw`: one compare-and-write.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context as _, bail};
use casblock::ats::{Ats, Verdict};
use casblock::device::BlockDevice;
use casblock::{Error, Miscompare, Store};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _};
use serde::Serialize;

use crate::blocks::{check_range, hex};
use crate::hexdump::{ROW, column, row};
use crate::number;
use crate::output::Output;
use crate::target::{Consent, ONE_BLOCK_TIMEOUT, Target};
use crate::{durable, exit};

/// Compare-and-write: replaces a block if it holds what is expected
///
/// SRC is a file of exactly one block, `-` for stdin, `hex:…` (bytes in hexadecimal; zeros fill the rest of the block)
/// or `zero`. A block never written holds zeros.
///
/// Exit status: 0 written, 14 miscompare (the first byte that differs is shown), 3 a disk did not answer and nobody can tell
/// whether it wrote the block, 1 another error, 2 wrong usage. Unless it is 0 or 3, nothing was changed (but see an error of
/// --durable: it says so if the block was changed, and may not be on the disk).
#[derive(Args, Debug)]
pub struct CawArgs {
    /// The store, or scsi:/dev/sdX
    target: Target,
    /// The block, from 0
    #[arg(value_parser = number::count)]
    lba: u64,
    /// What the block must hold
    #[arg(long, value_name = "SRC")]
    expect: Source,
    /// What it gets
    #[arg(long, value_name = "SRC")]
    new: Source,
    /// Return only when it is on the disk, and survives a cut of the power
    #[arg(long)]
    durable: bool,
    #[command(flatten)]
    consent: Consent,
}

/// Where the contents of a block come from.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Source {
    File(PathBuf),
    Stdin,
    Hex(Vec<u8>),
    Zero,
}

impl FromStr for Source {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(digits) = text.strip_prefix("hex:") {
            return from_hex(digits).map(Self::Hex);
        }
        match text {
            "" => Err("a file, `-`, `hex:…` or `zero` is needed"),
            "-" => Ok(Self::Stdin),
            "zero" => Ok(Self::Zero),
            path => Ok(Self::File(path.into())),
        }
    }
}

/// The bytes that hexadecimal digits say.
fn from_hex(digits: &str) -> Result<Vec<u8>, &'static str> {
    if !digits.len().is_multiple_of(2) {
        return Err("hex: two digits a byte are needed");
    }
    let value = |digit: u8| (digit as char).to_digit(16).ok_or("hex: something is no hexadecimal digit");
    digits.as_bytes().chunks_exact(2).map(|pair| Ok((value(pair[0])? << 4 | value(pair[1])?) as u8)).collect()
}

impl Source {
    /// One block's contents.
    fn block(&self, block_size: usize) -> anyhow::Result<Vec<u8>> {
        let (name, mut reader): (String, Box<dyn Read>) = match self {
            Self::Zero => return Ok(vec![0; block_size]),
            Self::Hex(bytes) => {
                if bytes.len() > block_size {
                    bail!("hex: {} bytes given; a block of this store has {block_size}", bytes.len());
                }
                let mut block = bytes.clone();
                block.resize(block_size, 0);
                return Ok(block);
            }
            Self::Stdin => ("stdin".into(), Box::new(io::stdin().lock())),
            Self::File(path) => {
                let name = path.display().to_string();
                let file = File::open(path).with_context(|| format!("{name}: opening"))?;
                (name, Box::new(file))
            }
        };
        let mut block = Vec::with_capacity(block_size + 1);
        let read = reader.by_ref().take(block_size as u64 + 1).read_to_end(&mut block);
        read.with_context(|| format!("{name}: reading"))?;
        match block.len() {
            length if length == block_size => Ok(block),
            length if length > block_size => bail!("{name}: longer than a block, which has {block_size} bytes here"),
            length => bail!("{name}: {length} bytes; exactly one block of {block_size} bytes is needed"),
        }
    }
}

/// `casblock caw`.
pub fn caw(args: &CawArgs, output: &Output) -> anyhow::Result<ExitCode> {
    if args.expect == Source::Stdin && args.new == Source::Stdin {
        let message = "--expect and --new cannot both be read from stdin";
        let mut command = crate::Cli::command();
        command.build();
        command.find_subcommand_mut("caw").expect("it was called").error(ErrorKind::ArgumentConflict, message).exit();
    }
    let opened = args.target.open_to_write_in_time(args.consent, ONE_BLOCK_TIMEOUT, output)?;
    if args.durable {
        durable::require_power(&opened, &args.target)?;
    }
    check_range(opened.as_device(), &args.target, args.lba, 1)?;
    let block_size = opened.as_device().block_bytes();
    let (expected, new) = (args.expect.block(block_size)?, args.new.block(block_size)?);
    let outcome = match opened.as_store() {
        Some(store) => on_store(store, args, expected, &new),
        None => on_disk(opened.as_device(), args, expected, &new),
    };
    let outcome = outcome.with_context(|| args.target.to_string())?;
    output.result(&outcome)?;
    Ok(match outcome {
        Outcome::Written { .. } => ExitCode::SUCCESS,
        Outcome::Miscompare { .. } => ExitCode::from(exit::MISCOMPARE),
        Outcome::Indeterminate { .. } => ExitCode::from(exit::INDETERMINATE),
    })
}

fn on_store(store: &Store, args: &CawArgs, expected: Vec<u8>, new: &[u8]) -> anyhow::Result<Outcome> {
    let lba = args.lba;
    let answer = match args.durable {
        true => store.durable().and_then(|durable| durable.compare_and_write(lba, &expected, new)),
        false => store.compare_and_write(lba, &expected, new),
    };
    match answer {
        Ok(()) => Ok(Outcome::Written { lba }),
        Err(Error::Miscompare(miscompare)) => {
            let Miscompare { lba, offset, found } = *miscompare;
            Ok(Outcome::Miscompare { lba, offset, expected: Hex(expected), found: Hex(found.into()) })
        }
        Err(error) => Err(error.into()),
    }
}

/// A disk may not answer: it is asked again, and looked at.
fn on_disk(disk: &dyn BlockDevice, args: &CawArgs, expected: Vec<u8>, new: &[u8]) -> anyhow::Result<Outcome> {
    let lba = args.lba;
    match Ats::new(disk).compare_and_write(lba, &expected, new).verdict {
        Verdict::Written | Verdict::OwnWriteLanded { .. } => {
            if args.durable {
                disk.flush().context("the block was written")?;
            }
            Ok(Outcome::Written { lba })
        }
        Verdict::PeerChanged { offset, found, .. } => {
            Ok(Outcome::Miscompare { lba, offset, expected: Hex(expected), found: Hex(found.into()) })
        }
        Verdict::Unwritten { source } => Err(source.into()),
        Verdict::Indeterminate { may_still_land, source, .. } => {
            Ok(Outcome::Indeterminate { lba, may_still_land, reason: source.to_string() })
        }
    }
}

/// Bytes that JSON shows in hexadecimal.
struct Hex(Vec<u8>);

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

#[derive(Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
enum Outcome {
    Written { lba: u64 },
    Miscompare { lba: u64, offset: usize, expected: Hex, found: Hex },
    Indeterminate { lba: u64, may_still_land: bool, reason: String },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lba, offset, expected, found) = match self {
            Self::Written { .. } => return f.write_str("written"),
            Self::Miscompare { lba, offset, expected, found } => (lba, *offset, expected, found),
            Self::Indeterminate { lba, may_still_land, reason } => {
                write!(f, "not known: block {lba} may have been written ({reason})")?;
                return match may_still_land {
                    true => f.write_str(", or may be yet: read it again later"),
                    false => Ok(()),
                };
            }
        };
        let start = offset - offset % ROW;
        let bytes = start..start + ROW;
        writeln!(
            f,
            "miscompare: block {lba} differs at offset {offset} ({offset:#x}); bytes {start:#x} to {:#x}:",
            bytes.end - 1
        )?;
        writeln!(f, "expected  {}", row(&expected.0[bytes.clone()]))?;
        writeln!(f, "found     {}", row(&found.0[bytes]))?;
        write!(f, "          {:1$}^^", "", column(offset % ROW))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_apart() {
        assert_eq!("zero".parse(), Ok(Source::Zero));
        assert_eq!("./zero".parse(), Ok(Source::File("./zero".into())));
        assert_eq!("-".parse(), Ok(Source::Stdin));
        assert_eq!("hex:".parse(), Ok(Source::Hex(vec![])));
        assert_eq!("hex:00fFa0".parse(), Ok(Source::Hex(vec![0, 0xff, 0xa0])));
        for wrong in ["", "hex:0", "hex:0g", "hex:é", "hex:+1"] {
            assert!(wrong.parse::<Source>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_miscompare_marks_the_byte_that_differs() {
        let mut found = vec![0; 512];
        found[0x29] = 0x41;
        let outcome = Outcome::Miscompare { lba: 7, offset: 0x29, expected: Hex(vec![0; 512]), found: Hex(found) };
        let expected = "\
miscompare: block 7 differs at offset 41 (0x29); bytes 0x20 to 0x2f:
expected  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|
found     00 00 00 00 00 00 00 00  00 41 00 00 00 00 00 00  |.........A......|
                                      ^^";
        assert_eq!(outcome.to_string(), expected);
    }
}
