//! Attacks on a real mongod with the preloaded plugin, over the wire. Each fails, and the same
//! server then still lets the right client in.
//!
//! Where a client attacks, STS would say yes to anything, so that only the plugin's own check
//! stands in the way.

#[path = "../support/mod.rs"]
mod support;

mod accounts;
mod classes;
mod header_grammar;
mod health;
mod hostile_sts;
mod load;
mod refusals;
mod roots;
mod secrets;
mod target;
mod trust;
mod wire_fuzz;
