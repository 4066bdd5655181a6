//! What the integration tests stand on: real servers, a raw client of the wire protocol, and the
//! client's side of MONGODB-AWS.

#![allow(dead_code, reason = "no test binary uses all of it")]

pub mod aws_client;
pub mod dns;
pub mod fixture;
pub mod memory;
pub mod mongod;
pub mod process;
pub mod wire;
