//! An STS that is down, slow, moved, throttling or failing, and a network that loses what it
//! carries.
//!
//! A fault that passes costs no login. One that lasts denies only logins that need STS, in time;
//! and when it is over, the next login succeeds. What a hostile STS can do is in
//! `tests/attacks/hostile_sts.rs`.

use std::ops::Deref;
#[cfg(feature = "panic-on-demand")]
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use bson::doc;
use local_sts::{
    DelayProxy, Failures, Identity, IdleDrop, LocalSts, NetworkFault, RateLimit, ServiceError, Stage, StsResponse,
};

#[cfg(feature = "panic-on-demand")]
use crate::support::aws_client::client_first;
use crate::support::aws_client::{self, Conversation, client_second};
use crate::support::fixture::{ACCOUNT, Fixture, ROLE_USER_NAME, STS_HOST, credentials};
use crate::support::mongod::Builder;
#[cfg(feature = "panic-on-demand")]
use crate::support::wire::{WireClient, is_ok};

/// What a login may take beyond its timeout on two busy cores.
const SLACK: Duration = Duration::from_secs(3);

/// A server that reaches its STS through a network. Both can have faults.
struct Faulty {
    fixture: Fixture,
    network: DelayProxy,
}

impl Deref for Faulty {
    type Target = Fixture;

    fn deref(&self) -> &Fixture {
        &self.fixture
    }
}

impl Faulty {
    fn start() -> Self {
        Self::start_with(|builder| builder)
    }

    fn start_with(options: impl FnOnce(Builder) -> Builder) -> Self {
        let fixture = Fixture::start_with(options);
        let network = DelayProxy::start(fixture.sts.address()).expect("a proxy");
        fixture.set_parameter("awsStsEndpoint", network.endpoint());
        Self { fixture, network }
    }

    /// Closes the connections that are kept, and then makes one if `kept`.
    fn prepare(&self, kept: bool) {
        // Another value of a parameter closes them.
        let timeout = self.mongod.run_as_admin("admin", doc! { "getParameter": 1, "awsStsTimeoutMS": 1 });
        let timeout = timeout.get_i32("awsStsTimeoutMS").unwrap();
        self.set_parameter("awsStsTimeoutMS", timeout + 1);
        if kept {
            self.assert_still_serves("the start");
        }
    }

    fn end_faults(&self) {
        self.network.set_fault(NetworkFault::None);
        let sts = &self.sts;
        sts.set_failures(None);
        sts.set_rate_limit(None);
        sts.set_cut(None);
        sts.set_drip(None);
        sts.set_processing_time(Duration::ZERO);
    }
}

type SetFault = fn(&Faulty);

/// Faults that hit one connection or request, the first of its connection or a later one.
const SHORT_FAULTS: [(&str, SetFault); 13] = [
    ("a reset at once", |it| it.network.set_fault_times(NetworkFault::Reset(Stage::Accepted), 1)),
    ("a reset in the handshake", |it| it.network.set_fault_times(NetworkFault::Reset(Stage::ClientHello), 1)),
    ("a reset before the request", |it| it.network.set_fault_times(NetworkFault::Reset(Stage::BeforeRequest), 1)),
    ("a reset before the response", |it| it.network.set_fault_times(NetworkFault::Reset(Stage::BeforeResponse), 1)),
    ("a reset in the response", |it| it.network.set_fault_times(NetworkFault::ResetInResponse { after: 100 }, 1)),
    ("an end in the response", |it| it.network.set_fault_times(NetworkFault::CutResponse { after: 100 }, 1)),
    ("idle connections that are reset", |it| drop_idle(it, IdleDrop::Reset)),
    ("idle connections that are closed", |it| drop_idle(it, IdleDrop::Close)),
    ("idle connections that hang", |it| drop_idle(it, IdleDrop::BlackHole)),
    ("two internal failures", |it| it.sts.set_failures(Failures::next(2, ServiceError::InternalFailure))),
    ("unavailable, for a second", |it| {
        it.sts.set_failures(Failures::next(1, ServiceError::ServiceUnavailable).retry_after(1));
    }),
    ("throttled twice", |it| it.sts.set_failures(Failures::next(2, ServiceError::Throttling))),
    ("too many requests", |it| it.sts.set_failures(Failures::next(1, ServiceError::TooManyRequests))),
];

fn drop_idle(it: &Faulty, how: IdleDrop) {
    it.network.set_fault_times(NetworkFault::DropIdle { after: Duration::ZERO, how }, 1);
}

