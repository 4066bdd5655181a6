//! Logins that are wrong without a class of attack of their own: messages out of form and out of
//! turn, who is not confirmed, and what the log says and must not say.

use bson::{Document, doc};
use local_sts::{Identity, StsResponse};

use crate::support::aws_client::{self, Conversation, client_first, client_second};
use crate::support::fixture::{ACCOUNT, Fixture, assert_plain_denial, credentials};
use crate::support::wire::{WireClient, binary, is_ok};

/// MongoDB's error code UserNotFound.
const USER_NOT_FOUND: i32 = 11;

#[test]
fn messages_that_are_not_the_protocol_are_refused() {
    let fixture = Fixture::start();
    fixture.assert_still_serves("the start");
    fixture.sts.set_response(StsResponse::AcceptAll(fixture.user.clone()));
    let asked = fixture.sts.request_count();
    let payload = |document: Document| document.to_vec().expect("BSON");
    let good_first = client_first(&[7; 32]);
    let firsts: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("one byte", vec![0]),
        ("a length only", vec![5, 0, 0, 0]),
        ("a length too great", vec![0xff, 0xff, 0xff, 0x7f, 0]),
        ("a negative length", vec![0xff, 0xff, 0xff, 0xff, 0]),
        ("an empty document", payload(doc! {})),
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
    fixture.sts.set_response(StsResponse::Verified);
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
        ("a wrong secret", &wrong_secret, "STS returned 403 SignatureDoesNotMatch"),
        ("a key that AWS does not know", &unknown_key, "STS returned 403 InvalidClientTokenId"),
        ("another session's token", &wrong_token, "STS returned 403 InvalidClientTokenId"),
        ("an expired session", &expired, "STS returned 403 ExpiredToken: the client's session token has expired"),
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
