//! Durability `power` on the command line.

mod common;

use common::Folder;

#[test]
fn durable_updates_are_made_in_a_power_store_and_refused_in_another() {
    let folder = Folder::new();
    folder.casblock("create power.casb --blocks 8 --durability power").succeeds();
    folder.casblock_reading(&[1; 1024], "write power.casb 2 --durable").succeeds();
    folder.casblock("caw power.casb 5 --expect zero --new hex:01 --durable").succeeds();
    assert_eq!(folder.casblock("caw power.casb 5 --expect zero --new hex:01 --durable").status, 14);
    assert_eq!(folder.casblock("sync power.casb").succeeds().text(), "synced\n");

    folder.store("process.casb");
    let refused = ["process.casb: the store's durability is `process`"];
    folder.casblock_reading(&[1; 512], "write process.casb 2 --durable").fails(&refused);
    folder.casblock("caw process.casb 5 --expect zero --new hex:01 --durable").fails(&refused);
    folder.casblock("check process.casb --exclusive --recover").fails(&["nothing to recover from"]);
    let synced = folder.casblock("sync process.casb --json").succeeds().json();
    assert_eq!(synced["durability"], "process");
    folder.casblock("sync none.casb").fails(&["none.casb: opening", "No such file"]);
}

#[test]
fn an_image_is_imported_into_a_power_store() {
    let folder = Folder::new();
    folder.file("image", &[3; 700]);
    folder.casblock("import image a.casb --durability power").succeeds();
    assert_eq!(folder.casblock("info a.casb --json").succeeds().json()["durability"], "power");
    folder.casblock("export a.casb back").succeeds();
    assert_eq!(std::fs::read(folder.path("back")).unwrap(), [3; 700]);
}

#[test]
fn a_power_store_is_tortured() {
    let folder = Folder::new();
    let done = folder.casblock("torture t.casb --durability power --seconds 2 --kill-every 50 --blocks 3 --json");
    let report = done.succeeds().json();
    assert!(report["kills"].as_u64().unwrap() > 10, "{report}");
    assert_eq!((&report["lost"], &report["torn"], &report["check_clean"]), (&0.into(), &0.into(), &true.into()));
}
