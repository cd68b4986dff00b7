//! Faults that are planted: cuts must show each of them.
#![cfg(power_cuts)]

use power_cuts::campaign::Campaign;
use power_cuts::fault::Fault;
use power_cuts::layout::Section;
use power_cuts::stage::Scope;

/// Plants a fault and cuts until it shows.
fn shows(fault: Fault, scope: Scope, most: u64) {
    // Always the same, so that a fault that shows today shows tomorrow.
    let (tally, failure) = Campaign { scope, fault }.go(2, |tally| tally.cuts >= most);
    let failure = failure.unwrap_or_else(|| panic!("{fault:?}: {} cuts have not shown it", tally.cuts));
    // That a sync skips the state page may be noticed at once: the disk could say that the store was closed.
    let at_once = matches!(fault, Fault::SyncSkips(Section::State));
    assert!(failure.by_cut || at_once, "{fault:?}: shown by the run, not by a cut: {failure}");
    println!("{fault:?}: shown after {} cuts: {failure}", tally.cuts);
}

#[test]
fn frames_that_are_free_at_once() {
    shows(Fault::NoLimbo, Scope::ALL, 20_000);
}

#[test]
fn checksums_that_are_right_whatever_there_is() {
    shows(Fault::NoChecksum, Scope::ALL, 20_000);
}

#[test]
fn a_sync_that_skips_the_stamps() {
    shows(Fault::SyncSkips(Section::Stamps), Scope::ALL, 20_000);
}

#[test]
fn a_sync_that_skips_the_frames() {
    shows(Fault::SyncSkips(Section::Frames), Scope::ALL, 20_000);
}

#[test]
fn a_sync_that_skips_the_state() {
    shows(Fault::SyncSkips(Section::State), Scope::ALL, 20_000);
}

#[test]
fn uncommitted_stamps_that_are_believed() {
    shows(Fault::UncommittedBelieved, Scope::ALL, 20_000);
}

#[test]
fn stamps_that_recovery_leaves() {
    shows(Fault::OldStampsStay, Scope { alphabet: Some(true), ..Scope::ALL }, 100_000);
}
