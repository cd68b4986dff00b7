//! The weakenings of the orderings of the protocol, and of the cache.

use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::accesses::{self, Order};
use crate::workspace::{root, rust_files};

/// A part of the sources, with the models that are about it.
#[derive(PartialEq, Eq, Debug)]
pub struct Part {
    /// What `--part` and the report call it.
    pub name: &'static str,
    /// Its folder.
    folder: &'static str,
    /// What its modules are called in front of their names.
    prefix: &'static str,
    /// What its models need beside `--cfg loom`.
    pub flags: &'static str,
    /// The test binaries that its models are in; all of them, if none is named.
    pub binaries: &'static [&'static str],
    /// Where they are built, below the target folder.
    pub build: &'static str,
}

/// All that are weakened.
pub const PARTS: [Part; 2] = [
    Part { name: "protocol", folder: "src/protocol", prefix: "", flags: "", binaries: &[], build: "weaken/build" },
    Part {
        name: "cache",
        folder: "src/cache/engine",
        prefix: "cache::",
        flags: "--cfg crossbeam_loom",
        binaries: &["cache", "cache_parts"],
        build: "weaken/build-cache",
    },
];

/// One ordering, weakened.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// What it is a part of.
    pub part: &'static Part,
    /// The source file, from the workspace's folder.
    pub file: PathBuf,
    /// Module and function: `slot::intent`, `block::Writer::claim`.
    pub function: String,
    /// Which access of that function.
    pub access: String,
    /// The tag of its `ORDERING` comment.
    pub tag: Option<String>,
    /// What is done to it: `Acquire -> Relaxed`, `removed`.
    pub mutation: String,
    bytes: Range<usize>,
    replacement: String,
}

impl Mutant {
    /// The text of the source file, weakened.
    pub fn apply(&self, text: &str) -> String {
        [&text[..self.bytes.start], &self.replacement, &text[self.bytes.end..]].concat()
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { function, access, mutation, .. } = self;
        write!(f, "{function}: {access}: {mutation} [{}]", self.tag.as_deref().unwrap_or("no tag"))
    }
}

/// All weakenings.
pub fn find() -> Result<Vec<Mutant>> {
    let of_parts: Vec<_> = PARTS.iter().map(of_part).collect::<Result<_>>()?;
    Ok(of_parts.concat())
}

fn of_part(part: &'static Part) -> Result<Vec<Mutant>> {
    let folder = root().join(part.folder);
    let mut mutants = Vec::new();
    for path in rust_files(&folder)? {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let in_folder = path.strip_prefix(&folder)?.with_extension("");
        let module = in_folder.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("::");
        let module = format!("{}{module}", part.prefix);
        let module = module.strip_suffix("::mod").unwrap_or(&module);
        let file = path.strip_prefix(root())?.display().to_string();
        mutants.extend(of_source(part, module, &file, &text).with_context(|| format!("in {}", path.display()))?);
    }
    ensure!(!mutants.is_empty(), "no ordering found in {}", folder.display());
    Ok(mutants)
}

/// The weakenings of one source text.
pub fn of_source(part: &'static Part, module: &str, file: &str, text: &str) -> Result<Vec<Mutant>> {
    let mut mutants = Vec::new();
    for access in accesses::find(text)?.accesses {
        // A weaker ordering need not be imported, so it is written out. A fence has none: it goes.
        let weaker: &[&str] = match (access.is_fence, access.order) {
            (true, _) => &[""],
            (false, Order::AcqRel) => &["Relaxed", "Acquire", "Release"],
            (false, Order::Acquire | Order::Release | Order::SeqCst) => &["Relaxed"],
        };
        for &weaker in weaker {
            let (mutation, replacement) = match weaker {
                "" => ("removed".to_owned(), "()".to_owned()),
                weaker => (format!("{:?} -> {weaker}", access.order), format!("crate::sync::Ordering::{weaker}")),
            };
            mutants.push(Mutant {
                part,
                file: file.into(),
                function: format!("{module}::{}", access.function),
                access: access.name.clone(),
                tag: access.tag.clone(),
                mutation,
                bytes: access.bytes.clone(),
                replacement,
            });
        }
    }
    Ok(mutants)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weakens_each_ordering_in_place() {
        let text = "fn f() { fence(Release); a.swap(1, AcqRel); a.load(Relaxed); }";
        let mutants = of_source(&PARTS[0], "m", "m.rs", text).unwrap();
        let weakened: Vec<_> = mutants.iter().map(|mutant| (mutant.to_string(), mutant.apply(text))).collect();
        let with = |fence: &str, order: &str| format!("fn f() {{ {fence}; a.swap(1, {order}); a.load(Relaxed); }}");
        let expected = [
            ("m::f: fence(Release): removed [no tag]", with("()", "AcqRel")),
            ("m::f: a.swap: AcqRel -> Relaxed [no tag]", with("fence(Release)", "crate::sync::Ordering::Relaxed")),
            ("m::f: a.swap: AcqRel -> Acquire [no tag]", with("fence(Release)", "crate::sync::Ordering::Acquire")),
            ("m::f: a.swap: AcqRel -> Release [no tag]", with("fence(Release)", "crate::sync::Ordering::Release")),
        ];
        assert_eq!(weakened, expected.map(|(name, text)| (name.to_owned(), text)));
    }
}