#[test]
fn one_fault_costs_no_login() {
    // A third of it is lost to a connection that hangs.
    let it = Faulty::start_with(|builder| builder.parameter("awsStsTimeoutMS", 4000));
    for (name, set) in SHORT_FAULTS {
        for kept in [false, true] {
            it.prepare(kept);
            set(&it);
            it.login(&it.user).unwrap_or_else(|reply| panic!("{name}, kept {kept}: {reply}"));
            it.end_faults();
        }
    }
    assert!(it.denial_reasons(0).is_empty());
    assert!(it.sts_counter("retries") >= 8);
}

#[test]
fn a_fault_that_ends_in_time_costs_no_login() {
    let it = Faulty::start();
    let faults: [(&str, SetFault); 6] = [
        ("nobody listens", |it| it.network.set_fault(NetworkFault::Refused)),
        ("a black hole", |it| it.network.set_fault(NetworkFault::BlackHole)),
        ("resets", |it| it.network.set_fault(NetworkFault::Reset(Stage::ClientHello))),
        ("incomplete responses", |it| it.sts.set_cut(Some(200))),
        ("an STS out of service", |it| {
            it.sts.set_failures(Failures::all(ServiceError::ServiceUnavailable));
        }),
        ("a throttling STS", |it| it.sts.set_failures(Failures::all(ServiceError::Throttling))),
    ];
    for (name, set) in faults {
        it.prepare(false);
        set(&it);
        thread::scope(|scope| {
            let login = scope.spawn(|| it.login(&it.user));
            thread::sleep(Duration::from_millis(250));
            assert!(!login.is_finished(), "{name}: the fault did nothing");
            it.end_faults();
            login.join().unwrap().unwrap_or_else(|reply| panic!("{name}: {reply}"));
        });
    }
}

#[test]
fn a_lasting_fault_denies_logins_in_time_and_delays_nothing_else() {
    const TIMEOUT: Duration = Duration::from_millis(600);
    let it = Faulty::start();
    it.create_scram_user();
    it.set_parameter("awsStsTimeoutMS", 600);
    let faults: [(&str, SetFault, &str); 9] = [
        (
            "nobody listens",
            |it| it.network.set_fault(NetworkFault::Refused),
            ": Connection refused (os error 111) after ",
        ),
        ("a black hole", |it| it.network.set_fault(NetworkFault::BlackHole), "TLS handshake with sts.amazonaws.com ("),
        (
            "an unreachable host",
            |it| it.network.set_fault(NetworkFault::Unreachable),
            "the TCP connection timed out after ",
        ),
        (
            "resets",
            |it| it.network.set_fault(NetworkFault::Reset(Stage::BeforeResponse)),
            " failed before the response, after ",
        ),
        ("a slow drip", |it| drip(it), "TLS handshake with sts.amazonaws.com ("),
        ("incomplete responses", |it| it.sts.set_cut(Some(300)), " closed before the response was complete"),
        ("a slow STS", |it| it.sts.set_processing_time(Duration::from_secs(3)), "no response from sts.amazonaws.com ("),
        (
            "an STS out of service",
            |it| it.sts.set_failures(Failures::all(ServiceError::ServiceUnavailable)),
            "STS returned 503 ServiceUnavailable",
        ),
        (
            "a throttling STS",
            |it| it.sts.set_failures(Failures::all(ServiceError::Throttling)),
            "STS is limiting the account's requests",
        ),
    ];
    for (count, (name, set, reason)) in faults.into_iter().enumerate() {
        it.prepare(false);
        set(&it);
        thread::scope(|scope| {
            let login = scope.spawn(|| {
                let begun = Instant::now();
                (it.login(&it.user).is_err(), begun.elapsed())
            });
            while !login.is_finished() {
                let begun = Instant::now();
                it.scram_login();
                it.mongod.run_as_admin("admin", doc! { "ping": 1 });
                assert!(begun.elapsed() < Duration::from_secs(1), "{name}: others waited for STS");
            }
            let (denied, took) = login.join().unwrap();
            assert!(denied, "{name}");
            assert!(took < TIMEOUT + SLACK, "{name}: {took:?}");
        });
        let reasons = it.denial_reasons(count + 1);
        assert!(reasons[count].contains(reason), "{name}: {}", reasons[count]);
        it.end_faults();
        it.assert_still_serves(name);
    }
    // Each outage has one log line when it begins and one when it ends; a throttling STS is
    // reached.
    let lines = it.mongod.log_lines();
    let count = |id: i32| lines.iter().filter(|line| line["id"] == id).count();
    let (began, ended) = (count(88_000_006), count(88_000_007));
    assert!(began == ended && (3..=8).contains(&began), "{began} began, {ended} ended");
}

