//! The server over TLS, with requests signed as MongoDB's drivers sign them.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use local_sts::{Identity, LocalSts, StsResponse};
use support::{ACCOUNT, BODY, Client, Request, Response};

fn start(identities: &[&Identity]) -> LocalSts {
    let builder =
        identities.iter().fold(LocalSts::builder(), |builder, identity| builder.identity((*identity).clone()));
    builder.start().unwrap()
}

fn ask(sts: &LocalSts, request: &Request) -> Response {
    Client::connect(sts).send(request)
}

#[test]
fn a_user_is_named() {
    let alice = Identity::iam_user(ACCOUNT, "team/alice");
    let sts = start(&[&alice]);
    let response = ask(&sts, &Request::signed_by(&alice));
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.header("Content-Type"), Some("text/xml"));
    assert_eq!(response.element("Arn"), "arn:aws:iam::123456789012:user/team/alice");
    assert_eq!(response.element("UserId"), alice.user_id);
    assert_eq!(response.element("Account"), ACCOUNT);
    assert_eq!(Some(response.element("RequestId")), response.header("x-amzn-RequestId"));
    assert!(response.header("Date").unwrap().ends_with(" GMT"));
}

#[test]
fn the_signed_headers_are_those_of_the_drivers() {
    let role = Identity::assumed_role(ACCOUNT, "app", "s");
    assert!(Request::signed_by(&role).header("Authorization").contains(
        "SignedHeaders=content-length;content-type;host;x-amz-date;x-amz-security-token;\
         x-mongodb-gs2-cb-flag;x-mongodb-server-nonce, "
    ));
}

#[test]
fn a_role_session_is_named() {
    let role = Identity::assumed_role(ACCOUNT, "app", "i-0abc");
    let response = ask(&start(&[&role]), &Request::signed_by(&role));
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.element("Arn"), "arn:aws:sts::123456789012:assumed-role/app/i-0abc");
}

#[test]
fn a_client_that_accepts_json_gets_it() {
    let alice = Identity::iam_user(ACCOUNT, "alice");
    let sts = start(&[&alice]);
    let request = Request::signed_by(&alice).with("Accept", "application/json");
    let response = ask(&sts, &request);
    assert_eq!(response.header("Content-Type"), Some("application/json"));
    let json: serde_json::Value = serde_json::from_str(&response.body).unwrap();
    assert_eq!(json["GetCallerIdentityResponse"]["GetCallerIdentityResult"]["Arn"], alice.arn);

    let json: serde_json::Value = serde_json::from_str(&ask(&sts, &request.without("Authorization")).body).unwrap();
    assert_eq!(json["Error"]["Code"], "MissingAuthenticationToken");
    assert_eq!(json["Error"]["Type"], "Sender");
}

#[test]
fn a_wrong_secret_and_an_unknown_key_have_different_errors() {
    let alice = Identity::iam_user(ACCOUNT, "alice");
    let sts = start(&[&alice]);
    let mut forged = Identity::iam_user(ACCOUNT, "alice");
    let unknown = ask(&sts, &Request::signed_by(&forged));
    unknown.assert_refused(403, "InvalidClientTokenId");
    assert_eq!(unknown.element("Message"), "The security token included in the request is invalid.");

    forged.access_key_id = alice.access_key_id;
    let wrong = ask(&sts, &Request::signed_by(&forged));
    wrong.assert_refused(403, "SignatureDoesNotMatch");
    assert!(wrong.element("Message").starts_with("The request signature we calculated does not match"));
}

#[test]
fn a_key_of_another_identity_is_refused() {
    let alice = Identity::iam_user(ACCOUNT, "alice");
    let bob = Identity::iam_user(ACCOUNT, "bob");
    let sts = start(&[&alice, &bob]);
    let request = Request::signed_by(&alice);
    let authorization = request.header("Authorization").replace(&alice.access_key_id, &bob.access_key_id);
    ask(&sts, &request.with("Authorization", &authorization)).assert_refused(403, "SignatureDoesNotMatch");
}

