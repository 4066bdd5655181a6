//! The plugin's cost: memory, time at the start, and disk space.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use local_sts::{Identity, LocalSts};
use tokio::runtime::Runtime;

use crate::report::{Limit, Mib, Report, Series};
use crate::server::{self, Driver};
use crate::support::fixture::ACCOUNT;
use crate::support::mongod::{DEFAULT_VERSION, command_of};

const METHOD_GROWTH: &str = "\
Resident memory (`Rss` of `smaps_rollup`) of two servers, alternately, 1,000 logins at a time by 8 clients of the \
driver on new connections: one server with the plugin and MONGODB-AWS, and as a control one without the plugin and \
SCRAM-SHA-256. A server's own memory grows with its connections; growth beyond the control is the plugin's. The \
first 1,000 logins are the warm-up.";

const METHOD_START: &str = "\
Starts of a server with and without the plugin, alternately, on an existing database in memory (`/dev/shm`). Time: \
from the start of the process to the first accepted connection. CPU: of all threads until then. Resident memory: one \
second later, before any login. Starts vary by more than the plugin costs; so `mongod --version` is timed as well, \
which loads the plugin, lets it check the server, and exits.";

/// Pairs of servers, measured in sequence.
const PAIRS: usize = 3;
const ROUNDS: usize = 20;
const LOGINS: usize = 1000;
const CLIENTS: usize = 8;
const STARTS: usize = 30;
const LOADS: usize = 40;

/// Time for the server to free the memory of closed connections.
const SETTLE: Duration = Duration::from_millis(300);
/// Time limit for a server to start or stop.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn run(report: &mut Report) {
    growth(report);
    start(report);
    size(report);
}

fn growth(report: &mut Report) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let alice = Identity::iam_user(ACCOUNT, "team/alice");
    let sts = LocalSts::builder().identity(alice.clone()).record_requests(false).start().expect("an STS");
    let runtime = Runtime::new().expect("a runtime");
    // By round, over all pairs.
    let (mut with, mut without) = (vec![Series::default(); ROUNDS], vec![Series::default(); ROUNDS]);
    for _ in 0..PAIRS {
        let servers = [
            (server::with_plugin(&sts, &sts.endpoint(), folder.path(), &alice), server::aws_credential(&alice)),
            (server::without_plugin(), server::scram_credential("bob")),
        ];
        let drivers = servers
            .each_ref()
            .map(|(mongod, credential)| (mongod, Driver::new(&runtime, mongod, credential.clone(), CLIENTS)));
        for round in 0..ROUNDS {
            for ((mongod, driver), series) in drivers.iter().zip([&mut with, &mut without]) {
                driver.log_in(CLIENTS, LOGINS);
                thread::sleep(SETTLE);
                series[round].add(resident_kib(mongod.pid()));
            }
        }
    }

    report.part("Memory: growth", METHOD_GROWTH);
    let shown = [0, 4, 9, 14, 19];
    let rows = shown.map(|round| {
        let (with, without) = (&with[round], &without[round]);
        [
            ((round + 1) * LOGINS).to_string(),
            mib(with).show(2),
            mib(without).show(2),
            mib(&with.more_than(without)).show(2),
        ]
    });
    report.table(["Logins", "with the plugin, MiB", "control, MiB", "difference, MiB"], &rows);
    let last = ROUNDS - 1;
    let grown = mib(&with[last].more_than(&with[0]));
    let control = mib(&without[last].more_than(&without[0]));
    let net = grown.more_than(&control);
    report.table(
        ["From 1,000 to 20,000 logins", "MiB"],
        &[
            ["with the plugin".to_owned(), grown.show(2)],
            ["control".to_owned(), control.show(2)],
            ["difference".to_owned(), net.show(2)],
        ],
    );
    report.goal(
        "Memory growth from 1,000 to 20,000 logins, beyond the control",
        net.median(),
        2,
        Limit::AtMost(1.0),
        " MiB",
    );
    let more = mib(&with[0].more_than(&without[0]));
    report.goal("Memory after 1,000 logins, beyond the control", more.median(), 2, Limit::AtMost(6.0), " MiB");
}

fn mib(kib: &Series) -> Series {
    kib.map(|kib| kib / 1024.0)
}

/// Measurements of a start.
struct Start {
    took: f64,
    cpu: f64,
    resident: f64,
}

