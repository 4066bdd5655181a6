//! Logins that are wrong. Each is refused over the wire with the one answer that tells nothing, its reason is in
//! mongod's log, and the same server then still lets the right client in.

use std::time::{Duration, SystemTime};

use bson::{Document, doc};
use local_sts::{Answer, Identity};

use crate::support::aws_client::{self, Conversation, SignedLogin, Signer, client_first, client_second};
use crate::support::fixture::{ACCOUNT, Fixture, assert_plain_denial, credentials};
use crate::support::wire::{WireClient, binary, is_ok};

/// MongoDB's error code UserNotFound.
const USER_NOT_FOUND: i32 = 11;

fn shift(time: SystemTime, seconds: i64) -> SystemTime {
    let by = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { time - by } else { time + by }
}

/// Wrong second messages that the plugin refuses by itself: STS would say yes to anything.
#[test]
fn a_second_message_that_breaks_the_rules_never_reaches_sts() {
    let fixture = Fixture::start();
    // Opens the way to STS once, so that what is asked later can be counted.
    fixture.assert_still_serves("the start");
    fixture.sts.set_answer(Answer::AlwaysYes(fixture.user.clone()));
    let good = credentials(&fixture.user);
    let role = credentials(&fixture.role);

    type Change = Box<dyn Fn(Signer) -> SignedLogin>;
    let edit = |change: fn(&mut SignedLogin)| -> Change {
        Box::new(move |signer| {
            let mut login = signer.sign();
            change(&mut login);
            login
        })
    };
    let without = |header: &'static str| -> Change { Box::new(move |signer| signer.without_header(header).sign()) };
    let cases: Vec<(&str, Change, &str)> = vec![
        ("without the nonce", without("x-mongodb-server-nonce"), "does not cover the header x-mongodb-server-nonce"),
        ("without the gs2 flag", without("x-mongodb-gs2-cb-flag"), "does not cover the header x-mongodb-gs2-cb-flag"),
        ("without the host", without("host"), "does not cover the header host"),
        ("without the date", without("x-amz-date"), "does not cover the header x-amz-date"),
        ("another region", Box::new(|s| s.region("eu-west-1").sign()), "signed for region eu-west-1"),
        ("another service", Box::new(|s| s.service("iam").sign()), "does not end in sts/aws4_request"),
        ("another header", Box::new(|s| s.with_header("x-other", "1").sign()), "not a sorted list"),
        ("an old date", Box::new(|s| s.time(shift(SystemTime::now(), -1000)).sign()), "seconds behind"),
        ("a date to come", Box::new(|s| s.time(shift(SystemTime::now(), 1000)).sign()), "seconds ahead of"),
        ("a token that is not signed", edit(|l| l.token = Some("token".into())), "x-amz-security-token"),
        ("an empty token", edit(|l| l.token = Some(String::new())), "0 bytes"),
        ("a line in the token", edit(|l| l.token = Some("a\r\nX-Evil: 1".into())), "not printable ASCII"),
        ("a line in the header", edit(|l| l.authorization += "\r\nX-Evil: 1"), "64 lower-case hexadecimal"),
        ("a line in the date", edit(|l| l.date += "\r\nX-Evil: 1"), "YYYYMMDDTHHMMSSZ"),
        ("a NUL in the header", edit(|l| l.authorization += "\0"), "64 lower-case hexadecimal"),
        (
            "two credentials",
            edit(|l| {
                l.authorization = l.authorization.replace("SignedHeaders=", "Credential=A/b/c/d/e, SignedHeaders=")
            }),
            "SignedHeaders where it belongs",
        ),
        (
            "another scheme",
            edit(|l| l.authorization = l.authorization.replace("SHA256 ", "SHA512 ")),
            "AWS4-HMAC-SHA256",
        ),
        ("another day", edit(|l| l.date.replace_range(..8, "20200101")), "behind"),
        ("no signature", edit(|l| l.authorization.truncate(l.authorization.len() - 64)), "64 lower-case hexadecimal"),
        ("an empty header", edit(|l| l.authorization.clear()), "AWS4-HMAC-SHA256"),
    ];
    let asked = fixture.sts.request_count();
    for (name, change, _) in &cases {
        let conversation = Conversation::start(fixture.mongod.port()).expect("a challenge");
        let login = change(conversation.signer(&good));
        let reply = conversation.finish(&client_second(&login)).err().unwrap_or_else(|| panic!("{name}: logged in"));
        assert_plain_denial(name, &reply);
    }
    // A role's session that signs, but does not send, its token.
    let conversation = Conversation::start(fixture.mongod.port()).expect("a challenge");
    let login = SignedLogin { token: None, ..conversation.signer(&role).sign() };
    assert_plain_denial("a token kept back", &conversation.finish(&client_second(&login)).err().expect("a refusal"));

    assert_eq!(fixture.sts.request_count(), asked, "a wrong message has reached STS");
    let reasons = fixture.denial_reasons(cases.len() + 1);
    for ((name, _, reason), logged) in cases.iter().zip(&reasons) {
        assert!(logged.contains(reason), "{name}: {logged}");
    }
    assert!(reasons.last().unwrap().contains("none was sent"), "{reasons:?}");
    fixture.sts.set_answer(Answer::Verified);
    fixture.assert_still_serves("wrong second messages");
}

