//! Cuts of the power at random moments, until there were enough.
#![cfg(power_cuts)]

use power_cuts::campaign::Campaign;
use power_cuts::fault::Fault;
use power_cuts::stage::Scope;

#[test]
fn nothing_that_was_synced_is_lost() {
    let seed = std::env::var("POWER_CUTS_SEED").map_or(1, |s| s.parse().unwrap());
    let least: u64 = std::env::var("POWER_CUTS").map_or(10_000, |s| s.parse().unwrap());
    let mut scope = Scope::ALL;
    if std::env::var_os("NOFAIL").is_some() {
        scope.failures = false
    }
    let campaign = Campaign { scope, fault: Fault::None };
    if let Ok(replay) = std::env::var("POWER_CUTS_REPLAY") {
        let seed = u64::from_str_radix(replay.trim_start_matches("0x"), 16).unwrap();
        power_cuts::campaign::warm_up();
        let (tally, failure) = campaign.run(seed, &power_cuts::campaign::folder());
        println!("{tally}");
        if let Some(failure) = failure {
            panic!("{failure}")
        }
        return;
    }
    let (tally, failure) = campaign.go(seed, |tally| tally.cuts >= least);
    println!("seed {seed}\n{tally}");
    if let Some(failure) = failure {
        panic!("{failure}");
    }
}
