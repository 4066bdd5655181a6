//! A network and an STS with faults. What passes costs no login; what lasts costs those logins only that need STS, in
//! time; and when it is over, the next login succeeds.

use std::thread;
use std::time::{Duration, Instant};

use bson::doc;
use local_sts::{DelayProxy, Failures, Identity, IdleDrop, LocalSts, NetworkFault, RateLimit, ServiceError, Stage};

use crate::support::aws_client::{self, Conversation, client_second};
use crate::support::fixture::{ACCOUNT, Fixture, STS_HOST, credentials};
use crate::support::mongod::Builder;

/// What a login may take beyond its time on two busy cores.
const SLACK: Duration = Duration::from_secs(3);

/// A server that reaches its STS through a network that can be broken.
struct Broken {
    fixture: Fixture,
    network: DelayProxy,
}

impl Broken {
    fn start() -> Self {
        Self::start_with(|builder| builder)
    }

    fn start_with(options: impl FnOnce(Builder) -> Builder) -> Self {
        let fixture = Fixture::start_with(options);
        let network = DelayProxy::start(fixture.sts.address()).expect("a proxy");
        fixture.set_parameter("awsStsEndpoint", network.endpoint());
        Self { fixture, network }
    }

    /// Has a connection that is kept, or none.
    fn prepare(&self, kept: bool) {
        // Another value drops the kept ones.
        let timeout = self.fixture.mongod.run_as_admin("admin", doc! { "getParameter": 1, "awsStsTimeoutMS": 1 });
        let timeout = timeout.get_i32("awsStsTimeoutMS").unwrap();
        self.fixture.set_parameter("awsStsTimeoutMS", timeout + 1);
        if kept {
            self.fixture.assert_still_serves("the start");
        }
    }

    fn end_faults(&self) {
        self.network.set_fault(NetworkFault::None);
        let sts = &self.fixture.sts;
        sts.set_failures(None);
        sts.set_rate_limit(None);
        sts.set_cut(None);
        sts.set_drip(None);
        sts.set_processing_time(Duration::ZERO);
    }
}

type SetFault = fn(&Broken);

/// Faults that hit one connection or request, whether it is the first of its connection or not.
const SHORT_FAULTS: [(&str, SetFault); 13] = [
    ("a reset at once", |it| it.network.set_fault_times(NetworkFault::Reset(Stage::Accepted), 1)),
    ("a reset in the handshake", |it| it.network.set_fault_times(NetworkFault::Reset(Stage::ClientHello), 1)),
    ("a reset before the request", |it| it.network.set_fault_times(NetworkFault::Reset(Stage::BeforeRequest), 1)),
    ("a reset before the answer", |it| it.network.set_fault_times(NetworkFault::Reset(Stage::BeforeResponse), 1)),
    ("a reset in the answer", |it| it.network.set_fault_times(NetworkFault::ResetInResponse { after: 100 }, 1)),
    ("an end in the answer", |it| it.network.set_fault_times(NetworkFault::CutResponse { after: 100 }, 1)),
    ("kept ones that are reset", |it| kept(it, IdleDrop::Reset)),
    ("kept ones that are closed", |it| kept(it, IdleDrop::Close)),
    ("kept ones that hang", |it| kept(it, IdleDrop::BlackHole)),
    ("two internal failures", |it| it.fixture.sts.set_failures(Failures::next(2, ServiceError::InternalFailure))),
    ("unavailable, for a second", |it| {
        it.fixture.sts.set_failures(Failures::next(1, ServiceError::ServiceUnavailable).retry_after(1));
    }),
    ("throttled twice", |it| it.fixture.sts.set_failures(Failures::next(2, ServiceError::Throttling))),
    ("too many requests", |it| it.fixture.sts.set_failures(Failures::next(1, ServiceError::TooManyRequests))),
];

fn kept(it: &Broken, how: IdleDrop) {
    it.network.set_fault_times(NetworkFault::DropIdle { after: Duration::ZERO, how }, 1);
}

#[test]
fn one_fault_costs_no_login() {
    let it = Broken::start();
    for (name, set) in SHORT_FAULTS {
        for kept in [false, true] {
            it.prepare(kept);
            set(&it);
            it.fixture.login(&it.fixture.user).unwrap_or_else(|reply| panic!("{name}, kept {kept}: {reply}"));
            it.end_faults();
        }
    }
    assert!(it.fixture.denial_reasons(0).is_empty());
    assert!(it.fixture.sts_counter("retries") >= 8);
}

