//! The three texts of a signature: the Authorization header, the date and the token.
//!
//! The first byte of an input selects one: `a` or `A` a header, without or with a token; `d` a
//! date; `t` a token.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use psmdb_aws_iam::denial::{Denial, Kind};
use psmdb_aws_iam::sigv4::{
    AmzDate, Authorization, Expected, MAX_CLOCK_SKEW_SECONDS, MAX_TOKEN_LENGTH, check_token, claimed_access_key_id,
};

fuzz_target!(|data: &[u8]| -> Corpus {
    let (Some((which, text)), true) = (data.split_first(), data.len() <= 2 * MAX_TOKEN_LENGTH) else {
        return Corpus::Reject;
    };
    let Ok(text) = str::from_utf8(text) else { return Corpus::Reject };
    match which {
        b'a' => authorization(text, false),
        b'A' => authorization(text, true),
        b'd' => date(text),
        b't' => token(text),
        _ => return Corpus::Reject,
    }
    Corpus::Keep
});

fn authorization(header: &str, with_token: bool) {
    let date = AmzDate::parse("20261121T191300Z").unwrap();
    match Authorization::parse(header, &Expected { date: &date, region: "us-east-1", with_token }) {
        Ok(parsed) => {
            assert_eq!(parsed.to_header().expose(), header);
            assert!(header.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '));
            assert!(header.contains("/20261121/us-east-1/sts/aws4_request, SignedHeaders="));
            let id = parsed.claimed_access_key_id();
            assert!(header.starts_with(&format!("AWS4-HMAC-SHA256 Credential={id}/")));
            for name in ["host", "x-amz-date", "x-mongodb-gs2-cb-flag", "x-mongodb-server-nonce"] {
                assert!(parsed.signs(name), "{name} is not signed");
            }
            assert!(!id.starts_with(if with_token { "AKIA" } else { "ASIA" }), "a key and a token of different kinds");
            assert_eq!(claimed_access_key_id(header), Some(id));
            assert_eq!(parsed.signs("x-amz-security-token"), with_token);
            // With the opposite expectation, the same header is always denied.
            let other = Expected { date: &date, region: "us-east-1", with_token: !with_token };
            assert!(Authorization::parse(header, &other).is_err());
        }
        Err(denial) => assert_denied(&denial),
    }
    if let Some(id) = claimed_access_key_id(header) {
        // It is logged.
        assert!((1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
    }
}

/// An accepted date is the time that its digits name, computed here in another way.
fn date(text: &str) {
    match AmzDate::parse(text) {
        Ok(date) => {
            assert_eq!((date.as_str(), date.day()), (text, &text[..8]));
            let number = |from: usize, to: usize| text[from..to].parse::<i64>().expect("digits");
            let (year, month, day) = (number(0, 4), number(4, 6), number(6, 8));
            assert!((1..=12).contains(&month) && (1..=31).contains(&day));
            assert!(number(9, 11) < 24 && number(11, 13) < 60 && number(13, 15) < 60);
            // Days since 1970-01-01, with years that start in March.
            let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
            let days = 365 * year + year.div_euclid(4) - year.div_euclid(100)
                + year.div_euclid(400)
                + (153 * month + 2) / 5
                + day
                - 1
                - 719_468;
            let at = 86_400 * days + 3600 * number(9, 11) + 60 * number(11, 13) + number(13, 15);
            for now in [at - MAX_CLOCK_SKEW_SECONDS, at, at + MAX_CLOCK_SKEW_SECONDS] {
                assert!(date.check_skew(now).is_ok());
            }
            for now in [at - MAX_CLOCK_SKEW_SECONDS - 1, at + MAX_CLOCK_SKEW_SECONDS + 1, i64::MIN, i64::MAX] {
                assert_denied(&date.check_skew(now).unwrap_err());
            }
        }
        Err(denial) => assert_denied(&denial),
    }
}

fn token(text: &str) {
    let good = (1..=MAX_TOKEN_LENGTH).contains(&text.len()) && text.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
    match check_token(text) {
        Ok(()) => assert!(good),
        Err(denial) => {
            assert!(!good);
            assert_denied(&denial);
        }
    }
}

fn assert_denied(denial: &Denial) {
    assert_eq!(denial.kind(), Kind::MalformedMessage);
    assert!(!denial.reason().is_empty() && !denial.reason().contains(char::is_control), "{denial:?}");
}
