//! The command: an STS on loopback for programs that cannot use the library.
//!
//! It writes its CA's certificate to `DIR/ca.pem`, prints where it listens as one line of JSON on
//! standard output, and logs one line per request on standard error, unless `--quiet` is given. It
//! stops on SIGTERM, on SIGINT, and with `--stop-with-stdin` at the end of its standard input.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap::Parser;
use local_sts::{DelayProxy, Identity, LocalSts, Outcome, RateLimit};
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// An AWS STS on loopback that really verifies SigV4 signatures
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Directory for ca.pem, the certificate that clients must trust; created if it does not exist
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,

    /// Loopback address to listen on; with port 0 the system chooses the port
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// Host name of this STS, in its certificate and in the Host header; may be repeated [default:
    /// sts.amazonaws.com]
    #[arg(long = "host-name", value_name = "NAME")]
    host_names: Vec<String>,

    /// File with the known access keys: a JSON list of objects with access_key_id,
    /// secret_access_key, arn, user_id, account and, for temporary credentials, session_token and
    /// expires_at (RFC 3339)
    #[arg(long, value_name = "FILE")]
    identities: Option<PathBuf>,

    /// Seconds by which the clock of this STS is ahead of the system's; negative: behind
    #[arg(long, value_name = "SECONDS", default_value_t = 0, allow_negative_numbers = true)]
    clock_offset: i64,

    /// Milliseconds of a network round trip; a new TCP connection costs one more
    #[arg(long, value_name = "MS", default_value = "0", value_parser = milliseconds)]
    round_trip: Duration,

    /// Milliseconds that the STS works on each request
    #[arg(long, value_name = "MS", default_value = "0", value_parser = milliseconds)]
    processing_time: Duration,

    /// Requests per second that each account may make (AWS: 600); others get 400 Throttling
    /// [default: unlimited]
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    rate_limit: Option<f64>,

    /// Requests that each account may make at once, after a pause [default: the requests of one
    /// second]
    #[arg(long, value_name = "REQUESTS", requires = "rate_limit")]
    rate_burst: Option<u32>,

    /// Log no requests
    #[arg(long)]
    quiet: bool,

    /// Stop at the end of standard input
    #[arg(long)]
    stop_with_stdin: bool,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("local-sts: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), String> {
    // Before the address is printed: a signal may come right after.
    let stop = stop_signals(arguments.stop_with_stdin).map_err(|error| format!("cannot handle signals: {error}"))?;

    let has_network = !arguments.round_trip.is_zero();
    // With a network, the proxy listens at the given address.
    let listen = if has_network { SocketAddr::new(arguments.listen.ip(), 0) } else { arguments.listen };
    let mut builder = LocalSts::builder().listen(listen).clock_offset(arguments.clock_offset).record_requests(false);
    if !arguments.quiet {
        builder = builder.observer(|outcome| {
            // A closed standard error must not prevent the response.
            let _ = writeln!(io::stderr(), "{}", line(outcome));
        });
    }
    for name in &arguments.host_names {
        builder = builder.host_name(name);
    }
    if let Some(file) = &arguments.identities {
        for identity in read_identities(file).map_err(|error| format!("{}: {error}", file.display()))? {
            builder = builder.identity(identity);
        }
    }
    let cannot_listen = |error| format!("{}: {error}", arguments.listen);
    let sts = builder.start().map_err(cannot_listen)?;
    sts.set_processing_time(arguments.processing_time);
    sts.set_rate_limit(arguments.rate_limit.map(|rate| {
        let limit = RateLimit::per_second(rate);
        arguments.rate_burst.map_or(limit, |burst| limit.burst(burst))
    }));
    let network = if has_network {
        let network = DelayProxy::start_on(arguments.listen, sts.address()).map_err(cannot_listen)?;
        network.set_round_trip(arguments.round_trip);
        Some(network)
    } else {
        None
    };
    let endpoint = network.as_ref().map_or_else(|| sts.endpoint(), DelayProxy::endpoint);

    let ca_file = arguments.data_dir.join("ca.pem");
    fs::create_dir_all(&arguments.data_dir)
        .and_then(|()| fs::write(&ca_file, sts.ca_pem()))
        .map_err(|error| format!("{}: {error}", ca_file.display()))?;
    print_address(&endpoint, &ca_file).map_err(|error| format!("standard output: {error}"))?;

    // An error means that no thread is left that could send the stop.
    let _ = stop.recv();
    Ok(())
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    let time = text.parse::<f64>().ok().and_then(|millis| Duration::try_from_secs_f64(millis / 1000.0).ok());
    time.filter(|time| *time <= Duration::from_secs(3600))
        .ok_or("must be between 0 and 3600000 milliseconds".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate >= 0.0);
    rate.ok_or("must be a number that is not negative".to_owned())
}

fn read_identities(file: &Path) -> Result<Vec<Identity>, String> {
    let text = fs::read_to_string(file).map_err(|error| error.to_string())?;
    Identity::list_from_json(&text).map_err(|error| error.to_string())
}

fn print_address(endpoint: &str, ca_file: &Path) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{}", json!({"endpoint": endpoint, "ca_file": ca_file}))?;
    output.flush()
}

/// Returns a channel that gets a message when the command is to stop.
fn stop_signals(watch_stdin: bool) -> io::Result<mpsc::Receiver<()>> {
    let (sender, receiver) = mpsc::channel();
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    if watch_stdin {
        let sender = sender.clone();
        thread::spawn(move || {
            let mut ignored = [0; 512];
            while io::stdin().read(&mut ignored).is_ok_and(|count| count > 0) {}
            let _ = sender.send(());
        });
    }
    thread::spawn(move || {
        signals.forever().next();
        let _ = sender.send(());
    });
    Ok(receiver)
}

/// Returns the log line of a request: time, claimed access key id, status, error code.
fn line(outcome: &Outcome) -> String {
    format!(
        "{} access_key_id={} status={} error={}",
        OffsetDateTime::from(outcome.time).format(&Rfc3339).unwrap_or_default(),
        outcome.access_key_id.as_deref().unwrap_or("-"),
        outcome.status.map_or("-".to_owned(), |status| status.to_string()),
        outcome.error_code.unwrap_or("-"),
    )
}
