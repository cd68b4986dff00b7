//! `casblock word get` and `casblock word cas`.

use std::fmt;
use std::process::ExitCode;

use anyhow::Context as _;
use casblock::{OpenOptions, Store};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::number;
use crate::output::Output;
use crate::target::Target;
use crate::{durable, exit};

/// Reads or exchanges a heartbeat word
#[derive(Args, Debug)]
pub struct WordArgs {
    #[command(subcommand)]
    command: WordCommand,
}

#[derive(Subcommand, Debug)]
enum WordCommand {
    /// Prints a word's value
    Get {
        /// The store
        store: Target,
        /// The word, from 0
        #[arg(value_parser = number::count)]
        index: u64,
    },
    /// Replaces a word's value if it is the one expected
    ///
    /// Exit status: 0 replaced, 14 miscompare (the value found is shown), 1 another error, 2 wrong usage.
    Cas {
        /// The store
        store: Target,
        /// The word, from 0
        #[arg(value_parser = number::count)]
        index: u64,
        /// The value it must have, decimal or 0x…
        #[arg(value_parser = number::plain)]
        expected: u64,
        /// The value it gets, decimal or 0x…
        #[arg(value_parser = number::plain)]
        new: u64,
    },
}

/// `casblock word`.
pub fn run(args: &WordArgs, output: &Output) -> anyhow::Result<ExitCode> {
    match &args.command {
        WordCommand::Get { store, index } => {
            let path = store.store("heartbeat words")?;
            let value = Store::open_read_only(path)?.read_word(*index).with_context(|| store.to_string())?;
            output.result(&Value { index: *index, value })?;
            Ok(ExitCode::SUCCESS)
        }
        WordCommand::Cas { store, index, expected, new } => {
            let open = durable::open(store.store("heartbeat words")?, OpenOptions::new(), output)?;
            let (index, expected) = (*index, *expected);
            let word = open.word(index).with_context(|| store.to_string())?;
            match word.compare_exchange(expected, *new) {
                Ok(()) => {
                    output.result(&Exchange::Written { index })?;
                    Ok(ExitCode::SUCCESS)
                }
                Err(found) => {
                    output.result(&Exchange::Miscompare { index, expected, found })?;
                    Ok(ExitCode::from(exit::MISCOMPARE))
                }
            }
        }
    }
}

#[derive(Serialize)]
struct Value {
    index: u64,
    value: u64,
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.value)
    }
}

#[derive(Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
enum Exchange {
    Written { index: u64 },
    Miscompare { index: u64, expected: u64, found: u64 },
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Written { .. } => f.write_str("written"),
            Self::Miscompare { index, expected, found } => {
                write!(f, "miscompare: word {index} holds {found} ({found:#x}), not {expected} ({expected:#x})")
            }
        }
    }
}
