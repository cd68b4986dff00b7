//! What the test harness printed, counted.

/// Cases of a suite.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Count {
    /// Cases that passed.
    pub passed: u64,
    /// Cases that failed.
    pub failed: u64,
}

/// Sums the `test result:` lines of an output.
pub fn count(output: &str) -> Count {
    let results = output.lines().filter_map(result_of);
    results.fold(Count::default(), |sum, count| Count {
        passed: sum.passed + count.passed,
        failed: sum.failed + count.failed,
    })
}

/// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
fn result_of(line: &str) -> Option<Count> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |of: &str| {
        let part = counts.split(';').find_map(|part| part.trim().strip_suffix(of))?;
        part.trim().parse().ok()
    };
    Some(Count { passed: number("passed")?, failed: number("failed")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_the_results_of_all_binaries() {
        let output = "\
running 4 tests
test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s
test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 5 filtered out; finished in 1.00s
   test result: ok. 100 passed; 0 failed; printed by a test, not by the harness
test result: ok. nonsense
";
        assert_eq!(count(output), Count { passed: 13, failed: 2 });
    }

    #[test]
    fn no_result_is_no_case() {
        assert_eq!(count("error: could not compile"), Count::default());
    }
}
