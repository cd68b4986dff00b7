//! What a disk holds, by the marks that file systems, volume managers, partition tables and clusters leave in it.

/// Bytes from a disk's beginning that are looked at.
pub const LOOKED_AT: usize = 1 << 21;

/// Bytes before a disk's end that are looked at.
pub const LOOKED_AT_BEFORE_THE_END: usize = 1 << 18;

/// What a record of casblock's begins with, in whatever block.
const RECORD: &[u8] = b"CASR";

/// A mark: what leaves it, where (in bytes from the disk's beginning), and what it is.
struct Mark(&'static str, usize, &'static [u8]);

/// The marks, by offset. Where a magic is an integer, its bytes are as the disk has them.
const MARKS: &[Mark] = &[
    Mark("a LUKS volume", 0, b"LUKS\xba\xbe"),
    Mark("an XFS file system", 0, b"XFSB"),
    Mark("a squashfs file system", 0, b"hsqs"),
    Mark("a casblock store", 0, b"casblock"),
    Mark("an SBD device", 0, b"SBD_SBD_"),
    Mark("a Ceph OSD", 0, b"bluestore block device"),
    Mark("an Oracle ASM disk", 32, b"ORCLDISK"),
    Mark("an OCFS2 file system", 0x800, b"OCFSV2"),
    Mark("an OCFS2 file system", 0x1000, b"OCFSV2"),
    Mark("an OCFS2 file system", 0x2000, b"OCFSV2"),
    Mark("an NTFS file system", 3, b"NTFS    "),
    Mark("an exFAT file system", 3, b"EXFAT   "),
    Mark("a FAT file system", 0x36, b"FAT1"),
    Mark("a FAT file system", 0x52, b"FAT32"),
    Mark("a GPT partition table", 0x200, b"EFI PART"),
    Mark("a GPT partition table", 0x1000, b"EFI PART"),
    Mark("an LVM physical volume", 0x0, b"LABELONE"),
    Mark("an LVM physical volume", 0x200, b"LABELONE"),
    Mark("an LVM physical volume", 0x400, b"LABELONE"),
    Mark("an LVM physical volume", 0x600, b"LABELONE"),
    Mark("an ext2, ext3 or ext4 file system", 0x438, &[0x53, 0xef]),
    Mark("an F2FS file system", 0x400, &[0x10, 0x20, 0xf5, 0xf2]),
    Mark("an HFS file system", 0x400, b"H+"),
    Mark("an md RAID member", 0x0, &[0xfc, 0x4e, 0x2b, 0xa9]),
    Mark("an md RAID member", 0x1000, &[0xfc, 0x4e, 0x2b, 0xa9]),
    Mark(
        "a bcache device",
        0x1018,
        &[0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba, 0x6d, 0x81],
    ),
    Mark(
        "a bcachefs file system",
        0x1018,
        &[0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9, 0xd9, 0x6a, 0x60, 0xcf, 0x80, 0x3d, 0xf7, 0xef],
    ),
    Mark("swap space", 0xff6, b"SWAPSPACE2"),
    Mark("swap space", 0xfff6, b"SWAPSPACE2"),
    Mark("an ISO 9660 file system", 0x8001, b"CD001"),
    Mark("a GFS2 file system", 0x10000, &[0x01, 0x16, 0x19, 0x70]),
    Mark("a btrfs file system", 0x10040, b"_BHRfS_M"),
    Mark("a VMFS volume", 0x10_0000, &[0x0d, 0xd0, 0x01, 0xc0]),
    Mark("a sanlock lease area", 0, &[0x10, 0x20, 0x15, 0x06]),
    Mark("a sanlock lease area", 0, &[0x10, 0x20, 0x21, 0x12]),
];

/// What a disk holds that begins with these bytes, if it has a mark that is known.
pub fn found(disk: &[u8]) -> Option<&'static str> {
    let has = |Mark(_, at, magic): &&Mark| disk.get(*at..).is_some_and(|rest| rest.starts_with(magic));
    let mark = MARKS.iter().find(has).map(|Mark(name, ..)| *name);
    mark.or_else(|| records(disk)).or_else(|| zfs(disk)).or_else(|| partition_table(disk))
}

/// What a disk of `disk_bytes` bytes holds that ends with these, if it has a mark that is known.
pub fn found_at_the_end(end: &[u8], disk_bytes: u64) -> Option<&'static str> {
    let begins_at = disk_bytes - end.len() as u64;
    let has = |at: Option<u64>, magics: &[&[u8]]| {
        let rest = at.and_then(|at| end.get(usize::try_from(at.checked_sub(begins_at)?).ok()?..));
        rest.is_some_and(|rest| magics.iter().any(|magic| rest.starts_with(magic)))
    };
    let last = |block_bytes| disk_bytes.checked_sub(block_bytes);
    // Linux's include/uapi/linux/raid/md_p.h: version 0.90 in the last 64 KiB that are whole and aligned, 1.0 in the 4 KiB at
    // least 8 KiB before the end.
    let md_0_90 = (disk_bytes & !0xffff).checked_sub(0x1_0000);
    let md_1_0 = disk_bytes.checked_sub(0x2000).map(|at| at & !0xfff);
    if [512, 4096].into_iter().any(|block_bytes| has(last(block_bytes), &[b"EFI PART"])) {
        return Some("a GPT partition table, at its end");
    }
    let is_md = has(md_0_90, &[&[0xfc, 0x4e, 0x2b, 0xa9], &[0xa9, 0x2b, 0x4e, 0xfc]])
        || has(md_1_0, &[&[0xfc, 0x4e, 0x2b, 0xa9]]);
    is_md.then_some("an md RAID member, by its end")
}