/// Slow, but each byte comes soon after the previous one.
fn drip(it: &Faulty) {
    it.network.set_fault(NetworkFault::Drip { every: Duration::from_millis(20) });
}

#[test]
fn the_same_signed_request_is_sent_again_after_retry_after() {
    let it = Faulty::start();
    it.sts.set_failures(Failures::next(1, ServiceError::ServiceUnavailable).retry_after(1));
    let begun = Instant::now();
    it.assert_still_serves("a short pause");
    assert!(begun.elapsed() >= Duration::from_secs(1), "Retry-After was a second");
    let requests = it.sts.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!((&requests[0].raw_head, &requests[0].body), (&requests[1].raw_head, &requests[1].body));
    assert_eq!((it.sts_counter("requests"), it.sts_counter("retries")), (2, 1));
}

#[test]
fn all_logins_of_a_throttled_storm_succeed() {
    const CLIENTS: usize = 40;
    const LOGINS: usize = 10;
    let it = Faulty::start();
    it.sts.set_rate_limit(RateLimit::per_second(200.0).burst(50));
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                for _ in 0..LOGINS {
                    it.login(&it.user).expect("a login");
                }
            });
        }
    });
    let throttled = it.sts.throttled_count();
    assert!(throttled > 0, "there was no storm");
    // Without a pace, every client would be throttled many times.
    assert!(throttled < CLIENTS * LOGINS, "{throttled} throttled requests for {} logins", CLIENTS * LOGINS);
    assert_eq!(it.sts_counter("throttled"), i64::try_from(throttled).unwrap());
    assert!(it.denial_reasons(0).is_empty());
}

#[test]
fn an_account_that_is_throttled_slows_down_no_other_and_fails_early() {
    let it = Faulty::start();
    it.assert_still_serves("the start");
    let noisy = Identity::iam_user("210987654321", "noisy");
    it.sts.add_identity(noisy.clone());
    it.mongod.create_external_user(&noisy.arn, bson::bson!([]));
    it.sts.set_rate_limit(RateLimit::per_second(0.1).burst(1).retry_after(60));
    it.login(&noisy).expect("the first in its account");
    // The server knows for how long STS throttles this account.
    let begun = Instant::now();
    it.login(&noisy).expect_err("STS throttles for longer than a login may take");
    it.login(&noisy).expect_err("and the next one is denied without a request");
    assert!(begun.elapsed() < SLACK, "a login that could not succeed took its whole timeout: {:?}", begun.elapsed());
    let reasons = it.denial_reasons(2);
    assert!(reasons.iter().all(|reason| reason.contains("STS is limiting the account's requests")), "{reasons:?}");
    assert_eq!(it.sts.throttled_count(), 1);
    it.login(&it.user).expect("another account has its own pace");
}

#[test]
fn no_connection_precedes_the_first_login_and_later_ones_resume_its_session() {
    let it = Faulty::start();
    assert_eq!(it.sts.connection_count(), 0);
    it.assert_still_serves("the start");
    assert_eq!((it.sts.connection_count(), it.sts.resumed_count()), (1, 0));
    drop_idle(&it, IdleDrop::Reset);
    it.assert_still_serves("an idle connection that was reset");
    assert_eq!((it.sts.connection_count(), it.sts.resumed_count()), (2, 1));
}

