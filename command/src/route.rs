//! How to reach STS: options that are the server's parameters.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use psmdb_aws_iam::settings::Settings;

use super::settings::{path_value, settings};
use super::setup::sts_host;

/// The options of every command that asks STS.
#[derive(Args)]
pub struct RouteOptions {
    /// STS to ask: the server's awsStsHost [default: sts.amazonaws.com]
    #[arg(long, value_name = "HOST")]
    sts_host: Option<String>,

    /// The region whose STS to ask, instead of --sts-host
    #[arg(long, conflicts_with = "sts_host")]
    region: Option<String>,

    /// Where to connect instead of port 443 of that host: the server's awsStsEndpoint
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,

    /// PEM file of more root certificates: the server's awsStsCAFile
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// HTTP proxy to go through, http://host:port: the server's awsStsProxy
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,

    /// Time to ask STS in: the server's awsStsTimeoutMS [default: 10000]
    #[arg(long, value_name = "MS")]
    timeout_ms: Option<String>,
}

impl RouteOptions {
    /// The plugin's settings with these values.
    ///
    /// # Errors
    /// The plugin's sentence about a value that it refuses, after the option's name.
    pub fn settings(&self) -> Result<Arc<Settings>, String> {
        let region_host = self.region.as_deref().map(sts_host).transpose()?;
        let host = self.sts_host.clone().or_else(|| region_host.map(|host| host.as_str().to_owned()));
        settings(&[
            ("--sts-host, the server's awsStsHost", "awsStsHost", host),
            ("--endpoint, the server's awsStsEndpoint", "awsStsEndpoint", self.endpoint.clone()),
            ("--ca-file, the server's awsStsCAFile", "awsStsCAFile", path_value("--ca-file", self.ca_file.as_ref())?),
            ("--proxy, the server's awsStsProxy", "awsStsProxy", self.proxy.clone()),
            ("--timeout-ms, the server's awsStsTimeoutMS", "awsStsTimeoutMS", self.timeout_ms.clone()),
        ])
    }
}
