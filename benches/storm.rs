//! More logins than STS accepts.

use std::fs;
use std::process::Command;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use bson::{Document, doc};
use local_sts::{Identity, LocalSts, RateLimit};

use crate::client::{self, Client};
use crate::report::{Limit, Report, Series, percentile};
use crate::server;
use crate::support::aws_client::{Credentials, MECHANISM, Signer, client_first, client_second};
use crate::support::fixture::{ACCOUNT, credentials};
use crate::support::wire::{WireClient, is_ok};

const METHOD: &str = "\
2,000 logins of one account over 500 concurrent connections, four on each, as fast as the server responds. STS \
accepts 600 requests per second (a token bucket of 60, initially full) and answers `Throttling` to all others. Each \
run uses a new server, which does not know the limit. libcurl sends the same requests from 500 threads with a kept \
connection each, without retries and without a server in between.";

const LOGINS: usize = 2000;
const CONNECTIONS: usize = 500;
const RATE: f64 = 600.0;
const BURST: u32 = 60;
const REPETITIONS: usize = 5;

#[derive(Default)]
struct Measured {
    failed: Series,
    took: Series,
    slowest: Series,
    throttled: Series,
}

pub fn run(report: &mut Report) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = client::compile(folder.path(), "libcurl", &["-lcurl"]);
    let alice = Identity::iam_user(ACCOUNT, "team/alice");
    let sts = LocalSts::builder().identity(alice.clone()).record_requests(false).start().expect("an STS");
    let limit = || sts.set_rate_limit(RateLimit::per_second(RATE).burst(BURST));

    let (mut plugin, mut libcurl) = (Measured::default(), Measured::default());
    for _ in 0..REPETITIONS {
        let mongod = server::with_plugin(&sts, &sts.endpoint(), folder.path(), &alice);
        limit();
        let throttled = sts.throttled_count();
        let (times, took) = storm(mongod.port(), &credentials(&alice));
        plugin.failed.add((LOGINS - times.len()) as f64);
        plugin.took.add(took.as_secs_f64());
        plugin.slowest.add(percentile(&times, 100.0));
        plugin.throttled.add((sts.throttled_count() - throttled) as f64);
        drop(mongod);

        let ca_file = folder.path().join("ca.pem");
        fs::write(&ca_file, sts.ca_pem()).expect("a file for the CA");
        let port = sts.address().port().to_string();
        let connections = CONNECTIONS.to_string();
        let mut command = Command::new(&program);
        command.args(["storm", "sts.amazonaws.com", &port]).arg(ca_file).arg(connections);
        limit();
        let throttled = sts.throttled_count();
        let mut client = Client::start(&mut command);
        client.send(&client::requests(&alice, LOGINS));
        let line = client.line();
        let numbers: Vec<f64> = line.split(' ').map(|number| number.parse().expect("a number")).collect();
        libcurl.took.add(numbers[0] / 1e9);
        libcurl.failed.add(numbers[2]);
        libcurl.throttled.add((sts.throttled_count() - throttled) as f64);
    }

    report.part("Storm", METHOD);
    let row = |name: &str, measured: &Measured, slowest: String| {
        let Measured { failed, took, throttled, .. } = measured;
        [name.to_owned(), failed.show(0), took.show(2), slowest, throttled.show(0)]
    };
    report.table(
        ["Client", "failed of 2,000", "total, s", "slowest login, s", "throttled responses"],
        &[
            row("plugin in mongod", &plugin, plugin.slowest.show(2)),
            row("libcurl, no retries", &libcurl, String::new()),
        ],
    );
    let failed = plugin.failed.maximum();
    report.goal("Storm: failed logins, maximum", failed, 0, Limit::AtMost(0.0), "");
    let ideal = LOGINS as f64 / RATE;
    report.goal("Storm: time, relative to 2,000/600 s", plugin.took.median() / ideal, 2, Limit::AtMost(1.2), "");
}

/// Logs in on all connections at once; returns the durations of successful logins, and the total,
/// in seconds.
fn storm(port: u16, credentials: &Credentials) -> (Vec<f64>, Duration) {
    let ready = Barrier::new(CONNECTIONS + 1);
    thread::scope(|scope| {
        let connections: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = WireClient::connect(port).expect("a connection");
                    ready.wait();
                    let mut times = Vec::new();
                    for _ in 0..LOGINS / CONNECTIONS {
                        let begun = Instant::now();
                        match log_in(&mut client, credentials) {
                            Ok(()) => times.push(begun.elapsed().as_secs_f64()),
                            Err(reply) => eprintln!("a login failed: {reply}"),
                        }
                        // A connection that is logged in cannot log in again.
                        client.command("$external", doc! { "logout": 1 }).expect("a reply");
                    }
                    times
                })
            })
            .collect();
        ready.wait();
        let begun = Instant::now();
        let times = connections.into_iter().flat_map(|thread| thread.join().expect("no connection breaks")).collect();
        (times, begun.elapsed())
    })
}

/// Logs in on an open connection; Err is the server's reply.
fn log_in(client: &mut WireClient, credentials: &Credentials) -> Result<(), Document> {
    let reply = client.sasl_start(MECHANISM, &client_first(&[5; 32])).expect("a reply");
    if !is_ok(&reply) {
        return Err(reply);
    }
    let payload = reply.get_binary_generic("payload").expect("a payload");
    let message = Document::from_reader(&payload[..]).expect("BSON");
    let (nonce, host) = (message.get_binary_generic("s").expect("a nonce"), message.get_str("h").expect("a host"));
    let signed = Signer::new(credentials, host, nonce).sign();
    let id = reply.get("conversationId").expect("an id");
    let reply = client.sasl_continue(id, &client_second(&signed)).expect("a reply");
    if is_ok(&reply) { Ok(()) } else { Err(reply) }
}
