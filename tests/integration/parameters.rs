//! The server parameters, at startup and at runtime.

use std::time::Duration;

use bson::{Bson, bson, doc};
use local_sts::LocalSts;
use serde_json::Value;

use crate::support::aws_client;
use crate::support::fixture::{Fixture, credentials};
use crate::support::mongod::Mongod;

/// MongoDB's error code BadValue.
const BAD_VALUE: i32 = 2;

const PATIENCE: Duration = Duration::from_secs(10);

fn value_of(mongod: &Mongod, name: &str) -> Bson {
    mongod.run_as_admin("admin", doc! { "getParameter": 1, name: 1 }).get(name).cloned().expect("a value")
}

#[test]
fn parameters_have_their_documented_defaults() {
    let mongod = Mongod::builder().start();
    for (name, value) in [
        ("awsStsHost", bson!("sts.amazonaws.com")),
        ("awsStsEndpoint", bson!("")),
        ("awsStsCAFile", bson!("")),
        ("awsStsTimeoutMS", bson!(10_000)),
        ("awsIamAllowedAccounts", bson!("")),
        ("awsStsProxy", bson!("")),
        ("awsStsFallbackHosts", bson!("")),
        ("awsIamRoleUserFormat", bson!("iamRole")),
    ] {
        assert_eq!(value_of(&mongod, name), value, "{name}");
    }
    let all = mongod.run_as_admin("admin", doc! { "getParameter": "*" });
    assert_eq!(all.get_str("awsStsHost").unwrap(), "sts.amazonaws.com");
}

#[test]
fn a_value_given_at_startup_is_told_to_clients() {
    let mongod = Mongod::builder().parameter("awsStsHost", "sts.eu-central-1.amazonaws.com").start();
    let conversation = aws_client::Conversation::start(mongod.port()).unwrap();
    assert_eq!(conversation.host, "sts.eu-central-1.amazonaws.com");
    assert_eq!(value_of(&mongod, "awsStsHost"), bson!("sts.eu-central-1.amazonaws.com"));
}

#[test]
fn a_configuration_file_sets_parameters_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mongod.conf");
    let yaml = "setParameter:\n  awsStsHost: sts.ap-south-1.amazonaws.com\n  awsStsTimeoutMS: 2500\n";
    std::fs::write(&file, yaml).unwrap();
    let mongod = Mongod::builder().arg("--config").arg(&file).start();
    assert_eq!(value_of(&mongod, "awsStsHost"), bson!("sts.ap-south-1.amazonaws.com"));
    assert_eq!(value_of(&mongod, "awsStsTimeoutMS"), bson!(2500));
}

#[test]
fn a_bad_value_at_startup_stops_the_server_with_a_sentence() {
    for (name, value, reason) in [
        ("awsStsHost", "https://sts.amazonaws.com", "awsStsHost: must be a host name in lower case"),
        (
            "awsStsHost",
            "eu-west-1",
            "awsStsHost: must be a host name such as sts.eu-west-1.amazonaws.com; eu-west-1 is a region",
        ),
        (
            "awsStsHost",
            "sts.cn-north-1.amazonaws.com",
            "awsStsHost: must be sts.cn-north-1.amazonaws.com.cn; cn-north-1 is a region of partition aws-cn",
        ),
        ("awsStsEndpoint", "http://127.0.0.1:80", "must be https://host or https://host:port"),
        ("awsStsCAFile", "/does/not/exist.pem", "/does/not/exist.pem cannot be read"),
        ("awsStsTimeoutMS", "5", "between 100 and 60000 milliseconds"),
        ("awsIamAllowedAccounts", "1234", "account ids of 12 digits, separated by commas"),
        ("awsStsProxy", "proxy:3128", "must be http://host:port"),
        (
            "awsStsFallbackHosts",
            "sts.us-west-2.amazonaws.com,ec2.eu-west-1.amazonaws.com",
            "without spaces; entry 2 must be an STS host name with a region, such as sts.eu-west-1.amazonaws.com",
        ),
        ("awsIamRoleUserFormat", "role", "iamRole (arn:...:iam::ACCOUNT:role/ROLE) or assumedRole"),
    ] {
        let exit = Mongod::builder().parameter(name, value).expect_exit();
        assert!(!exit.status.success(), "{name}={value}");
        assert!(exit.output().contains(reason), "{name}={value}: {}", exit.output());
    }
}

