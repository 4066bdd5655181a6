//! The reasons of denied logins, each produced by a login.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use bson::{Bson, Document, doc};
use local_sts::{Dns, DnsResponse, Failures, Identity, LocalSts, NetworkFault, ServiceError, Stage, StsResponse};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use regex_lite::Regex;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection};

use super::{examples, quoted, rows};
use crate::support::aws_client::{self, Conversation, client_second, login_with};
use crate::support::dns;
use crate::support::fixture::{ACCOUNT, Fixture, credentials};

/// Reasons that are not produced here, by their beginning, which the sources must contain, with
/// why.
const ONLY_READ: [(&str, &str); 4] = [
    ("the client's second message arrived", "it takes a minute; covered by sasl::tests and login::tests"),
    (
        "cannot connect to sts.amazonaws.com (A): Too many open files",
        "the text is the system's, and the server itself would fail, too",
    ),
    ("too many logins at once", "it needs more logins than request slots; covered by attacks/load.rs"),
    ("a defect of psmdb-aws-iam was caught", "covered by sts_faults::a_panic_is_one_failed_login, with a test build"),
];

/// The reason with everything masked that differs between logins.
fn masked(reason: &str) -> String {
    let mut text = reason.replace('\n', " ").split_whitespace().collect::<Vec<_>>().join(" ");
    for (pattern, word) in [
        (r"request id [0-9A-Za-z-]+", "request id R"),
        (r"access key id [0-9A-Za-z_]+", "access key id K"),
        (r"[0-9]+ ms", "N ms"),
        (r"clock is [0-9]+ seconds", "clock is N seconds"),
        (r"[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+:[0-9]+", "A"),
        (r"[0-9]{4}-[0-9]{2}-[0-9]{2}( [0-9:]{8} UTC)?", "DATE"),
        (r"[0-9]{12}", "N"),
    ] {
        text = Regex::new(pattern).unwrap().replace_all(&text, word).into_owned();
    }
    text
}

/// The number of denied logins for each reason in serverStatus.
fn counters(fixture: &Fixture) -> BTreeMap<String, i64> {
    let status = fixture.mongod.run_as_admin("admin", doc! { "serverStatus": 1 });
    let reasons =
        status.get_document("awsIam").unwrap().get_document("logins").unwrap().get_document("reasons").cloned();
    let of = |reasons: Document| reasons.into_iter().filter_map(|(name, value)| Some((name, Bson::as_i64(&value)?)));
    of(reasons.expect("serverStatus().awsIam.logins.reasons")).collect()
}

/// Starts a server that sends these bytes on every connection. Returns its address.
fn answering(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(bytes);
            thread::sleep(Duration::from_millis(20));
        }
    });
    address.to_string()
}

const TOKEN_HEADER: &str = "x-amz-security-token";

/// Makes one login fail.
type Failure = fn(&Fixture);

fn fails(fixture: &Fixture) {
    assert!(fixture.login(&fixture.user).is_err());
}

fn fails_as(fixture: &Fixture, change: impl FnOnce(&mut Identity)) {
    let mut identity = fixture.role.clone();
    change(&mut identity);
    assert!(fixture.login(&identity).is_err());
}

fn fails_signed(fixture: &Fixture, change: impl FnOnce(aws_client::Signer) -> aws_client::Signer) {
    assert!(login_with(fixture.mongod.port(), &credentials(&fixture.user), change).is_err());
}

fn fails_at_endpoint(fixture: &Fixture, endpoint: &str) {
    fixture.set_parameter("awsStsEndpoint", endpoint);
    fails(fixture);
    fixture.set_parameter("awsStsEndpoint", fixture.sts.endpoint());
}

fn fails_by_proxy(fixture: &Fixture, answer: &'static [u8]) {
    fails_at_proxy(fixture, &format!("http://{}", answering(answer)));
}

fn fails_at_proxy(fixture: &Fixture, proxy: &str) {
    fixture.set_parameter("awsStsProxy", proxy);
    fails(fixture);
    fixture.set_parameter("awsStsProxy", "");
}

