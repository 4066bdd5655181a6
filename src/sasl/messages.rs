//! The messages of the conversation: each is one BSON document with exactly the fields that drivers
//! send.
//!
//! The bytes, where `length` is a correct 32-bit little-endian number:
//!
//! ```text
//! client-first  = length 2(r / p) %x00             ; each once, at most 128 bytes
//! r             = %x05 %s"r" %x00 %x20.00.00.00 %x00 32OCTET   ; binary, subtype 0: client nonce
//! p             = %x10 %s"p" %x00 %x6E.00.00.00                ; the 32-bit integer 110, letter n
//! server-first  = length s h %x00
//! s             = %x05 %s"s" %x00 %x40.00.00.00 %x00 64OCTET   ; r, then the server's 32 bytes
//! h             = %x02 %s"h" %x00 string           ; the STS host
//! client-second = length 2*3(a / d / t) %x00       ; a and d once, t at most once, at most 17 KiB
//! a             = %x02 %s"a" %x00 string           ; the Authorization header
//! d             = %x02 %s"d" %x00 string           ; X-Amz-Date
//! t             = %x02 %s"t" %x00 string           ; the session token
//! string        = length *OCTET %x00               ; UTF-8; `crate::sigv4` has the grammar of each
//! ```
//!
//! Other types, nonces of other lengths and duplicate fields are denied, because client and server
//! could read them differently. Fields may come in any order, since drivers differ in it.
//!
//! Sources: MongoDB drivers' specification "Authentication" (`source/auth/auth.md`), section
//! MONGODB-AWS, for the fields and the lengths of the nonces; the BSON specification, version 1.1,
//! for the bytes. Stricter than these: no other field, no other value of `p` than the only one
//! defined, and maximum lengths.

use crate::denial::Denial;
use crate::sigv4::MAX_TOKEN_LENGTH;
use crate::sts::endpoint::StsHost;
use crate::sts::request::GS2_CB_FLAG;
use bson::Binary;
use bson::raw::{RawBsonRef, RawDocument, cstr};
use bson::rawdoc;
use bson::spec::BinarySubtype;

/// Length of the random nonce of each side, in bytes.
pub const NONCE_LENGTH: usize = 32;

/// Maximum length of the client's first message, in bytes. Drivers send 52.
pub const MAX_CLIENT_FIRST_LENGTH: usize = 128;

/// Maximum length of the client's second message, in bytes: the longest token, and 1 KiB for the
/// rest.
pub const MAX_CLIENT_SECOND_LENGTH: usize = MAX_TOKEN_LENGTH + 1024;

/// The only value of `p`: the letter that STS receives as the flag.
const NO_CHANNEL_BINDING: i32 = GS2_CB_FLAG.as_bytes()[0] as i32;

/// The client's first message, `{r: 32 bytes, p: 110}`.
pub struct ClientFirst {
    pub nonce: [u8; NONCE_LENGTH],
}

/// The client's second message, `{a: Authorization, d: X-Amz-Date, t: session token if it has
/// one}`.
pub struct ClientSecond<'a> {
    pub authorization: &'a str,
    pub date: &'a str,
    pub token: Option<&'a str>,
}

impl ClientFirst {
    pub fn parse(message: &[u8]) -> Result<Self, Denial> {
        let [nonce, flag] = fields(message, MAX_CLIENT_FIRST_LENGTH, "first", ["r", "p"])?;
        let nonce = match nonce {
            Some(RawBsonRef::Binary(nonce)) if nonce.subtype == BinarySubtype::Generic => nonce.bytes,
            _ => return Err(Denial::malformed("the client's nonce, field r, must be binary data of subtype 0")),
        };
        let nonce = nonce.try_into().map_err(|_| {
            Denial::malformed(format!("the client's nonce has {} bytes, but must have {NONCE_LENGTH}", nonce.len()))
        })?;
        match flag {
            Some(RawBsonRef::Int32(NO_CHANNEL_BINDING)) => Ok(Self { nonce }),
            _ => Err(Denial::malformed(format!(
                "the channel-binding flag, field p, must be the 32-bit integer {NO_CHANNEL_BINDING}"
            ))),
        }
    }
}

