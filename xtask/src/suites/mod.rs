//! `cargo xtask test`: every check the project has, one after another.

mod apart;
pub mod libtest;
mod list;
mod log;
mod table;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::workspace::{is_ci, pretty, root, target};
use libtest::Count;
use list::{Cases, Suite};
use log::Log;
use table::Row;

/// Which suites.
#[derive(clap::Args)]
pub struct Options {
    /// Only this suite; may be repeated
    #[arg(long, value_name = "SUITE")]
    only: Vec<String>,
    /// Only list the suites
    #[arg(long)]
    list: bool,
}

/// Lines of a failed suite's log that are shown.
const TAIL: usize = 60;

/// Runs the command; whether all suites passed.
pub fn run(options: &Options) -> Result<bool> {
    let all = list::all();
    if let Some(unknown) = options.only.iter().find(|only| !all.iter().any(|suite| is_named(suite, only))) {
        bail!("there is no suite {unknown:?}; see `cargo xtask test --list`");
    }
    let is_chosen = |suite: &&Suite| options.only.is_empty() || options.only.iter().any(|only| is_named(suite, only));
    let chosen = all.iter().filter(is_chosen);
    if options.list {
        chosen.for_each(|suite| println!("{}", suite.name));
        return Ok(true);
    }
    let mut rows = Vec::new();
    for suite in chosen {
        rows.push(run_one(suite)?);
    }
    println!("\n{}\n", table::table(&rows));
    println!("{}", table::sum(&rows));
    Ok(rows.iter().all(|row| row.count.failed == 0))
}

/// Whether a suite is meant: by its name, with dashes or spaces.
fn is_named(suite: &Suite, name: &str) -> bool {
    file_name(suite) == name.replace(' ', "-")
}

fn file_name(suite: &Suite) -> String {
    suite.name.replace(' ', "-")
}

fn run_one(suite: &Suite) -> Result<Row> {
    println!("{}: running", suite.name);
    if let Some(missing) = suite.needs.iter().find_map(|need| need.missing()) {
        return Ok(without(suite, missing, is_ci()));
    }
    let started = Instant::now();
    let mut log = Log::new(target().join("xtask").join(format!("{}.log", file_name(suite))))?;
    let success = match (suite.run)(&mut log) {
        Ok(success) => success,
        Err(error) => {
            log.line(&format!("error: {error:#}"))?;
            false
        }
    };
    let text = log.text()?;
    let (count, result) = judge(suite, success, &text);
    let time = started.elapsed();
    match &result {
        table::Result::Failed(why) => {
            let path = log.path().strip_prefix(root()).unwrap_or(log.path()).display();
            println!("{}: FAILED: {why}; from {path}:\n{}\n", suite.name, log::failures(&text, TAIL));
            println!("its end:\n{}\n", log::tail(&text, TAIL));
        }
        _ => println!("{}: ok ({})", suite.name, pretty(time)),
    }
    Ok(Row { suite: suite.name, count, time, result })
}

/// A suite that cannot run here: a failure where nobody looks, else skipped in plain sight.
fn without(suite: &Suite, missing: &str, is_ci: bool) -> Row {
    // The table has room for what is missing; the line above it says how to get it.
    let what = missing.split(':').next().unwrap_or(missing).to_owned();
    let (failed, result) = match is_ci {
        true => (1, table::Result::Failed(what)),
        false => (0, table::Result::Skipped(what)),
    };
    println!("{}: *** NOT RUN: {missing} ***", suite.name);
    Row { suite: suite.name, count: Count { passed: 0, failed }, time: Duration::ZERO, result }
}

/// What a suite's log comes to.
fn judge(suite: &Suite, success: bool, log: &str) -> (Count, table::Result) {
    let mut count = match suite.cases {
        Cases::One => Count { passed: u64::from(success), failed: u64::from(!success) },
        Cases::Libtest => libtest::count(log),
    };
    let failed = |why: String| table::Result::Failed(why);
    let result = if count.failed > 0 {
        failed(format!("{} of {}", count.failed, count.passed + count.failed))
    } else if !success {
        failed("a command failed".to_owned())
    } else if count.passed < suite.least {
        failed(format!("{} ran, {} expected at least", count.passed, suite.least))
    } else {
        table::Result::Passed
    };
    if result != table::Result::Passed {
        count.failed = count.failed.max(1);
    }
    (count, result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suite(cases: Cases) -> Suite {
        Suite { name: "a suite", least: 2, cases, needs: &[], run: |_| Ok(true) }
    }

    fn judged(success: bool, log: &str) -> (Count, bool) {
        let (count, result) = judge(&suite(Cases::Libtest), success, log);
        (count, result == table::Result::Passed)
    }

    #[test]
    fn passes_only_with_enough_cases_and_no_failure() {
        let enough = "test result: ok. 2 passed; 0 failed;";
        assert_eq!(judged(true, enough), (Count { passed: 2, failed: 0 }, true));
        assert_eq!(judged(false, enough), (Count { passed: 2, failed: 1 }, false));
        let few = "test result: ok. 1 passed; 0 failed;";
        assert_eq!(judged(true, few), (Count { passed: 1, failed: 1 }, false));
        assert_eq!(judged(true, ""), (Count { passed: 0, failed: 1 }, false));
        let failed = "test result: FAILED. 5 passed; 3 failed;";
        assert_eq!(judged(false, failed), (Count { passed: 5, failed: 3 }, false));
    }

    #[test]
    fn what_is_missing_fails_where_nobody_looks() {
        let of = |is_ci| without(&suite(Cases::One), "no tool", is_ci).count.failed;
        assert_eq!((of(true), of(false)), (1, 0));
    }

    #[test]
    fn names_go_with_dashes_or_spaces() {
        assert!(is_named(&suite(Cases::One), "a-suite") && is_named(&suite(Cases::One), "a suite"));
        assert!(!is_named(&suite(Cases::One), "a"));
    }

    #[test]
    fn every_suite_expects_a_case() {
        assert!(list::all().iter().all(|suite| suite.least > 0 && suite.name.len() <= 20));
    }
}
