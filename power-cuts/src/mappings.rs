//! Which file a store into memory goes to: the kernel knows.

use std::os::unix::fs::MetadataExt;

/// A byte of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The file's inode.
    pub inode: u64,
    /// Offset in the file.
    pub offset: usize,
}

/// A range of addresses that is mapped from a file.
#[derive(Clone, Copy, Debug)]
struct Mapping {
    start: usize,
    end: usize,
    place: Place,
}

/// The mappings of files that stores went to.
#[derive(Default, Debug)]
pub struct Mappings {
    known: Vec<Mapping>,
}

impl Mappings {
    /// What is mapped may have changed.
    pub fn forget(&mut self) {
        self.known.clear();
    }

    /// The byte of a file that is mapped at this address; `None` for memory that is no file's.
    pub fn find(&mut self, address: usize) -> Option<Place> {
        let holds = |mapping: &&Mapping| (mapping.start..mapping.end).contains(&address);
        let mapping = match self.known.iter().find(holds) {
            Some(mapping) => *mapping,
            None => {
                let mapping = ask(address)?;
                self.known.push(mapping);
                mapping
            }
        };
        let Mapping { start, place, .. } = mapping;
        Some(Place { offset: place.offset + (address - start), ..place })
    }
}

/// The mapping that has this address, if it is a file's.
fn ask(address: usize) -> Option<Mapping> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc is mounted");
    let parsed = maps.lines().filter_map(parse);
    parsed.into_iter().find(|mapping| (mapping.start..mapping.end).contains(&address) && mapping.place.inode != 0)
}

/// `start-end rights offset device inode path`
fn parse(line: &str) -> Option<Mapping> {
    let mut fields = line.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let hex = |text: &str| usize::from_str_radix(text, 16).ok();
    let offset = hex(fields.nth(1)?)?;
    let inode = fields.nth(1)?.parse().ok()?;
    Some(Mapping { start: hex(start)?, end: hex(end)?, place: Place { inode, offset } })
}

/// Gives this thread, and those it starts from now on, descriptors of their own, as processes have.
pub fn separate_descriptors() {
    // SAFETY: the call changes nothing but which descriptors this thread shares with others; it has none that another
    // would miss.
    let unshared = unsafe { libc::unshare(libc::CLONE_FILES) } == 0;
    if unshared {
        return;
    }
    // Containers may forbid that, but not this: to close no descriptors, in a table of one's own.
    let (none, flag) = (libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE);
    // SAFETY: as above; the range has no descriptor in it.
    let result = unsafe { libc::syscall(libc::SYS_close_range, none, none, flag) };
    assert_eq!(result, 0, "Linux 5.9 or newer is needed: {}", std::io::Error::last_os_error());
}

/// Drops the locks that this thread's process has on a file, as the kernel does when a process is killed.
pub fn drop_locks(inode: u64) {
    let whole = libc::flock {
        l_type: libc::F_UNLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let entries = std::fs::read_dir("/proc/thread-self/fd").expect("/proc is mounted");
    let is_its = |entry: &std::fs::DirEntry| std::fs::metadata(entry.path()).is_ok_and(|it| it.ino() == inode);
    let names = entries.flatten().filter(is_its).map(|entry| entry.file_name());
    for descriptor in names.filter_map(|name| name.to_str()?.parse::<libc::c_int>().ok()) {
        // SAFETY: the call reads one `flock`, which `whole` is, and answers a bad descriptor with an error.
        let result = unsafe { libc::fcntl(descriptor, libc::F_OFD_SETLK, &raw const whole) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }
}
