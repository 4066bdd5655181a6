//! The plugin's own lines in the server's log.

use std::env;
use std::time::Duration;

use regex_lite::Regex;
use serde_json::Value;

use super::{examples, quoted, read, rows};
use crate::support;
use crate::support::aws_client::{Conversation, client_second};
use crate::support::fixture::{Fixture, credentials};
use crate::support::mongod::{DEFAULT_VERSION, Mongod};
use local_sts::{Failures, Identity, LocalSts, ServiceError};

const LIMIT: Duration = Duration::from_secs(10);

/// Lines that no server of the tests writes; their text must be in the sources.
const ONLY_READ: [i64; 1] = [88_000_003];

/// Returns the text of a line, without what differs between servers.
fn words(text: &str) -> String {
    let text = Regex::new(r"127\.0\.0\.1").unwrap().replace_all(text, "A").into_owned();
    Regex::new(r"[0-9]+").unwrap().replace_all(&text, "N").into_owned()
}

/// Returns the lines of a server that starts, has a caller without a user, fails over to another
/// host and back, and has a parameter set; and of two that start with other hosts.
fn produced() -> Vec<Value> {
    let second = "sts.eu-central-1.amazonaws.com";
    let other = LocalSts::builder().host_name(second).start().unwrap();
    let with_fallback = format!("{second}={}", other.endpoint());
    let fixture = Fixture::start_with(|builder| {
        builder.parameter("awsStsTimeoutMS", 700).parameter("awsStsFallbackHosts", &with_fallback)
    });
    fixture.set_parameter("awsStsFallbackHosts", "");
    let stranger = Identity::assumed_role("123456789012", "app", "i-0abc");
    fixture.sts.add_identity(stranger.clone());
    fixture.login(&stranger).expect_err("it has no user");
    fixture.sts.set_failures(Failures::all(ServiceError::InternalFailure));
    fixture.login(&fixture.user).expect_err("STS fails");
    fixture.sts.set_failures(None);
    fixture.login(&fixture.user).unwrap();
    fixture.trust(&[&fixture.sts, &other]);
    fixture.set_parameter("awsStsFallbackHosts", with_fallback);
    fixture.sts.set_failures(Failures::all(ServiceError::InternalFailure));
    let line =
        |fixture: &Fixture, id: i64| fixture.mongod.wait_for_log(|line| line["id"] == id, Duration::ZERO).is_some();
    // Each step of a login writes the lines that are due, and the host may be another one by now.
    for _ in 0..20 {
        let conversation = Conversation::start(fixture.mongod.port()).unwrap();
        if line(&fixture, 88_000_004) {
            break;
        }
        let signed = conversation.signer(&credentials(&fixture.user)).sign();
        assert!(conversation.finish(&client_second(&signed)).is_err(), "STS fails");
    }
    fixture.sts.set_failures(None);
    for _ in 0..600 {
        // A login that begins has the first host checked, now and then.
        Conversation::start(fixture.mongod.port()).unwrap();
        if line(&fixture, 88_000_005) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    fixture.set_parameter("awsStsTimeoutMS", 5000);
    fixture.login(&fixture.role).unwrap();
    fixture.success_lines();
    let mut wrong = fixture.user.clone();
    wrong.secret_access_key = "x".repeat(40);
    fixture.login(&wrong).expect_err("a wrong key");
    let refused =
        |line: &Value| line["msg"] == "Authentication failed" && line.to_string().contains("SignatureDoesNotMatch");
    fixture.mongod.wait_for_log(refused, LIMIT).expect("the line of the login");
    let lines = fixture.mongod.log_lines();
    let plain = Mongod::builder()
        .parameter("awsStsHost", "sts.eu-west-1.amazonaws.com")
        .env("HTTPS_PROXY", "http://proxy.example.com:3128")
        .start();
    let doubtful = Mongod::builder().parameter("awsStsHost", "sts.example.internal").start();
    lines.into_iter().chain(plain.log_lines()).chain(doubtful.log_lines()).collect()
}

#[test]
fn the_server_writes_the_lines_that_are_shown() {
    if env::var("PSMDB_AWS_IAM_MONGOD_VERSION").is_ok_and(|version| version != DEFAULT_VERSION) {
        return support::skipped("the log lines that are shown", "the pages show those of another version of mongod");
    }
    let produced = produced();
    let source = read("src/events.rs");
    for block in examples("text", "log") {
        for text in block.text.lines() {
            let shown: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{block}: {error}: {text}"));
            if shown["id"].as_i64().is_some_and(|id| ONLY_READ.contains(&id)) {
                let start: String =
                    shown["msg"].as_str().unwrap().chars().take_while(|c| !c.is_ascii_digit()).collect();
                assert!(source.contains(&start), "{block}: {start} is not in src/events.rs");
                continue;
            }
            let same = |line: &&Value| {
                let names = |value: &Value| -> Vec<String> {
                    value.as_object().map(|object| object.keys().cloned().collect()).unwrap_or_default()
                };
                ["s", "c", "id"].iter().all(|name| line[name] == shown[name])
                    && words(line["msg"].as_str().unwrap_or_default()) == words(shown["msg"].as_str().unwrap())
                    && names(&shown["attr"]).iter().all(|name| !line["attr"][name].is_null())
            };
            let id = &shown["id"];
            let like: Vec<_> = produced.iter().filter(|line| line["id"] == *id).collect();
            assert!(like.iter().any(same), "{block}: no server wrote {text}; there were\n{like:#?}");
        }
    }
}

#[test]
fn the_table_of_log_lines_has_every_id() {
    let text = read("src/events.rs").replace('_', "");
    let ids = Regex::new("88[0-9]{6}").unwrap();
    let mut known: Vec<_> = ids.find_iter(&text).map(|found| found.as_str().to_owned()).collect();
    known.sort();
    known.dedup();
    assert!(!known.is_empty(), "no ids in src/events.rs");
    let mut listed: Vec<_> = rows("docs/monitoring.md")
        .iter()
        .filter(|row| row.len() == 3 && row[0].starts_with("`88"))
        .flat_map(|row| quoted(&row[0]).into_iter().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    listed.sort();
    assert_eq!(listed, known);
}
