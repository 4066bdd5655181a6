//! The client's messages, with one thing changed at a time. What the plugin takes and what it
//! refuses is compared with a second reading of the documented grammars (`src/sigv4.rs`,
//! `src/sasl/messages.rs`), written here as regular expressions (`oracle`), and with the verdict
//! that each row of a table names (`rows`).
//!
//! STS says yes to anything, so that a wrong signature counts for nothing and the grammar alone
//! decides.

mod oracle;
mod rows;

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bson::{Bson, Document};
use local_sts::{RecordedRequest, StsResponse};
use psmdb_aws_iam::sigv4::{AmzDate, Authorization, Expected, check_token};

use crate::support::aws_client::{Conversation, MECHANISM, client_second};
use crate::support::fixture::{Fixture, ROLE_USER_NAME, STS_HOST, assert_plain_denial, credentials};
use crate::support::wire::{WireClient, is_ok};
use oracle::{Oracle, Sent, part_of};
use rows::{SIGNERS, Whose, first_messages, rows};

#[test]
fn both_signers_sign_the_same_bytes_and_sts_verifies_both() {
    let fixture = Fixture::start();
    for (identity, user) in [(&fixture.user, &*fixture.user.arn), (&fixture.role, ROLE_USER_NAME)] {
        for (by, sign) in SIGNERS {
            let conversation = Conversation::start(fixture.mongod.port()).expect("a challenge");
            let signer = conversation.signer(&credentials(identity));
            let login = sign(&signer);
            assert_eq!(login, signer.sign());
            assert_eq!(login, signer.sign_by_hand());
            assert!(Oracle::new().judge(&client_second(&login), unix_seconds()).is_ok());
            let mut reply = conversation.finish(&client_second(&login)).unwrap_or_else(|reply| panic!("{by}: {reply}"));
            assert_eq!(reply.client.logged_in_users().unwrap(), [format!("{user}@$external")], "{by}");
        }
        // The optional headers are left out of what STS verifies too, not only of what the plugin
        // reads.
        let conversation = Conversation::start(fixture.mongod.port()).expect("a challenge");
        let signer = conversation.signer(&credentials(identity));
        let login = signer.without_header("content-length").without_header("content-type").sign_by_hand();
        conversation.finish(&client_second(&login)).unwrap_or_else(|reply| panic!("without optional headers: {reply}"));
    }
    assert_eq!(fixture.sts.request_count(), 6);
}

