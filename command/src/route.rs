//! The route to STS: options that are the server's parameters, and the hosts of regions.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use psmdb_aws_iam::aws::Partition;
use psmdb_aws_iam::settings::Settings;
use psmdb_aws_iam::sts::endpoint::StsHost;

use crate::settings::{path_value, settings};

/// The options of the commands that send requests to STS.
#[derive(Args)]
pub struct RouteOptions {
    /// The STS host: the server's awsStsHost [default: sts.amazonaws.com]
    #[arg(long, value_name = "HOST")]
    sts_host: Option<String>,

    /// The region of the STS host, instead of --sts-host
    #[arg(long, conflicts_with = "sts_host")]
    region: Option<String>,

    /// The URL to connect to, instead of port 443 of the host: the server's awsStsEndpoint
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,

    /// PEM file of more root certificates: the server's awsStsCAFile
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// HTTP proxy, as http://host:port: the server's awsStsProxy
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,

    /// Maximum duration of the request: the server's awsStsTimeoutMS [default: 10000]
    #[arg(long, value_name = "MS")]
    timeout_ms: Option<String>,
}

impl RouteOptions {
    /// The plugin's settings with these values.
    ///
    /// # Errors
    /// The plugin's message about a value, after the option's name.
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

/// The STS host of a region.
pub fn sts_host(region: &str) -> Result<StsHost, String> {
    let host = Partition::of_region(region).map(|partition| partition.sts_host(region));
    host.and_then(|host| StsHost::parse(&host).ok()).ok_or_else(|| {
        format!("the region {region:?} is not valid: it must be a name such as eu-west-1 (--region, AWS_REGION)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_has_one_sts_host() {
        for (region, host) in [
            ("eu-west-1", "sts.eu-west-1.amazonaws.com"),
            ("us-gov-west-1", "sts.us-gov-west-1.amazonaws.com"),
            ("cn-north-1", "sts.cn-north-1.amazonaws.com.cn"),
            ("us-iso-east-1", "sts.us-iso-east-1.c2s.ic.gov"),
            ("us-isob-east-1", "sts.us-isob-east-1.sc2s.sgov.gov"),
            ("eu-isoe-west-1", "sts.eu-isoe-west-1.cloud.adc-e.uk"),
            ("us-isof-south-1", "sts.us-isof-south-1.csp.hci.ic.gov"),
            ("eusc-de-east-1", "sts.eusc-de-east-1.amazonaws.eu"),
        ] {
            assert_eq!(sts_host(region).unwrap().as_str(), host);
            assert_eq!(sts_host(region).unwrap().region(), region);
        }
        for wrong in ["", "eu", "EU-WEST-1", "eu-west-1a", "eu-west-1.example.com", "eu west-1", "aws-global", "sts"] {
            assert!(sts_host(wrong).is_err(), "{wrong:?} was accepted");
        }
    }
}
