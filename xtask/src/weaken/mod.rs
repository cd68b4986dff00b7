//! `cargo xtask weaken`: is every ordering of the protocol, and of the cache, needed, and would a model notice?
//!
//! In a copy of the workspace each ordering is weakened, one at a time, and the loom models are run until one fails.
//! A weakening that no model catches must be listed in [`kept`] with the reason why the ordering stays.

mod kept;
mod models;
mod mutants;
mod report;
mod tree;

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::workspace::{pretty, target};
use models::{Models, Verdict};
use mutants::{Mutant, PARTS, Part};

/// What to weaken.
#[derive(clap::Args)]
pub struct Options {
    /// Only the weakenings whose line in --list contains this; the report is left alone
    #[arg(long, value_name = "PATTERN")]
    site: Option<String>,
    /// Only this part of the sources; the report of the other is left alone
    #[arg(long, value_name = "PART", value_parser = PARTS.map(|part| part.name))]
    part: Option<String>,
    /// Only the models whose name contains this; the report is left alone
    #[arg(long, value_name = "PATTERN")]
    model: Option<String>,
    /// Only list the weakenings
    #[arg(long)]
    list: bool,
    /// Give up on a weakening after so many minutes
    #[arg(long, value_name = "MINUTES", default_value_t = 10)]
    limit: u64,
}

/// A weakening and what came of it.
struct Outcome {
    mutant: Mutant,
    verdict: Verdict,
}

/// Runs the command; whether every weakening was caught or is listed as kept.
pub fn run(options: &Options) -> Result<bool> {
    let all = mutants::find()?;
    let stale = kept::without_mutant(&all);
    ensure!(stale.is_empty(), "xtask/src/weaken/kept.rs lists what does not exist:\n  {}", stale.join("\n  "));
    let is_of_part = |mutant: &Mutant| options.part.as_deref().is_none_or(|part| part == mutant.part.name);
    let chosen = all.into_iter().filter(|mutant| is_of_part(mutant) && is_chosen(mutant, options.site.as_deref()));
    let chosen: Vec<_> = chosen.collect();
    if chosen.is_empty() {
        bail!("no weakening matches; see `cargo xtask weaken --list`");
    }
    if options.list {
        chosen.iter().for_each(|mutant| println!("{mutant}"));
        println!("{} weakenings", chosen.len());
        return Ok(true);
    }
    let tree = tree::copy(&target().join("weaken/tree"))?;
    println!("control: the models over the orderings as they are");
    let started = Instant::now();
    let parts = PARTS.iter().filter(|part| chosen.iter().any(|mutant| mutant.part == *part));
    let of_part = |part| Ok((part, Models::control(&tree, part, options.model.as_deref())?));
    let mut models: Vec<(&Part, Models)> = parts.map(of_part).collect::<Result<_>>()?;
    let models_count: usize = models.iter().map(|(_, models)| models.len()).sum();
    ensure!(models_count > 0, "loom-tests has no such model");
    println!("  {models_count} models pass ({})", pretty(started.elapsed()));
    let limit = Duration::from_secs(60 * options.limit);
    let mut outcomes = Vec::new();
    let count = chosen.len();
    for (mutant, number) in chosen.into_iter().zip(1..) {
        println!("[{number:>3}/{count}] {mutant}");
        let started = Instant::now();
        let of_part = models.iter_mut().find(|(part, _)| *part == mutant.part);
        let (_, its_models) = of_part.expect("each part has models");
        let verdict = tree.with(&mutant, || its_models.judge(&mutant, number, limit))?;
        println!("          {verdict} ({})", pretty(started.elapsed()));
        outcomes.push(Outcome { mutant, verdict });
    }
    let faults: Vec<_> = outcomes.iter().filter_map(fault).collect();
    if options.site.is_none() && options.model.is_none() {
        for (part, models) in &models {
            let of_part: Vec<_> = outcomes.iter().filter(|outcome| outcome.mutant.part == *part).collect();
            report::write(part.name, &of_part, models.len())?;
        }
    }
    let caught = outcomes.iter().filter(|outcome| outcome.verdict.is_caught()).count();
    println!("{count} weakenings: {caught} caught, {} not; {} faults", count - caught, faults.len());
    faults.iter().for_each(|fault| println!("  {fault}"));
    Ok(faults.is_empty())
}

fn is_chosen(mutant: &Mutant, pattern: Option<&str>) -> bool {
    pattern.is_none_or(|pattern| mutant.to_string().contains(pattern))
}

/// What is wrong with an outcome, if anything is.
fn fault(outcome: &Outcome) -> Option<String> {
    fault_of(outcome, kept::reason(&outcome.mutant).is_some())
}

fn fault_of(Outcome { mutant, verdict }: &Outcome, is_kept: bool) -> Option<String> {
    match verdict {
        Verdict::Caught { .. } if is_kept => Some(format!("{mutant}: {verdict}, but listed in kept.rs: take it off")),
        Verdict::Survived | Verdict::TimedOut { .. } if !is_kept => {
            Some(format!("{mutant}: {verdict}; write a model, or list it in kept.rs with the reason"))
        }
        Verdict::NotBuilt { .. } => Some(format!("{mutant}: {verdict}; the tool is wrong")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_listed_may_survive_and_must() {
        let mutant =
            mutants::of_source(&PARTS[0], "slot", "src/slot.rs", "fn f() { a.load(Acquire); }").unwrap().remove(0);
        let is_fault = |verdict, is_kept| fault_of(&Outcome { mutant: mutant.clone(), verdict }, is_kept).is_some();
        let both = |verdict: fn() -> Verdict| (is_fault(verdict(), false), is_fault(verdict(), true));
        assert_eq!(both(|| Verdict::Caught { model: "m".into(), how: None }), (false, true));
        assert_eq!(both(|| Verdict::Survived), (true, false));
        assert_eq!(both(|| Verdict::TimedOut { model: "m".into() }), (true, false));
        assert_eq!(both(|| Verdict::NotBuilt { log: "l".into() }), (true, true));
    }
}
