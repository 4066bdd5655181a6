//! Where STS is, and the way to each host.

use super::endpoint::{Endpoint, Proxy, StsHost};
use super::roots::CaFile;
use rustls::ClientConfig;
use std::sync::Arc;
use std::time::Duration;

/// Where STS is, and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The preferred host, then those that replace it while it is unreachable. At least one.
    pub hosts: Vec<HostConfig>,
    /// The proxy that connections go through.
    pub proxy: Option<Proxy>,
    /// Root certificates to trust besides the system's.
    pub ca_file: Option<CaFile>,
    /// The maximum time of one login's request, retries included.
    pub timeout: Duration,
}

/// One STS host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// The name that clients sign for.
    pub name: StsHost,
    /// The address to connect to instead of port 443 of that name.
    pub endpoint: Option<Endpoint>,
}

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