#[test]
fn a_changed_header_or_body_is_refused() {
    let alice = Identity::iam_user(ACCOUNT, "alice");
    let sts = start(&[&alice]);
    let good = Request::signed_by(&alice);
    ask(&sts, &good.clone().with("X-MongoDB-Server-Nonce", "AAAA")).assert_refused(403, "SignatureDoesNotMatch");
    ask(&sts, &good.clone().with("X-MongoDB-GS2-CB-Flag", "y")).assert_refused(403, "SignatureDoesNotMatch");
    ask(&sts, &good.clone().with("X-Amz-New", "1")).assert_refused(403, "SignatureDoesNotMatch");
    // The same form, of the same length, in other bytes.
    let mut body = good.clone();
    body.body = b"Version=2011-06-15&Action=GetCallerIdentity".to_vec();
    assert_eq!(body.body.len(), BODY.len());
    ask(&sts, &body).assert_refused(403, "SignatureDoesNotMatch");
    assert_eq!(ask(&sts, &good).status, 200);
}

#[test]
fn a_token_must_be_present_right_and_unexpired() {
    let role = Identity::assumed_role(ACCOUNT, "app", "s");
    let expired = Identity::assumed_role(ACCOUNT, "app", "s").expired();
    let sts = start(&[&role, &expired]);

    let without = Identity { session_token: None, ..role.clone() };
    ask(&sts, &Request::signed_by(&without)).assert_refused(403, "InvalidClientTokenId");
    let other = Identity { session_token: Some("other".to_owned()), ..role.clone() };
    ask(&sts, &Request::signed_by(&other)).assert_refused(403, "InvalidClientTokenId");
    ask(&sts, &Request::signed_by(&role).without("X-Amz-Security-Token")).assert_refused(403, "SignatureDoesNotMatch");
    ask(&sts, &Request::signed_by(&expired)).assert_refused(403, "ExpiredToken");
}

#[test]
fn a_date_too_far_from_the_clock_of_sts_is_refused() {
    let alice = Identity::iam_user(ACCOUNT, "alice");
    let sts = start(&[&alice]);
    let at = |time| ask(&sts, &Request::signed(&alice, "sts.amazonaws.com", "us-east-1", time));
    let now = SystemTime::now();
    let (near, far) = (Duration::from_secs(14 * 60), Duration::from_secs(16 * 60));
    assert_eq!(at(now - near).status, 200);
    assert_eq!(at(now + near).status, 200);
    let late = at(now - far);
    late.assert_refused(403, "SignatureDoesNotMatch");
    assert!(late.element("Message").starts_with("Signature expired: "), "{late:?}");
    let early = at(now + far);
    early.assert_refused(403, "SignatureDoesNotMatch");
    assert!(early.element("Message").starts_with("Signature not yet current: "), "{early:?}");

    for offset in [-3600, 3600] {
        let sts = LocalSts::builder().identity(alice.clone()).clock_offset(offset).start().unwrap();
        ask(&sts, &Request::signed_by(&alice)).assert_refused(403, "SignatureDoesNotMatch");
    }
}

#[test]
fn a_region_must_be_that_of_the_host() {
    let alice = Identity::iam_user(ACCOUNT, "alice");
    let frankfurt = "sts.eu-central-1.amazonaws.com";
    let sts = LocalSts::builder()
        .host_name("sts.amazonaws.com")
        .host_name(frankfurt)
        .identity(alice.clone())
        .start()
        .unwrap();
    for (host, region, status) in [
        ("sts.amazonaws.com", "us-east-1", 200),
        ("sts.amazonaws.com", "eu-central-1", 403),
        (frankfurt, "eu-central-1", 200),
        (frankfurt, "us-east-1", 403),
        ("sts.eu-west-1.amazonaws.com", "eu-west-1", 421),
    ] {
        let name = if status == 421 { frankfurt } else { host };
        let mut client = Client::dial(sts.address(), sts.ca_pem(), name).unwrap();
        let response = client.send(&Request::signed(&alice, host, region, SystemTime::now()));
        assert_eq!(response.status, status, "{host} {region}: {response:?}");
        if status == 403 {
            assert!(response.element("Message").contains("valid region"), "{response:?}");
        }
    }
}

#[test]
fn one_connection_serves_many_requests() {
    let alice = Identity::iam_user(ACCOUNT, "alice");
    let sts = start(&[&alice]);
    let mut client = Client::connect(&sts);
    for _ in 0..5 {
        assert_eq!(client.send(&Request::signed_by(&alice)).status, 200);
    }
    client.send(&Request::signed_by(&alice).without("Authorization")).assert_refused(403, "MissingAuthenticationToken");
    assert_eq!(client.send(&Request::signed_by(&alice)).status, 200);
    assert_eq!((sts.connection_count(), sts.request_count()), (1, 7));

    // Pipelined requests are served in order; the last one ends the connection.
    let last: &[u8] = b"POST / HTTP/1.1\r\nConnection: close\r\n\r\n";
    client.write(&[&Request::signed_by(&alice).to_bytes(), last].concat());
    let text = String::from_utf8(client.read_to_end().unwrap()).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    assert_eq!(text.matches("HTTP/1.1 ").count(), 2, "{text}");
    assert_eq!((sts.connection_count(), sts.request_count()), (1, 9));
}

