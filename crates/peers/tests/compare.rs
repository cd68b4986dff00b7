//! The whole command, with one short round of each: nothing is measured, but every sum is verified.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn compare(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_casblock-peers"));
    command.current_dir(folder).args(arguments).arg("--disk").arg(folder).output().unwrap()
}

fn ensure_success(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_run_gives_tables_json_and_a_page() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("trace.csv"), "op,lba,length_bytes\nr,7,4096\nw,8,512\nr,7,4096\n").unwrap();
    let files = ["--json", "run.json", "--html", "run.html", "--markdown", "run.md", "--trace", "trace.csv"];
    let output = compare(folder.path(), &[&["--smoke"][..], &files].concat());
    ensure_success(&output);
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();

    let report: serde_json::Value = serde_json::from_str(&read("run.json")).unwrap();
    let sections = report["sections"].as_array().unwrap();
    assert_eq!(sections.len(), 23);
    for section in sections {
        let (rows, measures) = (section["rows"].as_array().unwrap(), section["measures"].as_array().unwrap().len());
        assert!(rows.iter().any(|row| row["who"] == "casblock"), "{}", section["id"]);
        assert!(rows.iter().all(|row| row["figures"].as_array().unwrap().len() == measures), "{}", section["id"]);
    }
    assert_eq!(report["targets"].as_array().unwrap().len(), 16);

    let terminal = String::from_utf8(output.stdout).unwrap();
    let widest = terminal.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(80), "{widest:?} columns");
    let (markdown, page) = (read("run.md"), read("run.html"));
    for section in sections {
        let title = section["title"].as_str().unwrap();
        assert!([&terminal, &markdown, &page].iter().all(|text| text.contains(title)), "{title} is missing");
    }
    assert!(!page.contains("<script") && !page.contains("src=") && !page.contains("@import"), "it needs something");
    assert_eq!(page.matches("http").count(), page.matches("http://www.w3.org/2000/svg").count());

    // What was written can be shown again.
    let again = compare(folder.path(), &["--from", "run.json", "--html", "again.html"]);
    ensure_success(&again);
    assert_eq!(read("again.html"), page);
}

#[test]
fn wrong_arguments_are_told_before_anything_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, said) in [
        (&["--only", "nothing"][..], "possible values"),
        (&["--json", "no/such/folder/run.json"], "cannot write no/such/folder/run.json"),
        (&["--only", "caches", "--smoke", "--trace", "no-such-trace"], "no-such-trace"),
        (&["--from", "no-such-run.json"], "cannot read no-such-run.json"),
        (&["--only", "growth", "--smoke", "--from", "x"], "cannot be used with"),
    ] {
        let output = compare(folder.path(), arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(said), "{arguments:?}: {stderr}");
    }
}

/// Ends it in the middle, as Ctrl-C does.
#[test]
fn an_interrupted_run_leaves_no_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_casblock-peers"));
    command.args(["--smoke", "--memory"]).arg(folder.path()).arg("--disk").arg(folder.path());
    let mut run = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    // It is at its first part.
    let mut said = [0; 5];
    run.stderr.as_mut().unwrap().read_exact(&mut said).unwrap();
    while std::fs::read_dir(folder.path()).unwrap().count() < 2 {
        assert_eq!(run.try_wait().unwrap(), None);
    }
    // SAFETY: a signal to a child that nobody has waited for yet.
    unsafe { libc::kill(run.id() as libc::pid_t, libc::SIGINT) };
    assert_eq!(run.wait().unwrap().code(), Some(130));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
