//! `whoami`: asks STS who the caller's credentials belong to, as the plugin asks it, and measures that.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use psmdb_aws_iam::denial::{Denial, Kind};
use psmdb_aws_iam::sts::client::{Client, StsConnector};
use psmdb_aws_iam::sts::endpoint::StsHost;
use psmdb_aws_iam::sts::resolver::FixedTarget;
use psmdb_aws_iam::sts::response::CallerIdentity;
use psmdb_aws_iam::sts::tls::NotedTcpConnector;
use serde_json::{Map, Value, json};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectionDetails, Connector, NextTimeout, Transport};
use ureq::{Agent, Error};

use super::credentials::{Credentials, SOURCES_HELP, Sources, variable};
use super::settings::{path_value, settings};
use super::signing::sign_identity_request;
use super::user::kind_name;
use super::{Failure, Format, Outcome, print};

/// The nonces of a conversation with a server, of which there is none here.
const NONCE_LENGTH: usize = 64;

fn help() -> String {
    format!(
        "\
Signs GetCallerIdentity as a driver does, sends it as the plugin does, and says
which user to create in $external. Run on the server's machine with the options
that are the server's parameters, it shows whether the way to STS is open, and
how long each part of it takes. It asks once, where a server would try again.

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

    /// STS to ask: the server's awsStsHost [default: sts.amazonaws.com]
    #[arg(long, value_name = "HOST")]
    sts_host: Option<String>,

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

/// Asks STS, and prints its answer.
///
/// # Errors
/// A no when STS says no. Otherwise, when an option is wrong, there are no credentials, or STS cannot be asked.
pub fn run(arguments: &WhoAmI) -> Outcome {
    let settings = settings(&[
        ("--sts-host, the server's awsStsHost", "awsStsHost", arguments.sts_host.clone()),
        ("--endpoint, the server's awsStsEndpoint", "awsStsEndpoint", arguments.endpoint.clone()),
        ("--ca-file, the server's awsStsCAFile", "awsStsCAFile", path_value("--ca-file", arguments.ca_file.as_ref())?),
        ("--proxy, the server's awsStsProxy", "awsStsProxy", arguments.proxy.clone()),
        ("--timeout-ms, the server's awsStsTimeoutMS", "awsStsTimeoutMS", arguments.timeout_ms.clone()),
    ])?;
    let sources = Sources { profile: arguments.profile.as_deref(), environment: &variable };
    let credentials = sources.credentials()?;
    let mut nonce = [0; NONCE_LENGTH];
    getrandom::fill(&mut nonce).map_err(|error| format!("no random bytes: {error}"))?;
    let host = settings.hosts().first();
    let request = sign_identity_request(&credentials, host.name(), &nonce)?;

    let stopwatch = Stopwatch::default();
    let route = settings.route(host).map_err(|denial| denial.to_string())?;
    let client = Client::with_agent(route, Arc::clone(settings.process()), |connector, config, target| {
        stopwatch.agent(connector, config, target)
    });
    let began = Instant::now();
    let answer = client.ask_once(&request);
    stopwatch.note_rest(began.elapsed(), answer.is_ok());
    let laps = stopwatch.laps();
    let identity = answer.map_err(|denial| failure(&denial, &laps))?;
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
    match denial.kind() {
        Kind::RefusedBySts | Kind::AccountNotAllowed => Failure::No(message),
        Kind::MalformedMessage | Kind::StsUnavailable | Kind::Internal => Failure::Cannot(message),
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// The parts of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    NameResolution,
    Connect,
    Tunnel,
    Tls,
    Answer,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::NameResolution => "name resolution",
            Self::Connect => "connect",
            Self::Tunnel => "proxy's tunnel",
            Self::Tls => "TLS",
            Self::Answer => "answer",
        }
    }

    fn json_name(self) -> &'static str {
        match self {
            Self::NameResolution => "nameResolution",
            Self::Connect => "connect",
            Self::Tunnel => "tunnel",
            Self::Tls => "tls",
            Self::Answer => "answer",
        }
    }
}

/// One part that was tried.
#[derive(Clone, Debug)]
struct Lap {
    phase: Phase,
    took: Duration,
    done: bool,
}

/// Measures the parts of one question. Clones are the same stopwatch.
#[derive(Clone, Debug, Default)]
struct Stopwatch(Arc<Mutex<Vec<Lap>>>);

impl Stopwatch {
    /// An agent that makes connections as the plugin's does, with a look at the clock between the steps.
    fn agent(&self, connector: &StsConnector, config: &Config, target: &FixedTarget) -> Agent {
        let resolver = self.timed(Phase::NameResolution, target.clone());
        let tcp = ().chain(self.timed(Phase::Connect, NotedTcpConnector::default()));
        let tls = self.timed(Phase::Tls, connector.tls());
        match connector.tunnel() {
            Some(tunnel) => {
                let connector = tcp.chain(self.timed(Phase::Tunnel, tunnel)).chain(tls);
                Agent::with_parts(config.clone(), connector, resolver)
            }
            None => Agent::with_parts(config.clone(), tcp.chain(tls), resolver),
        }
    }

    fn timed<T>(&self, phase: Phase, inner: T) -> Timed<T> {
        Timed { inner, phase, stopwatch: self.clone() }
    }

    fn measure<T, E>(&self, phase: Phase, part: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let began = Instant::now();
        let result = part();
        self.note(Lap { phase, took: began.elapsed(), done: result.is_ok() });
        result
    }

    /// Takes what the parts have left of the whole time for the answer, unless it did not come to that.
    fn note_rest(&self, whole: Duration, done: bool) {
        let laps = self.laps();
        if laps.iter().all(|lap| lap.done) {
            let before: Duration = laps.iter().map(|lap| lap.took).sum();
            self.note(Lap { phase: Phase::Answer, took: whole.saturating_sub(before), done });
        }
    }

    fn note(&self, lap: Lap) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(lap);
    }

    fn laps(&self) -> Vec<Lap> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A step of a connection that is measured.
#[derive(Debug)]
struct Timed<T> {
    inner: T,
    phase: Phase,
    stopwatch: Stopwatch,
}

impl<In: Transport, C: Connector<In>> Connector<In> for Timed<C> {
    type Out = C::Out;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        self.stopwatch.measure(self.phase, || self.inner.connect(details, chained))
    }
}

impl<R: Resolver> Resolver for Timed<R> {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        self.stopwatch.measure(self.phase, || self.inner.resolve(uri, config, timeout))
    }
}