#[test]
fn requests_are_recorded_as_they_were_received() {
    let role = Identity::assumed_role(ACCOUNT, "app", "s");
    let sts = start(&[]);
    let request = Request::signed_by(&role).with("aCCept", "text/xml");
    ask(&sts, &request);
    let recorded = sts.requests();
    let [recorded] = recorded.as_slice() else { panic!("{recorded:?}") };
    assert_eq!((recorded.method.as_str(), recorded.target.as_str()), ("POST", "/"));
    assert_eq!(recorded.headers, request.headers);
    assert_eq!(recorded.header("accept"), Some("text/xml"));
    assert_eq!(recorded.body, BODY.as_bytes());
    assert_eq!([recorded.raw_head.as_slice(), &recorded.body].concat(), request.to_bytes());

    let shown = format!("{recorded:?}");
    assert!(!shown.contains(role.session_token.as_deref().unwrap()));
    assert!(!shown.contains(request.header("Authorization")));
}

#[test]
fn identities_can_be_added_and_replaced_while_it_runs() {
    let alice = Identity::iam_user(ACCOUNT, "alice");
    let sts = start(&[]);
    let mut client = Client::connect(&sts);
    client.send(&Request::signed_by(&alice)).assert_refused(403, "InvalidClientTokenId");
    sts.add_identity(alice.clone());
    assert_eq!(client.send(&Request::signed_by(&alice)).status, 200);
    sts.add_identity(alice.clone().expired());
    client.send(&Request::signed_by(&alice)).assert_refused(403, "ExpiredToken");
}

#[test]
fn accept_all_checks_no_signature() {
    let mallory = Identity::iam_user(ACCOUNT, "mallory");
    let sts = start(&[]);
    sts.set_response(StsResponse::AcceptAll(mallory.clone()));
    let mut client = Client::connect(&sts);
    client.write(b"POST / HTTP/1.1\r\n\r\n");
    let response = client.read_response();
    assert_eq!((response.status, response.element("Arn")), (200, mallory.arn.as_str()));
    sts.set_response(StsResponse::Verified);
    client.send(&Request::signed_by(&mallory)).assert_refused(403, "InvalidClientTokenId");
}

