//! Asking AWS STS who signed a request.
//!
//! [`request`] is what is sent, [`client`] sends it, [`response`] reads the answer, [`endpoint`] says where to.

pub mod client;
pub mod endpoint;
pub mod request;
pub mod response;
