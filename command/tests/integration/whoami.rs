//! `whoami` against an STS that verifies signatures.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use local_sts::{Identity, LocalSts, StsResponse};
use serde_json::Value;

use super::{Ended, assert_hides, command, run, with_credentials};
use crate::support::fixture::ACCOUNT;
use crate::support::proxy::TunnelProxy;
use crate::support::sts::TestSts;

impl TestSts {
    /// A request to this STS with these credentials.
    fn whoami(&self, identity: &Identity, arguments: &[&str]) -> Command {
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

fn printed(ended: Ended, identity: &Identity) -> String {
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
fn without_a_home_the_current_folder_is_not_searched_for_keys() {
    let setting = TestSts::new();
    let evil = setting.folder.path().join("evil");
    fs::create_dir_all(evil.join(".aws")).unwrap();
    let Identity { access_key_id, secret_access_key, .. } = &setting.user;
    let keys = format!("[evil]\naws_access_key_id = {access_key_id}\naws_secret_access_key = {secret_access_key}\n");
    fs::write(evil.join(".aws/credentials"), &keys).unwrap();
    fs::write(evil.join(".aws/config"), keys.replace("[evil]", "[profile evil]\nregion = eu-west-1")).unwrap();
    let whoami = |home: Option<&str>| {
        let mut command = command(&["whoami", "--profile", "evil", "--endpoint", &setting.sts.endpoint(), "--ca-file"]);
        command.arg(setting.ca_file()).current_dir(&evil).env_remove("HOME").envs(home.map(|home| ("HOME", home)));
        run(&mut command)
    };
    let uid = fs::metadata("/proc/self").unwrap().uid();
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let home = fields.filter(|fields| fields[2] == uid.to_string()).map(|fields| fields[5].to_owned()).next();
    for unset in [None, Some("")] {
        let said = whoami(unset).refused(2);
        let expected = format!("there is no profile evil in {}/.aws/credentials or ", home.as_deref().unwrap());
        assert!(said.contains(&expected), "{unset:?}: {said}");
    }
    // The keys are good where they are asked for.
    assert!(whoami(evil.to_str()).printed().starts_with(&setting.user.arn));
    assert_eq!(setting.sts.request_count(), 1);
}

#[test]
fn keys_are_taken_from_a_profile() {
    let setting = TestSts::new();
    let keys = setting.folder.path().join("keys");
    let Identity { access_key_id, secret_access_key, session_token, arn, .. } = &setting.role;
    let token = session_token.as_ref().expect("a session's token");
    let profile = format!(
        "[reports]\naws_access_key_id = {access_key_id}\naws_secret_access_key = {secret_access_key}\n\
         aws_session_token = {token}\n[corp]\nsso_session = corp\n"
    );
    fs::write(&keys, profile).unwrap();
    // The environment has another's.
    let whoami = |arguments: &[&str]| {
        let mut command = setting.whoami(&setting.user, arguments);
        command.env("AWS_SHARED_CREDENTIALS_FILE", &keys);
        command
    };
    let text = printed(run(&mut whoami(&["--profile", "reports"])), &setting.role);
    assert!(text.starts_with(arn), "{text}");
    assert!(text.contains(&format!("from the profile reports in {}\n", keys.display())), "{text}");
    assert!(printed(run(&mut whoami(&[])), &setting.user).starts_with(&setting.user.arn));
    let named = run(whoami(&[])
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_SECRET_ACCESS_KEY")
        .env("AWS_PROFILE", "reports"));
    assert!(printed(named, &setting.role).starts_with(arn));

    let asked = setting.sts.request_count();
    let said = run(&mut whoami(&["--profile", "corp"])).refused(2);
    assert!(said.contains("by SSO (sso_session), which is not supported"), "{said}");
    assert!(said.contains("eval \"$(aws configure export-credentials --profile corp --format env)\""), "{said}");
    let said = run(&mut command(&["whoami"])).refused(2);
    assert!(said.contains("no credentials of AWS: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set"), "{said}");
    assert_eq!(setting.sts.request_count(), asked);
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

/// What hands out credentials on a container's or an instance's own link: answers by the first line and a header.
fn metadata(answer: impl Fn(&str, &str) -> Option<String> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut head = String::new();
            let mut reader = BufReader::new(client.try_clone().unwrap());
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap_or(0) > 0 {}
            let (status, body) = match answer(head.lines().next().unwrap_or_default(), &head.to_lowercase()) {
                Some(body) => ("200 OK", body),
                None => ("404 Not Found", String::new()),
            };
            let length = body.len();
            let _ = write!(client, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        }
    });
    address
}

#[test]
fn a_container_and_an_instance_have_keys_of_their_own() {
    let setting = TestSts::new();
    let Identity { access_key_id, secret_access_key, session_token, arn, .. } = setting.role.clone();
    let keys = serde_json::json!({
        "AccessKeyId": access_key_id, "SecretAccessKey": secret_access_key, "Token": session_token, "Code": "Success",
    })
    .to_string();
    // No keys in the environment.
    let whoami = || {
        let mut command = setting.whoami(&setting.user, &[]);
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
        command
    };

    let answer = keys.clone();
    let agent = metadata(move |line, head| {
        let asked = line == "GET /v1/credentials HTTP/1.1" && head.contains("\r\nauthorization: the-pod's\r\n");
        asked.then(|| answer.clone())
    });
    let token = setting.folder.path().join("pod-token");
    fs::write(&token, "the-pod's\n").unwrap();
    let uri = format!("http://{agent}/v1/credentials");
    let mut in_pod = whoami();
    in_pod.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri).env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token);
    let text = printed(run(&mut in_pod), &setting.role);
    assert!(text.starts_with(&arn) && text.contains("from the container\n"), "{text}");
    let said = run(whoami().env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri)).refused(2);
    assert!(said.contains("the container's credentials: the answer has the status 404"), "{said}");
    // Keys in the environment come first.
    let mut command = setting.whoami(&setting.user, &[]);
    command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/");
    assert!(printed(run(&mut command), &setting.user).starts_with(&setting.user.arn));

    let answer = keys.clone();
    let instance = metadata(move |line, head| {
        let with_token = head.contains("\r\nx-aws-ec2-metadata-token: of-a-minute\r\n");
        match line.trim_end_matches(" HTTP/1.1") {
            "PUT /latest/api/token" if head.contains("\r\nx-aws-ec2-metadata-token-ttl-seconds: ") => {
                Some("of-a-minute".to_owned())
            }
            "GET /latest/meta-data/iam/security-credentials/" if with_token => Some("reporting".to_owned()),
            "GET /latest/meta-data/iam/security-credentials/reporting" if with_token => Some(answer.clone()),
            _ => None,
        }
    });
    let on_instance = |address: &SocketAddr| {
        let mut command = whoami();
        command.env_remove("AWS_EC2_METADATA_DISABLED");
        command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("http://{address}/"));
        command
    };
    let text = printed(run(&mut on_instance(&instance)), &setting.role);
    assert!(text.starts_with(&arn) && text.contains("from the instance\n"), "{text}");
    let said = run(on_instance(&instance).env("AWS_EC2_METADATA_DISABLED", "true")).refused(2);
    assert!(said.contains("no credentials of AWS: "), "{said}");
    let without_role = metadata(|line, _| line.starts_with("PUT ").then(String::new));
    let said = run(&mut on_instance(&without_role)).refused(2);
    assert!(said.contains("no credentials of AWS: "), "{said}");
    let broken = metadata(|_, _| Some("planted".to_owned()));
    let said = run(&mut on_instance(&broken)).refused(2);
    assert!(
        said.contains("the instance's credentials: the answer holds no keys") && !said.contains("planted"),
        "{said}"
    );
}