fn fails_with_answer(fixture: &Fixture, answer: StsResponse) {
    fixture.sts.set_response(answer);
    fails(fixture);
    fixture.sts.set_response(StsResponse::Verified);
}

fn fails_with_service_error(fixture: &Fixture, error: ServiceError) {
    fixture.sts.set_failures(Failures::all(error));
    fails(fixture);
    fixture.sts.set_failures(None);
}

fn fails_by_network(fixture: &Fixture, fault: NetworkFault) {
    let way = local_sts::DelayProxy::start(fixture.sts.address()).unwrap();
    way.set_fault(fault);
    fails_at_endpoint(fixture, &way.endpoint());
}

fn html(status: u16) -> StsResponse {
    StsResponse::Raw(
        format!("HTTP/1.1 {status} X\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>").into_bytes(),
    )
}

/// Starts a TLS server on loopback with this certificate. Returns its endpoint and the issuer's
/// PEM.
fn showing(change: fn(&mut CertificateParams)) -> (String, String) {
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "Example TLS inspection");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let mut own = CertificateParams::new(["sts.amazonaws.com".to_owned()]).unwrap();
    own.distinguished_name.push(DnType::CommonName, "sts.amazonaws.com");
    change(&mut own);
    let (key, is_self_signed) = (KeyPair::generate().unwrap(), own.is_ca != IsCa::NoCa);
    let own = if is_self_signed { own.self_signed(&key) } else { own.signed_by(&key, &ca) }.unwrap();
    let issuer = if is_self_signed { own.pem() } else { ca.pem() };
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .unwrap();
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            // It fails once the client refuses the certificate.
            let _ = tls.complete_io(&mut stream);
        }
    });
    (endpoint, issuer)
}

/// Makes a login fail with this certificate of STS, whose issuer is trusted.
fn fails_by_certificate(fixture: &Fixture, change: fn(&mut CertificateParams)) {
    let (endpoint, issuer) = showing(change);
    let ca_file = fixture.ca_file();
    fs::write(&ca_file, issuer).unwrap();
    fixture.set_parameter("awsStsCAFile", ca_file.to_str().unwrap());
    fails_at_endpoint(fixture, &endpoint);
    fixture.trust(&[&fixture.sts]);
}