#[test]
fn a_fixed_response_is_sent_unchanged() {
    let sts = start(&[]);
    sts.set_response(StsResponse::Fixed {
        status: 503,
        headers: vec![("X-Test".to_owned(), "1".to_owned())],
        body: b"later".to_vec(),
    });
    let mut client = Client::connect(&sts);
    for _ in 0..2 {
        client.write(b"POST / HTTP/1.1\r\nHost: sts.amazonaws.com\r\n\r\n");
        let response = client.read_response();
        assert_eq!((response.status, response.body.as_str()), (503, "later"));
        assert_eq!(response.header("X-Test"), Some("1"));
    }
    // A false length is sent too, and the connection ends there.
    sts.set_response(StsResponse::Fixed {
        status: 200,
        headers: vec![("Content-Length".to_owned(), "9".to_owned())],
        body: b"short".to_vec(),
    });
    client.write(b"POST / HTTP/1.1\r\nHost: sts.amazonaws.com\r\n\r\n");
    assert_eq!(client.read_to_end().unwrap(), b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort");
}

#[test]
fn raw_bytes_are_written_and_the_connection_ends() {
    let sts = start(&[]);
    sts.set_response(StsResponse::Raw(b"HTTP/1.1 200 OK\r\n\0nonsense".to_vec()));
    let mut client = Client::connect(&sts);
    client.write(b"POST / HTTP/1.1\r\n\r\n");
    assert_eq!(client.read_to_end().unwrap(), b"HTTP/1.1 200 OK\r\n\0nonsense");
}

#[test]
fn a_slow_response_arrives_byte_by_byte_and_a_flood_as_often_as_configured() {
    let sts = start(&[]);
    let pause = Duration::from_millis(30);
    sts.set_response(StsResponse::Slow { first: b"HTTP".to_vec(), rest: b"/1.1".to_vec(), pause });
    let mut client = Client::connect(&sts);
    let started = Instant::now();
    client.write(b"POST / HTTP/1.1\r\n\r\n");
    assert_eq!(client.read_to_end().unwrap(), b"HTTP/1.1");
    assert!(started.elapsed() >= 4 * pause);

    sts.set_response(StsResponse::Flood { first: b"a".to_vec(), repeated: b"bc".to_vec(), times: Some(3) });
    let mut client = Client::connect(&sts);
    client.write(b"POST / HTTP/1.1\r\n\r\n");
    assert_eq!(client.read_to_end().unwrap(), b"abcbcbc");
    assert_eq!(sts.requests()[0].server_name.as_deref(), Some("sts.amazonaws.com"));
}

#[test]
fn silence_lasts_and_does_not_stop_others() {
    let alice = Identity::iam_user(ACCOUNT, "alice");
    let sts = start(&[&alice]);
    sts.set_response(StsResponse::Silence);
    let mut silent = Client::connect(&sts);
    silent.write(&Request::signed_by(&alice).to_bytes());
    silent.set_read_timeout(Duration::from_millis(300));
    assert!(matches!(
        silent.read_to_end().unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
    ));
    assert_eq!(sts.request_count(), 1);
    sts.set_response(StsResponse::Verified);
    assert_eq!(ask(&sts, &Request::signed_by(&alice)).status, 200);
}

#[test]
fn a_stop_is_quick_regardless_of_connections() {
    let sts = start(&[]);
    sts.set_response(StsResponse::Silence);
    let address = sts.address();
    let idle = Client::connect(&sts);
    let mut silent = Client::connect(&sts);
    silent.write(b"POST / HTTP/1.1\r\n\r\n");
    let mut half = Client::connect(&sts);
    half.write(b"POST / HT");
    sts.set_response(StsResponse::Flood { first: Vec::new(), repeated: vec![0; 65536], times: None });
    let mut flooded = Client::connect(&sts);
    flooded.write(b"POST / HTTP/1.1\r\n\r\n");
    let before_handshake = std::net::TcpStream::connect(address).unwrap();
    let started = Instant::now();
    drop(sts);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(std::net::TcpStream::connect(address).is_err());
    assert!(silent.read_to_end().is_err(), "an end without close_notify is an error");
    drop((idle, half, before_handshake));
}

#[test]
fn an_idle_connection_is_closed_with_close_notify() {
    let sts = LocalSts::builder().idle_timeout(Duration::from_millis(200)).start().unwrap();
    let mut client = Client::connect(&sts);
    assert_eq!(client.read_to_end().unwrap(), b"");
}

#[test]
fn a_request_that_never_ends_times_out() {
    let sts = LocalSts::builder().read_timeout(Duration::from_millis(200)).start().unwrap();
    let mut client = Client::connect(&sts);
    client.write(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc");
    assert!(client.read_to_end().is_err());
    assert_eq!(sts.request_count(), 0);
}

#[test]
fn what_is_not_http_is_refused_and_the_connection_ends() {
    let sts = start(&[]);
    let mut client = Client::connect(&sts);
    client.write(b"\x16\x03\x01 not http\r\n\r\n");
    let text = String::from_utf8(client.read_to_end().unwrap()).unwrap();
    assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{text}");
}

#[test]
fn the_certificate_has_the_host_names_or_the_configured_name() {
    let sts = start(&[]);
    let wrong = LocalSts::builder().certificate_name("sts.example.com").start().unwrap();
    let dial = |sts: &LocalSts, ca: &str, name| Client::dial(sts.address(), ca, name).map(drop);
    assert!(dial(&sts, sts.ca_pem(), "sts.amazonaws.com").is_ok());
    assert!(dial(&sts, sts.ca_pem(), "sts.example.com").is_err());
    assert!(dial(&sts, wrong.ca_pem(), "sts.amazonaws.com").is_err(), "another authority");
    assert!(dial(&wrong, wrong.ca_pem(), "sts.amazonaws.com").is_err());
    assert!(dial(&wrong, wrong.ca_pem(), "sts.example.com").is_ok());
    assert_eq!((sts.connection_count(), sts.request_count()), (3, 0));
}

#[test]
fn connections_beyond_the_limit_are_closed() {
    let alice = Identity::iam_user(ACCOUNT, "alice");
    let sts = LocalSts::builder().identity(alice.clone()).max_connections(1).start().unwrap();
    let mut first = Client::connect(&sts);
    assert!(Client::dial(sts.address(), sts.ca_pem(), "sts.amazonaws.com").is_err());
    assert_eq!(first.send(&Request::signed_by(&alice)).status, 200);
    assert_eq!(sts.connection_count(), 2);
}

#[test]
fn many_clients_are_served_at_once() {
    let alice = Identity::iam_user(ACCOUNT, "alice");
    let sts = start(&[&alice]);
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                let mut client = Client::connect(&sts);
                for _ in 0..10 {
                    assert_eq!(client.send(&Request::signed_by(&alice)).status, 200);
                }
            });
        }
    });
    assert_eq!((sts.connection_count(), sts.request_count(), sts.requests().len()), (32, 320, 320));
}

