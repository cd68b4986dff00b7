//! Disks against a fake one that plays tricks.

mod disk;
mod fake;
mod probe;
mod repeats;
mod truth;
mod verdict;
