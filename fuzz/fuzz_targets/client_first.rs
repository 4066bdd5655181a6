//! The client's first message. Every accepted message equals, byte for byte, what a second BSON
//! library encodes, and the client must sign its 32 bytes.
#![no_main]

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, doc};
use libfuzzer_sys::fuzz_target;
use psmdb_aws_iam::denial::{Denial, Kind};
use psmdb_aws_iam::sasl::{Conversation, MAX_CLIENT_FIRST_LENGTH, Moment, NONCE_LENGTH, Next};
use psmdb_aws_iam::sts::endpoint::StsHost;
use std::time::Instant;

/// 2026-11-21T19:13:00Z, and the current time for the age of a conversation.
fn moment() -> Moment {
    Moment { unix_seconds: 1_795_288_380, monotonic: Instant::now() }
}

fn sevens(buffer: &mut [u8]) -> Result<(), Denial> {
    buffer.fill(7);
    Ok(())
}

fuzz_target!(|message: &[u8]| {
    let now = moment();
    match Conversation::new(StsHost::default()).step(message, sevens, now) {
        Ok(Next::Reply(reply, challenged)) => {
            assert!(message.len() <= MAX_CLIENT_FIRST_LENGTH);
            let first = Document::from_reader(message).expect("a second parser accepts it");
            assert_eq!(first.to_vec().expect("it can be encoded"), message);
            assert_eq!(first.len(), 2);
            assert_eq!(first.get("p"), Some(&Bson::Int32(110)));
            let Some(Bson::Binary(nonce)) = first.get("r") else { panic!("accepted without a nonce: {first}") };
            assert_eq!((nonce.subtype, nonce.bytes.len()), (BinarySubtype::Generic, NONCE_LENGTH));

            let both = [&nonce.bytes[..], &[7; NONCE_LENGTH]].concat();
            let both = Binary { subtype: BinarySubtype::Generic, bytes: both };
            let expected = doc! { "s": both, "h": StsHost::default().as_str() };
            assert_eq!(Document::from_reader(&reply[..]).expect("the reply is BSON"), expected);
            assert!(challenged.step(message, sevens, now).is_err(), "a first message was accepted twice");
        }
        Ok(Next::AskSts(_)) => panic!("a first message was accepted as a signature"),
        Err(denial) => {
            assert_eq!(denial.kind(), Kind::MalformedMessage);
            assert!(!denial.reason().is_empty() && !denial.reason().contains(char::is_control), "{denial:?}");
        }
    }
});
