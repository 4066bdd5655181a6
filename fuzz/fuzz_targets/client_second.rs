//! The client's second message, as bytes and as fields. A second BSON library must read the same
//! from every accepted message, and every header built from it must be printable ASCII.
//!
//! Each input is used twice: as the message, and as the fields `a`, `d` and `t`, separated by the
//! byte 0xff, which UTF-8 cannot contain.
#![no_main]

use bson::{Binary, Document, doc, spec::BinarySubtype};
use libfuzzer_sys::fuzz_target;
use psmdb_aws_iam::denial::{Denial, Kind};
use psmdb_aws_iam::sasl::{Conversation, MAX_CLIENT_SECOND_LENGTH, Moment, Next};
use psmdb_aws_iam::sigv4::{AmzDate, Authorization, Expected};
use psmdb_aws_iam::sts::endpoint::StsHost;
use std::sync::LazyLock;
use std::time::Instant;

/// 2026-11-21T19:13:00Z, the time for which the corpus is valid.
const NOW: i64 = 1_795_288_380;

static FIRST: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let nonce = Binary { subtype: BinarySubtype::Generic, bytes: vec![1; 32] };
    doc! { "r": nonce, "p": 110 }.to_vec().expect("it can be encoded")
});

fn sevens(buffer: &mut [u8]) -> Result<(), Denial> {
    buffer.fill(7);
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    check(data);
    let fields: Option<Vec<&str>> = data.split(|byte| *byte == 0xff).map(|field| str::from_utf8(field).ok()).collect();
    let message = match fields.as_deref() {
        Some([authorization, date]) => doc! { "a": *authorization, "d": *date },
        Some([authorization, date, token]) => doc! { "a": *authorization, "d": *date, "t": *token },
        _ => return,
    };
    check(&message.to_vec().expect("it can be encoded"));
});

fn check(message: &[u8]) {
    let now = Moment { unix_seconds: NOW, monotonic: Instant::now() };
    let first = Conversation::new(StsHost::default()).step(&FIRST, sevens, now);
    let Ok(Next::Reply(_, conversation)) = first else { panic!("the first message was refused") };
    match conversation.step(message, sevens, now) {
        Ok(Next::AskSts(request)) => {
            assert!(message.len() <= MAX_CLIENT_SECOND_LENGTH);
            let second = Document::from_reader(message).expect("a second parser accepts it");
            assert_eq!(second.to_vec().expect("it can be encoded"), message);
            let (authorization, date) = (second.get_str("a").unwrap(), second.get_str("d").unwrap());
            let token = second.get("t").map(|token| token.as_str().expect("a token is a string"));
            assert_eq!(second.len(), if token.is_some() { 3 } else { 2 });

            assert_eq!(request.date.as_str(), date);
            assert_eq!(request.token.as_ref().map(|token| token.expose()), token);
            assert!(AmzDate::parse(date).unwrap().check_skew(NOW).is_ok());

            let header = request.authorization.to_header();
            assert_eq!(header.expose(), authorization);
            let expected = Expected { date: &request.date, region: "us-east-1", with_token: token.is_some() };
            let again = Authorization::parse(header.expose(), &expected).expect("the rebuilt header is accepted");
            assert_eq!(again.to_header().expose(), header.expose());
            let signed = ["host", "x-amz-date", "x-mongodb-gs2-cb-flag", "x-mongodb-server-nonce"];
            assert!(signed.iter().all(|name| request.authorization.signs(name)));
            assert_eq!(request.authorization.signs("x-amz-security-token"), token.is_some());

            let headers = request.headers();
            assert_eq!(headers.len(), if token.is_some() { 7 } else { 6 });
            for (name, value) in headers {
                let printable = value.expose().bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
                assert!(printable && value.expose().trim() == value.expose(), "{name}: {:?}", value.expose());
            }
        }
        Ok(Next::Reply(..)) => panic!("a second message got a challenge as its reply"),
        Err(denial) => {
            assert_eq!(denial.kind(), Kind::MalformedMessage);
            assert!(!denial.reason().is_empty() && !denial.reason().contains(char::is_control), "{denial:?}");
        }
    }
}
