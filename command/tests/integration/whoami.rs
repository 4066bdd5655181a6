//! `whoami` against an STS that verifies signatures.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use local_sts::{Identity, LocalSts, StsResponse};
use serde_json::Value;

use super::{Ended, assert_hides, command, run, with_credentials};
use crate::support::fixture::ACCOUNT;
use crate::support::proxy::TunnelProxy;
use crate::support::sts::TestSts;

impl TestSts {
    /// A request to this STS with these credentials.
    pub fn whoami(&self, identity: &Identity, arguments: &[&str]) -> Command {
        let mut command = command(&["whoami", "--endpoint", &self.sts.endpoint(), "--ca-file"]);
        command.arg(self.ca_file()).args(arguments);
        with_credentials(&mut command, identity);
        command
    }

    /// The error of a request that fails, which must contain no secret.
    fn refused(&self, identity: &Identity, arguments: &[&str], status: i32) -> String {
        let said = run(&mut self.whoami(identity, arguments)).refused(status);
        assert_hides(&said, identity);
        said
    }
}

pub fn printed(ended: Ended, identity: &Identity) -> String {
    let printed = ended.printed();
    assert_hides(&printed, identity);
    printed
}

#[test]
fn the_response_is_printed_with_the_user_s_name_and_the_durations() {
    let setting = TestSts::new();
    for (identity, kind, iam_role, assumed_role) in [
        (&setting.user, "user", &*setting.user.arn, &*setting.user.arn),
        (
            &setting.role,
            "assumed-role",
            "arn:aws:iam::123456789012:role/reporting",
            "arn:aws:sts::123456789012:assumed-role/reporting/*",
        ),
    ] {
        let json = printed(run(&mut setting.whoami(identity, &["--json"])), identity);
        let json: Value = serde_json::from_str(&json).expect("one JSON document");
        for (field, expected) in [
            ("arn", &*identity.arn),
            ("account", ACCOUNT),
            ("partition", "aws"),
            ("kind", kind),
            ("userId", &identity.user_id),
            ("accessKeyId", &identity.access_key_id),
            ("source", "the environment"),
            ("stsHost", "sts.amazonaws.com"),
        ] {
            assert_eq!(json[field], expected, "{field}");
        }
        assert_eq!(json["users"], serde_json::json!({"iamRole": iam_role, "assumedRole": assumed_role}));
        let durations = json["milliseconds"].as_object().expect("times");
        assert_eq!(durations.keys().collect::<Vec<_>>(), ["connect", "nameResolution", "response", "tls"]);
        assert!(
            durations["tls"].as_f64().expect("a number") > 0.0
                && durations["response"].as_f64().expect("a number") > 0.0
        );

        let text = printed(run(&mut setting.whoami(identity, &[])), identity);
        let about =
            format!("{}\nunique id {}; access key id {}", identity.arn, identity.user_id, identity.access_key_id);
        assert!(text.starts_with(&about), "{text}");
        assert!(text.contains(&format!("\n  {iam_role}")), "{text}");
        assert_eq!(text.contains(":assumed-role/reporting/*    (awsIamRoleUserFormat: assumedRole)"), kind != "user");
        for phase in ["name resolution", "connect", "TLS", "response"] {
            assert!(text.contains(&format!("\n  {phase:16}")), "{phase}: {text}");
        }

        let one = printed(run(&mut setting.whoami(identity, &["--json", "--format", "assumedRole"])), identity);
        let one: Value = serde_json::from_str(&one).expect("one JSON document");
        assert_eq!(one["users"], serde_json::json!({"assumedRole": assumed_role}));
    }
}

