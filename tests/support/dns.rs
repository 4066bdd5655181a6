//! Makes a mongod use the DNS server of a test.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use local_sts::Dns;

use super::mongod::Builder;
use super::{plugin, root};

/// glibc's DNS timeouts: a second for each of five attempts, instead of five for each of two.
const RES_OPTIONS: &str = "timeout:1 attempts:5";

/// Compiles the object that redirects DNS into `folder`, and adds it to the preloaded ones.
pub fn asking(builder: Builder, dns: &Dns, folder: &Path) -> Builder {
    let source = root().join("tests/support/dns.c");
    let object = folder.join("dns.so");
    let compiled = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"])
        .arg(source)
        .arg("-o")
        .arg(&object)
        .args(["-ldl", "-lresolv"])
        .output()
        .expect("cc runs");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let mut preload = OsString::from(plugin());
    preload.push(":");
    preload.push(object);
    builder
        .env("LD_PRELOAD", preload)
        .env("PSMDB_AWS_IAM_TEST_DNS_PORT", dns.address().port().to_string())
        .env("RES_OPTIONS", RES_OPTIONS)
}