fn start(report: &mut Report) {
    let shared_memory = Path::new("/dev/shm");
    let folder = if shared_memory.is_dir() { tempfile::tempdir_in(shared_memory) } else { tempfile::tempdir() };
    let folder = folder.expect("a temporary folder");
    let folders = ["with", "without"].map(|name| folder.path().join(name));
    for folder in &folders {
        fs::create_dir(folder).expect("a folder for the database");
    }
    let mut measured: [[Series; 3]; 2] = Default::default();
    for repetition in 0..=STARTS {
        // Each goes first in half of the rounds.
        let order = if repetition % 2 == 0 { [0, 1] } else { [1, 0] };
        for which in order {
            let Start { took, cpu, resident } = start_once(&folders[which], which == 0);
            // The first start creates the database.
            if repetition > 0 {
                for (series, value) in measured[which].iter_mut().zip([took, cpu, resident]) {
                    series.add(value);
                }
            }
        }
    }

    report.part("Memory and time at the start", METHOD_START);
    let [with, without] = &measured;
    let names = ["time, ms", "CPU, ms", "resident, MiB"];
    let row = |name: &str, with: &Series, without: &Series| {
        [name.to_owned(), with.show(1), without.show(1), with.more_than(without).show(1)]
    };
    let mut rows: Vec<_> = (0..3).map(|what| row(names[what], &with[what], &without[what])).collect();
    let loads = loads();
    rows.push(row("`mongod --version`, ms", &loads[0], &loads[1]));
    report.table(["", "with the plugin", "without", "difference"], &rows);
    let difference = |what: usize| with[what].more_than(&without[what]).median();
    let load = loads[0].more_than(&loads[1]).median();
    report.goal("`mongod --version`: time added by the plugin", load, 1, Limit::AtMost(20.0), " ms");
    report.goal("Start: time added by the plugin", difference(0), 1, Limit::AtMost(20.0), " ms");
    report.goal("Start: CPU added by the plugin", difference(1), 1, Limit::AtMost(20.0), " ms");
    report.goal("Memory after the start, added by the plugin", difference(2), 2, Limit::AtMost(6.0), " MiB");
}

/// The time of `mongod --version` with and without the plugin, in milliseconds.
fn loads() -> [Series; 2] {
    let mut measured: [Series; 2] = Default::default();
    for repetition in 0..=LOADS {
        for (which, series) in measured.iter_mut().enumerate() {
            let mut command = command_of(DEFAULT_VERSION);
            command.arg("--version").stdout(Stdio::null());
            if which == 0 {
                command.env("LD_PRELOAD", crate::plugin());
            }
            let begun = Instant::now();
            assert!(command.status().expect("mongod starts").success(), "mongod tells its version");
            if repetition > 0 {
                series.add(begun.elapsed().as_secs_f64() * 1000.0);
            }
        }
    }
    measured
}

/// Starts a server, measures it and stops it.
fn start_once(folder: &Path, preload: bool) -> Start {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    let port = port.expect("a free port").port();
    let mut command = command_of(DEFAULT_VERSION);
    command.arg("--dbpath").arg(folder).arg("--logpath").arg(folder.join("log"));
    command.args(["--bind_ip", "127.0.0.1", "--nounixsocket", "--port", &port.to_string(), "--auth"]);
    command.args(["--wiredTigerCacheSizeGB", "0.25", "--setParameter", "diagnosticDataCollectionEnabled=false"]);
    let mut mechanisms = "SCRAM-SHA-256".to_owned();
    if preload {
        mechanisms.push_str(",MONGODB-AWS");
        command.env("LD_PRELOAD", crate::plugin());
    }
    command.args(["--setParameter", &format!("authenticationMechanisms={mechanisms}")]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let begun = Instant::now();
    let mut child = Process(command.spawn().expect("mongod starts"));
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(begun.elapsed() < PATIENCE, "mongod does not serve");
        assert!(child.0.try_wait().expect("its state").is_none(), "mongod has stopped");
        thread::sleep(Duration::from_micros(500));
    }
    let took = begun.elapsed();
    let pid = child.0.id();
    let cpu = cpu_millis(pid);
    thread::sleep(Duration::from_secs(1));
    let resident = resident_kib(pid) / 1024.0;
    // A clean shutdown, so the next start has nothing to repair.
    let sent = Command::new("sh").args(["-c", "kill -TERM \"$1\"", "sh", &pid.to_string()]).status();
    assert!(sent.expect("sh runs").success(), "mongod cannot be stopped");
    let asked = Instant::now();
    while child.0.try_wait().expect("its state").is_none() {
        assert!(asked.elapsed() < PATIENCE, "mongod does not stop");
        thread::sleep(Duration::from_millis(5));
    }
    Start { took: took.as_secs_f64() * 1000.0, cpu, resident }
}

/// A process that is killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has already exited.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn size(report: &mut Report) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stripped = folder.path().join("stripped.so");
    let status = Command::new("strip").arg("-o").arg(&stripped).arg(crate::plugin()).status();
    assert!(status.expect("strip, of binutils").success(), "the plugin cannot be stripped");
    let bytes = fs::metadata(&stripped).expect("the stripped object").len();
    let kib = bytes as f64 / 1024.0;
    report.part("Size", &format!("The shared object, stripped: {} MiB.", Mib(kib)));
    report.goal("Size of the stripped object", kib / 1024.0, 2, Limit::AtMost(4.0), " MiB");
}

/// The CPU time of a process's current threads, in milliseconds.
fn cpu_millis(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let ran = tasks.flatten().filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    ran.sum::<f64>() / 1e6
}

/// The resident memory of a process, in KiB, counted page by page: VmRSS in status is an estimate.
fn resident_kib(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the process runs and is ours");
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).expect("the field");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