#[test]
fn a_fallback_host_is_used_while_the_first_is_down() {
    const FALLBACK: &str = "sts.eu-west-1.amazonaws.com";
    let user = Identity::iam_user(ACCOUNT, "team/alice");
    let other = LocalSts::builder().host_name(FALLBACK).identity(user).start().unwrap();
    let it = Faulty::start_with(|builder| {
        builder.parameter("awsStsFallbackHosts", format!("{FALLBACK}={}", other.endpoint()))
    });
    other.add_identity(it.user.clone());
    it.trust(&[&it.sts, &other]);
    it.set_parameter("awsStsTimeoutMS", 2000);
    it.assert_still_serves("the start");

    it.prepare(false);
    let under_way = Conversation::start(it.mongod.port()).unwrap();
    assert_eq!(under_way.host, STS_HOST);
    it.network.set_fault(NetworkFault::Refused);
    it.login(&it.user).expect_err("its client signed for the host that is down");
    let port = it.mongod.port();
    let until = Instant::now() + Duration::from_secs(5);
    while Conversation::start(port).unwrap().host != FALLBACK {
        assert!(Instant::now() < until, "no failover");
        thread::sleep(Duration::from_millis(20));
    }
    aws_client::login(port, &credentials(&it.user), FALLBACK).expect("the other host");
    // The check before the failover was a request too.
    assert_eq!((other.request_count(), it.sts_counter("fallbackSwitches")), (2, 1));
    let line = |id: i32| it.mongod.wait_for_log(|line| line["id"] == id, Duration::from_secs(5));
    let away = line(88_000_004).expect("a line about it");
    assert_eq!((away["s"].as_str(), away["c"].as_str()), (Some("W"), Some("ACCESS")), "{away}");
    assert!(away["msg"].as_str().unwrap().contains(FALLBACK), "{away}");

    // A conversation that began before keeps the host that its client was given.
    it.network.set_fault(NetworkFault::None);
    let signed = under_way.signer(&credentials(&it.user)).sign();
    assert!(under_way.finish(&client_second(&signed)).is_ok());

    // When a login begins, the first host is checked, now and then.
    let until = Instant::now() + Duration::from_secs(20);
    while Conversation::start(port).unwrap().host != STS_HOST {
        assert!(Instant::now() < until, "the first host was not taken back");
        thread::sleep(Duration::from_millis(20));
    }
    it.assert_still_serves("the first host's return");
    let back = line(88_000_005).expect("a line about it");
    assert_eq!(back["s"], "I", "{back}");
    assert_eq!(it.sts_counter("fallbackSwitches"), 2);
    // The check was not signed.
    assert!(it.sts.requests().iter().any(|request| request.header("authorization").is_none()));
}

/// However often logins fail, with fallback hosts or without, and whether STS or a parameter ends
/// the outage.
#[test]
fn an_outage_of_all_hosts_is_one_line_when_it_begins_and_one_when_it_ends() {
    for fallback in ["", "sts.eu-west-1.amazonaws.com=https://127.0.0.1:1"] {
        let it = Faulty::start_with(|builder| builder.parameter("awsStsFallbackHosts", fallback));
        it.set_parameter("awsStsTimeoutMS", 200);
        let count = |id: i32| it.mongod.log_lines().iter().filter(|line| line["id"] == id).count();
        let line = |id: i32| it.mongod.wait_for_log(|line| line["id"] == id, Duration::from_secs(5));
        let fail = || it.login(&it.user).expect_err("there is no STS");
        for outages in 1..=2 {
            it.assert_still_serves("before an outage");
            it.prepare(false);
            it.network.set_fault(NetworkFault::Refused);
            let until = Instant::now() + Duration::from_secs(20);
            while count(88_000_006) < outages {
                assert!(Instant::now() < until, "no line about the outage with the other hosts {fallback:?}");
                fail();
            }
            (0..6).for_each(|_| drop(fail()));
            if outages == 1 {
                it.set_parameter("awsStsEndpoint", it.sts.endpoint());
            } else {
                it.network.set_fault(NetworkFault::None);
            }
            let until = Instant::now() + Duration::from_secs(20);
            while count(88_000_007) < outages {
                assert!(Instant::now() < until, "no line about its end with the other hosts {fallback:?}");
                let _ = it.login(&it.user);
            }
            it.network.set_fault(NetworkFault::None);
            it.set_parameter("awsStsEndpoint", it.network.endpoint());
        }
        let began = line(88_000_006).expect("a line about it");
        let hosts = [STS_HOST, fallback.split('=').next().unwrap()];
        assert!(hosts.iter().all(|host| began["msg"].as_str().unwrap().contains(host)), "{began}");
        assert_eq!([88_000_004, 88_000_006, 88_000_007].map(count), [0, 2, 2], "{fallback:?}");
    }
}

#[test]
fn an_sts_that_is_down_denies_logins_and_nothing_else_until_it_is_back() {
    let mut it = Faulty::start_with(|builder| builder.parameter("awsStsTimeoutMS", 500));
    let address = it.sts.address();
    it.set_parameter("awsStsEndpoint", it.sts.endpoint());
    it.assert_still_serves("the start");
    it.fixture.sts.stop();
    assert!(it.login(&it.user).is_err());
    let reasons = it.denial_reasons(1);
    let refused = format!("cannot connect to sts.amazonaws.com ({address}): Connection refused");
    assert!(reasons[0].contains(&refused), "{reasons:?}");
    it.mongod.run_as_admin("admin", doc! { "ping": 1 });
    it.fixture.sts.start_again().unwrap();
    it.assert_still_serves("an STS that was down");
}

