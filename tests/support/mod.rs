//! What the integration tests stand on: real servers, a raw client of the wire protocol, and the
//! client's side of MONGODB-AWS. The tests of the command include it, too.

#![allow(dead_code, reason = "no test binary uses all of it")]

pub mod aws_client;
pub mod dns;
pub mod fixture;
pub mod memory;
pub mod mongod;
pub mod process;
pub mod proxy;
pub mod wire;

use std::env;
use std::path::{Path, PathBuf};

/// The root of the repository, whichever package's tests include this module.
pub fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().find(|folder| folder.join("tests/support").is_dir()).expect("a folder with this file")
}

/// A file of the release build, unless a variable of the environment names another.
///
/// # Panics
/// When it is not there.
fn built(name: &str, variable: &str) -> PathBuf {
    let path = env::var_os(variable).map_or_else(
        || {
            let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
            root().join(target).join("release").join(name)
        },
        PathBuf::from,
    );
    assert!(path.exists(), "there is no {}: run make build", path.display());
    path
}

/// The plugin as users get it: of the release build, or the installed one.
pub fn plugin() -> PathBuf {
    // The loader passes over a file that is not there with no more than a line on stderr.
    built("libpsmdb_aws_iam.so", "PSMDB_AWS_IAM_PLUGIN")
}

/// The command as users get it: of the release build, or the installed one.
pub fn command() -> PathBuf {
    built("psmdb-aws-iam", "PSMDB_AWS_IAM_COMMAND")
}
