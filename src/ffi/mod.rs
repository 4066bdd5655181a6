//! The C ABI: the only door between the server's C++ and the rest of the crate, and the only unsafe code.
//!
//! `include/psmdb_aws_iam.h` is generated from this folder. Three rules hold for every exported function:
//!
//! - its body is one call of `boundary::guard`, so that no panic leaves it (a test reads the sources for that);
//! - lengths and pointers are checked before anything is read, and nothing keeps a pointer of the caller's;
//! - it fails closed: success codes are numbers that no zeroed or forgotten result has, and who logged in can be read
//!   only from a conversation that STS has confirmed.

mod boundary;
mod conversation;
mod parameters;
mod server_status;
mod types;

pub use conversation::*;
pub use parameters::*;
pub use server_status::*;
pub use types::*;
