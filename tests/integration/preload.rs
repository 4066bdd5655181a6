//! Effects of being preloaded: in a server that does not enable the mechanism, and in programs that
//! are no server.

use std::process::{Command, Output};

use crate::support::aws_client::{MECHANISM, client_first};
use crate::support::fixture::Fixture;
use crate::support::mongod::{DEFAULT_VERSION, Mongod, command_of};
use crate::support::plugin;
use crate::support::wire::{WireClient, is_ok};
use local_sts::StsResponse;

/// The server of the tests, which may need libraries that this system lacks.
const MONGOD: &str = "mongod";

/// Runs a command with and without the plugin.
fn with_and_without(program: &str, arguments: &[&str]) -> (Output, Output) {
    let run = |preload: bool| {
        let mut command = if program == MONGOD { command_of(DEFAULT_VERSION) } else { Command::new(program) };
        command.args(arguments).env_remove("LD_PRELOAD");
        if preload {
            command.env("LD_PRELOAD", plugin());
        }
        command.output().unwrap_or_else(|error| panic!("{program}: {error}"))
    };
    (run(true), run(false))
}

#[test]
fn in_other_programs_it_does_nothing() {
    let cases: [(&str, &[&str]); 9] = [
        ("true", &[]),
        ("false", &[]),
        ("bash", &["-c", "echo out; echo err >&2; exit 3"]),
        ("sh", &["-c", "env true && echo $((1 + 1))"]),
        ("env", &["-i", "sh", "-c", "echo clean"]),
        ("python3", &["-c", "import ssl, json, ctypes, threading; print(len(threading.enumerate()))"]),
        ("ls", &["/"]),
        (MONGOD, &["--version"]),
        (MONGOD, &["--help"]),
    ];
    for (program, arguments) in cases {
        let (with, without) = with_and_without(program, arguments);
        assert_eq!(with.status.code(), without.status.code(), "{program}");
        assert_eq!(sorted(&with.stdout), sorted(&without.stdout), "{program}");
        assert_eq!(sorted(&with.stderr), sorted(&without.stderr), "{program}");
    }
}

/// Returns the lines, sorted: mongod's help has its sections in another order each time.
fn sorted(output: &[u8]) -> Vec<String> {
    let mut lines: Vec<_> = String::from_utf8_lossy(output).lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn in_other_programs_it_starts_no_thread_and_keeps_no_memory() {
    let script = "import os\n\
                  print(len(os.listdir('/proc/self/task')))\n\
                  print('heap' if any('[heap]' in line for line in open('/proc/self/maps')) else 'none')";
    let (with, without) = with_and_without("python3", &["-c", script]);
    assert_eq!(with.stdout, without.stdout);
    assert!(with.stdout.starts_with(b"1\n"));
}

#[test]
fn a_mechanism_that_is_not_enabled_is_not_offered() {
    let mongod = Mongod::builder().mechanisms("SCRAM-SHA-256").start();
    let mut client = WireClient::connect(mongod.port()).unwrap();
    let reply = client.sasl_start(MECHANISM, &client_first(&[7; 32])).unwrap();
    assert!(!is_ok(&reply), "{reply}");
    // troubleshooting.md has this text; 4.4 has "unknown or not enabled".
    let words = reply.get_str("errmsg").unwrap();
    assert!(words.starts_with("Received authentication for mechanism MONGODB-AWS which is "), "{words}");
    assert!(words.ends_with("not enabled"), "{words}");
    assert!(!mongod.log_text().contains("88000001"));
    // The parameters exist nevertheless, so that one configuration is valid with and without the
    // mechanism.
    mongod.run_as_admin("admin", bson::doc! { "getParameter": 1, "awsStsHost": 1 });
}

#[test]
fn an_enabled_mechanism_is_logged_once_with_its_version_and_the_parameters_that_are_set() {
    let mongod = Mongod::builder().parameter("awsStsTimeoutMS", 5000).start();
    let lines = mongod.log_lines();
    let ours: Vec<_> = lines.iter().filter(|line| line["id"] == 88_000_001).collect();
    assert_eq!(ours.len(), 1);
    assert_eq!(ours[0]["c"], "ACCESS");
    assert_eq!(ours[0]["s"], "I");
    let begin =
        concat!("Registered the MONGODB-AWS mechanism of psmdb-aws-iam ", env!("CARGO_PKG_VERSION"), "; server ABI ");
    let message = ours[0]["msg"].as_str().unwrap();
    assert!(message.starts_with(begin) && message.ends_with("; parameters: awsStsTimeoutMS: 5000"), "{message}");
    assert_eq!(mongod.stderr_text(), "");
    assert!(mongod.shutdown().success());
}

#[test]
fn without_the_plugin_the_server_refuses_the_mechanism_by_itself() {
    let exit = Mongod::builder().preload(false).mechanisms("MONGODB-AWS,SCRAM-SHA-256").expect_exit();
    assert!(!exit.status.success());
    assert!(exit.output().contains("SASL mechanism"), "{}", exit.output());
}

/// Starts a server that forks into the background, and sends it a client's first message.
pub fn assert_works_in_the_background(version: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir(path("db")).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = command_of(version);
    command
        .env("LD_PRELOAD", plugin())
        .args(["--fork", "--bind_ip", "127.0.0.1", "--nounixsocket", "--port", &port.to_string()])
        .args(["--dbpath", &path("db"), "--logpath", &path("log"), "--pidfilepath", &path("pid")])
        .args(["--setParameter", "authenticationMechanisms=MONGODB-AWS,SCRAM-SHA-256"]);
    let started = command.output().unwrap();
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stdout));
    let pid = std::fs::read_to_string(path("pid")).unwrap().trim().to_owned();
    let reply = WireClient::connect(port).and_then(|mut client| client.sasl_start(MECHANISM, &client_first(&[7; 32])));
    let stop = format!("kill {pid} && while kill -0 {pid} 2>/dev/null; do sleep 0.05; done");
    let stopped = Command::new("sh").args(["-c", &stop]).status();
    assert!(stopped.unwrap().success());
    let log = std::fs::read_to_string(path("log")).unwrap();
    assert!(log.contains("88000001") && log.contains("\"exitCode\":0"), "{log}");
    let reply = reply.unwrap();
    assert!(is_ok(&reply), "{reply}");
}

