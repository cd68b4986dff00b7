//! The report of the last run over a part, between two markers of its own in docs/orderings.md.

use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result, bail};

use super::models::Verdict;
use super::{Outcome, kept};
use crate::workspace::root;

/// The markers round the table of a part.
fn markers(part: &str) -> [String; 2] {
    ["begin", "end"].map(|which| format!("<!-- weaken {part}: {which} -->"))
}

/// Writes the report of a whole run over a part.
pub fn write(part: &str, outcomes: &[&Outcome], models: usize) -> Result<()> {
    let path = root().join("docs/orderings.md");
    let failed = || format!("cannot write {}", path.display());
    let page = fs::read_to_string(&path).with_context(failed)?;
    fs::write(&path, place(part, &page, &table(outcomes, models)).with_context(failed)?).with_context(failed)
}

fn place(part: &str, page: &str, table: &str) -> Result<String> {
    let [begin, end] = markers(part);
    let parts = page.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    let Some((before, after)) = parts else { bail!("the markers {begin} and {end} are missing") };
    Ok(format!("{before}{begin}\n{table}{end}{after}"))
}

fn table(outcomes: &[&Outcome], models: usize) -> String {
    let caught = outcomes.iter().filter(|outcome| outcome.verdict.is_caught()).count();
    let mut text = format!("\n{} weakenings, {models} models: {caught} caught.\n\n", outcomes.len());
    text += "| function | tag | access | weakened | caught by |\n| --- | --- | --- | --- | --- |\n";
    for Outcome { mutant, verdict } in outcomes.iter().copied() {
        let result = match (verdict, kept::reason(mutant)) {
            (Verdict::Caught { model, how: None }, _) => format!("`{model}`"),
            (Verdict::Caught { model, how: Some(how) }, _) => format!("`{model}` ({how})"),
            (Verdict::NotBuilt { .. }, _) => "does not build".to_owned(),
            (Verdict::Survived, Some(reason)) => format!("kept: {reason}"),
            (Verdict::TimedOut { .. }, Some(reason)) => format!("kept: {reason} (timed out)"),
            (Verdict::Survived, None) => "**survived**".to_owned(),
            (Verdict::TimedOut { model }, None) => format!("**timed out** in `{model}`"),
        };
        let tag = mutant.tag.as_deref().unwrap_or("none");
        let (function, access) = (&mutant.function, &mutant.access);
        let mutation = mutant.mutation.replace("->", "→");
        writeln!(text, "| `{function}` | {tag} | `{access}` | {mutation} | {result} |").expect("a string takes all");
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_replaces_what_is_between_the_markers() {
        let page =
            ["# Orderings\n", &markers("a").join("\n"), "\nbetween\n", &markers("b").join("\n"), "\nafter\n"].concat();
        let once = place("a", &page, "one\n").unwrap();
        let both = place("b", &once, "two\n").unwrap();
        let again = place("a", &both, "three\n").unwrap();
        let [[a_begin, a_end], [b_begin, b_end]] = ["a", "b"].map(markers);
        let expected = format!("# Orderings\n{a_begin}\nthree\n{a_end}\nbetween\n{b_begin}\ntwo\n{b_end}\nafter\n");
        assert_eq!(again, expected);
        assert!(place("a", "nothing", "t").is_err());
    }
}
