//! The C ABI: the only door between the server's C++ and the rest of the crate, and the only unsafe
//! code.
//!
//! `include/psmdb_aws_iam.h` is generated from this folder. Three rules hold for every exported
//! function:
//!
//! - It is defined by `boundary::export!`, so that no panic leaves it. The compiler rejects any
//!   other exported function.
//! - It checks lengths and pointers before it reads anything, and keeps no pointer of the caller's.
//! - It fails closed: success codes are numbers that no zeroed or forgotten result has, and the
//!   user's name can be read only from a conversation that STS has confirmed.

mod boundary;
mod conversation;
mod parameters;
mod server_status;
mod types;

pub use conversation::*;
pub use parameters::*;
pub use server_status::*;
pub use types::*;
