//! What the shared object is linked from: its own dependencies, and nothing that only the command
//! or the tests need.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::LittleEndian;
use object::elf::{FileHeader64, SHT_SYMTAB};
use object::read::elf::{FileHeader, Sym};
use serde_json::Value;

use crate::support::{built, plugin, root};

/// Crates that the command or the tests have, and the object must not.
const FOREIGN: [&str; 5] = ["clap", "aws_sigv4", "aws_config", "serde_json", "tokio"];

/// Dependencies that cargo compiles and the compiler does not link: bson uses serde_bytes only with
/// its feature serde.
const NOT_LINKED: [&str; 1] = ["serde_bytes"];

/// Texts of the command.
const TEXTS_OF_THE_COMMAND: [&[u8]; 4] =
    [b"the file is truncated", b"AWS_SHARED_CREDENTIALS_FILE", b"connectionStatus", b"compgen"];

/// The object with its symbols: packages contain a stripped one.
fn object() -> PathBuf {
    let plugin = plugin();
    if plugin.with_extension("rlib").exists() { plugin } else { built("libpsmdb_aws_iam.so") }
}

/// The output of a program that is run in a folder of the repository.
fn output(command: &mut Command, folder: &str) -> String {
    let output =
        command.current_dir(root().join(folder)).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The crates that the compiler linked, as `name-version`, without those of Rust's standard
/// library. It records them in the Rust library, which one run of it writes along with the object.
fn linked() -> BTreeSet<String> {
    let object = object();
    let mut ls = Command::new("rustc");
    ls.env("RUSTC_BOOTSTRAP", "1").arg("-Zls=root").arg(object.with_extension("rlib"));
    let listed = output(&mut ls, ".");
    // 59 webpki-e5cc1b359d30e308 hash 3d580cd9167c2f594be9ac1682801ba1 host_hash None kind ...
    let crates = listed.lines().filter(|line| line.contains(" host_hash ") && !line.contains(" MacrosOnly "));
    let folder = object.parent().expect("a folder").join("deps");
    let linked: BTreeSet<_> =
        crates.filter_map(|line| package_of(&folder, line.split(' ').nth(1).expect("a name with its hash"))).collect();
    assert!(linked.len() > 20, "{listed}");
    linked
}

/// The package of a crate that cargo compiled, by the paths of its sources; `None` for a crate of
/// Rust's standard library.
fn package_of(folder: &Path, name: &str) -> Option<String> {
    let sources = fs::read_to_string(folder.join(format!("{name}.d"))).ok()?;
    let inside = sources.split_once("/registry/src/").unwrap_or_else(|| panic!("{name} is not from a registry")).1;
    Some(inside.split('/').nth(1).expect("a folder of the registry").to_owned())
}

/// The dependencies of the object's package according to cargo, as `name-version`.
fn tree() -> BTreeSet<String> {
    let mut tree = Command::new("cargo");
    tree.args(["tree", "--locked", "--offline", "--package", "psmdb-aws-iam", "--target", "x86_64-unknown-linux-gnu"]);
    tree.args(["--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"]);
    let lines = output(&mut tree, ".");
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let packages = lines.lines().map(words).filter(|words| words[0] != "psmdb-aws-iam");
    packages.map(|words| format!("{}-{}", words[0], words[1].trim_start_matches('v'))).collect()
}

/// The crates in the object's SBOM, as `name-version`.
fn billed() -> BTreeSet<String> {
    // Rust's standard library has an entry of its own, which needs files that only rustup installs.
    const SCRIPT: &str = "import shipped; \
         print(shipped.bill_of_materials(shipped.crates(shipped.OBJECT), shipped.StandardLibrary('0', [], [], []), [], ''))";
    let mut python = Command::new("python3");
    python.env("PYTHONDONTWRITEBYTECODE", "1").args(["-c", SCRIPT]);
    let document: Value = serde_json::from_str(&output(&mut python, "tools")).expect("JSON");
    let text = |component: &Value, field: &str| component[field].as_str().expect("a text").to_owned();
    let components = document["components"].as_array().expect("components").iter();
    let crates = components.filter(|component| component["name"] != "rust-std");
    crates.map(|one| format!("{}-{}", text(one, "name"), text(one, "version"))).collect()
}

#[test]
fn the_object_is_linked_from_its_dependencies_and_its_sbom_lists_each() {
    let linked = linked();
    let (unlinked, tree): (BTreeSet<_>, BTreeSet<_>) =
        tree().into_iter().partition(|package| NOT_LINKED.iter().any(|name| package.starts_with(&format!("{name}-"))));
    assert_eq!(tree, linked, "cargo tree and the linked crates");
    assert_eq!(unlinked.len(), NOT_LINKED.len(), "no longer a dependency: remove it from the list");
    assert_eq!(billed(), linked, "the SBOM and the linked crates");
    for name in FOREIGN {
        let is_foreign = |package: &String| package.replace('-', "_").starts_with(&format!("{name}_"));
        assert!(!linked.iter().any(is_foreign), "{name}");
    }
}

#[test]
fn nothing_of_the_command_is_in_the_object() {
    let bytes = fs::read(object()).unwrap();
    let header = FileHeader64::<LittleEndian>::parse(&*bytes).unwrap();
    let sections = header.sections(LittleEndian, &*bytes).unwrap();
    let symbols = sections.symbols(LittleEndian, &*bytes, SHT_SYMTAB).unwrap();
    let names: Vec<_> = symbols.iter().filter_map(|symbol| symbol.name(LittleEndian, symbols.strings()).ok()).collect();
    let has = |part: &str| names.iter().any(|name| name.windows(part.len()).any(|found| found == part.as_bytes()));
    assert!(has("psmdb_aws_iam") && has("rustls"), "{} is stripped of its symbols", object().display());
    for name in FOREIGN {
        assert!(!has(name), "a symbol of {name}");
    }

    let contains = |wanted: &[u8]| bytes.windows(wanted.len()).any(|found| found == wanted);
    assert!(contains(b"MONGODB-AWS"));
    for part in TEXTS_OF_THE_COMMAND {
        assert!(!contains(part), "{}", String::from_utf8_lossy(part));
    }
}
