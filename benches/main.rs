//! Measures the cost of a login, compared with alternatives, and which goals are met: `make bench`.
//!
//! Alternatives are measured alternately in one run, so other load on the machine affects all of
//! them. The result goes to standard output and, if all parts were run, to docs/benchmarks.md,
//! whose head describes the method.

mod client;
mod logins;
mod machine;
mod memory;
mod report;
mod server;
mod storm;
mod verification;
mod waiting;

// Sources of the plugin, since this package does not depend on it: see Cargo.toml.
#[allow(unused, reason = "not all is measured, and their tests are not run here")]
#[path = "../src/sts/gate/pace.rs"]
mod pace;
#[allow(unused, reason = "as above")]
#[path = "../src/sts/gate/room/mod.rs"]
mod room;

#[path = "../tests/support/mod.rs"]
mod support;

use std::env;
use std::path::{Path, PathBuf};
use std::time::Instant;

use machine::Machine;
use report::Report;

/// A part of the report, and its name on the command line.
type Part = (&'static str, fn(&mut Report));

const PARTS: [Part; 5] = [
    ("verification", verification::run),
    ("logins", logins::run),
    ("storm", storm::run),
    ("waiting", waiting::run),
    ("memory", memory::run),
];

fn main() {
    // Cargo adds its own arguments, which begin with a dash.
    let chosen: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let unknown = chosen.iter().find(|name| PARTS.iter().all(|(part, _)| part != name));
    assert!(unknown.is_none(), "unknown part {unknown:?}: must be verification, logins, storm, waiting or memory");

    let begun = Instant::now();
    let machine = Machine::now();
    let mut report = Report::default();
    for (name, run) in PARTS {
        if chosen.is_empty() || chosen.iter().any(|chosen| chosen == name) {
            eprintln!("{name}, after {:.0} s", begun.elapsed().as_secs_f64());
            run(&mut report);
        }
    }
    let text = report.text(&machine.describe(begun.elapsed()));
    println!("{text}");
    if chosen.is_empty() {
        let path = root().join("docs/benchmarks.md");
        std::fs::write(&path, text).expect("write docs/benchmarks.md");
        eprintln!("written to {}", path.display());
    }
}

/// The project's folder.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package is in the project's folder")
}

/// The plugin's release build, which is beside this program.
fn plugin() -> PathBuf {
    if let Some(path) = env::var_os("PSMDB_AWS_IAM_PLUGIN") {
        return path.into();
    }
    let program = env::current_exe().expect("a path");
    let release = program.parent().and_then(Path::parent).expect("cargo's folders");
    let path = release.join("libpsmdb_aws_iam.so");
    assert!(path.exists(), "{} is missing: run make build", path.display());
    path
}
