//! One verification by the plugin, through its C ABI, and by libcurl.

use std::fs;
use std::process::{self, Command};
use std::time::Duration;

use local_sts::{DelayProxy, Identity, LocalSts};

use crate::client::{self, Client};
use crate::report::{Limit, Report, Series, Times};
use crate::support::fixture::{ACCOUNT, STS_HOST};

const METHOD: &str = "\
Each client is a separate process and sends one request after another. Plugin: a whole conversation through the C \
ABI, from `_new` to `_free`, without the time for signing in the database's client. libcurl: the same POST with the \
same signed headers, TLS verified with the same CA; *kept* reuses one connection, *new* opens one for each request. \
Clients and STS share one core: with two cores, the same work costs up to twice as much when the other core sleeps. \
CPU is that of the client's process; *kernel* is the mean share of system calls, which on loopback include the \
receiver's network work. Without a round trip the clients talk to STS directly, otherwise through the delaying \
proxy. p50 and CPU: median of the repetitions, with minimum and maximum; p99: over all repetitions.

\
Why the plugin does not use 20% less CPU than libcurl: both make few system calls (5 and 7), and most of the time is \
spent in the programs themselves. Measured separately with strace and callgrind, a verification takes about 125,000 \
instructions in the plugin: a third in the HTTP client, a fifth to a quarter in the strict parser of the response, \
which the libcurl client does not parse, a tenth in the checks of the client's messages, the rest in encryption, \
memory and conversions. At 20 ms all of it runs with cold caches.";

const ROUND_TRIP: Duration = Duration::from_millis(20);

const PLUGIN: usize = 0;
const KEPT: usize = 1;
const NEW: usize = 2;
const NAMES: [&str; 3] = ["plugin", "libcurl, kept", "libcurl, new"];

/// The measurements at one distance.
struct Plan {
    repetitions: usize,
    /// Verifications by each client in one repetition.
    counts: [usize; 3],
}

const NEAR: Plan = Plan { repetitions: 15, counts: [2000, 2000, 200] };
const FAR: Plan = Plan { repetitions: 9, counts: [60, 60, 40] };

#[derive(Default)]
struct Measured {
    times: [Times; 3],
    cpu: [Series; 3],
    kernel: [Duration; 3],
}

pub fn run(report: &mut Report) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let abi = client::compile(folder.path(), "abi", &["-ldl"]);
    let libcurl = client::compile(folder.path(), "libcurl", &["-lcurl"]);

    let _core = OneCore::enter();
    let alice = Identity::iam_user(ACCOUNT, "team/alice");
    let sts = LocalSts::builder().identity(alice.clone()).record_requests(false).start().expect("an STS");
    let network = DelayProxy::start(sts.address()).expect("a proxy");
    network.set_round_trip(ROUND_TRIP);
    let ca_file = folder.path().join("ca.pem");
    fs::write(&ca_file, sts.ca_pem()).expect("a file for the CA");

    let measure = |address: std::net::SocketAddr, plan: &Plan| {
        let plugin = Client::start(
            Command::new(&abi).arg(crate::plugin()).args([STS_HOST, &format!("https://{address}")]).arg(&ca_file),
        );
        let curl = |mode| {
            let port = address.port().to_string();
            Client::start(Command::new(&libcurl).args([mode, STS_HOST, &port]).arg(&ca_file))
        };
        in_turns(&mut [plugin, curl("kept"), curl("new")], &alice, plan)
    };
    let near = measure(sts.address(), &NEAR);
    let far = measure(network.address(), &FAR);

    report.part("Verification", METHOD);
    let mut rows = Vec::new();
    for (distance, measured, plan) in [("0", &near, &NEAR), ("20", &far, &FAR)] {
        for (client, name) in NAMES.iter().enumerate() {
            rows.push([
                distance.to_owned(),
                (*name).to_owned(),
                measured.times[client].p50.show(3),
                format!("{:.3}", measured.times[client].p99()),
                measured.cpu[client].show(0),
                format!("{:.0}", measured.kernel_each(client, plan)),
                format!("{:.2}", measured.times[client].p50.ratio_to(&measured.times[PLUGIN].p50)),
                format!("{:.2}", measured.cpu[client].ratio_to(&measured.cpu[PLUGIN])),
            ]);
        }
    }
    let head =
        ["Round trip, ms", "Client", "p50, ms", "p99, ms", "CPU, µs", "kernel, µs", "p50, relative", "CPU, relative"];
    report.table(head, &rows);

    let limit = ROUND_TRIP.as_secs_f64() * 1000.0;
    let p50 = far.times[PLUGIN].p50.median();
    report.goal("Verification at 20 ms: p50, relative to one round trip", p50 / limit, 3, Limit::AtMost(1.05), "");
    for (distance, measured) in [("0", &near), ("20", &far)] {
        let (plugin, kept) = (&measured.times[PLUGIN].p50, &measured.times[KEPT].p50);
        let what = format!("Verification at {distance} ms: p50, relative to libcurl with a kept connection");
        report.goal(what, plugin.ratio_to(kept), 2, Limit::AtMost(1.0), "");
        let what = format!("Verification at {distance} ms: CPU, relative to libcurl with a kept connection");
        report.goal(what, measured.cpu[PLUGIN].ratio_to(&measured.cpu[KEPT]), 2, Limit::AtMost(0.8), "");
        let what = format!("Verification at {distance} ms: p50, relative to libcurl with new connections");
        report.goal(what, plugin.ratio_to(&measured.times[NEW].p50), 2, Limit::AtMost(0.4), "");
    }
}

impl Measured {
    /// The mean kernel time of a verification, in microseconds; its clock is coarse.
    fn kernel_each(&self, client: usize, plan: &Plan) -> f64 {
        self.kernel[client].as_secs_f64() * 1e6 / (plan.repetitions * plan.counts[client]) as f64
    }
}

/// Pins this thread, and all threads and processes it starts, to one core until dropped.
struct OneCore {
    before: String,
}

impl OneCore {
    fn enter() -> Self {
        let status = fs::read_to_string("/proc/self/status").expect("this is Linux");
        let before = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("the field");
        let before = before.trim().to_owned();
        // As in 0-1,4: the last core is the one that the system uses least.
        let last = before.rsplit([',', '-']).next().unwrap_or_default();
        if !run_on(last) {
            eprintln!("taskset, of util-linux, does not work: the numbers will be less steady");
        }
        Self { before }
    }
}

impl Drop for OneCore {
    fn drop(&mut self) {
        run_on(&self.before);
    }
}

fn run_on(cores: &str) -> bool {
    // The first thread's id is the process id.
    let thread = process::id().to_string();
    let output = Command::new("taskset").args(["-cp", cores, &thread]).output();
    output.is_ok_and(|output| output.status.success())
}

fn in_turns(clients: &mut [Client; 3], identity: &Identity, plan: &Plan) -> Measured {
    let mut measured = Measured::default();
    // The first round is not measured: programs page in, roots are read.
    for repetition in 0..=plan.repetitions {
        for (client, count) in plan.counts.into_iter().enumerate() {
            let round = match client {
                PLUGIN => clients[client].verify_by_plugin(identity, count),
                _ => clients[client].verify_by_libcurl(identity, count),
            };
            if repetition > 0 {
                measured.times[client].add(round.times);
                measured.cpu[client].add(round.cpu.as_secs_f64() * 1e6 / count as f64);
                measured.kernel[client] += round.kernel;
            }
        }
    }
    measured
}