const FAILURES: [Failure; 45] = [
    // The client's message.
    |it| fails_signed(it, |signer| signer.time(SystemTime::now() - Duration::from_secs(1800))),
    |it| fails_signed(it, |signer| signer.time(SystemTime::now() + Duration::from_secs(1800))),
    |it| fails_signed(it, |signer| signer.region("eu-west-1")),
    |it| {
        let conversation = Conversation::start(it.mongod.port()).unwrap();
        assert!(conversation.finish(b"garbage").is_err());
    },
    |it| fails_signed(it, |signer| signer.without_header("x-mongodb-server-nonce")),
    |it| assert!(login_with(it.mongod.port(), &credentials(&it.role), |s| s.without_header(TOKEN_HEADER)).is_err()),
    |it| fails_as(it, |identity| identity.session_token = Some("a token with a space".to_owned())),
    |it| fails_as(it, |identity| identity.session_token = None),
    |it| fails_as(it, |identity| identity.access_key_id = it.user.access_key_id.clone()),
    // A change during the login.
    |it| {
        let conversation = Conversation::start(it.mongod.port()).unwrap();
        it.set_parameter("awsStsCAFile", "");
        it.trust(&[&it.sts]);
        let signed = conversation.signer(&credentials(&it.user)).sign();
        assert!(conversation.finish(&client_second(&signed)).is_err());
    },
    // The response of STS.
    |it| fails_as(it, |identity| identity.secret_access_key = "x".repeat(40)),
    |it| {
        let ahead = LocalSts::builder().identity(it.user.clone()).clock_offset(1200).start().unwrap();
        it.trust(&[&ahead]);
        fails_at_endpoint(it, &ahead.endpoint());
        it.trust(&[&it.sts]);
    },
    |it| fails_as(it, |identity| identity.access_key_id = "ASIAUNKNOWN000000000".to_owned()),
    |it| {
        let expired = Identity::assumed_role(ACCOUNT, "reporting", "old").expired();
        it.sts.add_identity(expired.clone());
        assert!(it.login(&expired).is_err());
    },
    |it| {
        it.set_parameter("awsIamAllowedAccounts", "210987654321");
        fails(it);
        it.set_parameter("awsIamAllowedAccounts", "");
    },
    |it| {
        let mut odd = it.user.clone();
        odd.arn = "arn:aws:iam::123456789012:role/shop".to_owned();
        fails_with_answer(it, StsResponse::AcceptAll(odd));
    },
    |it| {
        let body =
            "<ErrorResponse><Error><Code>IncompleteSignature</Code></Error><RequestId>0-1</RequestId></ErrorResponse>";
        let length = body.len();
        let head = format!("HTTP/1.1 400 X\r\nContent-Type: text/xml\r\nContent-Length: {length}\r\n\r\n");
        fails_with_answer(it, StsResponse::Raw((head + body).into_bytes()));
    },
    |it| fails_with_service_error(it, ServiceError::Throttling),
    |it| fails_with_service_error(it, ServiceError::InternalFailure),
    |it| fails_with_service_error(it, ServiceError::ServiceUnavailable),
    // A response from something other than STS, or an incomplete one.
    |it| fails_with_answer(it, html(403)),
    |it| fails_with_answer(it, html(302)),
    |it| fails_with_answer(it, html(200)),
    |it| fails_with_answer(it, StsResponse::Silence),
    |it| {
        fails_with_answer(
            it,
            StsResponse::Raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: 500\r\n\r\n<".to_vec()),
        )
    },
    // The connection to STS.
    |it| fails_at_endpoint(it, ""),
    |it| fails_at_endpoint(it, "https://vpce-0123.sts.eu-west-1.vpce.amazonaws.com"),
    |it| fails_at_proxy(it, "http://proxy.example.com:3128"),
    |it| fails_at_endpoint(it, "https://127.0.0.1:1"),
    |it| fails_at_proxy(it, "http://127.0.0.1:1"),
    |it| fails_by_network(it, NetworkFault::Unreachable),
    |it| fails_by_network(it, NetworkFault::BlackHole),
    |it| {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        fails_at_proxy(it, &format!("http://{}", silent.local_addr().unwrap()));
    },
    |it| fails_at_endpoint(it, &format!("https://{}", answering(b"SSH-2.0-OpenSSH_9.2\r\n"))),
    |it| fails_by_network(it, NetworkFault::Reset(Stage::BeforeResponse)),
    |it| fails_by_network(it, NetworkFault::Reset(Stage::ClientHello)),
    |it| fails_with_answer(it, StsResponse::Raw(vec![])),
    |it| {
        let (endpoint, _) = showing(|_| ());
        fails_at_endpoint(it, &endpoint);
    },
    |it| {
        let (endpoint, _) = showing(|own| own.is_ca = IsCa::ExplicitNoCa);
        fails_at_endpoint(it, &endpoint);
    },
    |it| fails_by_certificate(it, |own| own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
    |it| fails_by_certificate(it, |own| own.not_after = rcgen::date_time_ymd(2026, 1, 31)),
    |it| fails_by_certificate(it, |own| own.not_before = rcgen::date_time_ymd(2100, 1, 1)),
    |it| {
        let other = LocalSts::builder().certificate_name("captive.portal.example.com").start().unwrap();
        it.trust(&[&other]);
        fails_at_endpoint(it, &other.endpoint());
        it.trust(&[&it.sts]);
    },
    |it| fails_by_proxy(it, b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"),
    |it| fails_by_proxy(it, b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
];

#[test]
fn a_login_is_refused_with_the_reasons_that_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    // The machine's own DNS may take longer to report that a name does not exist.
    let dns = Dns::start().unwrap();
    dns.set_response(DnsResponse::NoSuchName);
    let fixture =
        Fixture::start_with(|builder| dns::asking(builder.parameter("awsStsTimeoutMS", 1000), &dns, folder.path()));
    fixture.assert_still_serves("the start");
    let mut produced: Vec<(String, String)> = Vec::new();
    for (count, failure) in FAILURES.iter().enumerate() {
        let before = counters(&fixture);
        failure(&fixture);
        let after = counters(&fixture);
        let counted: Vec<_> = after.iter().filter(|(name, value)| before[*name] != **value).collect();
        let reason = fixture.denial_reasons(count + 1).pop().unwrap();
        assert_eq!(counted.len(), 1, "{reason}: {counted:?}");
        let reason = reason.rsplit_once("MONGODB-AWS: ").expect("the reason").1.to_owned();
        produced.push((counted[0].0.clone(), reason));
    }
    // The failures that need another DNS response.
    let mut fails_by_dns = |answer: DnsResponse, endpoint: &str| {
        dns.set_response(answer);
        fails_at_endpoint(&fixture, endpoint);
        let reason = fixture.denial_reasons(produced.len() + 1).pop().unwrap();
        produced.push(("timeout".to_owned(), reason.rsplit_once("MONGODB-AWS: ").expect("the reason").1.to_owned()));
    };
    fails_by_dns(DnsResponse::Silence, "https://vpce-0123.sts.eu-west-1.vpce.amazonaws.com");
    let silent = TcpListener::bind("127.0.0.2:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let other = TcpListener::bind(("127.0.0.3", port)).expect("a port that is free at both addresses");
    let both = [&silent, &other].map(|listener| listener.local_addr().unwrap().ip()).to_vec();
    fails_by_dns(DnsResponse::Addresses(both), &format!("https://sts.example.com:{port}"));
    fixture.assert_still_serves("failures");
    // A machine without root certificates.
    let nowhere = folder.path().join("nowhere");
    let rootless = Fixture::start_with(|builder| builder.env("SSL_CERT_FILE", &nowhere).env("SSL_CERT_DIR", &nowhere));
    rootless.set_parameter("awsStsCAFile", "");
    fails(&rootless);
    assert_eq!(counters(&rootless)["untrustedTls"], 1);
    let reason = rootless.denial_reasons(1).pop().unwrap();
    produced.push(("untrustedTls".to_owned(), reason.rsplit_once("MONGODB-AWS: ").expect("the reason").1.to_owned()));
    let sources = sources();
    let mut shown: Vec<(String, String)> = Vec::new();
    for block in examples("text", "error") {
        let line = masked(&block.text);
        shown.push((block.detail.clone(), line.clone()));
        if ONLY_READ.iter().any(|(start, _)| line.starts_with(start)) {
            continue;
        }
        let there = produced.iter().any(|(counter, reason)| *counter == block.detail && masked(reason) == line);
        assert!(
            there,
            "{block}: no login was denied with this reason and counted as {}; there were\n{produced:#?}",
            block.detail
        );
    }
    for (counter, reason) in &produced {
        let there = shown.iter().any(|(name, line)| name == counter && *line == masked(reason));
        assert!(there, "docs/troubleshooting.md does not show {counter}: {reason}");
    }
    for (start, why) in ONLY_READ {
        let start = start.split(" sts.amazonaws.com (A)").next().unwrap();
        assert!(!why.is_empty() && sources.contains(start), "{start} is not in the sources");
    }
}

/// The table of counters in troubleshooting.md has each counter of reasons once.
#[test]
fn every_counter_of_reasons_has_a_place_to_read_about_it() {
    let fixture = Fixture::start();
    let counted: Vec<_> = counters(&fixture).into_keys().collect();
    let mut listed: Vec<_> = rows("docs/troubleshooting.md")
        .iter()
        .filter(|row| row.len() == 2 && row[0].starts_with('`') && row[1].starts_with('['))
        .flat_map(|row| quoted(&row[0]).into_iter().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    listed.sort();
    assert_eq!(listed, counted);
}

/// All Rust sources as one text, in which continued string literals are joined.
fn sources() -> String {
    let mut text = String::new();
    for file in crate::sources::rust_files(&super::root().join("src")) {
        text.push_str(&std::fs::read_to_string(file).unwrap());
    }
    Regex::new("\\\\\n *").unwrap().replace_all(&text, "").into_owned()
}
