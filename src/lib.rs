//! `MONGODB-AWS` logins for a stock `mongod`: IAM users and roles, verified by AWS STS.
//!
//! The crate is built as a shared object that a server preloads. A thin C++ shim (`cpp-shim/`) knows how the server
//! looks in memory; everything that is decided is decided here. The layers, from the outside in:
//!
//! - [`ffi`]: the `extern "C"` functions, the panic boundary and the only unsafe code.
//! - [`login`]: one login from its first byte to its verdict; joins the two below.
//! - [`sasl`]: the conversation with the client, a state machine without I/O.
//! - [`sts`]: the question to AWS STS and its answer.
//! - [`sigv4`], [`principal`]: the client's signature header, the user's name.
//! - [`aws`]: the partitions, their regions and STS hosts.
//! - [`parameters`], [`settings`]: the names, defaults and checks; the values in force.
//! - [`metrics`], [`events`]: the counters, the lines for the server's log.
//! - [`process`]: what all logins share.
//!
//! Text from outside passes one grammar each. It is written where it is decided, and nowhere else, as ABNF (RFC 5234;
//! `%s` marks strings whose case matters, RFC 7405), with its bounds, its source and where it is stricter than that:
//!
//! | What | Where |
//! |---|---|
//! | the client's messages with its nonce `r` and its flag `p`, the server's nonce `s` | `sasl::messages` |
//! | Authorization header | [`sigv4::Authorization::parse`] |
//! | X-Amz-Date | [`sigv4::AmzDate::parse`] |
//! | session token | [`sigv4::check_token`] |
//! | STS host, and the region that it implies | [`sts::endpoint::StsHost::parse`], [`sts::endpoint::StsHost::region`] |
//! | what AWS calls its STS hosts | [`aws::check_sts_host`], [`aws::Partition::of_region`] |
//! | address of STS | [`sts::endpoint::Endpoint::parse`] |
//! | answer of STS | [`sts::response::read`] |
//! | ARN, account | [`principal::Principal::parse`], [`principal::Role::parse`], [`principal::is_account`] |
#![deny(unsafe_code)]

#[cfg(panic = "abort")]
compile_error!("psmdb-aws-iam must be built with panic=unwind: a panic has to end one login, not the server");

pub mod aws;
pub mod denial;
pub mod events;
#[allow(unsafe_code, reason = "the C ABI is the one place that handles raw pointers")]
pub mod ffi;
pub mod login;
pub mod metrics;
pub mod parameters;
pub mod principal;
pub mod process;
pub mod sasl;
pub mod secret;
pub mod settings;
pub mod sigv4;
pub mod sts;
pub mod trust;
