//! When STS is down, slow or moved. What a hostile one can do is in `tests/attacks/hostile_sts.rs`.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use bson::doc;
use local_sts::{LocalSts, StsResponse};

use crate::support::aws_client::{self, client_first};
use crate::support::fixture::{Fixture, ROLE_USER_NAME};
use crate::support::wire::{WireClient, is_ok};

#[test]
fn an_sts_that_is_down_denies_logins_and_nothing_else() {
    let fixture = Fixture::start();
    fixture.assert_still_serves("the start");
    let port_of_nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    fixture.set_parameter("awsStsEndpoint", format!("https://127.0.0.1:{port_of_nobody}"));
    assert!(fixture.login(&fixture.user).is_err());
    let reasons = fixture.denial_reasons(1);
    let refused = format!("cannot connect to sts.amazonaws.com (127.0.0.1:{port_of_nobody}): Connection refused");
    assert!(reasons[0].contains(&refused), "{reasons:?}");
    fixture.mongod.run_as_admin("admin", doc! { "ping": 1 });
    fixture.set_parameter("awsStsEndpoint", fixture.sts.endpoint());
    fixture.assert_still_serves("an STS that was down");
}

#[test]
fn an_sts_that_was_restarted_is_reached_again() {
    let fixture = Fixture::start();
    fixture.assert_still_serves("the start");
    // The pooled connection dies with its server; the next login must not suffer from it.
    let address = fixture.sts.address();
    let Fixture { mongod, sts, user, .. } = &fixture;
    assert!(mongod.is_alive() && sts.address() == address);
    let other = LocalSts::builder().identity(user.clone()).start().unwrap();
    fixture.trust(&[&other]);
    fixture.set_parameter("awsStsEndpoint", other.endpoint());
    fixture.assert_still_serves("a move of STS");
    assert_eq!(other.request_count(), 1);
}

#[test]
fn an_sts_that_is_silent_denies_a_login_in_time_and_holds_up_nobody_else() {
    let fixture = Fixture::start();
    fixture.assert_still_serves("the start");
    fixture.set_parameter("awsStsTimeoutMS", 1500);
    fixture.sts.set_response(StsResponse::Silence);
    thread::scope(|scope| {
        let slow = scope.spawn(|| {
            let start = Instant::now();
            (fixture.login(&fixture.user).is_err(), start.elapsed())
        });
        while !slow.is_finished() {
            let start = Instant::now();
            fixture.mongod.run_as_admin("admin", doc! { "ping": 1 });
            assert!(start.elapsed() < Duration::from_secs(1), "a command waited for STS");
            thread::sleep(Duration::from_millis(20));
        }
        let (denied, took) = slow.join().unwrap();
        assert!(denied);
        assert!(took >= Duration::from_millis(1400) && took < Duration::from_secs(5), "{took:?}");
    });
    let reasons = fixture.denial_reasons(1);
    let slow = format!("no response from sts.amazonaws.com ({}) within ", fixture.sts.address());
    assert!(reasons[0].contains(&slow), "{reasons:?}");
    fixture.sts.set_response(StsResponse::Verified);
    fixture.assert_still_serves("a silent STS");
}

#[test]
fn an_answer_in_any_form_of_http_is_read() {
    let fixture = Fixture::start();
    let body = format!(
        "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>{}</Arn><UserId>A</UserId>\
         <Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>",
        fixture.user.arn
    );
    let length = body.len();
    let (first, second) = body.split_at(40);
    for (name, answer) in [
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
        fixture.sts.set_response(StsResponse::Raw(answer.into_bytes()));
        assert!(fixture.login(&fixture.user).is_ok(), "{name}: {:?}", fixture.denial_reasons(1));
    }
}

#[test]
fn a_kept_connection_that_dies_when_it_is_used_costs_no_login() {
    let fixture = Fixture::start();
    fixture.sts.set_response(StsResponse::OncePerConnection { silent: false });
    for _ in 0..20 {
        fixture.assert_still_serves("a connection that died");
    }
    assert!(fixture.denial_reasons(0).is_empty());
    assert_eq!(fixture.sts.connection_count(), 20, "kept connections were not tried at all, or not given up");
}

#[test]
fn kept_connections_that_have_gone_silent_cost_no_login() {
    const KEPT: usize = 8;
    let fixture = Fixture::start_with(|builder| builder.parameter("awsStsTimeoutMS", 4000));
    thread::scope(|scope| {
        for _ in 0..KEPT {
            scope.spawn(|| fixture.login(&fixture.user).expect("a login"));
        }
    });
    let kept = fixture.sts.connection_count();
    fixture.sts.set_response(StsResponse::OncePerConnection { silent: true });
    fixture.login(&fixture.user).expect("a login over a new connection, after a kept one");
    // Nor is another of those that were kept with it tried.
    fixture.sts.set_response(StsResponse::Verified);
    fixture.login(&fixture.user).expect("a login over the new connection");
    assert_eq!(fixture.sts.connection_count(), kept + 1, "the connections were not kept ones, or not given up");
}