#[test]
fn a_message_with_one_thing_changed_is_decided_as_the_grammar_says() {
    let fixture = Fixture::start();
    // Opens the way to STS once, so that what is asked later can be counted.
    fixture.assert_still_serves("the start");
    fixture.sts.set_response(StsResponse::AcceptAll(fixture.user.clone()));
    let logged_in = [format!("{}@$external", fixture.user.arn)];
    let (oracle, rows) = (Oracle::new(), rows());
    let mut names = HashSet::new();
    if let Some(twice) = rows.iter().find(|row| !names.insert(&row.name)) {
        panic!("two rows are called {:?}", twice.name);
    }

    let mut failures = Vec::new();
    let mut refused = Vec::new();
    for (identity, whose) in [(&fixture.user, Whose::User), (&fixture.role, Whose::Role)] {
        let credentials = credentials(identity);
        for (by, sign) in SIGNERS {
            for row in rows.iter().filter(|row| row.whose == Whose::Anybody || row.whose == whose) {
                let case = format!("{} ({whose:?}, {by})", row.name);
                let conversation = Conversation::start(fixture.mongod.port()).expect("a challenge");
                let signer = conversation.signer(&credentials);
                let good = client_second(&sign(&signer));
                let message = (row.message)(sign, &signer);
                assert_ne!(message, good, "{case}: nothing is changed");
                let verdict = oracle.judge(&message, unix_seconds());
                assert_eq!(
                    verdict.as_ref().map(|_| ()).map_err(|part| *part),
                    row.expected,
                    "{case}: the two readings"
                );

                let asked = fixture.sts.request_count();
                let nonce = conversation.nonce.clone();
                let answer = conversation.finish(&message);
                let asked = fixture.sts.request_count() - asked;
                match (verdict, answer) {
                    (Ok(sent), Ok(mut reply)) => {
                        assert_eq!(reply.client.logged_in_users().unwrap(), logged_in, "{case}");
                        let requests = fixture.sts.requests();
                        if asked != 1 {
                            failures.push(format!("{case}: STS was asked {asked} times"));
                        } else if let Err(wrong) = check_request(requests.last().expect("one"), &sent, &nonce) {
                            failures.push(format!("{case}: {wrong}"));
                        }
                    }
                    (Err(part), Err(reply)) => {
                        assert_plain_denial(&case, &reply);
                        if asked != 0 {
                            failures.push(format!("{case}: refused, but STS was asked"));
                        }
                        refused.push((case, part));
                    }
                    (Ok(_), Err(reply)) => failures.push(format!("{case}: was refused: {reply}")),
                    (Err(_), Ok(_)) => failures.push(format!("{case}: was accepted")),
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} messages were decided in another way:\n{}", failures.len(), failures.join("\n"));

    // The right part has to be what is refused: a date that never was could also be refused for its
    // age.
    let reasons = fixture.denial_reasons(refused.len());
    let wrong: Vec<_> = refused
        .iter()
        .zip(&reasons)
        .filter(|((_, part), reason)| part_of(reason) != Some(*part))
        .map(|((case, part), reason)| format!("{case}: not for its {part:?}: {reason}"))
        .collect();
    assert!(wrong.is_empty(), "{} messages were refused for another reason:\n{}", wrong.len(), wrong.join("\n"));

    fixture.sts.set_response(StsResponse::Verified);
    fixture.assert_still_serves("changed messages");
}

#[test]
fn a_first_message_with_one_thing_changed_is_decided_as_the_grammar_says() {
    let fixture = Fixture::start();
    let mut refused = Vec::new();
    for (name, expected, message) in first_messages() {
        // Once more by a second reader: a field twice, or anything after the document, is not
        // written again.
        let nonce = Document::from_reader(&message[..]).ok().and_then(|document| {
            let whole = message.len() <= 128 && document.len() == 2 && document.to_vec().ok()? == message;
            let nonce = document.get_binary_generic("r").ok().filter(|nonce| nonce.len() == 32)?;
            (whole && document.get("p") == Some(&Bson::Int32(110))).then(|| nonce.clone())
        });
        assert_eq!(nonce.is_some(), expected.is_ok(), "{name}: the two readings");

        let mut client = WireClient::connect(fixture.mongod.port()).unwrap();
        let reply = client.sasl_start(MECHANISM, &message).unwrap();
        match (nonce, expected) {
            (Some(nonce), _) => {
                assert!(is_ok(&reply), "{name}: {reply}");
                let challenge = reply.get_binary_generic("payload").expect("a payload");
                let challenge = Document::from_reader(&challenge[..]).expect("a BSON document");
                let server_nonce = challenge.get_binary_generic("s").expect("binary, subtype 0");
                assert_eq!((server_nonce.len(), &server_nonce[..32]), (64, &nonce[..]), "{name}");
                assert_eq!((challenge.len(), challenge.get_str("h").ok()), (2, Some(STS_HOST)), "{name}");
            }
            (None, expected) => {
                assert_plain_denial(&name, &reply);
                refused.push((name, expected.expect_err("a reason")));
            }
        }
    }
    let reasons = fixture.denial_reasons(refused.len());
    for ((name, expected), reason) in refused.iter().zip(&reasons) {
        assert!(reason.contains(expected), "{name}: {reason}");
    }
    assert_eq!(fixture.sts.request_count(), 0);
    fixture.assert_still_serves("changed first messages");
}

/// Every text that is one character away from a good one, without a server, since there are so
/// many.
#[test]
fn a_text_with_one_character_changed_is_decided_as_the_grammar_says() {
    const DATE: &str = "20260131T191300Z";
    // What separates, and the first, the last and the neighbours of every range in the grammars.
    let characters: Vec<char> = "SK\0\t\n \"+,-./09:;=@AFGZ[_`afgz{~\u{7f}\u{80}\u{17f}\u{212a}".chars().collect();
    let oracle = Oracle::new();
    let date = AmzDate::parse(DATE).expect("a date");
    for with_token in [false, true] {
        let (key, token) = if with_token { ("ASIA_x9", "x-amz-security-token;") } else { ("AKIA_x9", "") };
        let good = format!(
            "AWS4-HMAC-SHA256 Credential={key}/20260131/us-east-1/sts/aws4_request, \
             SignedHeaders=content-length;content-type;host;x-amz-date;{token}x-mongodb-gs2-cb-flag;\
             x-mongodb-server-nonce, Signature={}",
            "0123456789abcdef".repeat(4)
        );
        let expected = Expected { date: &date, region: "us-east-1", with_token };
        let accepted = each_neighbour(&good, &characters, |header| {
            let read = Authorization::parse(header, &expected).ok().map(|read| read.to_header().expose().to_owned());
            let wanted = oracle.header(header, DATE, with_token).map(|(canonical, _)| canonical);
            assert_eq!(read, wanted, "{header:?}");
            read.is_some()
        });
        assert!(accepted > 0);
    }
    let accepted = each_neighbour(DATE, &characters, |text| {
        let read = AmzDate::parse(text).ok();
        let wanted = oracle.date(text);
        assert_eq!(read.is_some(), wanted.is_some(), "{text:?}");
        if let (Some(read), Some(at)) = (&read, wanted) {
            assert!(read.check_skew(at + 900).is_ok() && read.check_skew(at - 900).is_ok(), "{text:?}");
            assert!(read.check_skew(at + 901).is_err() && read.check_skew(at - 901).is_err(), "{text:?}");
        }
        read.is_some()
    });
    assert!(accepted > 0);
    let accepted = each_neighbour("FwoGZXIvYXdzE//+=", &characters, |token| {
        assert_eq!(check_token(token).is_ok(), oracle.token(token), "{token:?}");
        oracle.token(token)
    });
    assert!(accepted > 0);
}

/// Tries the text with each character left out, doubled, swapped with the next, replaced and
/// preceded by another; says how many were accepted.
fn each_neighbour(good: &str, characters: &[char], is_accepted: impl Fn(&str) -> bool) -> usize {
    assert!(is_accepted(good), "{good:?}");
    let mut accepted = 0;
    for at in 0..=good.len() {
        let (before, after) = good.split_at(at);
        let mut tries = vec![];
        for character in characters {
            tries.push(format!("{before}{character}{after}"));
            if let Some(rest) = after.get(1..) {
                tries.push(format!("{before}{character}{rest}"));
            }
        }
        if let Some(rest) = after.get(1..) {
            tries.push(format!("{before}{rest}"));
            if let Some(further) = after.get(2..) {
                tries.push(format!("{before}{}{}{further}", &after[1..2], &after[..1]));
            }
        }
        accepted += tries.iter().filter(|text| *text != good && is_accepted(text)).count();
    }
    accepted
}

fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    i64::try_from(since.as_secs()).expect("a clock of this age")
}

/// What is wrong with a request that STS was sent for an accepted message.
fn check_request(request: &RecordedRequest, sent: &Sent, nonce: &[u8]) -> Result<(), String> {
    let values = |name: &str| {
        let of_name = request.headers.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        of_name.map(|(_, value)| value.clone()).collect::<Vec<_>>()
    };
    for (name, wanted) in [
        ("authorization", Some(sent.header.clone())),
        ("x-amz-date", Some(sent.date.clone())),
        ("x-amz-security-token", sent.token.clone()),
        ("x-mongodb-server-nonce", Some(BASE64_STANDARD.encode(nonce))),
        ("x-mongodb-gs2-cb-flag", Some("n".to_owned())),
        ("host", Some(STS_HOST.to_owned())),
    ] {
        if values(name) != Vec::from_iter(wanted) {
            return Err(format!("STS was sent another {name}"));
        }
    }
    // A header that is signed and not sent, or sent twice, is one that STS reads in another way
    // than the client.
    match sent.signed.iter().find(|name| values(name).len() != 1) {
        Some(name) => Err(format!("{name} is signed, and was not sent once")),
        None => Ok(()),
    }
}
