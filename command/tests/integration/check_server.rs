//! `check-server` on real servers and on other files.

use std::collections::BTreeSet;
use std::fs;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::mongod::{DEFAULT_VERSION, binary_of};

fn check_server(arguments: &[&str], path: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_psmdb-aws-iam"));
    command.arg("check-server").args(arguments).arg(path);
    command.output().expect("the command runs")
}

/// The exit status and the text of a run without a message on standard error.
fn text_of(arguments: &[&str], path: &Path) -> (i32, String) {
    let output = check_server(arguments, path);
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code().expect("an end by itself"), String::from_utf8(output.stdout).unwrap())
}

fn json_of(path: &Path) -> (i32, Value) {
    let output = check_server(&["--json"], path);
    let value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    (output.status.code().expect("an end by itself"), value)
}

/// The mongod of a version; `None` if it was not fetched. The default one must have been.
fn fetched(version: &str) -> Option<PathBuf> {
    if version == DEFAULT_VERSION {
        return Some(binary_of(version));
    }
    let binary = panic::catch_unwind(|| binary_of(version)).ok().filter(|path| path.exists());
    if binary.is_none() {
        crate::support::skipped(&format!("mongod {version}"), "it was not fetched");
    }
    binary
}

#[test]
fn every_known_server_is_supported_and_its_version_is_printed() {
    for version in ["4.4.2", "5.0.4", "6.0.5", "6.0.24", "6.0.27"] {
        let Some(path) = fetched(version) else { continue };
        let (status, json) = json_of(&path);
        assert_eq!(status, 0, "{json:#}");
        assert_eq!(json["file"], path.to_str().unwrap());
        assert_eq!(json["version"], version);
        assert_eq!(json["kind"], "mongod");
        assert_eq!(json["supported"], true, "{json:#}");
        assert_eq!(json["reason"], Value::Null);
        let checks = json["checks"].as_array().unwrap();
        assert!(checks.len() >= 5, "{json:#}");
        for check in checks {
            assert_eq!(check["ok"], true, "{check}");
            assert!(!check["what"].as_str().unwrap().is_empty() && check["found"].is_string(), "{check}");
        }

        // Each check has its own name.
        let names: BTreeSet<_> = checks.iter().map(|check| check["what"].as_str().unwrap()).collect();
        assert_eq!(names.len(), checks.len(), "{json:#}");

        let plugin = env!("CARGO_PKG_VERSION");
        let summary = format!("psmdb-aws-iam {plugin} supports {} (mongod {version}).\n", path.display());
        assert_eq!(text_of(&[], &path), (0, summary.clone()));
        let (status, text) = text_of(&["--verbose"], &path);
        assert_eq!(status, 0, "{text}");
        assert!(text.starts_with(&format!("{summary}\n  ok      ")), "{text}");
        assert_eq!(text.matches("\n  ok      ").count(), checks.len(), "{text}");
    }
}

#[test]
fn another_program_is_not_a_server() {
    let expected = "this is not a mongod or mongos, or it is stripped of its symbols";
    let (status, text) = text_of(&[], Path::new("/bin/ls"));
    assert_eq!(status, 1);
    assert!(text.contains(expected), "{text}");
    let (status, json) = json_of(Path::new("/bin/ls"));
    assert_eq!(status, 1);
    assert_eq!(json["supported"], false);
    assert!(json["reason"].as_str().unwrap().starts_with(expected), "{json:#}");
    assert_eq!((&json["kind"], &json["version"]), (&Value::Null, &Value::Null));
    assert_eq!(json["checks"].as_array().unwrap().len(), 0);
}

/// The first place of some bytes. Names for the loader precede those for debuggers.
fn place_of(bytes: &[u8], wanted: &[u8]) -> usize {
    bytes.windows(wanted.len()).position(|window| window == wanted).expect("a place")
}

