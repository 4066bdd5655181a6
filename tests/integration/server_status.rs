//! The section `awsIam` of `serverStatus`.

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use bson::{Bson, Document, doc};
use local_sts::{Failures, Identity, ServiceError, StsResponse};

use crate::support::aws_client::{self, Conversation};
use crate::support::fixture::{ACCOUNT, Fixture, credentials};
use crate::support::mongod::Mongod;

/// Long enough for a number to change, and no longer than a failing test should take.
const LIMIT: Duration = Duration::from_secs(10);

fn section(mongod: &Mongod) -> Document {
    let status = mongod.run_as_admin("admin", doc! { "serverStatus": 1 });
    status.get_document("awsIam").expect("the section").clone()
}

/// Returns the number at a path such as `sts.connections.open`.
fn number(section: &Document, path: &str) -> i64 {
    let mut names = path.split('.').peekable();
    let mut document = section;
    while let Some(name) = names.next() {
        if names.peek().is_none() {
            return document.get_i64(name).unwrap_or_else(|error| panic!("{path}: {error}"));
        }
        document = document.get_document(name).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    unreachable!("a path has a name");
}

/// Returns all names of a document, in order, with those of the documents in it.
fn names(document: &Document) -> Vec<String> {
    let with_inner = |(name, value): (&String, &Bson)| match value {
        Bson::Document(inner) => names(inner).into_iter().map(|inner| format!("{name}.{inner}")).collect(),
        _ => vec![name.clone()],
    };
    document.iter().flat_map(with_inner).collect()
}

fn wait_for(mongod: &Mongod, path: &str, expected: i64) {
    let until = Instant::now() + LIMIT;
    loop {
        let found = number(&section(mongod), path);
        if found == expected {
            return;
        }
        assert!(Instant::now() < until, "{path} is {found}, not {expected}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Returns a response of STS that refuses with this code.
fn refusal(status: u16, code: &str) -> StsResponse {
    let body = format!("<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>").into_bytes();
    StsResponse::Fixed { status, headers: vec![("Content-Type".to_owned(), "text/xml".to_owned())], body }
}

/// Returns the server ABI that the plugin is to find in each series.
fn abi_of(version: &str) -> &str {
    match version.split_once('.').expect("a version").0 {
        "4" => "4.4",
        "5" => "5.0",
        "6" => "6.0",
        other => panic!("no server {other}.x is known"),
    }
}

#[test]
fn the_section_has_these_fields_and_begins_at_zero() {
    let before = SystemTime::now() - Duration::from_secs(60);
    let fixture = Fixture::start();
    let section = section(&fixture.mongod);
    let histogram = |name: &str| {
        let bounds = [
            "1ms", "2ms", "5ms", "10ms", "20ms", "50ms", "100ms", "200ms", "500ms", "1s", "2s", "5s", "10s", "30s",
            "60s",
        ];
        let buckets = bounds.map(|bound| format!("latency.{name}.atMost{bound}"));
        [format!("latency.{name}.count"), format!("latency.{name}.totalMicros")].into_iter().chain(buckets)
    };
    let expected = "version serverAbi nativeMechanismReplaced stsHost stsHostSince logins.started logins.confirmed \
        logins.notReported logins.denied.malformedMessage logins.denied.refusedBySts \
        logins.denied.accountNotAllowed logins.denied.throttled logins.denied.stsUnavailable \
        logins.denied.internal logins.reasons.brokenMessage logins.reasons.clockSkew logins.reasons.wrongRegion \
        logins.reasons.expiredConversation logins.reasons.tokenMismatch logins.reasons.unknownKey \
        logins.reasons.wrongSignature logins.reasons.expiredToken logins.reasons.otherRefusal \
        logins.reasons.cannotLogIn logins.reasons.accountNotAllowed logins.reasons.throttled \
        logins.reasons.queueTimeout logins.reasons.nameNotFound logins.reasons.noConnection \
        logins.reasons.untrustedTls logins.reasons.timeout logins.reasons.serverError \
        logins.reasons.invalidResponse logins.reasons.internal sts.requests sts.retries sts.throttled \
        sts.fallbackSwitches sts.answers.status2xx sts.answers.status3xx sts.answers.status4xx \
        sts.answers.status5xx sts.connections.opened sts.connections.reused sts.connections.open sts.inFlight \
        sts.queued";
    let expected: Vec<String> = expected.split_whitespace().map(str::to_owned).collect();
    let expected: Vec<String> = expected.into_iter().chain(histogram("logins")).chain(histogram("sts")).collect();
    assert_eq!(names(&section), expected);
    for path in expected.iter().filter(|path| path.contains('.')) {
        assert_eq!(number(&section, path), 0, "{path}");
    }
    assert_eq!(section.get_str("version").unwrap(), env!("CARGO_PKG_VERSION"));
    assert_eq!(section.get_str("serverAbi").unwrap(), abi_of(fixture.mongod.version()));
    assert!(!section.get_bool("nativeMechanismReplaced").unwrap());
    assert_eq!(section.get_str("stsHost").unwrap(), "sts.amazonaws.com");
    let since = section.get_datetime("stsHostSince").unwrap().to_system_time();
    assert!(since > before && since <= SystemTime::now(), "{since:?}");
}

/// A failure, how to cause it, and the kind and the reason that count it.
type Row = (&'static str, fn(&Fixture), &'static str, &'static str);

#[test]
fn every_failure_is_counted_by_its_kind_and_its_reason() {
    fn login(fixture: &Fixture) {
        fixture.login(&fixture.user).unwrap_err();
    }
    fn login_when(fixture: &Fixture, response: StsResponse) {
        fixture.sts.set_response(response);
        login(fixture);
        fixture.sts.set_response(StsResponse::Verified);
    }
    fn login_with(fixture: &Fixture, name: &str, value: &str) {
        let before = fixture.mongod.run_as_admin("admin", doc! { "getParameter": 1, name: 1 });
        fixture.set_parameter(name, value);
        login(fixture);
        fixture.set_parameter(name, before.get_str(name).unwrap());
    }
    let rows: [Row; 19] = [
        ("garbage", |fixture| finish_with(fixture, |_| b"garbage".to_vec()), "malformedMessage", "brokenMessage"),
        (
            "a clock that is late",
            |fixture| {
                let late = SystemTime::now() - Duration::from_secs(1200);
                finish_with(fixture, |signer| aws_client::client_second(&signer.time(late).sign()));
            },
            "malformedMessage",
            "clockSkew",
        ),
        (
            "another region",
            |fixture| finish_with(fixture, |signer| aws_client::client_second(&signer.region("eu-west-1").sign())),
            "malformedMessage",
            "wrongRegion",
        ),
        (
            "a change of the trusted certificates while it is under way",
            |fixture| {
                finish_with(fixture, |signer| {
                    fixture.set_parameter("awsStsCAFile", "");
                    fixture.trust(&[&fixture.sts]);
                    aws_client::client_second(&signer.sign())
                });
            },
            "malformedMessage",
            "expiredConversation",
        ),
        (
            "temporary credentials without a token",
            |fixture| {
                fixture.login(&Identity { session_token: None, ..fixture.role.clone() }).unwrap_err();
            },
            "malformedMessage",
            "tokenMismatch",
        ),
        (
            "a long-term key with a token",
            |fixture| {
                fixture
                    .login(&Identity { session_token: Some("left-over".to_owned()), ..fixture.user.clone() })
                    .unwrap_err();
            },
            "malformedMessage",
            "tokenMismatch",
        ),
        (
            "a key that STS does not know",
            |fixture| drop(fixture.login(&Identity::iam_user(ACCOUNT, "nobody")).unwrap_err()),
            "refusedBySts",
            "unknownKey",
        ),
        (
            "a wrong secret",
            |fixture| {
                let secret_access_key = "x".repeat(40);
                fixture.login(&Identity { secret_access_key, ..fixture.user.clone() }).unwrap_err();
            },
            "refusedBySts",
            "wrongSignature",
        ),
        (
            "a token that is too old",
            |fixture| {
                let expired = Identity::assumed_role(ACCOUNT, "reporting", "late").expired();
                fixture.sts.add_identity(expired.clone());
                fixture.login(&expired).unwrap_err();
            },
            "refusedBySts",
            "expiredToken",
        ),
        ("another code", |fixture| login_when(fixture, refusal(403, "AccessDenied")), "refusedBySts", "otherRefusal"),
        (
            "a principal that is no user",
            |fixture| {
                let arn = format!("arn:aws:iam::{ACCOUNT}:group/all");
                login_when(fixture, StsResponse::AcceptAll(Identity { arn, ..fixture.user.clone() }));
            },
            "refusedBySts",
            "cannotLogIn",
        ),
        (
            "an account that is not listed",
            |fixture| login_with(fixture, "awsIamAllowedAccounts", "210987654321"),
            "accountNotAllowed",
            "accountNotAllowed",
        ),
        (
            "a name that is not there",
            |fixture| {
                let endpoint = fixture.sts.endpoint();
                fixture.set_parameter("awsStsEndpoint", "https://sts.invalid");
                login(fixture);
                fixture.set_parameter("awsStsEndpoint", endpoint);
            },
            "stsUnavailable",
            "nameNotFound",
        ),
        (
            "a connection that breaks",
            |fixture| login_when(fixture, StsResponse::Raw(Vec::new())),
            "stsUnavailable",
            "noConnection",
        ),
        ("no root", |fixture| login_with(fixture, "awsStsCAFile", ""), "stsUnavailable", "untrustedTls"),
        ("silence", |fixture| login_when(fixture, StsResponse::Silence), "stsUnavailable", "timeout"),
        (
            "an error of STS",
            |fixture| {
                fixture.sts.set_failures(Failures::all(ServiceError::InternalFailure));
                login(fixture);
                fixture.sts.set_failures(None);
            },
            "stsUnavailable",
            "serverError",
        ),
        (
            "a page",
            |fixture| {
                let headers = vec![("Content-Type".to_owned(), "text/html".to_owned())];
                login_when(fixture, StsResponse::Fixed { status: 200, headers, body: b"<p>hello".to_vec() });
            },
            "stsUnavailable",
            "invalidResponse",
        ),
        // The last: the account has a pace then.
        ("throttling", |fixture| login_when(fixture, refusal(400, "Throttling")), "throttled", "throttled"),
    ];
    let fixture = Fixture::start_with(|builder| builder.parameter("awsStsTimeoutMS", 600));
    for (name, fail, kind, reason) in rows {
        let before = section(&fixture.mongod);
        fail(&fixture);
        let after = section(&fixture.mongod);
        let grown: Vec<String> = names(&after)
            .into_iter()
            .filter(|path| path.starts_with("logins.") && number(&after, path) > number(&before, path))
            .collect();
        let expected = ["logins.started", &format!("logins.denied.{kind}"), &format!("logins.reasons.{reason}")];
        assert_eq!(grown, expected, "{name}");
        assert_eq!(number(&after, "latency.logins.count") - number(&before, "latency.logins.count"), 1, "{name}");
    }
    assert!(fixture.mongod.is_alive());
}

/// Begins a login and ends it with this message, which must be refused.
fn finish_with(fixture: &Fixture, message: impl FnOnce(aws_client::Signer) -> Vec<u8>) {
    let conversation = Conversation::start(fixture.mongod.port()).unwrap();
    let message = message(conversation.signer(&credentials(&fixture.user)));
    assert!(conversation.finish(&message).is_err());
}

#[test]
fn logins_connections_responses_and_latencies_are_counted() {
    let fixture = Fixture::start();
    fixture.sts.set_processing_time(Duration::from_millis(30));
    fixture.login(&fixture.user).unwrap();
    fixture.login(&fixture.role).unwrap();
    let stranger = Identity::iam_user(ACCOUNT, "without/user");
    fixture.sts.add_identity(stranger.clone());
    fixture.login(&stranger).unwrap_err();

    let section = section(&fixture.mongod);
    let numbers = |paths: &[&str]| paths.iter().map(|path| number(&section, path)).collect::<Vec<_>>();
    assert_eq!(numbers(&["logins.started", "logins.confirmed"]), [3, 3]);
    // 4.4 does not report successful logins to the plugin.
    let not_reported = if fixture.mongod.version().starts_with("4.4") { 0 } else { 1 };
    assert_eq!(number(&section, "logins.notReported"), not_reported);
    assert_eq!(numbers(&["sts.requests", "sts.answers.status2xx", "sts.answers.status4xx"]), [3, 3, 0]);
    assert_eq!(numbers(&["sts.connections.opened", "sts.connections.reused", "sts.connections.open"]), [1, 2, 1]);
    assert_eq!(numbers(&["sts.inFlight", "sts.queued"]), [0, 0]);
    for latency in ["logins", "sts"] {
        let at = |name: &str| number(&section, &format!("latency.{latency}.{name}"));
        assert_eq!((at("count"), at("atMost20ms"), at("atMost60s")), (3, 0, 3), "{latency}");
        assert!(at("totalMicros") >= 3 * 30_000, "{latency}: {}", at("totalMicros"));
    }
    // New logins open new connections, and the old ones are closed.
    fixture.set_parameter("awsStsTimeoutMS", 9000);
    wait_for(&fixture.mongod, "sts.connections.open", 0);
}

#[test]
fn requests_in_flight_and_waiting_logins_are_shown() {
    let fixture = Fixture::start_with(|builder| builder.parameter("awsStsTimeoutMS", 8000));
    fixture.login(&fixture.user).unwrap();
    thread::scope(|scope| {
        fixture.sts.set_processing_time(Duration::from_secs(3600));
        let login = scope.spawn(|| fixture.login(&fixture.user));
        wait_for(&fixture.mongod, "sts.inFlight", 1);
        fixture.sts.set_processing_time(Duration::ZERO);
        login.join().unwrap().unwrap();
        assert_eq!(number(&section(&fixture.mongod), "sts.inFlight"), 0);

        // After a throttled request, the next login of that account has to wait.
        fixture.sts.set_failures(Failures::next(1, ServiceError::Throttling).retry_after(2));
        let first = scope.spawn(|| fixture.login(&fixture.user));
        wait_for(&fixture.mongod, "sts.throttled", 1);
        let second = scope.spawn(|| fixture.login(&fixture.user));
        wait_for(&fixture.mongod, "sts.queued", 1);
        first.join().unwrap().unwrap();
        second.join().unwrap().unwrap();
    });
    let section = section(&fixture.mongod);
    assert_eq!((number(&section, "sts.inFlight"), number(&section, "sts.queued")), (0, 0));
    assert_eq!((number(&section, "sts.answers.status4xx"), number(&section, "sts.retries")), (1, 1));
}

#[test]
fn the_host_in_use_is_shown_with_the_time_since_when() {
    let mongod = Mongod::builder().parameter("awsStsFallbackHosts", "sts.eu-west-1.amazonaws.com").start();
    let since = |section: &Document| *section.get_datetime("stsHostSince").unwrap();
    let before = section(&mongod);
    thread::sleep(Duration::from_millis(5));
    mongod.run_as_admin("admin", doc! { "setParameter": 1, "awsStsHost": "sts.eu-west-1.amazonaws.com" });
    let after = section(&mongod);
    assert_eq!(after.get_str("stsHost").unwrap(), "sts.eu-west-1.amazonaws.com");
    assert!(since(&after) > since(&before));
    assert_eq!(since(&section(&mongod)), since(&after));
}

#[test]
fn the_section_can_be_left_out() {
    let mongod = Mongod::builder().start();
    let status = mongod.run_as_admin("admin", doc! { "serverStatus": 1, "awsIam": 0 });
    assert!(!status.contains_key("awsIam"));
}
