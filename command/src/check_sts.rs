//! `check-sts`: whether this machine can reach STS as the plugin does, without credentials.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use psmdb_aws_iam::denial::{Cause, Denial};
use psmdb_aws_iam::sts::client::{Client, Failure};
use psmdb_aws_iam::sts::connection::Step;
use psmdb_aws_iam::sts::health::Outcome;

use crate::output::{self, print};
use crate::route::RouteOptions;
use crate::steps::{Phase, Steps, milliseconds};

const HELP: &str = "\
Run it on the server's machine, with the options that are the server's
parameters. It resolves the name, connects, makes the TLS handshake and sends
GetCallerIdentity without a signature, as the plugin does with one: no AWS
credentials are needed. Each step is printed with its address and its time. STS
can be reached if it answers with an error of its own, such as 403
MissingAuthenticationToken. It asks once, where a server would try again.

Exit status:
  0  STS can be reached
  1  it cannot; the last lines say which step failed, and what to do
  2  wrong usage

Examples:
  psmdb-aws-iam check-sts --region eu-west-1
  psmdb-aws-iam check-sts --region eu-west-1 --proxy http://proxy.example.com:3128
  psmdb-aws-iam check-sts --sts-host sts.cn-north-1.amazonaws.com.cn";

/// Say whether this machine can reach STS, and at which step it fails; needs no AWS credentials
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct CheckSts {
    #[command(flatten)]
    route: RouteOptions,
}

/// Asks STS without a signature, and prints how it went.
///
/// # Errors
/// When an option is wrong, or nothing can be printed.
pub fn run(arguments: &CheckSts) -> output::Outcome {
    let settings = arguments.route.settings()?;
    let host = settings.sts().first_host();
    let mut text = format!("{}:\n", host.name());
    let answer = match Steps::of(&settings, send_unsigned) {
        Ok((answer, steps)) => {
            text.push_str(&table(&steps, answer.as_deref().ok()));
            let failed = steps.laps().iter().find(|lap| !lap.done).map(|lap| lap.phase);
            answer.map_err(|denial| (advice(failed, &denial), denial))
        }
        Err(denial) => Err((advice(None, &denial), denial)),
    };
    // Writing to a String cannot fail.
    let _ = match &answer {
        Ok(_) => writeln!(text, "\nSTS can be reached."),
        Err((advice, denial)) => writeln!(text, "\nSTS cannot be reached: {}.\n\n{advice}.", denial.reason()),
    };
    print(&text)?;
    Ok(answer.is_ok())
}

/// Sends a request without a signature; returns how STS refuses it.
fn send_unsigned(client: &Client, timeout: Duration) -> Result<String, Denial> {
    match client.check(timeout) {
        Err(Failure { denial, outcome: Outcome::Reached, .. }) => Ok(denial.reason().to_owned()),
        Err(failure) => Err(failure.denial),
        Ok(_) => Err(Denial::invalid_response(
            "the response is not a valid STS response: it names a caller of a request without a signature",
        )),
    }
}

/// A line for each step, with its time and what came of it.
fn table(steps: &Steps, answer: Option<&str>) -> String {
    let mut text = String::new();
    let mut line = |indent: &str, name: &str, took: Duration, note: &str| {
        let line = format!("{indent}{name:<width$}{:>11}  {note}", milliseconds(took), width = 20 - indent.len());
        let _ = writeln!(text, "{}", line.trim_end());
    };
    if let Some((took, addresses)) = &steps.resolution {
        let addresses = addresses.as_ref().map(|all| all.iter().map(|address| address.ip().to_string()));
        let note = addresses.map_or_else(|| "failed".to_owned(), |all| all.collect::<Vec<_>>().join(", "));
        line("  ", Phase::NameResolution.name(), *took, &note);
    }
    let mut tried: Vec<_> = steps.tried.iter().collect();
    tried.sort_by_key(|address| address.begun_after);
    for address in tried {
        let mut note = address.address.to_string();
        for (index, (step, took)) in address.steps.iter().enumerate() {
            let name = match step {
                Step::Tcp => "TCP connection",
                Step::Tunnel => "CONNECT",
                Step::Tls => "TLS handshake",
            };
            if index + 1 == address.steps.len()
                && let Some(failure) = &address.failure
            {
                let _ = write!(note, ": {failure}");
            }
            line("  ", name, *took, &note);
        }
    }
    if let Some(lap) = steps.laps().last().filter(|lap| lap.phase == Phase::Answer) {
        line("  ", "response", lap.took, answer.unwrap_or("failed"));
    }
    text
}

/// What to do about the step that failed.
fn advice(step: Option<Phase>, denial: &Denial) -> &'static str {
    match (step, denial.cause()) {
        (Some(Phase::NameResolution), Cause::Timeout) => {
            "No name server answers. Look at /etc/resolv.conf, and allow port 53 to the servers in it"
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
            "Install the system's ca-certificates. Behind a device that inspects TLS, name its CA with --ca-file \
             (awsStsCAFile)"
        }
        (Some(Phase::Tls), _) => {
            "The address accepts connections and does not complete TLS. Look for a device that inspects TLS, a load \
             balancer without healthy targets, or a wrong port"
        }
        (_, Cause::Timeout) => "STS, or a device before it, is slow. A larger awsStsTimeoutMS may help",
        (_, Cause::ServerError) => "STS itself has trouble. Try again, and list other hosts in awsStsFallbackHosts",
        (_, Cause::NoConnection) => "A firewall, a proxy or a device that inspects TLS closes the connection",
        _ => "Something other than STS answers. Check the endpoint and the proxy",
    }
}