#[test]
fn a_refusal_of_sts_has_the_plugin_s_words() {
    let setting = TestSts::new();
    let mut wrong_secret = setting.user.clone();
    wrong_secret.secret_access_key = "c2VjcmV0LXRoYXQtaXMtd3Jvbmc".to_owned();
    let mut wrong_token = setting.role.clone();
    wrong_token.session_token = Some("dG9rZW4tdGhhdC1pcy13cm9uZw".to_owned());
    let expired = Identity::assumed_role(ACCOUNT, "reporting", "old").expired();
    setting.sts.add_identity(expired.clone());
    let stranger = Identity::iam_user(ACCOUNT, "mallory");
    for (name, identity, why) in [
        (
            "wrong secret",
            &wrong_secret,
            "STS returned 403 SignatureDoesNotMatch: the client's secret key does not match",
        ),
        ("wrong token", &wrong_token, "STS returned 403 InvalidClientTokenId: "),
        ("expired", &expired, "STS returned 403 ExpiredToken: the client's session token has expired"),
        (
            "unknown key",
            &stranger,
            "STS returned 403 InvalidClientTokenId: the access key or the session token is unknown",
        ),
    ] {
        let said = setting.refused(identity, &["--json"], 1);
        assert!(said.contains(why) && said.contains("; TLS ") && said.contains(", failed)"), "{name}: {said}");
    }
    // There is one request each.
    assert_eq!(setting.sts.request_count(), 4);
}

#[test]
fn a_refusal_that_this_machine_s_clock_causes_names_the_clock() {
    for (offset, side) in [(1200, "behind"), (-1200, "ahead of")] {
        let mut setting = TestSts::new();
        setting.sts = LocalSts::builder().identity(setting.user.clone()).clock_offset(offset).start().expect("an STS");
        fs::write(setting.ca_file(), setting.sts.ca_pem()).unwrap();
        let said = setting.refused(&setting.user, &[], 1);
        assert!(
            said.contains("this machine's clock is 1") && said.contains(&format!(" seconds {side} that of STS")),
            "{said}"
        );
    }
}

#[test]
fn a_network_failure_is_named_with_its_phase() {
    let setting = TestSts::new();
    let other = LocalSts::builder().start().expect("another STS");
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let closed = format!("https://{closed}");
    let other_ca = setting.folder.path().join("other.pem");
    fs::write(&other_ca, other.ca_pem()).unwrap();
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let silent_endpoint = format!("https://{}", silent.local_addr().unwrap());
    let ask = |endpoint: &str, ca: &Path, more: &[&str]| {
        let mut command = command(&["whoami", "--endpoint", endpoint, "--ca-file"]);
        command.arg(ca).args(more);
        with_credentials(&mut command, &setting.user);
        let began = Instant::now();
        let said = run(&mut command).refused(2);
        assert!(began.elapsed() < Duration::from_secs(20), "{said}");
        assert_hides(&said, &setting.user);
        said
    };
    let (here, ca) = (setting.sts.endpoint(), setting.ca_file());
    for (name, said, why, part) in [
        ("nobody listens", ask(&closed, &ca, &[]), ": Connection refused (os error 111) after ", "; connect "),
        ("another CA", ask(&here, &other_ca, &[]), ") is not trusted: ", "; TLS "),
        (
            "silence",
            ask(&silent_endpoint, &ca, &["--timeout-ms", "300"]),
            "TLS handshake with sts.amazonaws.com (",
            "; TLS ",
        ),
        (
            "a name that is not there",
            ask("https://sts.nowhere.invalid", &ca, &["--timeout-ms", "15000"]),
            "the endpoint sts.nowhere.invalid:443 was not found: name resolution failed after ",
            "(name resolution ",
        ),
        (
            "another host's certificate",
            ask(&here, &ca, &["--sts-host", "sts.nowhere.example.com"]),
            ") is not trusted: ",
            "; TLS ",
        ),
    ] {
        assert!(said.contains(why), "{name}: {said}");
        let (_, failed) = said.rsplit_once(part).unwrap_or_else(|| panic!("{name}: {said}"));
        assert!(failed.ends_with(" ms, failed)\n"), "{name}: {said}");
    }
    assert_eq!(setting.sts.request_count(), 0);

    setting.sts.set_response(StsResponse::Raw(
        b"HTTP/1.1 302 Found\r\nLocation: http://login\r\nContent-Length: 0\r\n\r\n".to_vec(),
    ));
    let said = setting.refused(&setting.user, &[], 2);
    assert!(said.contains("STS returned 302 without an STS error code (") && said.contains("; response "), "{said}");
    setting.sts.set_response(StsResponse::Verified);
    setting.sts.set_processing_time(Duration::from_secs(2));
    let said = setting.refused(&setting.user, &["--timeout-ms", "500"], 2);
    assert!(said.contains("no response from sts.amazonaws.com (") && said.contains("; response "), "{said}");
}

