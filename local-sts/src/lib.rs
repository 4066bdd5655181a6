//! An AWS STS on loopback that really verifies SigV4.
//!
//! It offers one action, [GetCallerIdentity], over HTTPS. It signs the request it *received* with
//! the secret of the claimed access key id, and returns the identity only if the two signatures are
//! equal. So a test, the demo or a benchmark proves that a login succeeds because its signature is
//! right.
//!
//! ```no_run
//! use local_sts::{Identity, LocalSts};
//!
//! let alice = Identity::iam_user("123456789012", "alice");
//! let sts = LocalSts::builder().identity(alice.clone()).start()?;
//! std::fs::write("ca.pem", sts.ca_pem())?;
//! println!("connect to {} as sts.amazonaws.com", sts.endpoint());
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Its faults can be switched while it runs:
//!
//! - [`RateLimit`], [`Failures`] and the other setters of [`LocalSts`] are faults of the service;
//! - [`DelayProxy`] has those of the network;
//! - [`Dns`] has those of name resolution;
//! - [`StsResponse`] has responses that STS would never send.
//!
//! It is not for a real network: it listens on loopback addresses only, and keeps secret access
//! keys in memory in plain text.
//!
//! [GetCallerIdentity]: https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html

#![forbid(unsafe_code)]

mod connection;
mod dns;
mod error;
mod faults;
mod http;
mod identity;
mod in_flight;
mod proxy;
mod response;
mod server;
mod service;
mod sigv4;
mod tls;

pub use dns::{Dns, DnsResponse};
pub use faults::{Failures, RateLimit, ServiceError};
pub use identity::{Identity, ParseIdentitiesError};
pub use proxy::{DelayProxy, IdleDrop, NetworkFault, Stage};
pub use response::StsResponse;
pub use server::{Builder, LocalSts};
pub use service::{Outcome, RecordedRequest};
