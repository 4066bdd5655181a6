//! Tests on a real mongod with the preloaded plugin, against an STS that verifies signatures.
//!
//! Each test starts servers of its own on free ports of 127.0.0.1.

#[path = "../support/mod.rs"]
mod support;

mod c_abi;
mod connecting;
mod dependencies;
mod dns;
mod docs;
mod doubles;
mod hardening;
mod layers;
mod logins;
mod native;
mod parameters;
mod preload;
mod proxy;
mod server_status;
mod servers;
mod sources;
mod sts_client;
mod sts_faults;
mod support_itself;