/// A cluster may begin at any block; what it has there, and what others of casblock's users have, are records.
fn records(disk: &[u8]) -> Option<&'static str> {
    disk.chunks(512).any(|block| block.starts_with(RECORD)).then_some("records of a casblock cluster, or the like")
}

/// ZFS writes its uberblocks round a ring of 128 KiB in each label; any of them may be there.
fn zfs(disk: &[u8]) -> Option<&'static str> {
    let ring = disk.get(128 << 10..256 << 10)?;
    let magic = |chunk: &[u8]| [0x00ba_b10c_u64.to_le_bytes(), 0x00ba_b10c_u64.to_be_bytes()].contains(&first_8(chunk));
    ring.chunks_exact(1 << 10).any(magic).then_some("a ZFS pool member")
}

fn first_8(chunk: &[u8]) -> [u8; 8] {
    chunk[..8].try_into().expect("a chunk of 1 KiB")
}

/// The signature of a boot sector, with partitions in it or not.
fn partition_table(disk: &[u8]) -> Option<&'static str> {
    let is_boot_sector = disk.get(510..512)? == [0x55, 0xaa];
    let has_partition = disk[446..510].chunks_exact(16).any(|entry| entry[4] != 0);
    match (is_boot_sector, has_partition) {
        (true, true) => Some("a DOS partition table"),
        (true, false) => Some("a boot sector"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_is_found_where_it_belongs_and_nowhere_else() {
        for Mark(name, at, magic) in MARKS {
            let mut disk = vec![0; LOOKED_AT];
            disk[*at..at + magic.len()].copy_from_slice(magic);
            assert_eq!(found(&disk), Some(*name));
            let mut elsewhere = vec![0; LOOKED_AT];
            elsewhere[LOOKED_AT - 100..][..magic.len()].copy_from_slice(magic);
            assert_eq!(found(&elsewhere), None, "{name}");
        }
        assert!(MARKS.iter().all(|Mark(_, at, magic)| at + magic.len() <= LOOKED_AT));
    }

    #[test]
    fn records_are_found_in_any_block() {
        for at in [0, 512, 7 * 512, LOOKED_AT - 512] {
            let mut disk = vec![0; LOOKED_AT];
            disk[at..at + 4].copy_from_slice(b"CASR");
            assert_eq!(found(&disk), Some("records of a casblock cluster, or the like"));
        }
        let mut disk = vec![0; LOOKED_AT];
        disk[100..104].copy_from_slice(b"CASR");
        assert_eq!(found(&disk), None);
    }

    #[test]
    fn marks_at_the_end_are_found_whatever_the_length() {
        let gpt: &[u8] = b"EFI PART";
        let md: &[u8] = &[0xfc, 0x4e, 0x2b, 0xa9];
        for (disk_bytes, at, magic, expected) in [
            (64 << 20, (64 << 20) - 512, gpt, "GPT"),
            (64 << 20, (64 << 20) - 4096, gpt, "GPT"),
            // mdadm's own arithmetic, in sectors: (n & !127) - 128, and (n - 16) & !7.
            (64 << 20, (64 << 20) - (64 << 10), md, "md"),
            ((64 << 20) + 512 * 77, (64 << 20) - (64 << 10), md, "md"),
            (64 << 20, (64 << 20) - (8 << 10), md, "md"),
            ((64 << 20) + 512 * 13, (64 << 20) - 4096, md, "md"),
        ] {
            let mut end = vec![0; LOOKED_AT_BEFORE_THE_END];
            assert_eq!(found_at_the_end(&end, disk_bytes), None);
            let begins_at = disk_bytes - end.len() as u64;
            let at = (at - begins_at) as usize;
            end[at..at + magic.len()].copy_from_slice(magic);
            assert!(found_at_the_end(&end, disk_bytes).unwrap().contains(expected), "{disk_bytes} {at}");
        }
        for disk_bytes in [0, 512, 4096, 8192, 65_536] {
            assert_eq!(found_at_the_end(&vec![0; disk_bytes], disk_bytes as u64), None);
        }
    }

    #[test]
    fn other_marks_are_found() {
        let mut disk = vec![0; LOOKED_AT];
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(found(&disk), Some("a boot sector"));
        disk[446 + 4] = 0x83;
        assert_eq!(found(&disk), Some("a DOS partition table"));
        let mut disk = vec![0; LOOKED_AT];
        disk[(131 << 10)..][..8].copy_from_slice(&0x00ba_b10c_u64.to_le_bytes());
        assert_eq!(found(&disk), Some("a ZFS pool member"));
    }

    #[test]
    fn zeros_records_and_short_disks_have_none() {
        assert_eq!(found(&vec![0; LOOKED_AT]), None);
        for length in [0, 1, 511, 512, 4096] {
            assert_eq!(found(&vec![b'C'; length]), None, "{length}");
        }
    }
}
