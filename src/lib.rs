//! `MONGODB-AWS` logins for a stock `mongod`: IAM users and roles, verified by AWS STS.
//!
//! The crate is built as a shared object that a server preloads. A thin C++ shim (`cpp-shim/`)
//! knows the server's memory layout and decides nothing. The layers, from the top down; each uses
//! only those below it:
//!
//! - [`ffi`]: the `extern "C"` functions, the panic boundary and the only unsafe code.
//! - [`login`]: one login with its one state: underway, confirmed or denied.
//! - [`settings`], [`parameters`], [`trust`]: the values in force; the names, defaults and checks of
//!   parameters; the rule about changes at runtime.
//! - [`sasl`]: the conversation with the client, a state machine without I/O.
//! - [`sts`]: the request to AWS STS and its response.
//! - [`process`], [`events`], [`metrics`]: what all logins share, lines for the server's log, counters.
//! - [`sigv4`], [`principal`]: the client's signature header; from the ARN to the user's name.
//! - [`mongosh`]: the command that creates a user, for the log and the operator's command.
//! - [`aws`], [`denial`], [`secret`]: partitions, regions and STS hosts; why a login failed; text that
//!   is redacted and zeroed.
//!
//! Text from outside passes one grammar each. It is written where it is checked, as ABNF (RFC 5234;
//! `%s` marks case-sensitive strings, RFC 7405), with its bounds, its source and where it is
//! stricter:
//!
//! | Text | Grammar |
//! |---|---|
//! | the client's messages with its nonce `r` and its flag `p`, the server's nonce `s` | `sasl::messages` |
//! | Authorization header | [`sigv4::Authorization::parse`] |
//! | X-Amz-Date | [`sigv4::AmzDate::parse`] |
//! | session token | [`sigv4::check_token`] |
//! | STS host, and the region that it implies | [`sts::endpoint::StsHost::parse`], [`sts::endpoint::StsHost::region`] |
//! | names of AWS's STS hosts | [`aws::check_sts_host`], [`aws::Partition::of_region`] |
//! | address of STS | [`sts::endpoint::Endpoint::parse`] |
//! | response of STS | [`sts::response::read`] |
//! | ARN, account | [`principal::Principal::parse`], [`principal::is_account`] |
#![deny(unsafe_code)]

#[cfg(panic = "abort")]
compile_error!("psmdb-aws-iam must be built with panic=unwind: a panic must end one login, not the server");

pub mod aws;
pub mod denial;
pub mod events;
pub mod ffi;
pub mod login;
pub mod metrics;
pub mod mongosh;
pub mod parameters;
pub mod principal;
pub mod process;
pub mod sasl;
pub mod secret;
pub mod settings;
pub mod sigv4;
pub mod sts;
pub mod trust;
