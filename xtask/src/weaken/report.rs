//! The report of the last run, between two markers in docs/orderings.md.

use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result, bail};

use super::models::Verdict;
use super::{Outcome, kept};
use crate::workspace::root;

const BEGIN: &str = "<!-- weaken: begin -->";
const END: &str = "<!-- weaken: end -->";

const NEW_PAGE: &str = "# Orderings

Each ordering of the protocol that is not Relaxed, weakened in turn, and the loom model that failed then.
`cargo xtask weaken` writes this table.

<!-- weaken: begin -->
<!-- weaken: end -->
";

/// Writes the report of a whole run.
pub fn write(outcomes: &[Outcome], models: usize) -> Result<()> {
    let path = root().join("docs/orderings.md");
    let failed = || format!("cannot write {}", path.display());
    let page = if path.exists() { fs::read_to_string(&path).with_context(failed)? } else { NEW_PAGE.to_owned() };
    fs::create_dir_all(root().join("docs")).with_context(failed)?;
    fs::write(&path, place(&page, &table(outcomes, models)).with_context(failed)?).with_context(failed)
}

fn place(page: &str, table: &str) -> Result<String> {
    let parts = page.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let Some((before, after)) = parts else { bail!("the markers {BEGIN} and {END} are missing") };
    Ok(format!("{before}{BEGIN}\n{table}{END}{after}"))
}

fn table(outcomes: &[Outcome], models: usize) -> String {
    let caught = outcomes.iter().filter(|outcome| outcome.verdict.is_caught()).count();
    let mut text = format!("\n{} weakenings, {models} models: {caught} caught.\n\n", outcomes.len());
    text += "| function | tag | access | weakened | caught by |\n| --- | --- | --- | --- | --- |\n";
    for Outcome { mutant, verdict } in outcomes {
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
        let once = place(NEW_PAGE, "one\n").unwrap();
        let twice = place(&format!("{once}prose\n"), "two\n").unwrap();
        assert!(twice.starts_with("# Orderings"));
        assert!(twice.ends_with(&format!("{BEGIN}\ntwo\n{END}\nprose\n")), "{twice}");
        assert!(place("nothing", "t").is_err());
    }
}