#[test]
fn a_proxy_is_used_and_measured() {
    let setting = TestSts::new();
    let proxy = TunnelProxy::start(None);
    let url = format!("http://{}", proxy.address);
    let json = printed(run(&mut setting.whoami(&setting.role, &["--proxy", &url, "--json"])), &setting.role);
    let json: Value = serde_json::from_str(&json).expect("one JSON document");
    assert_eq!(json["arn"], setting.role.arn);
    let durations = json["milliseconds"].as_object().expect("times");
    assert_eq!(durations.keys().collect::<Vec<_>>(), ["connect", "nameResolution", "response", "tls", "tunnel"]);
    assert_eq!(proxy.requests().len(), 1);

    let refusing = TunnelProxy::start(Some("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"));
    let said = setting.refused(&setting.role, &["--proxy", &format!("http://{}", refusing.address)], 2);
    assert!(said.contains(&format!("the proxy {} answered 407 to CONNECT, after ", refusing.address)), "{said}");
    assert!(said.contains("; proxy tunnel "), "{said}");

    // As in the plugin, the environment's proxy is not used.
    let ended = run(setting
        .whoami(&setting.user, &[])
        .env("HTTPS_PROXY", "http://127.0.0.1:9")
        .env("https_proxy", "http://127.0.0.1:9"));
    printed(ended, &setting.user);
}

#[test]
fn options_are_checked_as_the_server_checks_its_parameters() {
    let setting = TestSts::new();
    for (arguments, why) in [
        (
            ["--sts-host", "https://sts.amazonaws.com"],
            "--sts-host, the server's awsStsHost: must be a host name in lower case",
        ),
        (
            ["--sts-host", "sts.us-isof-south-1.amazonaws.com"],
            "--sts-host, the server's awsStsHost: must be sts.us-isof-south-1.csp.hci.ic.gov; ",
        ),
        (
            ["--sts-host", "eu-west-1"],
            "--sts-host, the server's awsStsHost: must be a host name such as sts.eu-west-1.",
        ),
        (["--endpoint", "http://127.0.0.1"], "--endpoint, the server's awsStsEndpoint: must be https://host"),
        (["--proxy", "127.0.0.1:3128"], "--proxy, the server's awsStsProxy: must be http://host:port"),
        (
            ["--timeout-ms", "99"],
            "--timeout-ms, the server's awsStsTimeoutMS: must be between 100 and 60000 milliseconds",
        ),
        (["--timeout-ms", "soon"], "--timeout-ms, the server's awsStsTimeoutMS: must be a whole number"),
        (
            ["--ca-file", "/nonexistent/ca.pem"],
            "--ca-file, the server's awsStsCAFile: must be a PEM file of CA certificates",
        ),
    ] {
        let mut command = command(&["whoami"]);
        command.args(arguments);
        with_credentials(&mut command, &setting.user);
        let said = run(&mut command).refused(2);
        assert!(said.starts_with(&format!("psmdb-aws-iam: {why}")), "{arguments:?}: {said}");
    }
    // A path may be relative here.
    let mut relative = command(&["whoami", "--endpoint", &setting.sts.endpoint(), "--ca-file", "ca.pem"]);
    relative.current_dir(setting.folder.path());
    with_credentials(&mut relative, &setting.user);
    printed(run(&mut relative), &setting.user);
}
