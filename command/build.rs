//! Links the C++ shim's checks of a server, which the build script of the shared object compiles.

use std::env;

/// The variable from that build script, whose package has the key `links = "psmdb_aws_iam"`.
const CHECKS: &str = "DEP_PSMDB_AWS_IAM_SERVER_CHECKS";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let checks = env::var_os(CHECKS).expect("the build script of psmdb-aws-iam sets it");
    for object in env::split_paths(&checks) {
        println!("cargo:rustc-link-arg-bins={}", object.display());
    }
}
