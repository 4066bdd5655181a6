//! `whoami`: asks STS for the owner of the credentials, as the plugin does, and measures the steps.

use std::fmt::Write as _;
use std::time::Instant;

use clap::Args;
use psmdb_aws_iam::denial::{Cause, Denial, Kind};
use psmdb_aws_iam::sts::client::Client;
use psmdb_aws_iam::sts::endpoint::StsHost;
use psmdb_aws_iam::sts::response::CallerIdentity;
use serde_json::{Map, Value, json};

use crate::credentials::{Credentials, SOURCES_HELP, Sources};
use crate::output::{CommandError, CommandResult, print};
use crate::route::RouteOptions;
use crate::signing::sign_identity_request;
use crate::steps::{PhaseResult, Steps, milliseconds};
use crate::user_name::{Format, kind_name};

/// The length of both nonces of a login. Here, without a server, both are random.
const NONCE_LENGTH: usize = 64;

fn help() -> String {
    format!(
        "\
Signs GetCallerIdentity as a driver does, sends it as the plugin does, and prints
the user to create in $external. Run on the server's machine with the server's
parameters as options, it shows the duration of each step. It sends one request,
where a server would retry. Without credentials, use check-sts.

{SOURCES_HELP}

Exit status:
  0  printed
  1  STS refused the credentials, or their owner cannot log in; see standard error
  2  no credentials, no valid response from STS, or wrong usage

JSON:
  {{\"arn\", \"account\", \"partition\", \"kind\", \"userId\", \"accessKeyId\", \"source\",
   \"users\": {{\"iamRole\", \"assumedRole\"}}, \"stsHost\",
   \"milliseconds\": {{\"nameResolution\", \"connect\", \"tunnel\", \"tls\",
                    \"response\"}}}}
  users has a name for each awsIamRoleUserFormat, or only for --format. tunnel
  exists only with --proxy.

Examples:
  psmdb-aws-iam whoami
  psmdb-aws-iam whoami --profile shop --sts-host sts.eu-west-1.amazonaws.com
  psmdb-aws-iam whoami --json | jq -r .users.iamRole"
    )
}

/// Show the ARN of your AWS credentials, from STS, and the user for it in $external
#[derive(Args)]
#[command(after_long_help = help())]
pub struct WhoAmI {
    /// Write one JSON document instead of text
    #[arg(long)]
    json: bool,

    /// Print only the name for this awsIamRoleUserFormat
    #[arg(long, value_enum)]
    format: Option<Format>,

    /// Use the credentials of this AWS profile
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,

    #[command(flatten)]
    route: RouteOptions,
}

/// Asks STS, and prints its response.
///
/// # Errors
/// A negative result when STS refuses. Otherwise when an option is wrong, there are no credentials,
/// or STS does not respond.
pub fn run(arguments: &WhoAmI) -> CommandResult {
    let settings = arguments.route.settings()?;
    let sources = Sources { profile: arguments.profile.as_deref() };
    let credentials = sources.credentials()?;
    let mut nonce = [0; NONCE_LENGTH];
    getrandom::fill(&mut nonce).map_err(|error| format!("the operating system returned no random bytes: {error}"))?;
    let host = settings.sts().first_host();
    let request = sign_identity_request(&credentials, host.name(), &nonce)?;

    let send = |client: &Client, timeout| client.attempt(&request, Instant::now() + timeout, &mut false);
    let (response, steps) = Steps::measure(&settings, send).map_err(|denial| denial.to_string())?;
    let phases = steps.phases();
    let identity = response.map_err(|failed| failure(&failed.denial, &phases))?;
    let report =
        Report { identity, credentials: &credentials, host: host.name(), phases: &phases, format: arguments.format };
    print(&if arguments.json { format!("{:#}\n", report.json()) } else { report.text() })?;
    Ok(true)
}

/// The printed result.
struct Report<'a> {
    identity: CallerIdentity,
    credentials: &'a Credentials,
    host: &'a StsHost,
    phases: &'a [PhaseResult],
    format: Option<Format>,
}

impl Report<'_> {
    /// The user's name in each of the selected formats.
    fn users(&self) -> Vec<(Format, String)> {
        let formats = [Format::IamRole, Format::AssumedRole].into_iter();
        let wanted = formats.filter(|format| self.format.is_none_or(|only| only == *format));
        wanted.map(|format| (format, self.identity.principal.user_name(format.into()))).collect()
    }

    fn text(&self) -> String {
        let Self { identity, credentials, host, phases, .. } = self;
        let users = self.users();
        let mut text = format!(
            "{}\nunique id {}; access key id {}, from {}\n\nUser in $external:\n",
            identity.arn,
            identity.user_id,
            credentials.keys.access_key_id(),
            credentials.source
        );
        // Writing to a String cannot fail.
        let differ = users.iter().any(|(_, name)| *name != users[0].1);
        for (format, name) in if differ { &users[..] } else { &users[..1] } {
            let _ = if differ {
                writeln!(text, "  {name}    (awsIamRoleUserFormat: {})", format.name())
            } else {
                writeln!(text, "  {name}")
            };
        }
        let _ = writeln!(text, "\n{host}:");
        for PhaseResult { phase, duration, .. } in *phases {
            let _ = writeln!(text, "  {:16}{:>9}", phase.name(), milliseconds(*duration));
        }
        text
    }

    fn json(&self) -> Value {
        let Self { identity, credentials, host, phases, .. } = self;
        let users = self.users().into_iter().map(|(format, name)| (format.name().to_owned(), Value::from(name)));
        let durations = phases.iter().map(|PhaseResult { phase, duration, .. }| {
            let micros = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
            (phase.json_name().to_owned(), Value::from(f64::from(micros) / 1000.0))
        });
        json!({
            "arn": identity.arn,
            "account": identity.principal.account,
            "partition": identity.principal.partition,
            "kind": kind_name(&identity.principal.kind),
            "userId": identity.user_id,
            "accessKeyId": credentials.keys.access_key_id(),
            "source": credentials.source,
            "users": users.collect::<Map<_, _>>(),
            "stsHost": host.as_str(),
            "milliseconds": durations.collect::<Map<_, _>>(),
        })
    }
}

/// The reason of the failure, with the duration of each phase.
fn failure(denial: &Denial, phases: &[PhaseResult]) -> CommandError {
    let mut message = denial.reason().to_owned();
    let durations: Vec<_> = phases
        .iter()
        .map(|PhaseResult { phase, duration, succeeded }| {
            let failed = if *succeeded { "" } else { ", failed" };
            format!("{} {}{failed}", phase.name(), milliseconds(*duration))
        })
        .collect();
    let _ = write!(message, " ({})", durations.join("; "));
    match (denial.kind(), denial.cause()) {
        // The request was signed with this machine's date, so the clock is the caller's to fix.
        (Kind::RefusedBySts | Kind::AccountNotAllowed, _) | (_, Cause::ClockSkew) => CommandError::Negative(message),
        (Kind::MalformedMessage | Kind::Throttled | Kind::StsUnavailable | Kind::Internal, _) => {
            CommandError::Failed(message)
        }
    }
}
