//! Strangers who try to make STS seem down, with bytes that a device between the server and STS
//! refuses.

use std::thread;
use std::time::{Duration, Instant};

use local_sts::{Identity, LocalSts, StsResponse};

use crate::support::aws_client::{Conversation, Credentials, client_second};
use crate::support::fixture::{ACCOUNT, Fixture, STS_HOST, credentials};

const FALLBACK: &str = "sts.eu-west-1.amazonaws.com";

/// A server with a fallback host that works.
fn start() -> (Fixture, LocalSts) {
    let user = Identity::iam_user(ACCOUNT, "team/alice");
    let other = LocalSts::builder().host_name(FALLBACK).identity(user).start().unwrap();
    let fallback = format!("{FALLBACK}={}", other.endpoint());
    let fixture = Fixture::start_with(|builder| {
        builder.parameter("awsStsTimeoutMS", 1500).parameter("awsStsFallbackHosts", fallback.clone())
    });
    fixture.trust(&[&fixture.sts, &other]);
    fixture.assert_still_serves("the start");
    (fixture, other)
}

/// Logs in with an unknown key and a token of 16,000 bytes.
fn send_long_token(fixture: &Fixture) {
    let stranger = Credentials::new("ASIAXXXXXXXXXXXXXXXX", "x").with_token(&"t".repeat(16_000));
    let conversation = Conversation::start(fixture.mongod.port()).unwrap();
    let signed = conversation.signer(&stranger).sign_by_hand();
    assert!(conversation.finish(&client_second(&signed)).is_err(), "the key is unknown");
}

/// Returns how often the first host was checked: by a request without a signature.
fn checks(fixture: &Fixture) -> usize {
    fixture.sts.requests().iter().filter(|request| request.header("authorization").is_none()).count()
}

/// Begins logins, which cause checks, until there were so many.
fn wait_for_checks(fixture: &Fixture, expected: usize) {
    let until = Instant::now() + Duration::from_secs(30);
    while checks(fixture) < expected {
        assert!(Instant::now() < until, "only {} checks ran, not {expected}", checks(fixture));
        Conversation::start(fixture.mongod.port()).unwrap();
        thread::sleep(Duration::from_millis(20));
    }
}

fn lines(fixture: &Fixture, id: i32) -> usize {
    fixture.mongod.log_lines().iter().filter(|line| line["id"] == id).count()
}

#[test]
fn over_long_tokens_do_not_move_the_host() {
    for closes in [false, true] {
        let (fixture, _other) = start();
        fixture.sts.set_response(StsResponse::ShortTokensOnly { closes });
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..4).for_each(|_| send_long_token(&fixture)));
            }
        });
        wait_for_checks(&fixture, 1);
        // Its result is used a moment after its response.
        thread::sleep(Duration::from_millis(100));
        assert_eq!(Conversation::start(fixture.mongod.port()).unwrap().host, STS_HOST, "closes: {closes}");
        fixture.assert_still_serves("long tokens");
        assert_eq!((lines(&fixture, 88_000_004), lines(&fixture, 88_000_006)), (0, 0), "closes: {closes}");
        assert_eq!(fixture.sts_counter("fallbackSwitches"), 0);
    }
}

#[test]
fn a_connection_that_closes_on_a_long_token_closes_no_other() {
    const KEPT: usize = 6;
    let fixture = Fixture::start_with(|builder| builder.parameter("awsStsTimeoutMS", 3000));
    let log_in_at_once = |count: usize| {
        fixture.sts.set_processing_time(Duration::from_millis(500));
        thread::scope(|scope| {
            for _ in 0..count {
                scope.spawn(|| fixture.login(&fixture.user).expect("a login"));
            }
        });
        fixture.sts.set_processing_time(Duration::ZERO);
        fixture.sts.connection_count()
    };
    assert_eq!(log_in_at_once(KEPT), KEPT);
    fixture.sts.set_response(StsResponse::ShortTokensOnly { closes: true });
    send_long_token(&fixture);
    let opened = fixture.sts.connection_count();
    assert!(opened > KEPT, "the long token was not sent again");
    assert_eq!(log_in_at_once(KEPT - 1), opened, "kept connections of others are gone");
}

#[test]
fn a_block_page_in_place_of_sts_causes_one_failover_and_no_return() {
    let (fixture, _other) = start();
    let headers = vec![("Content-Type".to_owned(), "text/html".to_owned())];
    fixture.sts.set_response(StsResponse::Fixed { status: 403, headers, body: b"<html>blocked</html>".to_vec() });
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let conversation = Conversation::start(fixture.mongod.port()).unwrap();
        if conversation.host == FALLBACK {
            break;
        }
        assert!(Instant::now() < until, "no failover");
        let signed = conversation.signer(&credentials(&fixture.user)).sign();
        assert!(conversation.finish(&client_second(&signed)).is_err(), "a block page is no response of STS");
    }
    // Two checks of the first host later, each of which got the block page, nothing has changed.
    let checks = checks(&fixture) + 2;
    wait_for_checks(&fixture, checks);
    thread::sleep(Duration::from_millis(100));
    assert_eq!(Conversation::start(fixture.mongod.port()).unwrap().host, FALLBACK);
    assert_eq!((lines(&fixture, 88_000_004), lines(&fixture, 88_000_005)), (1, 0));
}
