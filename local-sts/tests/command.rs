//! The command, started as another program does it.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use local_sts::Identity;
use serde_json::json;
use support::{ACCOUNT, Client, Request};

/// A directory of one test, removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn command(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_local-sts"));
    command.arg("--data-dir").arg(data_dir);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn read_line(child: &mut Child) -> serde_json::Value {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("the command did not stop");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn rest(mut stream: impl Read) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn it_prints_its_address_serves_and_stops_with_its_input() {
    let directory = Directory::new("serves");
    let role = Identity::assumed_role(ACCOUNT, "app", "s");
    let identities = directory.0.join("identities.json");
    let list = json!([{
        "access_key_id": role.access_key_id, "secret_access_key": role.secret_access_key,
        "session_token": role.session_token, "expires_at": "2999-01-01T00:00:00Z",
        "arn": role.arn, "user_id": role.user_id, "account": role.account,
    }]);
    fs::write(&identities, list.to_string()).unwrap();
    let data_dir = directory.0.join("made");
    let mut child = command(&data_dir)
        .args(["--host-name", "sts.eu-west-1.amazonaws.com", "--stop-with-stdin", "--identities"])
        .arg(&identities)
        .spawn()
        .unwrap();

    let ready = read_line(&mut child);
    let ca_file = ready["ca_file"].as_str().unwrap();
    assert_eq!(Path::new(ca_file), data_dir.join("ca.pem"));
    let address = ready["endpoint"].as_str().unwrap().strip_prefix("https://").unwrap().parse().unwrap();
    let ca_pem = fs::read_to_string(ca_file).unwrap();
    let host = "sts.eu-west-1.amazonaws.com";
    let mut client = Client::dial(address, &ca_pem, host).unwrap();
    let request = Request::signed(&role, host, "eu-west-1", std::time::SystemTime::now());
    assert_eq!(client.send(&request).element("Arn"), role.arn);
    client.send(&request.clone().with("X-MongoDB-GS2-CB-Flag", "y")).assert_refused(403, "SignatureDoesNotMatch");

    drop(child.stdin.take());
    assert!(wait(&mut child).success());
    let log = rest(child.stderr.take().unwrap());
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 2, "{log}");
    let key = &role.access_key_id;
    assert!(lines[0].ends_with(&format!(" access_key_id={key} status=200 error=-")), "{log}");
    assert!(lines[1].ends_with(&format!(" access_key_id={key} status=403 error=SignatureDoesNotMatch")), "{log}");
    for secret in [role.session_token.as_deref().unwrap(), &role.secret_access_key, "Signature="] {
        assert!(!log.contains(secret));
    }
    assert_eq!(rest(child.stdout.take().unwrap()), "");
}

#[test]
fn it_delays_responses_and_limits_rates() {
    let directory = Directory::new("faults");
    let alice = Identity::iam_user(ACCOUNT, "alice");
    let identities = directory.0.join("identities.json");
    let list = json!([{
        "access_key_id": alice.access_key_id, "secret_access_key": alice.secret_access_key,
        "arn": alice.arn, "user_id": alice.user_id, "account": alice.account,
    }]);
    fs::write(&identities, list.to_string()).unwrap();
    let mut child = command(&directory.0)
        .args(["--round-trip", "40.5", "--processing-time", "30", "--rate-limit", "0.001", "--rate-burst", "2"])
        .args(["--quiet", "--stop-with-stdin", "--identities"])
        .arg(&identities)
        .spawn()
        .unwrap();
    let ready = read_line(&mut child);
    let address = ready["endpoint"].as_str().unwrap().strip_prefix("https://").unwrap().parse().unwrap();
    let ca_pem = fs::read_to_string(ready["ca_file"].as_str().unwrap()).unwrap();
    let start = Instant::now();
    let mut client = Client::dial(address, &ca_pem, "sts.amazonaws.com").unwrap();
    assert!(start.elapsed() >= Duration::from_millis(81), "{:?}", start.elapsed());
    let request = Request::signed_by(&alice);
    let start = Instant::now();
    assert_eq!(client.send(&request).status, 200);
    assert!(start.elapsed() >= Duration::from_millis(70), "{:?}", start.elapsed());
    assert_eq!(client.send(&request).status, 200);
    client.send(&request).assert_refused(400, "Throttling");
    drop(child.stdin.take());
    assert!(wait(&mut child).success());
    assert_eq!(rest(child.stderr.take().unwrap()), "");
}

#[test]
fn it_stops_on_a_signal() {
    for signal in ["-TERM", "-INT"] {
        let directory = Directory::new(signal);
        let mut child = command(&directory.0).stdin(Stdio::null()).spawn().unwrap();
        read_line(&mut child);
        assert!(child.try_wait().unwrap().is_none(), "the end of standard input stops it without --stop-with-stdin");
        // The shell's builtin: a minimal system has no program kill.
        let kill = format!("kill {signal} {}", child.id());
        let killed = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(killed.success());
        assert!(wait(&mut child).success());
    }
}

#[test]
fn it_fails_with_the_reason_on_standard_error() {
    let directory = Directory::new("wrong");
    let bad = directory.0.join("bad.json");
    fs::write(&bad, r#"[{"secret_access_key": "planted"}]"#).unwrap();
    let bad = bad.to_str().unwrap();
    for (arguments, expected) in [
        (["--listen", "0.0.0.0:0"], "0.0.0.0 is not a loopback address"),
        (["--identities", "/no/such/file"], "/no/such/file: "),
        (["--identities", bad], "not a list of identities: line 1"),
    ] {
        let mut child = command(&directory.0).args(arguments).spawn().unwrap();
        assert!(!wait(&mut child).success(), "{arguments:?}");
        let message = rest(child.stderr.take().unwrap());
        assert!(message.starts_with("local-sts: ") && message.contains(expected), "{message}");
        assert!(!message.contains("planted"), "{message}");
        assert_eq!(rest(child.stdout.take().unwrap()), "");
    }
}
