//! `check-sts`: checks whether this machine can reach STS as the plugin does, without credentials.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use psmdb_aws_iam::denial::{Cause, Denial};
use psmdb_aws_iam::sts::client::{Client, Failure};
use psmdb_aws_iam::sts::connection::Step;
use psmdb_aws_iam::sts::health::Outcome;

use crate::output::{CommandResult, print};
use crate::route::RouteOptions;
use crate::steps::{Phase, Steps, milliseconds};

const HELP: &str = "\
Run it on the server's machine, with the server's parameters as options. It
resolves the name, connects, completes the TLS handshake and sends
GetCallerIdentity without a signature, as the plugin does with one, so it needs no
AWS credentials. It prints each step with its address and duration. STS is
reachable if it returns an error of its own, such as 403
MissingAuthenticationToken. It sends one request, where a server would retry.

Exit status:
  0  STS is reachable
  1  it is not; the last lines name the step that failed, and what to do
  2  wrong usage

Examples:
  psmdb-aws-iam check-sts --region eu-west-1
  psmdb-aws-iam check-sts --region eu-west-1 --proxy http://proxy.example.com:3128
  psmdb-aws-iam check-sts --sts-host sts.cn-north-1.amazonaws.com.cn";

/// Check, step by step, whether this machine can reach STS; needs no AWS credentials
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct CheckSts {
    #[command(flatten)]
    route: RouteOptions,
}

/// Sends a request without a signature to STS, and prints the steps.
///
/// # Errors
/// When an option is wrong, or standard output cannot be written.
pub fn run(arguments: &CheckSts) -> CommandResult {
    let settings = arguments.route.settings()?;
    let host = settings.sts().first_host();
    let mut text = format!("{}:\n", host.name());
    let response = match Steps::measure(&settings, send_unsigned) {
        Ok((response, steps)) => {
            text.push_str(&table(&steps, response.as_deref().ok()));
            let failed = steps.phases().iter().find(|phase| !phase.succeeded).map(|phase| phase.phase);
            response.map_err(|denial| (advice(failed, &denial), denial))
        }
        Err(denial) => Err((advice(None, &denial), denial)),
    };
    // Writing to a String cannot fail.
    let _ = match &response {
        Ok(_) => writeln!(text, "\nSTS is reachable."),
        Err((advice, denial)) => writeln!(text, "\nSTS is not reachable: {}.\n\n{advice}.", denial.reason()),
    };
    print(&text)?;
    Ok(response.is_ok())
}

/// Sends a request without a signature. Returns the error of STS, which shows that it is reachable.
fn send_unsigned(client: &Client, timeout: Duration) -> Result<String, Denial> {
    match client.check(timeout) {
        Err(Failure { denial, outcome: Outcome::Reached, .. }) => Ok(denial.reason().to_owned()),
        Err(failure) => Err(failure.denial),
        Ok(_) => Err(Denial::invalid_response(
            "the response is not a valid STS response: it returns an identity for an unsigned request",
        )),
    }
}

/// A line for each step, with its duration and its address or result.
fn table(steps: &Steps, response: Option<&str>) -> String {
    let mut text = String::new();
    let mut line = |name: &str, duration: Duration, note: &str| {
        let line = format!("  {name:<18}{:>11}  {note}", milliseconds(duration));
        let _ = writeln!(text, "{}", line.trim_end());
    };
    if let Some((duration, addresses)) = &steps.resolution {
        let addresses = addresses.as_ref().map(|all| all.iter().map(|address| address.ip().to_string()));
        let note = addresses.map_or_else(|| "failed".to_owned(), |all| all.collect::<Vec<_>>().join(", "));
        line(Phase::NameResolution.name(), *duration, &note);
    }
    let mut attempts: Vec<_> = steps.attempts.iter().collect();
    attempts.sort_by_key(|attempt| attempt.began_after);
    for attempt in attempts {
        let mut note = attempt.address.to_string();
        for (index, (step, duration)) in attempt.steps.iter().enumerate() {
            let name = match step {
                Step::Tcp => "TCP connection",
                Step::Tunnel => "CONNECT",
                Step::Tls => "TLS handshake",
            };
            if index + 1 == attempt.steps.len()
                && let Some(failure) = &attempt.failure
            {
                let _ = write!(note, ": {failure}");
            }
            line(name, *duration, &note);
        }
    }
    if let Some(last) = steps.phases().last().filter(|last| last.phase == Phase::Response) {
        line(Phase::Response.name(), last.duration, response.unwrap_or("failed"));
    }
    text
}

/// What to do about the step that failed.
fn advice(step: Option<Phase>, denial: &Denial) -> &'static str {
    match (step, denial.cause()) {
        (Some(Phase::NameResolution), Cause::Timeout) => {
            "No name server responds. Check /etc/resolv.conf, and allow port 53 to its servers"
        }
        (Some(Phase::NameResolution), _) => "Check the name, and DNS on this machine with getent hosts",
        (Some(Phase::Connect), Cause::Timeout) => {
            "A firewall, security group, network ACL or missing route drops the packets. Allow outbound TCP to this \
             address and port"
        }
        (Some(Phase::Connect), _) => {
            "Nothing accepts connections there. Check the address and port, and the route to it"
        }
        (Some(Phase::Tunnel), _) => "The proxy must allow CONNECT to port 443 of the STS host, without a password",
        (Some(Phase::Tls) | None, Cause::UntrustedTls) => {
            "Install the system's ca-certificates. If a device inspects TLS, give its CA with --ca-file (awsStsCAFile)"
        }
        (Some(Phase::Tls), _) => {
            "The address accepts connections and does not complete TLS. Check for a device that inspects TLS, a load \
             balancer without healthy targets, or a wrong port"
        }
        (_, Cause::Timeout) => "STS, or a device in between, is slow. A larger awsStsTimeoutMS may help",
        (_, Cause::ServerError) => "STS has an outage. Try again later, and list other hosts in awsStsFallbackHosts",
        (_, Cause::NoConnection) => "A firewall, a proxy or a device that inspects TLS closes the connection",
        _ => "The server at this address is not STS. Check the endpoint and the proxy",
    }
}