/// Connections that are kept end with the process of an STS; those who log in must not notice.
#[test]
fn an_sts_that_was_restarted_is_reached_again() {
    let mut it = Faulty::start();
    it.set_parameter("awsStsEndpoint", it.sts.endpoint());
    for restarts in 0..3 {
        if restarts > 0 {
            assert_eq!(it.sts.open_connections(), 1, "no connection was kept");
            it.fixture.sts.stop();
            it.fixture.sts.start_again().unwrap();
        }
        it.assert_still_serves("a restart of STS");
        assert_eq!((it.sts.connection_count(), it.sts.request_count()), (restarts + 1, restarts + 1));
    }
    assert!(it.denial_reasons(0).is_empty());
}

#[test]
fn an_sts_that_moved_is_reached_at_its_new_address() {
    let it = Faulty::start();
    it.assert_still_serves("the start");
    let other = LocalSts::builder().identity(it.user.clone()).start().unwrap();
    it.trust(&[&other]);
    it.set_parameter("awsStsEndpoint", other.endpoint());
    it.assert_still_serves("a move of STS");
    assert_eq!((it.sts.request_count(), other.request_count()), (1, 1));
}

#[test]
fn a_silent_sts_denies_a_login_in_time_and_delays_nothing_else() {
    let it = Faulty::start();
    it.assert_still_serves("the start");
    it.set_parameter("awsStsTimeoutMS", 700);
    it.sts.set_response(StsResponse::Silence);
    thread::scope(|scope| {
        let slow = scope.spawn(|| {
            let start = Instant::now();
            (it.login(&it.user).is_err(), start.elapsed())
        });
        while !slow.is_finished() {
            let start = Instant::now();
            it.mongod.run_as_admin("admin", doc! { "ping": 1 });
            assert!(start.elapsed() < Duration::from_secs(1), "a command waited for STS");
            thread::sleep(Duration::from_millis(20));
        }
        let (denied, took) = slow.join().unwrap();
        assert!(denied);
        assert!(took >= Duration::from_millis(650) && took < Duration::from_secs(5), "{took:?}");
    });
    let reasons = it.denial_reasons(1);
    let slow = format!("no response from sts.amazonaws.com ({}) within ", it.network.address());
    assert!(reasons[0].contains(&slow), "{reasons:?}");
    it.sts.set_response(StsResponse::Verified);
    it.assert_still_serves("a silent STS");
}

#[test]
fn a_response_in_any_form_of_http_is_read() {
    let it = Faulty::start();
    let body = format!(
        "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>{}</Arn><UserId>A</UserId>\
         <Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>",
        it.user.arn
    );
    let length = body.len();
    let (first, second) = body.split_at(40);
    for (name, response) in [
        ("HTTP/1.0", format!("HTTP/1.0 200 OK\r\nContent-Type: text/xml\r\n\r\n{body}")),
        (
            "HTTP/1.0 with a length",
            format!("HTTP/1.0 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {length}\r\n\r\n{body}"),
        ),
        ("until the end", format!("HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nConnection: close\r\n\r\n{body}")),
        (
            "in chunks",
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
                first.len(),
                second.len()
            ),
        ),
        (
            "with lower-case names",
            format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/xml;charset=UTF-8\r\ncontent-length: {length}\r\n\r\n{body}"
            ),
        ),
    ] {
        it.sts.set_response(StsResponse::Raw(response.into_bytes()));
        assert!(it.login(&it.user).is_ok(), "{name}: {:?}", it.denial_reasons(1));
    }
}

#[test]
fn an_idle_connection_that_closes_when_it_is_used_costs_no_login() {
    let it = Faulty::start();
    it.sts.set_response(StsResponse::OncePerConnection { silent: false });
    for _ in 0..20 {
        it.assert_still_serves("a connection that was closed");
    }
    assert!(it.denial_reasons(0).is_empty());
    assert_eq!(it.sts.connection_count(), 20, "kept connections were not tried at all, or not given up");
}

