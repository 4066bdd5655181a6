//! Asking AWS STS who signed a request.
//!
//! [`hosts`] says whom to ask, [`admission`] and [`pacing`] say when, [`request`] is what is sent, [`client`] sends it, until
//! there is an answer, and [`response`] reads that. [`endpoint`] says where to, [`resolver`] finds the addresses, and
//! [`connection`], with [`proxy`] and [`tls`], makes the connection. [`roots`] holds the trusted certificates,
//! [`certificates`] puts errors about others into words, and [`unreached`] says why there is no answer.

pub mod admission;
pub mod certificates;
pub mod client;
pub mod connection;
pub mod endpoint;
pub mod hosts;
pub mod known_keys;
pub mod pacing;
pub mod proxy;
pub mod request;
pub mod resolver;
pub mod response;
pub mod roots;
pub mod tls;
pub mod unreached;