#[test]
fn trouble_that_ends_in_time_costs_no_login() {
    let it = Broken::start();
    let faults: [(&str, SetFault); 6] = [
        ("nobody listens", |it| it.network.set_fault(NetworkFault::Refused)),
        ("a black hole", |it| it.network.set_fault(NetworkFault::BlackHole)),
        ("resets", |it| it.network.set_fault(NetworkFault::Reset(Stage::ClientHello))),
        ("half answers", |it| it.fixture.sts.set_cut(Some(200))),
        ("an STS out of service", |it| {
            it.fixture.sts.set_failures(Failures::all(ServiceError::ServiceUnavailable));
        }),
        ("a throttling STS", |it| it.fixture.sts.set_failures(Failures::all(ServiceError::Throttling))),
    ];
    for (name, set) in faults {
        it.prepare(false);
        set(&it);
        thread::scope(|scope| {
            let login = scope.spawn(|| it.fixture.login(&it.fixture.user));
            thread::sleep(Duration::from_millis(500));
            assert!(!login.is_finished(), "{name}: the fault did nothing");
            it.end_faults();
            login.join().unwrap().unwrap_or_else(|reply| panic!("{name}: {reply}"));
        });
    }
}

#[test]
fn lasting_trouble_denies_logins_in_time_and_holds_up_nobody_else() {
    const TIMEOUT: Duration = Duration::from_millis(1200);
    let it = Broken::start();
    it.fixture.create_scram_user();
    it.fixture.set_parameter("awsStsTimeoutMS", 1200);
    let faults: [(&str, SetFault, &str); 9] = [
        (
            "nobody listens",
            |it| it.network.set_fault(NetworkFault::Refused),
            ": Connection refused (os error 111) after ",
        ),
        ("a black hole", |it| it.network.set_fault(NetworkFault::BlackHole), "TLS handshake with sts.amazonaws.com ("),
        ("no way", |it| it.network.set_fault(NetworkFault::Unreachable), "no answer to the TCP connection within "),
        (
            "resets",
            |it| it.network.set_fault(NetworkFault::Reset(Stage::BeforeResponse)),
            " broke before the response, after ",
        ),
        ("a slow drip", |it| drip(it), "TLS handshake with sts.amazonaws.com ("),
        ("half answers", |it| it.fixture.sts.set_cut(Some(300)), " closed before the response was complete"),
        (
            "a thoughtful STS",
            |it| it.fixture.sts.set_processing_time(Duration::from_secs(3)),
            "no response from sts.amazonaws.com (",
        ),
        (
            "an STS out of service",
            |it| it.fixture.sts.set_failures(Failures::all(ServiceError::ServiceUnavailable)),
            "STS answered 503 ServiceUnavailable",
        ),
        (
            "a throttling STS",
            |it| it.fixture.sts.set_failures(Failures::all(ServiceError::Throttling)),
            "STS is limiting the account's requests",
        ),
    ];
    for (count, (name, set, reason)) in faults.into_iter().enumerate() {
        it.prepare(false);
        set(&it);
        thread::scope(|scope| {
            let login = scope.spawn(|| {
                let begun = Instant::now();
                (it.fixture.login(&it.fixture.user).is_err(), begun.elapsed())
            });
            while !login.is_finished() {
                let begun = Instant::now();
                it.fixture.scram_login();
                it.fixture.mongod.run_as_admin("admin", doc! { "ping": 1 });
                assert!(begun.elapsed() < Duration::from_secs(1), "{name}: others waited for STS");
            }
            let (denied, took) = login.join().unwrap();
            assert!(denied, "{name}");
            assert!(took < TIMEOUT + SLACK, "{name}: {took:?}");
        });
        let reasons = it.fixture.denial_reasons(count + 1);
        assert!(reasons[count].contains(reason), "{name}: {}", reasons[count]);
        it.end_faults();
        it.fixture.assert_still_serves(name);
    }
    // The log says of each trouble once that it begins and once that it ends; an STS that throttles is reached.
    let lines = it.fixture.mongod.log_lines();
    let count = |id: i32| lines.iter().filter(|line| line["id"] == id).count();
    let (began, ended) = (count(88_000_006), count(88_000_007));
    assert!(began == ended && (3..=8).contains(&began), "{began} began, {ended} ended");
}