#[test]
fn a_host_that_is_not_of_aws_is_accepted_with_one_warning() {
    let mongod = Mongod::builder().parameter("awsStsHost", "sts.example.internal").start();
    assert_eq!(value_of(&mongod, "awsStsHost"), bson!("sts.example.internal"));
    let warning = |host: &str| {
        let begins = format!("MONGODB-AWS: The STS host {host} is not an AWS host name: ");
        move |line: &&Value| {
            line["id"] == 88_000_010 && line["msg"].as_str().is_some_and(|msg| msg.starts_with(&begins))
        }
    };
    mongod.wait_for_log(|line| warning("sts.example.internal")(&line), PATIENCE).expect("a line at the start");
    assert_eq!(mongod.log_lines().iter().filter(|line| line["id"] == 88_000_010).count(), 1);
    let aws = Mongod::builder().parameter("awsStsHost", "sts.eusc-de-east-1.amazonaws.eu").start();
    aws.wait_for_log(|line| line["id"] == 88_000_001, PATIENCE).expect("a line at the start");
    assert!(!aws.log_text().contains("88000010"));
}

#[test]
fn a_bad_value_at_runtime_is_refused_and_changes_nothing() {
    let mongod = Mongod::builder().start();
    let rows = [
        ("awsStsHost", bson!("sts.amazonaws.com:443")),
        ("awsStsHost", bson!("")),
        ("awsStsHost", bson!(1)),
        ("awsStsHost", bson!({ "a": 1 })),
        ("awsStsHost", bson!(["sts.amazonaws.com"])),
        ("awsStsHost", bson!(null)),
        ("awsStsHost", bson!("sts.\r\nX-Evil: 1")),
        ("awsStsHost", bson!("vpce-1.sts.eu-west-1.vpce.amazonaws.com")),
        ("awsStsHost", bson!("sts.eu-west-1.amazonaws.com")),
        ("awsStsEndpoint", bson!("https://host/path")),
        ("awsStsEndpoint", bson!(true)),
        ("awsStsCAFile", bson!("/etc/hostname")),
        ("awsStsCAFile", bson!("/dev/zero")),
        ("awsStsTimeoutMS", bson!(99)),
        ("awsStsTimeoutMS", bson!(60_001)),
        ("awsStsTimeoutMS", bson!(1000.5)),
        ("awsStsTimeoutMS", bson!("1000")),
        ("awsIamAllowedAccounts", bson!("123456789012, 210987654321")),
        ("awsIamAllowedAccounts", bson!(123_456_789_012_i64)),
        ("awsStsProxy", bson!("http://user:password@proxy:3128")),
        ("awsStsProxy", bson!("https://proxy:3128")),
        ("awsStsFallbackHosts", bson!("sts.us-west-2.amazonaws.com, sts.us-east-2.amazonaws.com")),
        ("awsStsFallbackHosts", bson!("sts.us-west-2.amazonaws.com")),
        ("awsIamRoleUserFormat", bson!("IamRole")),
        ("awsIamRoleUserFormat", bson!("")),
    ];
    for (name, value) in rows {
        let before = value_of(&mongod, name);
        let error = mongod.try_as_admin("admin", doc! { "setParameter": 1, name: value.clone() }).unwrap_err();
        let mongodb::error::ErrorKind::Command(error) = &*error.kind else { panic!("{name}: {error}") };
        assert_eq!(error.code, BAD_VALUE, "{name}: {value}: {}", error.message);
        let said = &error.message;
        assert!(said.contains(name) && (said.contains("must be") || said.contains("allowed")), "{name}: {said}");
        assert_eq!(value_of(&mongod, name), before, "{name}: {value}");
    }
}

