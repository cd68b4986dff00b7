//! Cuts of the power at random moments, until there were enough.
#![cfg(power_cuts)]

use power_cuts::campaign::{self, Campaign};
use power_cuts::fault::Fault;
use power_cuts::stage::Scope;

/// A number that somebody may have set.
fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    Some(number.unwrap_or_else(|_| panic!("{name} is {text:?}: a number is needed, decimal or 0x…")))
}

#[test]
fn nothing_that_was_synced_is_lost() {
    let campaign = Campaign { scope: Scope::ALL, fault: Fault::None };
    let (least, (tally, failure)) = match variable("POWER_CUTS_REPLAY") {
        Some(seed) => {
            campaign::warm_up();
            (0, campaign.run(seed, &campaign::folder()))
        }
        None => {
            let (seed, least) = (variable("POWER_CUTS_SEED").unwrap_or(1), variable("POWER_CUTS").unwrap_or(20_000));
            println!("POWER_CUTS_SEED={seed} POWER_CUTS={least}");
            (least, campaign.go(seed, |tally| tally.cuts >= least))
        }
    };
    println!("{tally}");
    if let Some(failure) = failure {
        panic!("{failure}");
    }
    assert!(tally.cuts >= least, "{} cuts were made", tally.cuts);
}