/// Slow, but each byte comes soon after the one before.
fn drip(it: &Broken) {
    it.network.set_fault(NetworkFault::Drip { every: Duration::from_millis(20) });
}

#[test]
fn the_same_signed_request_is_sent_again_when_sts_says() {
    let fixture = Fixture::start();
    fixture.sts.set_failures(Failures::next(1, ServiceError::ServiceUnavailable).retry_after(1));
    let begun = Instant::now();
    fixture.assert_still_serves("a short pause");
    assert!(begun.elapsed() >= Duration::from_secs(1), "STS wanted to be left alone for a second");
    let requests = fixture.sts.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!((&requests[0].raw_head, &requests[0].body), (&requests[1].raw_head, &requests[1].body));
    assert_eq!((fixture.sts_counter("requests"), fixture.sts_counter("retries")), (2, 1));
}

#[test]
fn a_throttled_storm_logs_everybody_in() {
    const CLIENTS: usize = 40;
    const LOGINS: usize = 10;
    let fixture = Fixture::start();
    fixture.sts.set_rate_limit(RateLimit::per_second(200.0).burst(50));
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                for _ in 0..LOGINS {
                    fixture.login(&fixture.user).expect("a login");
                }
            });
        }
    });
    let throttled = fixture.sts.throttled_count();
    assert!(throttled > 0, "there was no storm");
    // Without a pace, every client would be told again and again.
    assert!(throttled < CLIENTS * LOGINS, "{throttled} throttled answers for {} logins", CLIENTS * LOGINS);
    assert_eq!(fixture.sts_counter("throttled"), i64::try_from(throttled).unwrap());
    assert!(fixture.denial_reasons(0).is_empty());
}

#[test]
fn an_account_that_is_throttled_slows_down_no_other_and_fails_early() {
    let fixture = Fixture::start();
    fixture.assert_still_serves("the start");
    let noisy = Identity::iam_user("210987654321", "noisy");
    fixture.sts.add_identity(noisy.clone());
    fixture.mongod.create_external_user(&noisy.arn, bson::bson!([]));
    fixture.sts.set_rate_limit(RateLimit::per_second(0.1).burst(1).retry_after(60));
    fixture.login(&noisy).expect("the first in its account");
    // The limit is each account's own; the other's is lifted, and the noisy one goes on being throttled by the server.
    let begun = Instant::now();
    fixture.login(&noisy).expect_err("STS wants to be left alone for longer than a login can take");
    fixture.login(&noisy).expect_err("and the next one is told so without a question");
    assert!(begun.elapsed() < SLACK, "a login that could not succeed took its whole time: {:?}", begun.elapsed());
    let reasons = fixture.denial_reasons(2);
    assert!(reasons.iter().all(|reason| reason.contains("STS is limiting the account's requests")), "{reasons:?}");
    assert_eq!(fixture.sts.throttled_count(), 1);
    fixture.login(&fixture.user).expect("another account has a pace of its own");
}

#[test]
fn nothing_is_asked_before_the_first_login_and_later_connections_resume_its_session() {
    let it = Broken::start();
    assert_eq!(it.fixture.sts.connection_count(), 0);
    it.fixture.assert_still_serves("the start");
    assert_eq!((it.fixture.sts.connection_count(), it.fixture.sts.resumed_count()), (1, 0));
    kept(&it, IdleDrop::Reset);
    it.fixture.assert_still_serves("a kept connection that was reset");
    assert_eq!((it.fixture.sts.connection_count(), it.fixture.sts.resumed_count()), (2, 1));
}

