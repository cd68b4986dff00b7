//! `casblock demo`, as a newcomer runs it.

use std::fs;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn demo(arguments: &[&str], temporary: &std::path::Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_casblock"));
    command.arg("demo").args(arguments).stdin(Stdio::null()).env("NO_COLOR", "1").env("TMPDIR", temporary);
    command.output().unwrap()
}

#[test]
fn it_tells_the_story_in_80_columns_and_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let output = demo(&[], temporary.path());
    let (text, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{text}{errors}");
    for command in ["create", "write", "read", "caw", "word", "import", "export", "torture", "check"] {
        assert!(text.contains(&format!("casblock {command} ")), "{command} in {text}");
    }
    for told in ["hello, block 7", "miscompare: block 9", "alice", "files are equal", "sums are equal", "clean"] {
        assert!(text.contains(told), "{told} in {text}");
    }
    for line in text.lines().filter(|line| !line.starts_with("In the folder")) {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert!(!text.contains('\x1b'), "{text}");
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "what is left in the temporary folder");
}

#[test]
fn as_json_each_step_is_an_object_and_the_folder_can_be_kept() {
    let temporary = tempfile::tempdir().unwrap();
    let output = demo(&["--json", "--keep"], temporary.path());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let steps: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(steps.len() >= 10, "{text}");
    assert!(steps.iter().all(|step| step["as_told"] == true), "{text}");
    assert_eq!(steps.iter().filter(|step| step["status"] == 14).count(), 2, "{text}");

    let kept: Vec<_> = fs::read_dir(&temporary).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [folder] = &kept[..] else { panic!("{kept:?}") };
    let bytes = |name| fs::read(folder.join(name)).unwrap();
    assert!(bytes("disk.img") == bytes("copy.img"), "the exported image differs");
    assert_eq!(bytes("disk.img").len(), (8 << 20) + 5);
}

#[test]
fn a_story_that_goes_wrong_ends_with_status_1() {
    let temporary = tempfile::tempdir().unwrap();
    // No sh, no tr, no cmp: the first command cannot be run.
    let output = Command::new(env!("CARGO_BIN_EXE_casblock"))
        .arg("demo")
        .env("PATH", temporary.path())
        .env("TMPDIR", temporary.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("casblock: "));
}