impl<'a> ClientSecond<'a> {
    pub fn parse(message: &'a [u8]) -> Result<Self, Denial> {
        let [authorization, date, token] = fields(message, MAX_CLIENT_SECOND_LENGTH, "second", ["a", "d", "t"])?;
        let text = |value: Option<RawBsonRef<'a>>, field: &str| match value {
            Some(RawBsonRef::String(text)) => Ok(text),
            _ => Err(Denial::malformed(format!("field {field} of the client's second message must be a string"))),
        };
        Ok(Self {
            authorization: text(authorization, "a")?,
            date: text(date, "d")?,
            token: token.map(|token| text(Some(token), "t")).transpose()?,
        })
    }
}

/// The server's first message, `{s: 64 bytes, h: host}`. Some drivers reject any other field.
pub fn server_first(nonce: &[u8; 2 * NONCE_LENGTH], host: &StsHost) -> Result<Vec<u8>, Denial> {
    let nonce = Binary { subtype: BinarySubtype::Generic, bytes: nonce.to_vec() };
    let mut reply = rawdoc! { "s": nonce };
    reply.append(cstr!("h"), host.as_str());
    Ok(reply.into_bytes())
}

/// Standard base64 with padding, the form in which drivers sign the nonce.
pub fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Reads a document that contains only the fields `names`, each at most once, in any order.
fn fields<'a, const N: usize>(
    message: &'a [u8],
    longest: usize,
    which: &str,
    names: [&str; N],
) -> Result<[Option<RawBsonRef<'a>>; N], Denial> {
    let broken = || Denial::malformed(format!("the client's {which} message is not a valid BSON document"));
    if message.len() > longest {
        return Err(Denial::malformed(format!(
            "the client's {which} message has {} bytes; the maximum is {longest}",
            message.len()
        )));
    }
    let document = RawDocument::from_bytes(message).map_err(|_| broken())?;
    let mut values = [None; N];
    for element in document {
        let (key, value) = element.map_err(|_| broken())?;
        let at = names
            .iter()
            .position(|name| key == *name)
            .ok_or_else(|| Denial::malformed(format!("the client's {which} message has an unknown field")))?;
        if values[at].replace(value).is_some() {
            return Err(Denial::malformed(format!("the client's {which} message has a duplicate field")));
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::raw::RawDocumentBuf;
    use bson::{RawBson, Timestamp};

    fn nonce(bytes: usize, subtype: BinarySubtype) -> Binary {
        Binary { subtype, bytes: vec![1; bytes] }
    }

    fn good_nonce() -> Binary {
        nonce(32, BinarySubtype::Generic)
    }

    #[test]
    fn miri_a_first_message_may_have_its_fields_in_any_order() {
        for message in [rawdoc! { "r": good_nonce(), "p": 110 }, rawdoc! { "p": 110, "r": good_nonce() }] {
            assert_eq!(ClientFirst::parse(message.as_bytes()).unwrap().nonce, [1; 32]);
        }
    }

    #[test]
    fn miri_every_other_first_message_is_denied() {
        let twice = |key: &bson::raw::CStr, value: RawBson| {
            let mut document = rawdoc! { "r": good_nonce(), "p": 110 };
            document.append(key, value);
            document
        };
        let cases: Vec<(&str, RawDocumentBuf)> = vec![
            ("empty", rawdoc! {}),
            ("no flag", rawdoc! { "r": good_nonce() }),
            ("no nonce", rawdoc! { "p": 110 }),
            ("short nonce", rawdoc! { "r": nonce(31, BinarySubtype::Generic), "p": 110 }),
            ("long nonce", rawdoc! { "r": nonce(33, BinarySubtype::Generic), "p": 110 }),
            ("empty nonce", rawdoc! { "r": nonce(0, BinarySubtype::Generic), "p": 110 }),
            ("uuid nonce", rawdoc! { "r": nonce(32, BinarySubtype::Uuid), "p": 110 }),
            ("old binary nonce", rawdoc! { "r": nonce(32, BinarySubtype::BinaryOld), "p": 110 }),
            ("text nonce", rawdoc! { "r": "01234567890123456789012345678901", "p": 110 }),
            ("null nonce", rawdoc! { "r": RawBson::Null, "p": 110 }),
            ("flag y", rawdoc! { "r": good_nonce(), "p": 121 }),
            ("flag as text", rawdoc! { "r": good_nonce(), "p": "n" }),
            ("flag as long", rawdoc! { "r": good_nonce(), "p": 110_i64 }),
            ("flag as double", rawdoc! { "r": good_nonce(), "p": 110.0 }),
            ("flag as timestamp", rawdoc! { "r": good_nonce(), "p": Timestamp { time: 0, increment: 110 } }),
            ("further field", rawdoc! { "r": good_nonce(), "p": 110, "c": "x" }),
            ("empty field name", rawdoc! { "r": good_nonce(), "p": 110, "": 1 }),
            ("upper-case names", rawdoc! { "R": good_nonce(), "P": 110 }),
            ("nonce twice", twice(cstr!("r"), good_nonce().into())),
            ("flag twice", twice(cstr!("p"), RawBson::Int32(110))),
        ];
        for (name, message) in cases {
            assert!(ClientFirst::parse(message.as_bytes()).is_err(), "{name} was accepted");
        }
    }

    #[test]
    fn miri_bytes_that_are_not_one_whole_document_are_denied() {
        let good = rawdoc! { "r": good_nonce(), "p": 110 }.into_bytes();
        // It follows the document's length, the field's type and name, the data's length and
        // subtype.
        let nonce = 12..12 + NONCE_LENGTH;
        for length in 0..good.len() {
            assert!(ClientFirst::parse(&good[..length]).is_err(), "the first {length} bytes were accepted");
        }
        assert!(ClientFirst::parse(&[&good[..], &[0]].concat()).is_err());
        assert!(ClientFirst::parse(&[&good[..], &good[..]].concat()).is_err());
        for at in 0..good.len() {
            for value in [0x00, 0x7f, 0xff] {
                let mut changed = good.clone();
                changed[at] = value;
                // Only the bytes of the nonce may differ.
                assert_eq!(
                    ClientFirst::parse(&changed).map(|first| first.nonce.to_vec()).ok(),
                    (changed == good || nonce.contains(&at)).then(|| changed[nonce.clone()].to_vec()),
                    "byte {at} is {value}"
                );
            }
        }
    }

    #[test]
    fn miri_a_second_message_has_two_strings_and_at_most_one_token() {
        let both = rawdoc! { "d": "date", "a": "header", "t": "token" };
        let second = ClientSecond::parse(both.as_bytes()).unwrap();
        assert_eq!((second.authorization, second.date, second.token), ("header", "date", Some("token")));
        let without = rawdoc! { "a": "header", "d": "date" };
        assert!(ClientSecond::parse(without.as_bytes()).unwrap().token.is_none());
        for (name, message) in [
            ("empty", rawdoc! {}),
            ("no date", rawdoc! { "a": "header" }),
            ("no header", rawdoc! { "d": "date" }),
            ("null token", rawdoc! { "a": "header", "d": "date", "t": RawBson::Null }),
            ("number as date", rawdoc! { "a": "header", "d": 1 }),
            ("reserved field p", rawdoc! { "a": "header", "d": "date", "p": "x" }),
            ("reserved field o", rawdoc! { "a": "header", "d": "date", "o": {} }),
        ] {
            assert!(ClientSecond::parse(message.as_bytes()).is_err(), "{name} was accepted");
        }
        let mut twice = rawdoc! { "a": "header", "d": "date" };
        twice.append(cstr!("a"), "header");
        assert!(ClientSecond::parse(twice.as_bytes()).is_err());
    }

    #[test]
    fn miri_limits_of_length_are_exact() {
        let second = |length: usize| {
            let empty = rawdoc! { "a": "header", "d": "date", "t": "" }.as_bytes().len();
            let token = "t".repeat(length - empty);
            rawdoc! { "a": "header", "d": "date", "t": token }.into_bytes()
        };
        assert_eq!(second(17_408).len(), 17_408);
        assert!(ClientSecond::parse(&second(17_408)).is_ok());
        let denial = ClientSecond::parse(&second(17_409)).err().unwrap();
        assert_eq!(denial.reason(), "the client's second message has 17409 bytes; the maximum is 17408");
        // Every valid first message is shorter, so the reason shows which check denies it.
        let reason = |length: usize| ClientFirst::parse(&vec![0; length]).err().unwrap().reason().to_owned();
        assert_eq!(reason(128), "the client's first message is not a valid BSON document");
        assert_eq!(reason(129), "the client's first message has 129 bytes; the maximum is 128");
    }

    #[test]
    fn miri_text_that_is_not_utf8_is_denied() {
        let mut message = rawdoc! { "a": "header", "d": "date" }.into_bytes();
        let at = message.windows(6).position(|window| window == b"header").unwrap();
        message[at] = 0xff;
        assert!(ClientSecond::parse(&message).is_err());
    }
}