#[test]
fn messages_that_are_not_the_protocol_are_refused() {
    let fixture = Fixture::start();
    fixture.assert_still_serves("the start");
    fixture.sts.set_answer(Answer::AlwaysYes(fixture.user.clone()));
    let asked = fixture.sts.request_count();
    let payload = |document: Document| document.to_vec().expect("BSON");
    let nonce = binary(&[7; 32]);
    let good_first = client_first(&[7; 32]);
    let firsts: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("one byte", vec![0]),
        ("a length only", vec![5, 0, 0, 0]),
        ("a length too great", vec![0xff, 0xff, 0xff, 0x7f, 0]),
        ("a negative length", vec![0xff, 0xff, 0xff, 0xff, 0]),
        ("an empty document", payload(doc! {})),
        ("a short nonce", payload(doc! { "r": binary(&[7; 31]), "p": 110 })),
        ("a long nonce", payload(doc! { "r": binary(&[7; 33]), "p": 110 })),
        ("a huge nonce", payload(doc! { "r": binary(&[7; 100_000]), "p": 110 })),
        ("channel binding", payload(doc! { "r": nonce.clone(), "p": i32::from(b'y') })),
        ("the flag as text", payload(doc! { "r": nonce.clone(), "p": "n" })),
        ("a further field", payload(doc! { "r": nonce.clone(), "p": 110, "h": "evil.example.com" })),
        ("a byte after the document", [&good_first[..], &[0]].concat()),
        ("a document cut short", good_first[..good_first.len() - 1].to_vec()),
        ("a second message first", payload(doc! { "a": "x", "d": "y" })),
    ];
    for (name, first) in &firsts {
        let mut client = WireClient::connect(fixture.mongod.port()).unwrap();
        let reply = client.sasl_start(aws_client::MECHANISM, first).unwrap();
        assert_plain_denial(name, &reply);
    }
    let seconds: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("an empty document", payload(doc! {})),
        ("the first message again", good_first),
        ("numbers", payload(doc! { "a": 1, "d": 2 })),
        ("a further field", payload(doc! { "a": "x", "d": "y", "o": {} })),
        ("a megabyte of token", payload(doc! { "a": "x", "d": "y", "t": "t".repeat(1 << 20) })),
        ("a null token", payload(doc! { "a": "x", "d": "y", "t": null })),
    ];
    for (name, second) in &seconds {
        let conversation = Conversation::start(fixture.mongod.port()).expect("a challenge");
        let reply = conversation.finish(second).err().unwrap_or_else(|| panic!("{name}: logged in"));
        assert_plain_denial(name, &reply);
    }
    assert_eq!(fixture.sts.request_count(), asked);
    fixture.sts.set_answer(Answer::Verified);
    fixture.assert_still_serves("messages that are not the protocol");
}