#[test]
fn a_value_set_at_runtime_counts_from_the_next_login_on() {
    let host = "sts.eu-west-1.amazonaws.com";
    let fixture = Fixture::start_with(|builder| builder.parameter("awsStsFallbackHosts", host));
    fixture.assert_still_serves("the start");
    let regional = LocalSts::builder().host_name(host).identity(fixture.user.clone()).start().unwrap();
    fixture.trust(&[&fixture.sts, &regional]);

    // A login under way keeps the address of its STS.
    let under_way = aws_client::Conversation::start(fixture.mongod.port()).unwrap();
    fixture.set_parameter("awsStsEndpoint", regional.endpoint());
    let signed = under_way.signer(&credentials(&fixture.user)).sign();
    let asked = fixture.sts.request_count();
    assert!(under_way.finish(&aws_client::client_second(&signed)).is_ok());
    assert_eq!((fixture.sts.request_count() - asked, regional.request_count()), (1, 0));

    fixture.set_parameter("awsStsHost", host);
    assert!(aws_client::login(fixture.mongod.port(), &credentials(&fixture.user), host).is_ok());
    assert_eq!(regional.request_count(), 1);
    let requests = regional.requests();
    assert_eq!(requests[0].header("host"), Some(host));
    assert!(requests[0].header("authorization").unwrap().contains("/eu-west-1/sts/aws4_request"));
}

/// The value of such a variable can hold a password.
#[test]
fn a_proxy_in_the_environment_that_is_not_used_is_named_once_at_startup() {
    let lines = |mongod: &Mongod| -> Vec<String> {
        mongod.wait_for_log(|line| line["id"] == 88_000_001, Duration::from_secs(10)).expect("the line at the start");
        let lines = mongod.log_lines().into_iter().filter(|line| line["id"] == 88_000_009);
        lines.map(|line| line["msg"].as_str().unwrap().to_owned()).collect()
    };
    let proxy = "http://user:secret@127.0.0.1:9";
    let builder = || Mongod::builder().env("HTTPS_PROXY", proxy).env("all_proxy", proxy).env("http_proxy", proxy);
    let mongod = builder().start();
    // A login writes what waits to be written.
    aws_client::Conversation::start(mongod.port()).unwrap();
    let written = lines(&mongod);
    assert_eq!(written.len(), 1, "{written:?}");
    assert!(
        written[0].contains("Ignored the proxy variables of the environment (HTTPS_PROXY, all_proxy)"),
        "{written:?}"
    );
    let all = [mongod.log_text(), mongod.stdout_text(), mongod.stderr_text()].concat();
    assert!(!all.contains("secret"), "{all}");
    assert_eq!(lines(&builder().parameter("awsStsProxy", "http://127.0.0.1:9").start()), [""; 0]);
    assert_eq!(lines(&Mongod::builder().env("HTTPS_PROXY", "").start()), [""; 0]);
}

#[test]
fn an_empty_list_of_accounts_that_was_given_is_shown_at_startup() {
    let message = |mongod: &Mongod| {
        let line = mongod.wait_for_log(|line| line["id"] == 88_000_001, Duration::from_secs(10)).expect("the line");
        line["msg"].as_str().unwrap().to_owned()
    };
    let given = message(&Mongod::builder().parameter("awsIamAllowedAccounts", "").start());
    assert!(given.ends_with("parameters: awsIamAllowedAccounts: empty (every account may log in)"), "{given}");
    let not_given = message(&Mongod::builder().start());
    assert!(not_given.ends_with("parameters: all default"), "{not_given}");
}

#[test]
fn a_change_at_runtime_is_one_line_of_the_log() {
    let mongod = Mongod::builder().parameter("awsStsTimeoutMS", 5000).start();
    let set = |value: Bson| mongod.try_as_admin("admin", doc! { "setParameter": 1, "awsStsTimeoutMS": value });
    set(bson!(7000)).unwrap();
    // Neither what changes nothing nor what is refused is a change.
    set(bson!(7000)).unwrap();
    set(bson!(1)).unwrap_err();
    set(bson!(8000)).unwrap();
    let is_last = |line: &Value| line["id"] == 88_000_008 && line["msg"].as_str().unwrap().contains("8000");
    mongod.wait_for_log(is_last, Duration::from_secs(10)).expect("the line about the last change");
    let lines = mongod.log_lines();
    let ours: Vec<_> = lines.iter().filter(|line| line["id"] == 88_000_008).collect();
    let messages: Vec<_> = ours.iter().map(|line| line["msg"].as_str().unwrap()).collect();
    let expected = [
        "MONGODB-AWS: Changed awsStsTimeoutMS from \"5000\" to \"7000\"",
        "MONGODB-AWS: Changed awsStsTimeoutMS from \"7000\" to \"8000\"",
    ];
    assert_eq!(messages, expected);
    assert!(ours.iter().all(|line| line["c"] == "ACCESS" && line["s"] == "I"), "{ours:?}");
}
