//! An AWS STS on loopback that really verifies SigV4.
//!
//! It offers one action, [GetCallerIdentity], over HTTPS: it signs the request it *received* once more with the secret
//! it knows for the claimed access key id, and answers only when the signatures agree. So a test, the demo or a
//! benchmark can prove that a login works because the signature is right, not because somebody said yes.
//!
//! ```no_run
//! use local_sts::{Identity, LocalSts};
//!
//! let alice = Identity::iam_user("123456789012", "alice");
//! let sts = LocalSts::builder().identity(alice.clone()).start()?;
//! std::fs::write("ca.pem", sts.ca_pem())?;
//! println!("dial {} as sts.amazonaws.com", sts.endpoint());
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! It can have the faults of a real one, all of which can be switched while it runs: [`RateLimit`], [`Failures`] and the
//! other setters of [`LocalSts`] are those of the service, [`DelayProxy`] has those of the network, [`Dns`] those of name resolution, and [`Answer`] says
//! what STS would never say. Nothing here is meant to face a network: it listens on
//! loopback addresses only and keeps secret access keys in memory as they are.
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

pub use dns::{Dns, DnsAnswer};
pub use faults::{Failures, RateLimit, ServiceError};
pub use identity::{Identity, ParseIdentitiesError};
pub use proxy::{DelayProxy, Fate, NetworkFault, Stage};
pub use response::Answer;
pub use server::{Builder, LocalSts};
pub use service::{Outcome, RecordedRequest};
