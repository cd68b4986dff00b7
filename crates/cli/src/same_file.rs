//! One file under two names: what must not be read and overwritten at once.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::bail;

/// An error if `target`, about to be overwritten, is the file `source`.
pub fn refuse_same_file(target: &Path, source: &Path) -> anyhow::Result<()> {
    if let (Ok(a), Ok(b)) = (target.metadata(), source.metadata())
        && (a.dev(), a.ino()) == (b.dev(), b.ino())
    {
        bail!("{}: is the same file as {}; give another name", target.display(), source.display());
    }
    Ok(())
}
