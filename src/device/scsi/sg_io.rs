//! Commands to a disk through Linux: the ioctl SG_IO, on its block device.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::ptr;
use std::time::Duration;

use super::cdb::Cdb;
use super::sysfs::{block_of_generic, number, whole_disk};
use super::transport::{Completion, Data, Status, Transport, TransportError};
use crate::device::{DeviceError, Failure};

/// Commands to a disk through Linux (`SG_IO`, version 3), on `/dev/sdX`, `/dev/mapper/mpathX`, and links to them.
///
/// The kernel waits for a command whatever signals come, and lets a COMPARE AND WRITE through only for who has
/// `CAP_SYS_RAWIO`. It sends a command once, unless it is answered BUSY or TASK SET FULL: then it sends it again by itself,
/// until about the command's timeout is over, and only the last answer is seen here ([`Disk`](super::Disk) makes allowance
/// for that). It takes commands on partitions and logical volumes, too, and then the block numbers are those of the disk
/// below: so these are refused, as is all that `/sys` does not show to be a whole disk, or multipath to one.
///
/// What is read and written so goes past the page cache: whoever uses the disk through that, a mounted file system or
/// `dd`, sees and keeps old blocks.
///
/// `/dev/sgX` stands for the block device of the same disk. On its own it will not do: when the thread gets a signal, or is
/// stopped or frozen, the kernel lets go of the command and sends it once more.
#[derive(Debug)]
pub struct SgIo {
    file: File,
    path: PathBuf,
    device: u64,
    writable: bool,
    transfer_bytes_max: Option<usize>,
}

/// Why a disk's device could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SgIoError {
    /// The system refused.
    #[error("{}: {doing}: {source}", path.display())]
    System {
        /// The device.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// It cannot be used like that.
    #[error("{}: {what}", path.display())]
    Unusable {
        /// The device.
        path: PathBuf,
        /// Why not.
        what: String,
    },
    /// The system refused a command.
    #[error("SG_IO: {source}{}", hint(source))]
    Refused {
        /// The system's reason.
        source: io::Error,
    },
    /// The disk was opened read-only.
    #[error("the disk was opened read-only")]
    ReadOnly,
    /// The command ended without an answer from the disk.
    #[error("{} (host status {host_status:02X}h, driver status {driver_status:02X}h)", host_status_name(*host_status))]
    Host {
        /// The kernel's `DID_…`.
        host_status: u16,
        /// The kernel's `DRIVER_…`.
        driver_status: u16,
    },
}

fn hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EPERM) => " (COMPARE AND WRITE, and more, needs CAP_SYS_RAWIO)",
        Some(libc::ENOTTY) => " (not a SCSI disk)",
        _ => "",
    }
}

/// Linux's `include/scsi/scsi_status.h`.
fn host_status_name(host_status: u16) -> &'static str {
    match host_status {
        0x00 => "the driver gave up",
        0x01 => "no connection",
        0x02 => "the bus stayed busy",
        0x03 => "timed out",
        0x04 => "no such target",
        0x05 => "aborted",
        0x06 => "parity error",
        0x08 => "the bus was reset",
        0x0e => "the transport was disrupted",
        0x0f => "the transport failed",
        0x14 => "the path is marginal",
        _ => "no answer",
    }
}