#[test]
fn who_sts_does_not_confirm_is_refused_and_the_log_says_why() {
    let fixture = Fixture::start();
    let stranger = Identity::iam_user(ACCOUNT, "nobody");
    let expired = Identity::assumed_role(ACCOUNT, "reporting", "old").expired();
    let namesake = Identity::iam_user("210987654321", "team/alice");
    let cased = Identity::iam_user(ACCOUNT, "team/Alice");
    for known in [&stranger, &expired, &namesake, &cased] {
        fixture.sts.add_identity(known.clone());
    }
    let mut wrong_secret = fixture.user.clone();
    wrong_secret.secret_access_key = Identity::iam_user(ACCOUNT, "x").secret_access_key;
    let mut wrong_token = fixture.role.clone();
    wrong_token.session_token = Identity::assumed_role(ACCOUNT, "reporting", "other").session_token;
    let unknown_key = Identity::iam_user(ACCOUNT, "team/alice");

    let cases = [
        ("a wrong secret", &wrong_secret, "STS answered 403 SignatureDoesNotMatch"),
        ("a key that AWS does not know", &unknown_key, "STS answered 403 InvalidClientTokenId"),
        ("another session's token", &wrong_token, "STS answered 403 InvalidClientTokenId"),
        ("an expired session", &expired, "STS answered 403 ExpiredToken: the client's session token has expired"),
        ("an identity without a user", &stranger, "arn:aws:iam::123456789012:user/nobody"),
        ("the same name in another account", &namesake, "arn:aws:iam::210987654321:user/team/alice"),
        ("the same name in another case", &cased, "arn:aws:iam::123456789012:user/team/Alice"),
    ];
    for (name, identity, _) in &cases {
        let reply = fixture.login(identity).err().unwrap_or_else(|| panic!("{name}: logged in"));
        if reply.get_i32("code").unwrap() == USER_NOT_FOUND {
            // The server's own answer, to somebody whom STS has confirmed: it names nobody else.
            assert!(reply.get_str("errmsg").unwrap().contains(&identity.arn), "{name}: {reply}");
        } else {
            assert_plain_denial(name, &reply);
        }
    }
    // 4.4 does not tell the plugin whether it has let a confirmed client in.
    let unlogged = if fixture.mongod.version().starts_with("4.4") { 3 } else { 0 };
    let reasons = fixture.denial_reasons(cases.len() - unlogged);
    for ((name, _, reason), logged) in cases.iter().zip(&reasons) {
        assert!(logged.contains(reason), "{name}: {logged}");
    }
    fixture.assert_still_serves("logins that STS does not confirm");
}

#[test]
fn a_second_message_works_once_and_in_its_own_conversation_only() {
    let fixture = Fixture::start();
    let good = credentials(&fixture.user);

    // Caught on its way and sent in another conversation: the signature is over another nonce.
    let caught = Conversation::start(fixture.mongod.port()).expect("a challenge");
    let message = client_second(&caught.signer(&good).sign());
    let other = Conversation::start(fixture.mongod.port()).expect("a challenge");
    assert_plain_denial("another conversation", &other.finish(&message).err().expect("a refusal"));

    // The victim's own login, then the same message once more on the same connection.
    let conversation_id = caught.conversation_id.clone();
    let mut victim = caught.finish(&message).unwrap_or_else(|reply| panic!("{reply}"));
    let again = victim.client.sasl_continue(&conversation_id, &message).unwrap();
    assert!(!is_ok(&again), "{again}");

    // A refused conversation cannot be gone on with.
    let mut refused = Conversation::start(fixture.mongod.port()).expect("a challenge");
    let good_message = client_second(&refused.signer(&good).sign());
    let id = refused.conversation_id.clone();
    assert!(!is_ok(&refused.client.sasl_continue(&id, b"nonsense").unwrap()));
    assert!(!is_ok(&refused.client.sasl_continue(&id, &good_message).unwrap()));
    assert!(refused.client.logged_in_users().unwrap().is_empty());

    let reasons = fixture.denial_reasons(2);
    assert!(reasons[0].contains("SignatureDoesNotMatch"), "{reasons:?}");
    fixture.assert_still_serves("replays");
}

#[test]
fn another_user_s_name_cannot_be_asked_for() {
    let fixture = Fixture::start();
    // Drivers may name the user they want to be, which the server compares with the principal.
    let mut client = WireClient::connect(fixture.mongod.port()).unwrap();
    let speculative = doc! {
        "saslStart": 1, "mechanism": aws_client::MECHANISM, "payload": binary(&client_first(&[7; 32])),
        "db": "admin",
    };
    let reply = client.command("admin", speculative).unwrap();
    assert!(!is_ok(&reply), "MONGODB-AWS is for $external only: {reply}");
    fixture.assert_still_serves("a login on admin");
}
