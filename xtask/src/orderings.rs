//! `cargo xtask orderings`: orderings come in named pairs, and atomics through `crate::sync` alone.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

use crate::accesses;
use crate::workspace::{root, rust_files};

/// What the check found.
#[derive(Default)]
pub struct Checked {
    /// Accesses that are not Relaxed.
    pub accesses: usize,
    /// What is wrong, each with its place.
    pub violations: Vec<String>,
}

/// Runs the command; whether all is well.
pub fn run() -> Result<bool> {
    let checked = check()?;
    for violation in &checked.violations {
        println!("{violation}");
    }
    println!("{} orderings, {} violations", checked.accesses, checked.violations.len());
    Ok(checked.violations.is_empty())
}

/// Checks the library's sources.
pub fn check() -> Result<Checked> {
    let mut files = Vec::new();
    for path in rust_files(&root().join("src"))? {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        files.push((path.strip_prefix(root()).unwrap_or(&path).display().to_string(), text));
    }
    check_files(&files)
}

fn check_files(files: &[(String, String)]) -> Result<Checked> {
    let mut checked = Checked::default();
    let mut places = BTreeMap::<String, Vec<String>>::new();
    for (path, text) in files {
        checked.violations.extend(foreign_atomics(path, text));
        let source = accesses::find(text).map_err(|error| {
            let line = error.span().start().line;
            anyhow::anyhow!("{path}:{line}: {error}")
        })?;
        checked.accesses += source.accesses.len();
        for access in source.accesses.iter().filter(|access| access.tag.is_none()) {
            let (line, order) = (access.line, access.order);
            let what = match access.is_fence {
                true => access.name.clone(),
                false => format!("{} with {order:?}", access.name),
            };
            checked.violations.push(format!(
                "{path}:{line}: {what} in `{}`: no `// ORDERING [tag]` comment above it in its function",
                access.function
            ));
        }
        for note in source.notes {
            let place = format!("{path}:{}", note.line);
            if !note.used {
                checked.violations.push(format!("{place}: no access that is not Relaxed belongs to this comment"));
            }
            match note.tag {
                Some(tag) => places.entry(tag).or_default().push(place),
                None => checked.violations.push(format!("{place}: an ORDERING comment without a [tag]")),
            }
        }
    }
    for (tag, places) in places {
        if let [place] = &places[..] {
            checked.violations.push(format!("{place}: the tag [{tag}] stands nowhere else: it has no partner"));
        }
    }
    Ok(checked)
}

/// Where a file outside `src/sync` names the standard library's atomics, which loom would not see. Clippy's
/// `disallowed-types` cannot tell a type named through `crate::sync` from one that was not.
fn foreign_atomics(path: &str, text: &str) -> Vec<String> {
    if path.starts_with("src/sync/") {
        return Vec::new();
    }
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let named = (1..).zip(code).filter(|(_, code)| code.contains("sync::atomic") || code.contains("atomic::"));
    named.map(|(line, _)| format!("{path}:{line}: names std's atomics: take them from crate::sync")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(texts: &[&str]) -> Vec<String> {
        let files: Vec<_> = texts.iter().zip('a'..).map(|(text, name)| (name.to_string(), text.to_string())).collect();
        check_files(&files).unwrap().violations
    }

    const STORE: &str = "fn f() {\n    // ORDERING [pair]: here.\n    a.store(1, Release);\n}";
    const LOAD: &str = "fn g() {\n    // ORDERING [pair]: there.\n    a.load(Acquire);\n}";

    #[test]
    fn a_pair_is_well() {
        assert_eq!(violations(&[STORE, LOAD]), [""; 0]);
    }

    #[test]
    fn a_tag_without_a_partner_is_not() {
        assert_eq!(violations(&[STORE]), ["a:2: the tag [pair] stands nowhere else: it has no partner"]);
    }

    #[test]
    fn nor_an_access_without_a_comment() {
        let found = violations(&[STORE, LOAD, "fn h() { fence(SeqCst); }\nfn i() { a.swap(1, AcqRel); }"]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("c:1: fence(SeqCst) in `h`"), "{found:?}");
        assert!(found[1].starts_with("c:2: a.swap with AcqRel in `i`"), "{found:?}");
    }

    #[test]
    fn nor_an_atomic_that_loom_would_not_see() {
        let std = "use std::sync::atomic::AtomicU64; // crate::sync has none";
        assert_eq!(violations(&[std]), ["a:1: names std's atomics: take them from crate::sync"]);
        assert_eq!(violations(&["use crate::sync::AtomicU64; // not std::sync::atomic's"]), [""; 0]);
        assert_eq!(foreign_atomics("src/sync/mod.rs", std), [""; 0]);
    }

    #[test]
    fn nor_a_comment_without_an_access_or_a_tag() {
        let idle = violations(&[STORE, LOAD, "fn h() {\n// ORDERING [pair]: none.\n}"]);
        assert_eq!(idle, ["c:2: no access that is not Relaxed belongs to this comment"]);
        let untagged = violations(&["fn h() {\n// ORDERING: ah.\nfence(Acquire);\n}"]);
        assert!(untagged.iter().any(|line| line.contains("without a [tag]")), "{untagged:?}");
    }
}