impl SgIo {
    /// Opens a disk, to read and write it.
    ///
    /// # Errors
    /// [`DeviceError::Failed`] with an [`SgIoError`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DeviceError> {
        Self::open_on(path.as_ref(), true, Path::new("/sys"))
    }

    /// Opens a disk to read it. Commands that could write are not sent, whatever this process may do.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self, DeviceError> {
        Self::open_on(path.as_ref(), false, Path::new("/sys"))
    }

    fn open_on(path: &Path, writable: bool, sys: &Path) -> Result<Self, DeviceError> {
        let metadata = std::fs::metadata(path).map_err(system(path, "looking at it"))?;
        let (block, device) = match metadata.file_type() {
            kind if kind.is_block_device() => (path.to_path_buf(), None),
            kind if kind.is_char_device() => {
                let found = block_of_generic(metadata.rdev(), sys).map_err(|what| unusable(path, what))?;
                (found.path, Some(found.number))
            }
            _ => return Err(unusable(path, "neither a block device nor /dev/sgX".into())),
        };
        let opened = OpenOptions::new().read(true).write(writable).custom_flags(libc::O_CLOEXEC).open(&block);
        let file = opened.map_err(|source| match source.raw_os_error() {
            Some(libc::EROFS | libc::EACCES | libc::EPERM) if writable && File::open(&block).is_ok() => {
                DeviceError::failed(
                    Failure::ReadOnly,
                    SgIoError::System { path: path.into(), doing: "opening", source },
                )
            }
            _ => system(path, "opening")(source),
        })?;
        // What was opened, not what the path led to before.
        let metadata = file.metadata().map_err(system(path, "looking at it"))?;
        if !metadata.file_type().is_block_device() {
            return Err(unusable(path, "no block device any more".into()));
        }
        if device.is_some_and(|device| device != number(metadata.rdev())) {
            return Err(unusable(path, format!("{} is another disk than /sys says", block.display())));
        }
        whole_disk(metadata.rdev(), sys).map_err(|what| unusable(path, what))?;
        let transfer_bytes_max = transfer_bytes_max(&file, metadata.rdev(), sys);
        Ok(Self { file, path: path.into(), device: metadata.rdev(), writable, transfer_bytes_max })
    }

    /// The number of the block device that was opened, as `st_rdev` has it: what commands go to, whatever has become of the
    /// path since.
    pub fn device_number(&self) -> u64 {
        self.device
    }
}