/// An answer for one user, and a surplus one for another that nobody has asked for yet. Wherever the rest of it is when
/// the first login ends - in the socket, decrypted, or as half a TLS record in a buffer - the next login must not get it.
#[test]
fn a_surplus_answer_is_never_taken_for_the_next_client_s() {
    let fixture = Fixture::start();
    fixture.assert_still_serves("the start");
    let answer = |arn: &str, padding: usize| {
        let body = format!(
            "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>{arn}</Arn><UserId>A</UserId>\
             <Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>{}",
            " ".repeat(padding)
        );
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
    };
    // The reads of the TLS library have 4 KiB: the end of one falls somewhere into the second record.
    for (round, padding) in (0..64).chain((3000..4200).step_by(16)).enumerate() {
        // Another value drops the pool, so that each round begins with a connection of its own.
        fixture.set_parameter("awsStsTimeoutMS", 20_000 + i32::try_from(round).unwrap());
        let surplus = vec![answer(&fixture.user.arn, padding), answer(&fixture.user.arn, 0)];
        fixture.sts.set_response(StsResponse::RawRecords(surplus));
        assert_eq!(fixture.login(&fixture.user).unwrap(), [format!("{}@$external", fixture.user.arn)]);
        fixture.sts.set_response(StsResponse::Verified);
        let next = fixture.login(&fixture.role).unwrap();
        assert_eq!(next, [format!("{ROLE_USER_NAME}@$external")], "with {padding} bytes of padding");
    }
}

/// The same, but the surplus comes when the first login is over and its connection is kept: only the socket knows of it.
#[test]
fn a_surplus_answer_that_comes_late_is_never_taken_for_the_next_client_s() {
    let fixture = Fixture::start();
    let body = format!(
        "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>{}</Arn><UserId>A</UserId>\
         <Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>",
        fixture.user.arn
    );
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let late = StsResponse::Slow {
        first: answer.clone().into_bytes(),
        rest: answer.into_bytes(),
        pause: Duration::from_micros(500),
    };
    for round in 0..3 {
        fixture.set_parameter("awsStsTimeoutMS", 20_000 + round);
        fixture.sts.set_response(late.clone());
        assert_eq!(fixture.login(&fixture.user).unwrap(), [format!("{}@$external", fixture.user.arn)]);
        // In the middle of it, or after all of it.
        thread::sleep(Duration::from_millis(if round == 0 { 30 } else { 800 }));
        fixture.sts.set_response(StsResponse::Verified);
        assert_eq!(fixture.login(&fixture.role).unwrap(), [format!("{ROLE_USER_NAME}@$external")]);
    }
}

/// Uses the build that cargo made for the tests, with the feature `panic-on-demand`.
#[cfg(feature = "panic-on-demand")]
#[test]
fn a_panic_is_one_failed_login() {
    let beside_this_test = std::env::current_exe().unwrap();
    let plugin: PathBuf = beside_this_test.with_file_name("libpsmdb_aws_iam.so");
    let fixture = Fixture::start_with(|builder| builder.plugin(plugin));
    for _ in 0..3 {
        let mut client = WireClient::connect(fixture.mongod.port()).unwrap();
        let reply = client.sasl_start(aws_client::MECHANISM, psmdb_aws_iam::login::PANIC_ON_DEMAND).unwrap();
        assert!(!is_ok(&reply), "{reply}");
        let reply = client.sasl_start(aws_client::MECHANISM, &client_first(&[7; 32])).unwrap();
        assert!(is_ok(&reply), "the connection is still good: {reply}");
    }
    let reasons = fixture.denial_reasons(3);
    assert!(reasons.iter().all(|reason| reason.contains("a defect of psmdb-aws-iam was caught")), "{reasons:?}");
    let status = fixture.mongod.run_as_admin("admin", doc! { "serverStatus": 1 });
    let logins = status.get_document("awsIam").and_then(|section| section.get_document("logins")).unwrap();
    for counters in ["denied", "reasons"] {
        assert_eq!(logins.get_document(counters).unwrap().get_i64("internal").unwrap(), 3, "{logins}");
    }
    fixture.assert_still_serves("panics");
    assert!(fixture.mongod.shutdown().success());
}
