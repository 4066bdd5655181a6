//! `check-sts` against an STS, and against failures on the way to it.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use local_sts::{DelayProxy, Failures, LocalSts, NetworkFault, ServiceError, StsResponse};
use regex_lite::Regex;

use super::{Ended, command, run};
use crate::support::proxy::TunnelProxy;

/// An STS, and a file with its CA.
struct Setting {
    sts: LocalSts,
    folder: tempfile::TempDir,
}

impl Setting {
    fn start() -> Self {
        let sts = LocalSts::builder()
            .host_name("sts.amazonaws.com")
            .host_name("sts.eu-west-1.amazonaws.com")
            .start()
            .expect("an STS");
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("ca.pem"), sts.ca_pem()).expect("a file for the CA");
        Self { sts, folder }
    }

    fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn check(&self, arguments: &[&str]) -> Ended {
        run(command(&["check-sts", "--ca-file"]).arg(self.ca_file()).args(arguments))
    }

    /// The output when STS is not reachable, without durations.
    fn not_reachable(&self, arguments: &[&str]) -> String {
        let Ended { status, stdout, stderr } = self.check(arguments);
        assert_eq!((status, &*stderr), (1, ""), "{stdout}");
        masked(&stdout)
    }
}

/// The text without durations, and without the padding of columns.
fn masked(text: &str) -> String {
    let text = Regex::new(r" *[0-9]+(\.[0-9])? ms").unwrap().replace_all(text, " N ms").into_owned();
    Regex::new(r"request id [0-9a-f-]+").unwrap().replace_all(&text, "request id R").into_owned()
}

#[test]
fn an_sts_that_refuses_a_request_without_a_signature_is_reachable() {
    let setting = Setting::start();
    let address = setting.sts.address();
    let printed = setting.check(&["--region", "eu-west-1", "--endpoint", &setting.sts.endpoint()]).printed();
    let expected = format!(
        "sts.eu-west-1.amazonaws.com:\n  name resolution N ms  127.0.0.1\n  TCP connection N ms  {address}\n  \
         TLS handshake N ms  {address}\n  response N ms  STS returned 403 MissingAuthenticationToken (request id R)\n\n\
         STS is reachable.\n"
    );
    assert_eq!(masked(&printed), expected);
    let requests = setting.sts.requests();
    assert_eq!(requests.len(), 1);
    assert!(requests[0].header("authorization").is_none(), "it was signed");

    let proxy = TunnelProxy::start(None);
    let proxied = ["--endpoint", &setting.sts.endpoint(), "--proxy", &format!("http://{}", proxy.address)];
    let printed = setting.check(&proxied).printed();
    assert!(masked(&printed).contains(&format!("\n  CONNECT N ms  {}\n", proxy.address)), "{printed}");
}