#[test]
fn another_host_stands_in_while_the_first_does_not_answer() {
    const STAND_IN: &str = "sts.eu-west-1.amazonaws.com";
    let user = Identity::iam_user(ACCOUNT, "team/alice");
    let other = LocalSts::builder().host_name(STAND_IN).identity(user).start().unwrap();
    let it = Broken::start_with(|builder| {
        builder.parameter("awsStsFallbackHosts", format!("{STAND_IN}={}", other.endpoint()))
    });
    other.add_identity(it.fixture.user.clone());
    it.fixture.trust(&[&it.fixture.sts, &other]);
    it.fixture.set_parameter("awsStsTimeoutMS", 2000);
    it.fixture.assert_still_serves("the start");

    it.prepare(false);
    let under_way = Conversation::start(it.fixture.mongod.port()).unwrap();
    assert_eq!(under_way.host, STS_HOST);
    it.network.set_fault(NetworkFault::Refused);
    it.fixture.login(&it.fixture.user).expect_err("its client signed for the host that is down");
    let port = it.fixture.mongod.port();
    let until = Instant::now() + Duration::from_secs(5);
    while Conversation::start(port).unwrap().host != STAND_IN {
        assert!(Instant::now() < until, "no failover");
        thread::sleep(Duration::from_millis(20));
    }
    aws_client::login(port, &credentials(&it.fixture.user), STAND_IN).expect("the other host");
    // The check before the failover was a request too.
    assert_eq!((other.request_count(), it.fixture.sts_counter("fallbackSwitches")), (2, 1));
    let line = |id: i32| it.fixture.mongod.wait_for_log(|line| line["id"] == id, Duration::from_secs(5));
    let away = line(88_000_004).expect("a line about it");
    assert_eq!((away["s"].as_str(), away["c"].as_str()), (Some("W"), Some("ACCESS")), "{away}");
    assert!(away["msg"].as_str().unwrap().contains(STAND_IN), "{away}");

    // A conversation that began before keeps the host that its client was told.
    it.network.set_fault(NetworkFault::None);
    let signed = under_way.signer(&credentials(&it.fixture.user)).sign();
    assert!(under_way.finish(&client_second(&signed)).is_ok());

    // When a login begins, the first host is asked whether it answers, now and then.
    let until = Instant::now() + Duration::from_secs(20);
    while Conversation::start(port).unwrap().host != STS_HOST {
        assert!(Instant::now() < until, "the first host was not taken back");
        thread::sleep(Duration::from_millis(200));
    }
    it.fixture.assert_still_serves("the first host's return");
    let back = line(88_000_005).expect("a line about it");
    assert_eq!(back["s"], "I", "{back}");
    assert_eq!(it.fixture.sts_counter("fallbackSwitches"), 2);
    // Who asked whether it answers signed nothing.
    assert!(it.fixture.sts.requests().iter().any(|request| request.header("authorization").is_none()));
}

/// However often logins fail, with other hosts or without; and whether STS comes back or a parameter is the repair.
#[test]
fn an_outage_of_all_hosts_is_one_line_when_it_begins_and_one_when_it_ends() {
    for fallback in ["", "sts.eu-west-1.amazonaws.com=https://127.0.0.1:1"] {
        let it = Broken::start_with(|builder| builder.parameter("awsStsFallbackHosts", fallback));
        it.fixture.set_parameter("awsStsTimeoutMS", 500);
        let count = |id: i32| it.fixture.mongod.log_lines().iter().filter(|line| line["id"] == id).count();
        let line = |id: i32| it.fixture.mongod.wait_for_log(|line| line["id"] == id, Duration::from_secs(5));
        let fail = || it.fixture.login(&it.fixture.user).expect_err("there is no STS");
        for outages in 1..=2 {
            it.fixture.assert_still_serves("before an outage");
            it.prepare(false);
            it.network.set_fault(NetworkFault::Refused);
            let until = Instant::now() + Duration::from_secs(20);
            while count(88_000_006) < outages {
                assert!(Instant::now() < until, "no line about the outage with the other hosts {fallback:?}");
                fail();
            }
            (0..6).for_each(|_| drop(fail()));
            if outages == 1 {
                it.fixture.set_parameter("awsStsEndpoint", it.fixture.sts.endpoint());
            } else {
                it.network.set_fault(NetworkFault::None);
            }
            let until = Instant::now() + Duration::from_secs(20);
            while count(88_000_007) < outages {
                assert!(Instant::now() < until, "no line about its end with the other hosts {fallback:?}");
                let _ = it.fixture.login(&it.fixture.user);
            }
            it.network.set_fault(NetworkFault::None);
            it.fixture.set_parameter("awsStsEndpoint", it.network.endpoint());
        }
        let began = line(88_000_006).expect("a line about it");
        let hosts = [STS_HOST, fallback.split('=').next().unwrap()];
        assert!(hosts.iter().all(|host| began["msg"].as_str().unwrap().contains(host)), "{began}");
        assert_eq!([88_000_004, 88_000_006, 88_000_007].map(count), [0, 2, 2], "{fallback:?}");
    }
}
