//! Logins at a real server: MONGODB-AWS and SCRAM-SHA-256.

use std::fs;
use std::time::Duration;

use local_sts::{DelayProxy, Identity, LocalSts};
use tokio::runtime::Runtime;

use crate::report::{Limit, Report, Series, Times};
use crate::server::{self, Driver, Logins};
use crate::support::fixture::ACCOUNT;
use crate::support::mongod::Mongod;

const METHOD: &str = "\
With the official Rust driver; each login is a new connection (TCP, `hello`, login) and one `ping`. The driver, STS \
and `mongod` share the machine's cores, so with 64 clients STS and the driver take CPU from `mongod`; the CPU of \
`mongod` alone is shown, too. SCRAM-SHA-256 uses MongoDB's default of 15,000 iterations. The driver caches the key \
that it derives from the password: *again* is a client that has logged in before, *first* is the first login of a \
client or user. The driver sends its first SCRAM message with `hello`, which saves a round trip; the MONGODB-AWS \
protocol does not allow that. So MONGODB-AWS needs two round trips to the server after `hello` and an STS request, \
*again* needs one round trip; the goal of as many logins cannot be met while the key is cached.";

const ROUND_TRIP: Duration = Duration::from_millis(20);
const REPETITIONS: usize = 7;

const AWS: usize = 0;
const AWS_FAR: usize = 1;
const SCRAM: usize = 2;
const SCRAM_FIRST: usize = 3;
const NAMES: [&str; 4] =
    ["MONGODB-AWS, STS at 0 ms", "MONGODB-AWS, STS at 20 ms", "SCRAM-SHA-256, again", "SCRAM-SHA-256, first"];

/// The number of clients, and the logins of each mechanism in one repetition.
const PLANS: [(usize, [usize; 4]); 2] = [(1, [150, 40, 150, 20]), (64, [1000, 1000, 1000, 128])];

#[derive(Default)]
struct Measured {
    times: [Times; 4],
    rate: [Series; 4],
    cpu: [Series; 4],
}

pub fn run(report: &mut Report) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let alice = Identity::iam_user(ACCOUNT, "team/alice");
    let sts = LocalSts::builder().identity(alice.clone()).record_requests(false).start().expect("an STS");
    let network = DelayProxy::start(sts.address()).expect("a proxy");
    network.set_round_trip(ROUND_TRIP);
    let near = server::with_plugin(&sts, &sts.endpoint(), folder.path(), &alice);
    let far = server::with_plugin(&sts, &network.endpoint(), folder.path(), &alice);
    let runtime = Runtime::new().expect("a runtime");

    let measured = PLANS.map(|plan| in_turns(&runtime, &near, &far, &alice, plan));

    report.part("Logins", METHOD);
    let mut rows = Vec::new();
    for ((clients, _), measured) in PLANS.iter().zip(&measured) {
        for (mechanism, name) in NAMES.iter().enumerate() {
            let times = &measured.times[mechanism];
            rows.push([
                clients.to_string(),
                (*name).to_owned(),
                measured.rate[mechanism].show(0),
                times.p50.show(2),
                format!("{:.2}", times.p99()),
                measured.cpu[mechanism].show(0),
            ]);
        }
    }
    let head = ["Clients", "Mechanism", "logins/s", "p50, ms", "p99, ms", "CPU of mongod, µs"];
    report.table(head, &rows);
    for ((clients, _), measured) in PLANS.iter().zip(&measured) {
        for (mechanism, which) in [(SCRAM, "again"), (SCRAM_FIRST, "first")] {
            let what = format!("Logins/s, clients: {clients}, STS at 0 ms: relative to SCRAM-SHA-256, {which}");
            report.goal(what, measured.rate[AWS].ratio_to(&measured.rate[mechanism]), 2, Limit::AtLeast(1.0), "");
        }
    }
}

fn in_turns(
    runtime: &Runtime,
    near: &Mongod,
    far: &Mongod,
    identity: &Identity,
    (clients, counts): (usize, [usize; 4]),
) -> Measured {
    // Unused users: each has its own salt, so the driver has no cached key.
    let users: Vec<Vec<String>> = (0..REPETITIONS)
        .map(|repetition| (0..counts[SCRAM_FIRST]).map(|n| format!("u{clients}-{repetition}-{n}")).collect())
        .collect();
    users.iter().flatten().for_each(|user| server::create_scram_user(near, user));

    let aws = server::aws_credential(identity);
    let drivers = [
        Driver::new(runtime, near, aws.clone(), clients),
        Driver::new(runtime, far, aws, clients),
        Driver::new(runtime, near, server::scram_credential("bob"), clients),
    ];
    let mut measured = Measured::default();
    for users in users {
        let newcomers = server::newcomers(runtime, near, users.iter().map(|user| server::scram_credential(user)));
        for mechanism in [AWS, AWS_FAR, SCRAM, SCRAM_FIRST] {
            let mongod = if mechanism == AWS_FAR { far } else { near };
            if mechanism != SCRAM_FIRST {
                // Opens connections to STS, and lets the driver cache the key.
                drivers[mechanism].log_in(clients, clients.max(5));
            }
            let cpu = cpu(mongod);
            let Logins { times, took } = match mechanism {
                SCRAM_FIRST => server::log_newcomers_in(runtime, &newcomers, clients),
                _ => drivers[mechanism].log_in(clients, counts[mechanism]),
            };
            let cpu = cpu_since(mongod, cpu);
            let count = times.len() as f64;
            measured.rate[mechanism].add(count / took.as_secs_f64());
            measured.cpu[mechanism].add(cpu.as_secs_f64() * 1e6 / count);
            measured.times[mechanism].add(times);
        }
    }
    measured
}

/// The CPU time of a server so far, in ticks, including finished threads (one per login).
fn cpu(mongod: &Mongod) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", mongod.pid())).expect("the process runs");
    // The second field is a name, which may contain spaces. utime and stime are the 14th and the
    // 15th: see proc(5).
    let fields: Vec<&str> = stat.rsplit(") ").next().expect("its fields").split(' ').collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
}

fn cpu_since(mongod: &Mongod, before: u64) -> Duration {
    // USER_HZ is 100 on x86_64.
    Duration::from_millis((cpu(mongod) - before) * 10)
}
