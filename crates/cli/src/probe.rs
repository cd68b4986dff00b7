//! `casblock probe`: what a target can do, and what casblock would use of it.

use std::fmt;
use std::process::ExitCode;

use anyhow::Context as _;
use casblock::device::scsi::{Probe, Proof, ReportedOffset};
use casblock::{Durability, Store};
use clap::Args;
use serde::Serialize;

use crate::number::{bytes, grouped};
use crate::output::Output;
use crate::target::{Consent, Device, Target};

/// Tells what a disk, or a store, can do, and what casblock would use of it
///
/// Changes nothing. Whether a disk compares before it writes is tried out, by a COMPARE AND WRITE whose comparison cannot
/// succeed: what disks claim is not to be relied on. On a disk that seems to be in use that is left out, as one that does
/// not compare would write, without --i-know-what-is-on-it.
///
/// Exit status: 0 if compare-and-write works on it, 1 if not, or if it cannot be found out.
#[derive(Args, Debug)]
pub struct ProbeArgs {
    /// The store, or scsi:/dev/sdX
    target: Target,
    #[command(flatten)]
    consent: Consent,
}

/// `casblock probe`.
pub fn probe(args: &ProbeArgs, output: &Output) -> anyhow::Result<ExitCode> {
    match &args.target {
        Target::Store(_) => {
            if let Device::Store(store) = args.target.open_to_read()? {
                output.result(&StoreFacts::of(&store, args.target.to_string()))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Target::Scsi(_) => {
            let (disk, in_use) = args.target.examine(args.consent)?;
            let facts = DiskFacts::of(&disk, args.target.to_string(), in_use);
            output.result(&facts).context("writing to stdout")?;
            Ok(if facts.compare_and_write_blocks_max > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

/// What is known of a store.
#[derive(Serialize)]
struct StoreFacts {
    target: String,
    kind: &'static str,
    block_bytes: usize,
    blocks: u64,
    heartbeat_words: u64,
    survives_power_cuts: bool,
    compare_and_write_blocks_max: u32,
}

impl StoreFacts {
    fn of(store: &Store, target: String) -> Self {
        let geometry = store.geometry();
        Self {
            target,
            kind: "store",
            block_bytes: geometry.size_of_block().bytes(),
            blocks: geometry.block_count(),
            heartbeat_words: geometry.word_count(),
            survives_power_cuts: geometry.durability_class() == Durability::Power,
            compare_and_write_blocks_max: 1,
        }
    }
}

impl fmt::Display for StoreFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "store              {}", self.target)?;
        writeln!(f, "blocks             {} of {} bytes", grouped(self.blocks), self.block_bytes)?;
        writeln!(f, "shared by          the processes of this host; a disk is needed for more")?;
        let survives =
            if self.survives_power_cuts { "yes, once it is synced" } else { "no: its processes' deaths only" };
        writeln!(f, "survives power cut {survives}")?;
        writeln!(f, "compare-and-write  one block, in memory, reports the offset and the block found")?;
        write!(f, "heartbeats         in {} words of 8 bytes, by compare-and-swap", grouped(self.heartbeat_words))
    }
}

/// What is known of a disk.
#[derive(Serialize)]
struct DiskFacts {
    target: String,
    kind: &'static str,
    vendor: String,
    product: String,
    revision: String,
    serial_number: Option<String>,
    name: Option<String>,
    block_bytes: u32,
    physical_block_bytes: u64,
    blocks: u64,
    thin_provisioned: bool,
    write_protected: Option<bool>,
    write_cache: Option<bool>,
    force_unit_access: bool,
    compare_and_write_force_unit_access: bool,
    written_through: bool,
    compare_and_write: &'static str,
    compare_and_write_listed: Option<bool>,
    compare_and_write_blocks_claimed: Option<u8>,
    compare_and_write_blocks_max: u8,
    miscompare_offset: Option<&'static str>,
    not_known_because: Option<String>,
    in_use: Option<String>,
}

impl DiskFacts {
    fn of(probe: &Probe, target: String, in_use: Option<String>) -> Self {
        let capacity = &probe.capacity;
        let (compare_and_write, offset, reason) = match &probe.compare_and_write {
            Proof::Works { offset, .. } => ("works", Some(offset_name(offset)), None),
            Proof::Unsupported => ("unsupported", None, None),
            Proof::ComparesNothing => ("broken", None, None),
            Proof::NotKnown { reason } => ("not_known", None, Some(reason.clone())),
            _ => ("not_tried", None, None),
        };
        Self {
            target,
            kind: "scsi",
            vendor: probe.inquiry.vendor.clone(),
            product: probe.inquiry.product.clone(),
            revision: probe.inquiry.revision.clone(),
            serial_number: probe.serial_number.clone(),
            name: probe.designator.clone(),
            block_bytes: capacity.block_bytes,
            physical_block_bytes: u64::from(capacity.block_bytes) << capacity.physical_block_exponent,
            blocks: probe.block_count(),
            thin_provisioned: capacity.thin,
            write_protected: probe.mode.map(|mode| mode.write_protected),
            write_cache: probe.mode.and_then(|mode| mode.write_cache),
            force_unit_access: probe.force_unit_access,
            compare_and_write_force_unit_access: probe.compare_and_write_force_unit_access(),
            written_through: probe.is_written_through(),
            compare_and_write,
            compare_and_write_listed: probe.compare_and_write_listed,
            compare_and_write_blocks_claimed: probe.block_limits.map(|limits| limits.compare_and_write_blocks_max),
            compare_and_write_blocks_max: match compare_and_write {
                "works" => probe.compare_and_write_blocks_max(),
                _ => 0,
            },
            miscompare_offset: offset,
            not_known_because: reason,
            in_use,
        }
    }

    /// What was found out about compare-and-write, in words.
    fn found(&self) -> String {
        match (self.compare_and_write, &self.not_known_because) {
            ("works", _) => "works: tried out".into(),
            ("unsupported", _) => "none: the disk refuses COMPARE AND WRITE".into(),
            ("broken", _) => "BROKEN: it says that it wrote where it should not have".into(),
            (_, Some(reason)) => format!("not known: {reason}"),
            _ if self.in_use.is_some() => "not tried: it is in use (--i-know-what-is-on-it)".into(),
            _ => "not tried: it cannot be written".into(),
        }
    }
}

fn offset_name(offset: &ReportedOffset) -> &'static str {
    match offset {
        ReportedOffset::None => "none",
        ReportedOffset::Right => "right",
        ReportedOffset::Wrong(_) => "wrong",
        ReportedOffset::Unchecked => "unchecked",
    }
}

impl fmt::Display for DiskFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes_no = |value: Option<bool>| match value {
            Some(true) => "yes",
            Some(false) => "no",
            None => "not reported",
        };
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "not reported".into());
        let length = self.blocks.saturating_mul(self.block_bytes.into());
        writeln!(f, "disk               {}", self.target)?;
        writeln!(f, "product            {} {}, revision {}", self.vendor, self.product, self.revision)?;
        writeln!(f, "serial number      {}", or_none(&self.serial_number))?;
        writeln!(f, "name on all paths  {}", or_none(&self.name))?;
        writeln!(f, "length             {} in {} blocks", bytes(length), grouped(self.blocks))?;
        writeln!(f, "block              {} bytes, {} physical", self.block_bytes, self.physical_block_bytes)?;
        writeln!(f, "thin provisioned   {}", if self.thin_provisioned { "yes" } else { "no" })?;
        writeln!(f, "write protected    {}", yes_no(self.write_protected))?;
        writeln!(f, "write cache        {}", yes_no(self.write_cache))?;
        let takes_fua = match (self.force_unit_access, self.compare_and_write_force_unit_access) {
            (true, true) => "yes",
            (true, false) => "yes, but not with compare-and-write",
            _ => "no",
        };
        writeln!(f, "takes FUA          {takes_fua}")?;
        writeln!(f, "in use             {}", self.in_use.as_deref().unwrap_or("no sign of it"))?;
        writeln!(f, "compare-and-write  {}", self.found())?;
        let claimed = match self.compare_and_write_blocks_claimed {
            None => "nothing (no block limits page)".to_owned(),
            Some(0) => "not supported".to_owned(),
            Some(blocks) => format!("{blocks} block{} at most", if blocks == 1 { "" } else { "s" }),
        };
        writeln!(f, "  it claims        {claimed}")?;
        let offset = match self.miscompare_offset {
            Some("right") => "reported",
            Some("none") => "not reported: the block is read, and compared here",
            Some("wrong") => "reported WRONGLY: the block is read, and compared here",
            _ => "not known",
        };
        writeln!(f, "  mismatch offset  {offset}")?;
        let uses = match (self.compare_and_write_blocks_max, self.compare_and_write) {
            (0, "not_tried") => "not known".to_owned(),
            (0, _) => "nothing: without compare-and-write it is of no use".to_owned(),
            (blocks, _) => {
                let fua = match (self.compare_and_write_force_unit_access, self.write_cache) {
                    (true, _) => ", with FUA",
                    (false, Some(false)) => "; there is no write cache",
                    (false, _) => ", without FUA",
                };
                format!("COMPARE AND WRITE of {blocks} block{}{fua}", if blocks == 1 { "" } else { "s" })
            }
        };
        if !self.written_through {
            writeln!(f, "CAUTION            updates are done before they are on stable storage: a cut of")?;
            writeln!(f, "                   the disk's power may take back acknowledged updates, and")?;
            writeln!(f, "                   leases with them; only `casblock sync` and --durable flush")?;
        }
        write!(f, "casblock uses      {uses}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_fits_a_terminal() {
        let facts = DiskFacts {
            target: "scsi:/dev/mapper/a-rather-long-name".into(),
            kind: "scsi",
            vendor: "LIO-ORG".into(),
            product: "a product's name".into(),
            revision: "4.0".into(),
            serial_number: Some("d0b8f2ad-6a36-4a9d-b0a1-7a2cf0a6c1b7".into()),
            name: Some("naa.6001405d0b8f2ad6a364a9db0a17a2cf".into()),
            block_bytes: 512,
            physical_block_bytes: 4096,
            blocks: 1 << 40,
            thin_provisioned: true,
            write_protected: None,
            write_cache: Some(true),
            force_unit_access: true,
            compare_and_write_force_unit_access: true,
            written_through: true,
            compare_and_write: "works",
            compare_and_write_listed: Some(true),
            compare_and_write_blocks_claimed: Some(1),
            compare_and_write_blocks_max: 1,
            miscompare_offset: Some("right"),
            not_known_because: None,
            in_use: Some("holds an ext2, ext3 or ext4 file system".into()),
        };
        let text = facts.to_string();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("casblock uses      COMPARE AND WRITE of 1 block, with FUA"), "{text}");
        assert!(!text.contains("CAUTION"), "{text}");

        let facts = DiskFacts { compare_and_write_force_unit_access: false, written_through: false, ..facts };
        let text = facts.to_string();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        for line in ["yes, but not with compare-and-write", "COMPARE AND WRITE of 1 block, without FUA", "CAUTION"] {
            assert!(text.contains(line), "{text}");
        }

        let facts = DiskFacts { compare_and_write: "not_tried", compare_and_write_blocks_max: 0, ..facts };
        let text = facts.to_string();
        assert!(text.contains("not tried: it is in use") && text.contains("uses      not known"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let broken = DiskFacts { compare_and_write: "broken", compare_and_write_blocks_max: 0, ..facts };
        assert!(broken.to_string().contains("BROKEN") && broken.to_string().contains("of no use"));
    }
}