#[test]
fn changed_copies_of_a_server_are_judged_by_the_change() {
    let mut bytes = fs::read(binary_of(DEFAULT_VERSION)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("server");

    fs::write(&copy, &bytes[..10_000_000]).unwrap();
    let (status, text) = text_of(&[], &copy);
    assert_eq!(status, 1);
    assert!(text.contains("the file is truncated: it has 10000000 of at least "), "{text}");

    // `strip` keeps the symbols that the plugin needs.
    fs::write(&copy, &bytes).unwrap();
    let stripped = Command::new("strip").arg("--strip-all").arg(&copy).status().expect("strip, of binutils");
    assert!(stripped.success());
    assert!(fs::metadata(&copy).unwrap().len() < bytes.len() as u64);
    assert_eq!(json_of(&copy).1["supported"], true);

    // A function has another name.
    let name =
        place_of(&bytes, b"\0_ZNK5mongo27SASLServerMechanismRegistry27_mechanismSupportedByConfigENS_10StringDataE\0");
    bytes[name + 1] = b'#';
    fs::write(&copy, &bytes).unwrap();
    let (status, text) = text_of(&[], &copy);
    assert_eq!(status, 1);
    let difference = "the check of authenticationMechanisms";
    let plugin = env!("CARGO_PKG_VERSION");
    let summary = format!("psmdb-aws-iam {plugin} does not support {} (mongod {DEFAULT_VERSION}): ", copy.display());
    assert!(text.starts_with(&format!("{summary}it differs in: {difference}.\n\n  ok      ")), "{text}");
    assert!(text.contains(&format!("\n  FAILED  {difference}\n")), "{text}");
    let (_, json) = json_of(&copy);
    assert_eq!(json["version"], DEFAULT_VERSION);
    let failed: Vec<_> = json["checks"].as_array().unwrap().iter().filter(|check| check["ok"] == false).collect();
    assert_eq!(failed, [&serde_json::json!({"what": difference, "ok": false, "found": ""})]);

    // The program headers name no dynamic section.
    let word =
        |at: usize, size: usize| bytes[at..at + size].iter().rev().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
    let (start, size, count) = (word(32, 8), word(54, 2), word(56, 2));
    let dynamic = (0..count).map(|index| start + index * size).find(|&at| word(at, 4) == 2).expect("PT_DYNAMIC");
    bytes[dynamic..dynamic + 4].fill(0);
    fs::write(&copy, &bytes).unwrap();
    let (status, text) = text_of(&[], &copy);
    assert_eq!(status, 1);
    assert!(text.contains("it is stripped of its symbols. If it is a server, use the file from"), "{text}");
}

#[test]
fn virtual_functions_are_compared_in_the_file() {
    let mut bytes = fs::read(binary_of(DEFAULT_VERSION)).unwrap();
    // The symbol of a function in a slot is renamed; the slot keeps the function.
    let name = place_of(&bytes, b"\0_ZNK5mongo18PLAINServerFactory23canMakeMechanismForUserEPKNS_4UserE\0");
    bytes[name + 1] = b'#';
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("mongod");
    fs::write(&copy, &bytes).unwrap();
    let (status, json) = json_of(&copy);
    assert_eq!(status, 1);
    assert_eq!(json["supported"], false, "{json:#}");
}

#[test]
fn a_file_that_cannot_be_read_ends_with_status_2() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().join("missing"), folder.path().to_owned()] {
        for arguments in [&[][..], &["--json"]] {
            let output = check_server(arguments, &path);
            assert_eq!(output.status.code(), Some(2));
            assert!(output.stdout.is_empty());
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(said.starts_with(&format!("psmdb-aws-iam: cannot read {}: ", path.display())), "{said}");
        }
    }
    let run = |arguments: &[&str]| Command::new(env!("CARGO_BIN_EXE_psmdb-aws-iam")).args(arguments).output().unwrap();
    assert_eq!(run(&["check-server"]).status.code(), Some(2));
    assert_eq!(run(&["check-server", "a", "b"]).status.code(), Some(2));
    assert_eq!(run(&["no-such-command"]).status.code(), Some(2));
    let version = run(&["--version"]);
    assert!(version.status.success());
    assert_eq!(version.stdout, concat!("psmdb-aws-iam ", env!("CARGO_PKG_VERSION"), "\n").as_bytes());
}
