//! The table of suites, within 80 columns.

use std::time::Duration;

use super::libtest::Count;
use crate::workspace::pretty;

/// How a suite ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Result {
    /// All passed.
    Passed,
    /// Something failed: what.
    Failed(String),
    /// Something it needs is missing: what.
    Skipped(String),
}

/// A line of the table.
pub struct Row {
    /// The suite.
    pub suite: &'static str,
    /// Its cases.
    pub count: Count,
    /// How long it took.
    pub time: Duration,
    /// How it ended.
    pub result: Result,
}

impl Row {
    /// The row as a line.
    pub fn line(&self) -> String {
        let cases = self.count.passed + self.count.failed;
        let result = match &self.result {
            Result::Passed => "ok".to_owned(),
            Result::Failed(why) => format!("FAILED: {why}"),
            Result::Skipped(why) => format!("SKIPPED: {why}"),
        };
        line(self.suite, &cases.to_string(), &pretty(self.time), &result)
    }
}

fn line(suite: &str, cases: &str, time: &str, result: &str) -> String {
    let line = format!("{suite:<20} {cases:>6} {time:>13}  {result}");
    line.chars().take(80).collect::<String>().trim_end().to_owned()
}

/// The whole table.
pub fn table(rows: &[Row]) -> String {
    let head = line("suite", "cases", "time", "result");
    let rule = "-".repeat(80);
    let lines = rows.iter().map(Row::line);
    [head, rule].into_iter().chain(lines).collect::<Vec<_>>().join("\n")
}

/// The last line: cases over all suites.
pub fn sum(rows: &[Row]) -> String {
    let of = |count: fn(&Count) -> u64| rows.iter().map(|row| count(&row.count)).sum::<u64>();
    format!("{} passed, {} failed", of(|count| count.passed), of(|count| count.failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fits_80_columns_and_sums() {
        let row = |passed, failed, result| Row {
            suite: "unit and integration",
            count: Count { passed, failed },
            time: Duration::from_secs(3599),
            result,
        };
        let rows = [row(7, 0, Result::Passed), row(100_000, 2, Result::Failed("why ".repeat(30)))];
        assert!(table(&rows).lines().all(|line| line.chars().count() <= 80));
        assert!(rows[0].line().ends_with("  7   59 min 59 s  ok"), "{}", rows[0].line());
        assert_eq!(sum(&rows), "100007 passed, 2 failed");
    }
}
