//! What a store logs: `docs/events.md` has the events' names and fields.

use super::Shared;
use super::event::{Event, EventKind};

/// A line on an event. A macro, as its level and name must be constant.
macro_rules! line {
    ($shared:expr, $level:ident, $name:literal, $message:literal $(, $field:ident = $value:expr)*) => {{
        let device = $shared.file.as_ref().map_or("(memory)".into(), |(path, _)| path.to_string_lossy());
        tracing::$level!(target: "casblock::store", event = $name, %device $(, $field = $value)*, $message)
    }};
}

/// Logs an event, if it is of a kind that is this layer's to tell of. Miscompares are not: those who meet with them tell.
pub(super) fn log(shared: &Shared, event: &Event) {
    let Event { writer, lba, .. } = *event;
    match event.kind {
        EventKind::WriterAdopted => {
            line!(shared, info, "store.writer_adopted", "its last user had died", writer = writer, lba = lba);
        }
        EventKind::Recovered => line!(
            shared,
            warn,
            "store.recovered",
            "it had not been closed; what was not synced may be lost",
            blocks = event.expected,
            updates_lost = event.found
        ),
        EventKind::Corruption => {
            line!(
                shared,
                error,
                "store.corruption",
                "the store is damaged",
                writer = writer,
                lba = lba,
                count = event.count
            );
        }
        EventKind::Repaired => line!(
            shared,
            warn,
            "store.repaired",
            "damage was mended, as far as it can be",
            lba = lba,
            mended = event.count,
            not_mended = event.found
        ),
        EventKind::SyncFailed => {
            let source = i32::try_from(event.found).map(std::io::Error::from_raw_os_error);
            let source = source.ok().map(tracing::field::display);
            line!(
                shared,
                error,
                "store.sync_failed",
                "writing to the disk failed",
                source = source,
                count = event.count
            );
        }
        EventKind::Miscompare | EventKind::LeaseBroken | EventKind::HostFenced | EventKind::Unknown(_) => {}
    }
}
