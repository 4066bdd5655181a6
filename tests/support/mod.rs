//! What the tests share: real servers, a raw client of the wire protocol, and the client's side of
//! MONGODB-AWS. The tests of the command include it, too.

#![allow(dead_code, reason = "no test binary uses all of it")]

pub mod aws_client;
pub mod dns;
pub mod doubles;
pub mod fixture;
pub mod memory;
pub mod mongod;
pub mod process;
pub mod proxy;
pub mod sts;
pub mod wire;

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Returns the root of the repository, whichever package's tests include this module.
pub fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().find(|folder| folder.join("tests/support").is_dir()).expect("a folder with this file")
}

/// A file of the release build.
///
/// # Panics
/// When it is not there.
pub fn built(name: &str) -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    existing(root().join(target).join("release").join(name))
}

fn existing(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "there is no {}: run make build", path.display());
    path
}

/// The file that a variable of the environment names, else the one of the release build.
fn given_or_built(name: &str, variable: &str) -> PathBuf {
    env::var_os(variable).map_or_else(|| built(name), |path| existing(path.into()))
}

/// The plugin as users get it: of the release build, or the installed one.
pub fn plugin() -> PathBuf {
    // The loader ignores a missing file, but for a line on stderr.
    given_or_built("libpsmdb_aws_iam.so", "PSMDB_AWS_IAM_PLUGIN")
}

/// Returns the path of the command as users get it: of the release build, or the installed one.
pub fn command() -> PathBuf {
    given_or_built("psmdb-aws-iam", "PSMDB_AWS_IAM_COMMAND")
}

/// Reports a test, or a part of one, that cannot run here. The report is visible although the test
/// passes: the harness captures what `eprintln!` prints, but not what is written to standard error
/// itself.
pub fn skipped(what: &str, because: &str) {
    let _ = writeln!(io::stderr(), "skipped: {what}, because {because}");
}
