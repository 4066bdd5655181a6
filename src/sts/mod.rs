//! Asking AWS STS who signed a request.
//!
//! [`request`] is what is sent, [`admission`] says when, [`client`] sends it, [`response`] reads the answer, [`endpoint`]
//! says where to, [`resolver`] finds the address and [`tls`] makes the connection.

pub mod admission;
pub mod client;
pub mod endpoint;
pub mod request;
pub mod resolver;
pub mod response;
pub mod tls;