#[test]
fn it_works_in_a_server_that_forks_into_the_background() {
    assert_works_in_the_background(DEFAULT_VERSION);
}

#[test]
fn it_changes_no_signals_and_no_name_of_the_server() {
    let state = |mongod: &Mongod| {
        let read = |name: &str| std::fs::read(format!("/proc/{}/{name}", mongod.pid())).unwrap();
        let status = String::from_utf8(read("status")).unwrap();
        let signals: Vec<_> = status.lines().filter(|line| line.starts_with("Sig")).map(str::to_owned).collect();
        (signals.into_iter().filter(|line| !line.starts_with("SigQ")).collect::<Vec<_>>(), read("comm"))
    };
    // The second login fails only when its time is over.
    let fixture = Fixture::start_with(|builder| builder.parameter("awsStsTimeoutMS", 500));
    let at_first = state(&fixture.mongod);
    fixture.login(&fixture.user).unwrap();
    fixture.sts.set_response(StsResponse::Raw(vec![]));
    fixture.login(&fixture.user).unwrap_err();
    assert_eq!(state(&fixture.mongod), at_first);
    let without = Mongod::builder().preload(false).start();
    assert_eq!(state(&without), at_first);
}

/// Returns the dynamic symbols of the object, as `nm` prints them.
fn symbols(which: &str) -> Vec<String> {
    let output = Command::new("nm").args(["-D", which]).arg(plugin()).output().expect("nm, of the compiler's binutils");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn it_exports_its_own_names_only_and_leaves_the_server_s_alone() {
    let exported = symbols("--defined-only");
    assert!(exported.len() > 10);
    for line in exported {
        let name = line.rsplit(' ').next().unwrap();
        assert!(name.starts_with("psmdb_aws_iam_"), "{name} is exported");
    }
}

#[test]
fn it_needs_no_library_but_those_of_c_and_unwinding() {
    let output = Command::new("readelf").args(["-d"]).arg(plugin()).output().expect("readelf, of binutils");
    let text = String::from_utf8(output.stdout).unwrap();
    let needed: Vec<_> = text.lines().filter(|line| line.contains("(NEEDED)")).collect();
    assert!(!needed.is_empty());
    for line in needed {
        let known = ["libc.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2", "libm.so.6"];
        assert!(known.iter().any(|library| line.contains(library)), "{line}");
    }
    assert!(text.contains("BIND_NOW"), "{text}");
    // What comes from the server's C++ runtime is weak, so that the object loads where there is
    // none.
    let undefined = symbols("--undefined-only");
    assert!(undefined.len() > 10, "{undefined:?}");
    for line in undefined {
        let name = line.rsplit(' ').next().unwrap();
        let weak = line.split_whitespace().next() == Some("w");
        assert!(weak || name.contains("@GLIBC") || name.contains("@GCC"), "{line}");
    }
}

#[test]
fn two_copies_in_one_process_do_not_conflict() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.so");
    std::fs::copy(plugin(), &copy).unwrap();
    let both = format!("{}:{}", plugin().display(), copy.display());
    let mongod = Mongod::builder().plugin(both.into()).start();
    let lines = mongod.log_lines();
    assert_eq!(lines.iter().filter(|line| line["id"] == 88_000_001).count(), 1);
    assert!(mongod.stderr_text().contains("it is in LD_PRELOAD twice"), "{}", mongod.stderr_text());
}
