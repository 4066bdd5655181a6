//! The way to one STS host.

use super::endpoint::{Endpoint, Proxy, StsHost};
use rustls::ClientConfig;
use std::sync::Arc;
use std::time::Duration;

/// How to reach one STS host.
#[derive(Clone, Debug)]
pub struct Route<'a> {
    /// The name of STS.
    pub host: &'a StsHost,
    /// The address to connect to instead of the host's port 443.
    pub endpoint: Option<&'a Endpoint>,
    /// The proxy that connections go through.
    pub proxy: Option<&'a Proxy>,
    /// The TLS configuration, with the trusted roots.
    pub tls: Arc<ClientConfig>,
    /// The maximum time of one login's request, retries included.
    pub timeout: Duration,
}