#[test]
fn idle_connections_that_have_gone_silent_cost_no_login() {
    const KEPT: usize = 8;
    let it = Faulty::start_with(|builder| builder.parameter("awsStsTimeoutMS", 4000));
    thread::scope(|scope| {
        for _ in 0..KEPT {
            scope.spawn(|| it.login(&it.user).expect("a login"));
        }
    });
    let kept = it.sts.connection_count();
    it.sts.set_response(StsResponse::OncePerConnection { silent: true });
    it.login(&it.user).expect("a login over a new connection, after a kept one");
    // Nor are the other idle ones tried.
    it.sts.set_response(StsResponse::Verified);
    it.login(&it.user).expect("a login over the new connection");
    assert_eq!(it.sts.connection_count(), kept + 1, "the connections were not kept ones, or not given up");
}

/// A response for one user, and a surplus one for another before any request. Wherever the rest of
/// it is when the first login ends (in the socket, decrypted, or as half a TLS record in a buffer),
/// the next login must not get it.
#[test]
fn a_surplus_response_is_never_used_for_the_next_client() {
    let it = Faulty::start();
    it.assert_still_serves("the start");
    let response = |arn: &str, padding: usize| {
        let body = format!(
            "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>{arn}</Arn><UserId>A</UserId>\
             <Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>{}",
            " ".repeat(padding)
        );
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
    };
    // The reads of the TLS library have 4 KiB: the end of one falls somewhere into the second
    // record.
    for (round, padding) in (0..64).chain((3000..4200).step_by(16)).enumerate() {
        // Another value closes idle connections, so that each round begins with a new one.
        it.set_parameter("awsStsTimeoutMS", 20_000 + i32::try_from(round).unwrap());
        let surplus = vec![response(&it.user.arn, padding), response(&it.user.arn, 0)];
        it.sts.set_response(StsResponse::RawRecords(surplus));
        assert_eq!(it.login(&it.user).unwrap(), [format!("{}@$external", it.user.arn)]);
        it.sts.set_response(StsResponse::Verified);
        let next = it.login(&it.role).unwrap();
        assert_eq!(next, [format!("{ROLE_USER_NAME}@$external")], "with {padding} bytes of padding");
    }
}

/// The same, but the surplus comes when the first login is over and its connection is idle: only
/// the socket has it.
#[test]
fn a_late_surplus_response_is_never_used_for_the_next_client() {
    let it = Faulty::start();
    let body = format!(
        "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>{}</Arn><UserId>A</UserId>\
         <Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>",
        it.user.arn
    );
    let response = format!("HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let late = StsResponse::Slow {
        first: response.clone().into_bytes(),
        rest: response.into_bytes(),
        pause: Duration::from_micros(500),
    };
    for round in 0..3 {
        it.set_parameter("awsStsTimeoutMS", 20_000 + round);
        it.sts.set_response(late.clone());
        assert_eq!(it.login(&it.user).unwrap(), [format!("{}@$external", it.user.arn)]);
        // In the middle of it, or after all of it.
        thread::sleep(Duration::from_millis(if round == 0 { 30 } else { 800 }));
        it.sts.set_response(StsResponse::Verified);
        assert_eq!(it.login(&it.role).unwrap(), [format!("{ROLE_USER_NAME}@$external")]);
    }
}

/// Uses the build that cargo made for the tests, with the feature `panic-on-demand`.
#[cfg(feature = "panic-on-demand")]
#[test]
fn a_panic_is_one_failed_login() {
    let beside_this_test = std::env::current_exe().unwrap();
    let plugin: PathBuf = beside_this_test.with_file_name("libpsmdb_aws_iam.so");
    let it = Faulty::start_with(|builder| builder.plugin(plugin));
    for _ in 0..3 {
        let mut client = WireClient::connect(it.mongod.port()).unwrap();
        let reply = client.sasl_start(aws_client::MECHANISM, psmdb_aws_iam::login::PANIC_ON_DEMAND).unwrap();
        assert!(!is_ok(&reply), "{reply}");
        let reply = client.sasl_start(aws_client::MECHANISM, &client_first(&[7; 32])).unwrap();
        assert!(is_ok(&reply), "the connection is still good: {reply}");
    }
    let reasons = it.denial_reasons(3);
    assert!(reasons.iter().all(|reason| reason.contains("a defect of psmdb-aws-iam was caught")), "{reasons:?}");
    let status = it.mongod.run_as_admin("admin", doc! { "serverStatus": 1 });
    let logins = status.get_document("awsIam").and_then(|section| section.get_document("logins")).unwrap();
    for counters in ["denied", "reasons"] {
        assert_eq!(logins.get_document(counters).unwrap().get_i64("internal").unwrap(), 3, "{logins}");
    }
    it.assert_still_serves("panics");
    assert!(it.mongod.shutdown().success());
}