/// The block device, as it was opened.
impl AsFd for SgIo {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn system(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> DeviceError {
    move |source| {
        let failure = match source.raw_os_error() {
            Some(libc::ENOENT | libc::ENXIO | libc::ENODEV | libc::ENOMEDIUM) => Failure::Unreachable,
            Some(libc::EBUSY) => Failure::Busy,
            _ => Failure::Io,
        };
        DeviceError::failed(failure, SgIoError::System { path: path.into(), doing, source })
    }
}

fn unusable(path: &Path, what: String) -> DeviceError {
    DeviceError::failed(Failure::Unsupported, SgIoError::Unusable { path: path.into(), what })
}

/// The most bytes that the kernel takes with one command, if it says so.
fn transfer_bytes_max(file: &File, device: u64, sys: &Path) -> Option<usize> {
    const BLKSECTGET: u32 = 0x1267;
    const SECTOR_BYTES: usize = 512;
    let mut sectors: u16 = 0;
    // SAFETY: the descriptor is open while `file` is borrowed, and of a block device, for which BLKSECTGET writes one
    // unsigned short, which `sectors` is.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), BLKSECTGET as _, &raw mut sectors) };
    let of_sectors = (result == 0 && sectors > 0).then_some(usize::from(sectors) * SECTOR_BYTES);
    let segments = sys.join("dev/block").join(number(device)).join("queue/max_segments");
    let segments: Option<usize> = std::fs::read_to_string(segments).ok().and_then(|text| text.trim().parse().ok());
    // In the worst case each page is a segment, and the buffer begins and ends in the middle of one.
    let of_segments = segments.filter(|segments| *segments > 1).map(|segments| (segments - 1) * 4096);
    of_sectors.into_iter().chain(of_segments).min()
}

/// `struct sg_io_hdr` of Linux's `include/scsi/sg.h`.
#[repr(C)]
#[derive(Debug)]
struct Header {
    interface_id: libc::c_int,
    dxfer_direction: libc::c_int,
    cmd_len: u8,
    mx_sb_len: u8,
    iovec_count: u16,
    dxfer_len: u32,
    dxferp: *mut libc::c_void,
    cmdp: *const u8,
    sbp: *mut u8,
    timeout_ms: u32,
    flags: u32,
    pack_id: libc::c_int,
    usr_ptr: *mut libc::c_void,
    status: u8,
    masked_status: u8,
    msg_status: u8,
    sb_len_wr: u8,
    host_status: u16,
    driver_status: u16,
    resid: libc::c_int,
    duration_ms: u32,
    info: u32,
}

const _: () = {
    assert!(size_of::<Header>() == 88);
    assert!(offset_of!(Header, dxfer_len) == 12);
    assert!(offset_of!(Header, dxferp) == 16);
    assert!(offset_of!(Header, timeout_ms) == 40);
    assert!(offset_of!(Header, usr_ptr) == 56);
    assert!(offset_of!(Header, status) == 64);
    assert!(offset_of!(Header, host_status) == 68);
    assert!(offset_of!(Header, info) == 80);
};

const SG_IO: u32 = 0x2285;
const SG_DXFER_NONE: libc::c_int = -1;
const SG_DXFER_TO_DEV: libc::c_int = -2;
const SG_DXFER_FROM_DEV: libc::c_int = -3;
/// SPC-5 lets sense data have 252 bytes; the kernel keeps 96.
const SENSE_BYTES: u8 = 252;

impl Transport for SgIo {
    fn name(&self) -> Cow<'_, str> {
        self.path.to_string_lossy()
    }

    fn execute(&self, command: &Cdb, data: Data<'_>, timeout: Duration) -> Result<Completion, TransportError> {
        if command.changes_blocks() && !self.writable {
            return Err(not_sent(Failure::ReadOnly, SgIoError::ReadOnly));
        }
        submit(self.file.as_raw_fd(), command, data, timeout)
    }

    fn transfer_bytes_max(&self) -> Option<usize> {
        self.transfer_bytes_max
    }
}

/// Sends a command to the block device that this is a descriptor of, and waits for it.
fn submit(descriptor: RawFd, command: &Cdb, data: Data<'_>, timeout: Duration) -> Result<Completion, TransportError> {
    let bytes = data.bytes();
    let Ok(dxfer_len) = u32::try_from(bytes) else {
        return Err(not_sent(Failure::Invalid, SgIoError::Refused { source: io::ErrorKind::InvalidInput.into() }));
    };
    let (dxfer_direction, dxferp) = match data {
        Data::None => (SG_DXFER_NONE, ptr::null_mut()),
        Data::In(buffer) => (SG_DXFER_FROM_DEV, buffer.as_mut_ptr().cast()),
        Data::Out(buffer) => (SG_DXFER_TO_DEV, buffer.as_ptr().cast_mut().cast()),
    };
    let (cdb, mut sense) = (command.bytes(), [0; SENSE_BYTES as usize]);
    let mut header = Header {
        interface_id: 'S' as libc::c_int,
        dxfer_direction,
        cmd_len: cdb.len() as u8,
        mx_sb_len: SENSE_BYTES,
        iovec_count: 0,
        dxfer_len,
        dxferp,
        cmdp: cdb.as_ptr(),
        sbp: sense.as_mut_ptr(),
        timeout_ms: in_ms(timeout),
        flags: 0,
        pack_id: 0,
        usr_ptr: ptr::null_mut(),
        status: 0,
        masked_status: 0,
        msg_status: 0,
        sb_len_wr: 0,
        host_status: 0,
        driver_status: 0,
        resid: 0,
        duration_ms: 0,
        info: 0,
    };
    // SAFETY: SG_IO reads and writes one `sg_io_hdr`, which `header` is, and what it points to: `cmd_len` bytes of the command
    // are read, `mx_sb_len` of the sense data written, and `dxfer_len` of the data read (to the device: the buffer is only
    // borrowed) or written (from the device: it is borrowed mutably). All live until the call returns, and on a block
    // device, which `descriptor` is of, the kernel waits for the command in it and does not touch them afterwards.
    let result = unsafe { libc::ioctl(descriptor, SG_IO as _, &raw mut header) };
    if result != 0 {
        return Err(refused(io::Error::last_os_error()));
    }
    let sense = sense[..usize::from(header.sb_len_wr.min(SENSE_BYTES))].to_vec();
    answered(&header, sense, bytes)
}

/// A time as the kernel takes it: 0 would mean its own, and it counts in signed ticks.
fn in_ms(timeout: Duration) -> u32 {
    u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).clamp(1, i32::MAX as u32)
}

fn not_sent(failure: Failure, source: SgIoError) -> TransportError {
    TransportError::NotSent { failure, source: source.into() }
}