#[test]
fn an_observer_sees_each_request_and_no_secret() {
    let alice = Identity::iam_user(ACCOUNT, "alice");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let calls = Arc::new(AtomicUsize::new(0));
    let sts = {
        let (heard, calls) = (Arc::clone(&heard), Arc::clone(&calls));
        LocalSts::builder()
            .identity(alice.clone())
            .record_requests(false)
            .observer(move |outcome| {
                calls.fetch_add(1, Ordering::SeqCst);
                heard.lock().unwrap().push(outcome.clone());
            })
            .start()
            .unwrap()
    };
    let good = Request::signed_by(&alice);
    ask(&sts, &good);
    ask(&sts, &good.clone().without("Authorization"));
    sts.set_response(StsResponse::Raw(Vec::new()));
    Client::connect(&sts).write(&good.to_bytes());
    let deadline = Instant::now() + Duration::from_secs(5);
    while calls.load(Ordering::SeqCst) < 3 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    let heard = heard.lock().unwrap();
    let key = Some(alice.access_key_id.as_str());
    let summary: Vec<_> =
        heard.iter().map(|outcome| (outcome.access_key_id.as_deref(), outcome.status, outcome.error_code)).collect();
    assert_eq!(
        summary,
        [(key, Some(200), None), (None, Some(403), Some("MissingAuthenticationToken")), (key, None, None)]
    );
    assert!(sts.requests().is_empty());
    assert_eq!(sts.request_count(), 3);
}

#[test]
fn only_loopback_addresses_are_listened_on() {
    for address in ["0.0.0.0:0", "192.0.2.1:0", "[::]:0"] {
        let error = LocalSts::builder().listen(address.parse().unwrap()).start().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{address}");
    }
    let error = LocalSts::builder().clock_offset(i64::MIN).start().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}

#[test]
fn tls_sessions_are_resumed_unless_that_is_switched_off() {
    let alice = Identity::iam_user(ACCOUNT, "alice");
    for resumption in [true, false] {
        let sts = LocalSts::builder().identity(alice.clone()).resumption(resumption).start().unwrap();
        let tls = Client::trusting(sts.ca_pem());
        for connection in 0..3 {
            let mut client = Client::dial_with(&tls, sts.address(), "sts.amazonaws.com").unwrap();
            assert_eq!(client.is_resumed(), resumption && connection > 0);
            // The tickets come with the response.
            assert_eq!(client.send(&Request::signed_by(&alice)).status, 200);
        }
    }
}

#[test]
fn a_stopped_server_refuses_connections_and_starts_again_as_the_same() {
    let alice = Identity::iam_user(ACCOUNT, "alice");
    let mut sts = start(&[&alice]);
    let request = Request::signed_by(&alice);
    let (address, ca_pem) = (sts.address(), sts.ca_pem().to_owned());
    let mut client = Client::connect(&sts);
    client.send(&request);
    sts.stop();
    assert!(client.try_send(&request).is_err(), "the connection is closed");
    assert_eq!(std::net::TcpStream::connect(address).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(sts.open_connections(), 0);
    sts.stop();

    sts.set_processing_time(Duration::from_millis(50));
    sts.start_again().unwrap();
    sts.start_again().unwrap();
    assert_eq!((sts.address(), sts.ca_pem()), (address, &*ca_pem));
    let started = Instant::now();
    assert_eq!(Client::connect(&sts).send(&request).element("Arn"), alice.arn);
    assert!(started.elapsed() >= Duration::from_millis(50), "delays end with a stop, and not with a start");
    assert_eq!((sts.request_count(), sts.connection_count()), (2, 2));
}
