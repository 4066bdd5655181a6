//! `whoami`: asks STS who the caller's credentials belong to, as the plugin asks it, and measures that.

use std::fmt::Write as _;
use std::time::Instant;

use clap::Args;
use psmdb_aws_iam::denial::{Cause, Denial, Kind};
use psmdb_aws_iam::sts::client::Client;
use psmdb_aws_iam::sts::endpoint::StsHost;
use psmdb_aws_iam::sts::response::CallerIdentity;
use serde_json::{Map, Value, json};

use crate::credentials::{Credentials, SOURCES_HELP, Sources, variable};
use crate::output::{Failure, Outcome, print};
use crate::route::RouteOptions;
use crate::signing::sign_identity_request;
use crate::steps::{Lap, Steps, milliseconds};
use crate::user_name::{Format, kind_name};

/// The nonces of a conversation with a server, of which there is none here.
const NONCE_LENGTH: usize = 64;

fn help() -> String {
    format!(
        "\
Signs GetCallerIdentity as a driver does, sends it as the plugin does, and says
which user to create in $external. Run on the server's machine with the options
that are the server's parameters, it shows how long each step takes. It asks
once, where a server would try again. Without credentials, check-sts shows
whether STS can be reached.

{SOURCES_HELP}

Exit status:
  0  STS has said who it is
  1  STS said no, or named somebody who cannot log in; standard error says why
  2  there are no credentials, STS could not be asked, or wrong usage

JSON:
  {{\"arn\", \"account\", \"partition\", \"kind\", \"userId\", \"accessKeyId\", \"source\",
   \"users\": {{\"iamRole\", \"assumedRole\"}}, \"stsHost\",
   \"milliseconds\": {{\"nameResolution\", \"connect\", \"tunnel\", \"tls\", \"answer\"}}}}
  users is by awsIamRoleUserFormat; with --format it has one. tunnel is there
  with --proxy only.

Examples:
  psmdb-aws-iam whoami
  psmdb-aws-iam whoami --profile shop --sts-host sts.eu-west-1.amazonaws.com
  psmdb-aws-iam whoami --json | jq -r .users.iamRole"
    )
}

/// Ask STS who your credentials belong to, and say which user that is in $external
#[derive(Args)]
#[command(after_long_help = help())]
pub struct WhoAmI {
    /// Write one JSON document instead of text
    #[arg(long)]
    json: bool,

    /// Give one name only: that of a server with this awsIamRoleUserFormat
    #[arg(long, value_enum)]
    format: Option<Format>,

    /// Take the keys of this profile in AWS's files
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,

    #[command(flatten)]
    route: RouteOptions,
}

/// Asks STS, and prints its answer.
///
/// # Errors
/// A no when STS says no. Otherwise, when an option is wrong, there are no credentials, or STS cannot be asked.
pub fn run(arguments: &WhoAmI) -> Outcome {
    let settings = arguments.route.settings()?;
    let sources = Sources { profile: arguments.profile.as_deref(), environment: &variable };
    let credentials = sources.credentials()?;
    let mut nonce = [0; NONCE_LENGTH];
    getrandom::fill(&mut nonce).map_err(|error| format!("no random bytes: {error}"))?;
    let host = settings.sts().first_host();
    let request = sign_identity_request(&credentials, host.name(), &nonce)?;

    let send = |client: &Client, timeout| client.attempt(&request, Instant::now() + timeout, &mut false);
    let (answer, steps) = Steps::of(&settings, send).map_err(|denial| denial.to_string())?;
    let laps = steps.laps();
    let identity = answer.map_err(|failed| failure(&failed.denial, &laps))?;
    let answer =
        Answer { identity, credentials: &credentials, host: host.name(), laps: &laps, format: arguments.format };
    print(&if arguments.json { format!("{:#}\n", answer.json()) } else { answer.text() })?;
    Ok(true)
}

/// What is printed.
struct Answer<'a> {
    identity: CallerIdentity,
    credentials: &'a Credentials,
    host: &'a StsHost,
    laps: &'a [Lap],
    format: Option<Format>,
}

impl Answer<'_> {
    /// The user's name by format, those that were asked for.
    fn users(&self) -> Vec<(Format, String)> {
        let formats = [Format::IamRole, Format::AssumedRole].into_iter();
        let wanted = formats.filter(|format| self.format.is_none_or(|only| only == *format));
        wanted.map(|format| (format, self.identity.principal.user_name(format.into()))).collect()
    }

    fn text(&self) -> String {
        let Self { identity, credentials, host, laps, .. } = self;
        let users = self.users();
        let mut text = format!(
            "{}\nunique id {}; access key id {}, from {}\n\nUser in $external:\n",
            identity.arn, identity.user_id, credentials.access_key_id, credentials.source
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
        for lap in *laps {
            let _ = writeln!(text, "  {:16}{:>9}", lap.phase.name(), milliseconds(lap.took));
        }
        text
    }

    fn json(&self) -> Value {
        let Self { identity, credentials, host, laps, .. } = self;
        let users = self.users().into_iter().map(|(format, name)| (format.name().to_owned(), Value::from(name)));
        let laps = laps.iter().map(|lap| {
            let micros = u32::try_from(lap.took.as_micros()).unwrap_or(u32::MAX);
            (lap.phase.json_name().to_owned(), Value::from(f64::from(micros) / 1000.0))
        });
        json!({
            "arn": identity.arn,
            "account": identity.principal.account,
            "partition": identity.principal.partition,
            "kind": kind_name(&identity.principal.kind),
            "userId": identity.user_id,
            "accessKeyId": credentials.access_key_id,
            "source": credentials.source,
            "users": users.collect::<Map<_, _>>(),
            "stsHost": host.as_str(),
            "milliseconds": laps.collect::<Map<_, _>>(),
        })
    }
}

/// Why there is no answer, and what took how long until then.
fn failure(denial: &Denial, laps: &[Lap]) -> Failure {
    let mut message = denial.reason().to_owned();
    let took: Vec<_> = laps
        .iter()
        .map(|lap| {
            let failed = if lap.done { "" } else { ", failed" };
            format!("{} {}{failed}", lap.phase.name(), milliseconds(lap.took))
        })
        .collect();
    let _ = write!(message, " ({})", took.join("; "));
    match (denial.kind(), denial.cause()) {
        // What is signed here has this machine's date, so that only STS can find it wrong.
        (Kind::RefusedBySts | Kind::AccountNotAllowed, _) | (_, Cause::ClockSkew) => Failure::No(message),
        (Kind::MalformedMessage | Kind::Throttled | Kind::StsUnavailable | Kind::Internal, _) => {
            Failure::Cannot(message)
        }
    }
}