/// What it means that the call failed. On a block device these come before the command is sent: from the checks of the call,
/// of the limits (EIO), of the device's state (ENODEV), from multipath without a path (EIO, EAGAIN). Others are not known
/// to, such as EFAULT: it may come as well when the answer is stored.
fn refused(source: io::Error) -> TransportError {
    let failure = match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => Failure::ReadOnly,
        Some(libc::ENOTTY | libc::EOPNOTSUPP | libc::ENOSYS) => Failure::Unsupported,
        Some(libc::EINVAL) => Failure::Invalid,
        Some(libc::ENOMEM | libc::EAGAIN | libc::EBUSY) => Failure::Busy,
        Some(libc::ENODEV | libc::ENXIO) => Failure::Unreachable,
        Some(libc::EIO) => Failure::Io,
        _ => return TransportError::NoAnswer { source: SgIoError::Refused { source }.into() },
    };
    not_sent(failure, SgIoError::Refused { source })
}

/// What it means that the call succeeded, which it does whatever became of the command.
fn answered(header: &Header, sense: Vec<u8>, bytes: usize) -> Result<Completion, TransportError> {
    let Header { status, host_status, driver_status, .. } = *header;
    let source = || SgIoError::Host { host_status, driver_status }.into();
    match host_status {
        0x00 => {}
        // Older kernels mark what a disk answered: an error of the target, of the nexus (a reservation), of allocation, of the
        // medium. Without a status it is the host adapter that says so.
        0x10..=0x13 if status != 0 => {}
        // No connection, no such target, the transport disrupted or failed or marginal. Mostly this is before the command was
        // sent, but some drivers (mpt3sas) end those that were under way like this when a disk goes away.
        0x01 | 0x04 | 0x0e | 0x0f | 0x14 => return Err(TransportError::Unreachable { source: source() }),
        _ => return Err(TransportError::NoAnswer { source: source() }),
    }
    // Kernels before 5.14 have DRIVER_… in the low half, and suggestions in the high half: 8 says that there are sense data.
    if !matches!(driver_status & 0x0f, 0x0 | 0x8) {
        return Err(TransportError::NoAnswer { source: source() });
    }
    let residual_bytes = usize::try_from(header.resid).unwrap_or(0).min(bytes);
    Ok(Completion { status: Status(status), sense, residual_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(status: u8, host_status: u16, driver_status: u16, resid: libc::c_int) -> Header {
        Header {
            interface_id: 0,
            dxfer_direction: 0,
            cmd_len: 0,
            mx_sb_len: 0,
            iovec_count: 0,
            dxfer_len: 0,
            dxferp: ptr::null_mut(),
            cmdp: ptr::null(),
            sbp: ptr::null_mut(),
            timeout_ms: 0,
            flags: 0,
            pack_id: 0,
            usr_ptr: ptr::null_mut(),
            status,
            masked_status: 0,
            msg_status: 0,
            sb_len_wr: 0,
            host_status,
            driver_status,
            resid,
            duration_ms: 0,
            info: 0,
        }
    }

    /// The variant, for tables.
    fn kind(error: &TransportError) -> (&'static str, Option<Failure>) {
        match error {
            TransportError::NotSent { failure, .. } => ("not sent", Some(*failure)),
            TransportError::Unreachable { .. } => ("unreachable", None),
            TransportError::NoAnswer { .. } => ("no answer", None),
        }
    }

    #[test]
    fn host_and_driver_status_decide_whether_the_disk_answered() {
        for (status, host_status, driver_status, expected) in [
            (0x00, 0x00, 0x00, None),
            (0x02, 0x00, 0x08, None),
            (0x02, 0x10, 0x08, None),
            (0x18, 0x11, 0x00, None),
            (0x02, 0x00, 0x18, None),
            (0x00, 0x10, 0x00, Some("no answer")),
            (0x00, 0x01, 0x00, Some("unreachable")),
            (0x00, 0x04, 0x00, Some("unreachable")),
            (0x00, 0x0e, 0x00, Some("unreachable")),
            (0x00, 0x0f, 0x00, Some("unreachable")),
            (0x00, 0x02, 0x00, Some("no answer")),
            (0x00, 0x03, 0x00, Some("no answer")),
            (0x02, 0x03, 0x08, Some("no answer")),
            (0x00, 0x05, 0x00, Some("no answer")),
            (0x00, 0x07, 0x00, Some("no answer")),
            (0x00, 0x08, 0x00, Some("no answer")),
            (0x00, 0x0d, 0x00, Some("no answer")),
            (0x00, 0x00, 0x06, Some("no answer")),
            (0x00, 0xffff, 0x00, Some("no answer")),
        ] {
            let answer = answered(&header(status, host_status, driver_status, 0), vec![1], 8);
            assert_eq!(
                answer.as_ref().err().map(|error| kind(error).0),
                expected,
                "{host_status:02x} {driver_status:02x}"
            );
            if let Ok(completion) = answer {
                assert_eq!((completion.status, completion.sense), (Status(status), vec![1]));
            }
        }
        let timeout = answered(&header(0, 3, 6, 0), Vec::new(), 0).unwrap_err();
        assert_eq!(timeout.to_string(), "timed out (host status 03h, driver status 06h)");
    }

    #[test]
    fn a_residual_never_exceeds_the_data() {
        for (resid, expected) in [(0, 0), (3, 3), (8, 8), (9, 8), (i32::MAX, 8), (-1, 0), (i32::MIN, 0)] {
            assert_eq!(answered(&header(0, 0, 0, resid), Vec::new(), 8).unwrap().residual_bytes, expected);
        }
    }

    #[test]
    fn a_call_that_fails_before_the_command_is_sent_is_told_apart() {
        for (errno, expected) in [
            (libc::EPERM, ("not sent", Some(Failure::ReadOnly))),
            (libc::ENOTTY, ("not sent", Some(Failure::Unsupported))),
            (libc::EINVAL, ("not sent", Some(Failure::Invalid))),
            (libc::EAGAIN, ("not sent", Some(Failure::Busy))),
            (libc::ENODEV, ("not sent", Some(Failure::Unreachable))),
            (libc::EIO, ("not sent", Some(Failure::Io))),
            (libc::EINTR, ("no answer", None)),
            (libc::EFAULT, ("no answer", None)),
            (libc::ETIMEDOUT, ("no answer", None)),
        ] {
            assert_eq!(kind(&refused(io::Error::from_raw_os_error(errno))), expected, "{errno}");
        }
        let text = refused(io::Error::from_raw_os_error(libc::EPERM)).to_string();
        assert!(text.contains("CAP_SYS_RAWIO"), "{text}");
    }

    #[test]
    fn no_time_is_taken_for_the_kernels_own() {
        for (timeout, expected_ms) in [
            (Duration::ZERO, 1),
            (Duration::from_micros(999), 1),
            (Duration::from_secs(30), 30_000),
            (Duration::from_secs(u64::MAX), i32::MAX as u32),
        ] {
            assert_eq!(in_ms(timeout), expected_ms);
        }
    }

    #[test]
    fn what_is_no_disk_is_not_opened() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for path in [file.path(), Path::new("/dev/null"), file.path().parent().unwrap()] {
            let error = SgIo::open(path).unwrap_err();
            assert_eq!(error.failure(), Some(Failure::Unsupported), "{error}");
        }
        let error = SgIo::open_read_only("/dev/there is no such disk").unwrap_err();
        assert_eq!(error.failure(), Some(Failure::Unreachable), "{error}");
    }

    #[test]
    fn a_disk_opened_read_only_is_sent_nothing_that_could_write() {
        let file = File::open("/dev/null").unwrap();
        let disk = SgIo { file, path: "/dev/null".into(), device: 0, writable: false, transfer_bytes_max: None };
        let caching = super::super::Caching::ALLOWED;
        let send = |command: Cdb| disk.execute(&command, Data::None, Duration::from_secs(1)).unwrap_err();
        for command in [Cdb::write_16(0, 0, caching), Cdb::compare_and_write(0, 0, caching)] {
            assert_eq!(kind(&send(command)), ("not sent", Some(Failure::ReadOnly)));
        }
        // This one gets as far as the kernel, which knows no such call there.
        assert_eq!(kind(&send(Cdb::read_16(0, 0, caching))), ("not sent", Some(Failure::Unsupported)));
    }
}
