//! Rules for the sources.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::root;

/// The places of unsafe code: the C ABI, and the command's bridge to the C++ shim.
const UNSAFE: [&str; 2] = ["src/ffi", "command/src/check_server/ffi.rs"];

/// The Rust files below a folder, or the file itself.
pub fn rust_files(folder: &Path) -> Vec<PathBuf> {
    if folder.is_file() {
        return vec![folder.to_owned()];
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// A function that is exported without the panic boundary could end the server. The compiler
/// rejects it where unsafe code is denied, which is everywhere but in what the macro makes.
#[test]
fn only_the_macro_with_the_panic_boundary_exports_functions() {
    let mut exported = 0;
    for file in rust_files(&root().join("src")) {
        let source = fs::read_to_string(&file).unwrap();
        let source = source.split("#[cfg(test)]").next().unwrap();
        let code = || source.lines().map(str::trim).filter(|line| !line.starts_with("//"));
        exported += code().filter(|line| *line == "export!(").count();
        if file.ends_with("ffi/boundary.rs") {
            let both_arms = code().filter(|line| *line == "$crate::ffi::boundary::guard(|| $body)").count();
            assert_eq!((both_arms, code().filter(|line| line.contains("no_mangle")).count()), (2, 2));
            continue;
        }
        let found = code().find(|line| {
            ["no_mangle", "export_name", "allow(unsafe_code", "expect(unsafe_code"]
                .iter()
                .any(|word| line.contains(word))
        });
        assert!(found.is_none(), "{}: {found:?}", file.display());
    }
    let header = fs::read_to_string(root().join("include/psmdb_aws_iam.h")).unwrap();
    let declared = header
        .lines()
        .filter(|line| !line.starts_with("//") && line.contains(" psmdb_aws_iam_") || line.contains("*psmdb_aws_iam_"))
        .filter(|line| line.contains('(') && !line.starts_with("//") && !line.starts_with(' '))
        .count();
    assert_eq!(exported, declared, "the header declares other functions than the sources export");
}

#[test]
fn unsafe_code_is_in_the_bridges_only() {
    let files = ["src", "command/src"].into_iter().flat_map(|folder| rust_files(&root().join(folder)));
    for file in files.filter(|file| !UNSAFE.iter().any(|place| file.starts_with(root().join(place)))) {
        let source = fs::read_to_string(&file).unwrap();
        let found = source.lines().find(|line| {
            let code = line.split("//").next().unwrap();
            code.contains("unsafe ") || code.contains("unsafe{") || code.contains("allow(unsafe_code)")
        });
        assert!(found.is_none(), "{}: {found:?}", file.display());
    }
}

/// A new block changes a number in CONTRIBUTING.md, which a reviewer sees.
#[test]
fn every_unsafe_block_is_counted_and_every_unsafe_function_has_a_safety_section() {
    let document = fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    for file in UNSAFE.into_iter().flat_map(|place| rust_files(&root().join(place))) {
        let source = fs::read_to_string(&file).unwrap();
        let source = source.split("#[cfg(test)]").next().unwrap();
        let lines: Vec<_> = source.lines().map(|line| line.trim_start().trim_start_matches("pub ")).collect();
        let code = lines.iter().filter(|line| !line.starts_with("//"));
        let blocks: usize = code.map(|line| line.matches("unsafe {").count()).sum();
        let name = file.file_name().unwrap().to_str().unwrap();
        let stated = document
            .split_once(&format!("`{name}` "))
            .map_or("0", |(_, after)| after.split(|c: char| !c.is_ascii_digit()).next().unwrap());
        assert_eq!(stated, blocks.to_string(), "unsafe blocks of {name}, in CONTRIBUTING.md and in the file");
        for (at, line) in lines.iter().enumerate() {
            // The macro's own line names a variable: the functions that it makes have their
            // comments where it is used.
            if line.starts_with("unsafe fn") || line.starts_with("unsafe extern \"C\" fn") && !line.contains(" $") {
                let mut above = lines[..at].iter().rev().take_while(|line| line.starts_with(['/', '#']));
                assert!(above.any(|line| *line == "/// # Safety"), "{name}: {line}");
            }
        }
    }
}

/// The threat model relies on tests; each must exist.
#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let document = fs::read_to_string(root().join("docs/threat-model.md")).unwrap();
    let mut sources = String::new();
    for folder in ["src", "command", "tests/integration", "tests/attacks"] {
        for file in rust_files(&root().join(folder)) {
            sources.push_str(&fs::read_to_string(file).unwrap());
        }
    }
    let mut named = 0;
    for row in document.lines().filter(|line| line.starts_with('|')) {
        // Names of tests are sentences; other code in the tables has fewer underscores.
        for name in row.split('`').skip(1).step_by(2).filter(|code| code.matches('_').count() > 2) {
            let there = sources.contains(&format!("fn {name}()")) || sources.contains(&format!("mod {name} "));
            assert!(there, "{name} is not a test");
            named += 1;
        }
    }
    assert!(named > 20);
}
