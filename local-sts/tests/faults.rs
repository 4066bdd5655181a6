//! The faults of the service: each can be switched while it runs; without it, the next request is
//! served.

mod support;

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use local_sts::{Failures, Identity, LocalSts, RateLimit, ServiceError, StsResponse};
use support::{ACCOUNT, Client, Request};

fn world() -> (LocalSts, Identity, Client) {
    let alice = Identity::iam_user(ACCOUNT, "alice");
    let sts = LocalSts::builder().identity(alice.clone()).start().unwrap();
    let client = Client::connect(&sts);
    (sts, alice, client)
}

#[test]
fn an_account_over_its_rate_is_throttled_and_others_are_not() {
    let (sts, alice, mut client) = world();
    let colleague = Identity::assumed_role(ACCOUNT, "app", "s");
    let stranger = Identity::iam_user("999999999999", "bob");
    sts.add_identity(colleague.clone());
    sts.add_identity(stranger.clone());
    // No token is added while the test runs.
    sts.set_rate_limit(RateLimit::per_second(0.0).burst(2));
    assert_eq!(client.send(&Request::signed_by(&alice)).status, 200);
    // A request with a wrong signature takes no token.
    let mut forged = alice.clone();
    forged.secret_access_key = "guessed".to_owned();
    client.send(&Request::signed_by(&forged)).assert_refused(403, "SignatureDoesNotMatch");
    assert_eq!(client.send(&Request::signed_by(&colleague)).status, 200);
    let throttled = client.send(&Request::signed_by(&alice));
    throttled.assert_refused(400, "Throttling");
    assert_eq!(throttled.element("Message"), "Rate exceeded");
    assert_eq!(throttled.element("Type"), "Sender");
    assert_eq!(throttled.header("Retry-After"), None);
    client.send(&Request::signed_by(&colleague)).assert_refused(400, "Throttling");
    assert_eq!(client.send(&Request::signed_by(&stranger)).status, 200);
    assert_eq!(sts.throttled_count(), 2);

    sts.set_rate_limit(RateLimit::per_second(0.0).burst(0).retry_after(30));
    let json = client.send(&Request::signed_by(&alice).with("Accept", "application/json"));
    assert_eq!((json.status, json.header("Retry-After")), (400, Some("30")));
    let json: serde_json::Value = serde_json::from_str(&json.body).unwrap();
    assert_eq!(json["Error"]["Code"], "Throttling");
    assert_eq!(json["Error"]["Message"], "Rate exceeded");

    sts.set_rate_limit(None);
    assert_eq!(client.send(&Request::signed_by(&alice)).status, 200);
    assert_eq!((sts.throttled_count(), sts.request_count()), (3, 8));
}

#[test]
fn the_service_fails_as_configured_and_keeps_the_connection() {
    let (sts, alice, mut client) = world();
    let request = Request::signed_by(&alice);
    for (error, status, code) in [
        (ServiceError::InternalFailure, 500, "InternalFailure"),
        (ServiceError::ServiceUnavailable, 503, "ServiceUnavailable"),
        (ServiceError::TooManyRequests, 429, "TooManyRequestsException"),
        (ServiceError::Throttling, 400, "Throttling"),
    ] {
        sts.set_failures(Failures::next(1, error).retry_after(2));
        let response = client.send(&request);
        response.assert_refused(status, code);
        assert_eq!(response.header("Retry-After"), Some("2"));
        assert_eq!(client.send(&request).status, 200);
    }
    sts.set_failures(Failures::every(3, ServiceError::InternalFailure));
    let statuses: Vec<u16> = (0..6).map(|_| client.send(&request).status).collect();
    assert_eq!(statuses, [200, 200, 500, 200, 200, 500]);
    sts.set_failures(Failures::all(ServiceError::ServiceUnavailable));
    sts.set_response(StsResponse::AcceptAll(alice.clone()));
    assert_eq!(client.send(&request).status, 503);
    sts.set_failures(None);
    assert_eq!(client.send(&request).status, 200);
    assert_eq!((sts.failure_count(), sts.throttled_count(), sts.connection_count()), (7, 0, 1));
}

#[test]
fn requests_are_processed_in_parallel_and_a_stop_does_not_wait_for_them() {
    const TIME: Duration = Duration::from_millis(100);
    let (sts, alice, mut client) = world();
    let request = Request::signed_by(&alice);
    client.send(&request);
    assert_eq!(sts.max_in_flight(), 1);
    sts.set_processing_time(TIME);
    let start = Instant::now();
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(&sts)).collect();
    thread::scope(|scope| {
        for client in &mut clients {
            scope.spawn(|| assert_eq!(client.send(&request).status, 200));
        }
    });
    let took = start.elapsed();
    assert!(took >= TIME, "{took:?}");
    assert_eq!((sts.max_in_flight(), sts.open_connections()), (4, 5));
    // A response arrives a moment before the server counts it as done.
    while sts.in_flight() > 0 {
        thread::sleep(Duration::from_millis(1));
    }
    sts.set_processing_time(Duration::ZERO);
    sts.reset_max_in_flight();
    client.send(&request);
    assert_eq!(sts.max_in_flight(), 1);
    // A shorter time applies to a request that is being processed.
    sts.set_processing_time(Duration::from_secs(3600));
    client.write(&request.to_bytes());
    while sts.in_flight() == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    sts.set_processing_time(Duration::ZERO);
    assert_eq!(client.read_response().status, 200);
    // A request that is being processed does not delay a stop.
    sts.set_processing_time(Duration::from_secs(3600));
    client.write(&request.to_bytes());
    while sts.in_flight() == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    let start = Instant::now();
    drop(sts);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn a_response_is_cut_between_bytes_of_http() {
    let (sts, alice, mut client) = world();
    let request = Request::signed_by(&alice);
    sts.set_cut(Some(300));
    client.write(&request.to_bytes());
    let part = client.read_to_end().unwrap();
    assert_eq!(part.len(), 300);
    assert!(part.starts_with(b"HTTP/1.1 200 OK\r\n"));
    sts.set_cut(Some(0));
    let error = Client::connect(&sts).try_send(&request).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    sts.set_cut(None);
    assert_eq!(Client::connect(&sts).send(&request).status, 200);
}

#[test]
fn a_response_drips_byte_by_byte() {
    let (sts, alice, mut client) = world();
    let request = Request::signed_by(&alice);
    sts.set_drip(Some(Duration::from_micros(200)));
    let start = Instant::now();
    assert_eq!(client.send(&request).status, 200);
    // More than 400 bytes.
    assert!(start.elapsed() >= Duration::from_millis(80), "{:?}", start.elapsed());
    sts.set_drip(None);
    assert_eq!(client.send(&request).status, 200);
}