#[test]
fn the_step_that_fails_is_named_with_what_to_do() {
    let setting = Setting::start();
    let here = setting.sts.endpoint();
    let way = |fault| {
        let way = DelayProxy::start(setting.sts.address()).unwrap();
        way.set_fault(fault);
        way
    };
    let (dropped, silent) = (way(NetworkFault::Unreachable), way(NetworkFault::BlackHole));
    let refused = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let refusing = TunnelProxy::start(Some("HTTP/1.1 403 Forbidden\r\n\r\n"));
    let other = LocalSts::builder().start().unwrap();
    for (arguments, line, reason, advice) in [
        (
            &["--endpoint", "https://sts.nowhere.invalid", "--timeout-ms", "15000"][..],
            "name resolution N ms  failed".to_owned(),
            "the endpoint sts.nowhere.invalid:443 was not found".to_owned(),
            "Check the name, and DNS on this machine",
        ),
        (
            &["--endpoint", &dropped.endpoint(), "--timeout-ms", "400"],
            format!("TCP connection N ms  {}: no response", dropped.address()),
            format!("cannot connect to sts.amazonaws.com ({}): the TCP connection timed out", dropped.address()),
            "A firewall, security group, network ACL or missing route drops the packets.",
        ),
        (
            &["--endpoint", &format!("https://{refused}")],
            format!("TCP connection N ms  {refused}: Connection refused (os error 111)"),
            format!("cannot connect to sts.amazonaws.com ({refused}): Connection refused"),
            "Nothing accepts connections there.",
        ),
        (
            &["--proxy", &format!("http://{}", refusing.address)],
            format!("CONNECT N ms  {}: the proxy answered 403 to CONNECT", refusing.address),
            format!("the proxy {} answered 403 to CONNECT", refusing.address),
            "The proxy must allow CONNECT to port 443 of the STS host",
        ),
        (
            &["--endpoint", &silent.endpoint(), "--timeout-ms", "400"],
            format!("TLS handshake N ms  {}: no response", silent.address()),
            format!("TLS handshake with sts.amazonaws.com ({}) timed out", silent.address()),
            "The address accepts connections and does not complete TLS.",
        ),
        (
            &["--endpoint", &other.endpoint()],
            format!("TLS handshake N ms  {}: the signature of its certificate (CN=local-sts)", other.address()),
            format!("the TLS connection to sts.amazonaws.com ({}) is not trusted", other.address()),
            "Install the system's ca-certificates.",
        ),
    ] {
        let printed = setting.not_reachable(arguments);
        assert!(printed.contains(&format!("\n  {line}")), "{arguments:?}: {printed}");
        assert!(printed.contains(&format!("\n\nSTS is not reachable: {reason}")), "{arguments:?}: {printed}");
        assert!(printed.contains(&format!("\n\n{advice}")), "{arguments:?}: {printed}");
        assert!(!printed.contains("STS is reachable"), "{printed}");
    }
    assert_eq!(setting.sts.request_count() + other.request_count(), 0);

    setting.sts.set_failures(Failures::all(ServiceError::ServiceUnavailable));
    let printed = setting.not_reachable(&["--endpoint", &here]);
    assert!(printed.contains("STS is not reachable: STS returned 503 ServiceUnavailable"), "{printed}");
    assert!(printed.contains("\n\nSTS has an outage."), "{printed}");
    setting.sts.set_failures(None);
    setting.sts.set_response(StsResponse::Raw(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n".to_vec()));
    let printed = setting.not_reachable(&["--endpoint", &here]);
    assert!(printed.contains("\n\nThe server at this address is not STS."), "{printed}");
    setting.sts.set_response(StsResponse::Silence);
    let printed = setting.not_reachable(&["--endpoint", &here, "--timeout-ms", "400"]);
    assert!(printed.contains("\n  response N ms  failed\n\nSTS is not reachable: no response from "), "{printed}");
    // STS names no caller of a request without a signature.
    setting.sts.set_response(StsResponse::AcceptAll(local_sts::Identity::iam_user("123456789012", "alice")));
    let printed = setting.not_reachable(&["--endpoint", &here]);
    assert!(printed.contains("\n\nThe server at this address is not STS."), "{printed}");
}

#[test]
fn options_are_refused_as_the_server_refuses_its_parameters() {
    for (arguments, why) in [
        (&["--region", "Ireland"][..], "the region \"Ireland\" is not valid: it must be a name"),
        (&["--proxy", "127.0.0.1:3128"], "--proxy, the server's awsStsProxy: "),
        (&["--timeout-ms", "99"], "--timeout-ms, the server's awsStsTimeoutMS: "),
    ] {
        let said = run(command(&["check-sts"]).args(arguments)).refused(2);
        assert!(said.starts_with(&format!("psmdb-aws-iam: {why}")), "{said}");
    }
    let both = run(&mut command(&["check-sts", "--region", "eu-west-1", "--sts-host", "sts.amazonaws.com"]));
    assert_eq!((both.status, &*both.stdout), (2, ""));
}
