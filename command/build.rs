//! Links the shim's checks of a server: object files that the build script of the shared object's package has compiled.

use std::env;

/// What that build script tells: its package has the key `links = "psmdb_aws_iam"`.
const CHECKS: &str = "DEP_PSMDB_AWS_IAM_SERVER_CHECKS";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let checks = env::var_os(CHECKS).expect("the build script of psmdb-aws-iam says where they are");
    for object in env::split_paths(&checks) {
        println!("cargo:rustc-link-arg-bins={}", object.display());
    }
}
