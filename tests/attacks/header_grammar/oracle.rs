//! A second implementation of the grammars of `src/sigv4.rs` and `src/sasl/messages.rs`, with
//! regular expressions.

use bson::Document;
use regex_lite::Regex;

/// The part for which a message is denied, in the order of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Message,
    Date,
    Clock,
    Token,
    Header,
}

/// What STS must receive for an accepted message.
#[derive(Debug)]
pub struct Sent {
    pub header: String,
    pub signed: Vec<String>,
    pub date: String,
    pub token: Option<String>,
}

/// The grammars, implemented independently of the plugin.
pub struct Oracle {
    header: Regex,
    date: Regex,
    token: Regex,
}

impl Oracle {
    pub fn new() -> Self {
        let regex = |text: &str| Regex::new(text).expect("a regular expression");
        Self {
            // us-east-1 is the region of the fixture's STS host.
            header: regex(concat!(
                r"\AAWS4-HMAC-SHA256 Credential=(?<id>[A-Za-z0-9_]{1,128})/(?<day>[0-9]{8})/us-east-1/sts/aws4_request",
                r", ",
                r"SignedHeaders=(?<signed>(?:content-length;)?(?:content-type;)?host;x-amz-date;",
                r"(?<token>x-amz-security-token;)?x-mongodb-gs2-cb-flag;x-mongodb-server-nonce), ",
                r"Signature=(?<signature>[0-9a-f]{64})\z"
            )),
            date: regex(concat!(
                r"\A(?<year>[0-9]{4})(?<month>0[1-9]|1[0-2])(?<day>0[1-9]|[12][0-9]|3[01])",
                r"T(?<hour>[01][0-9]|2[0-3])(?<minute>[0-5][0-9])(?<second>[0-5][0-9])Z\z"
            )),
            token: regex(r"\A[!-~]+\z"),
        }
    }

    /// The header in its canonical form, and the signed headers.
    pub fn header(&self, header: &str, date: &str, with_token: bool) -> Option<(String, Vec<String>)> {
        let found = self.header.captures(header)?;
        let part = |name| found.name(name).map(|part| part.as_str());
        if part("day")? != &date[..8] || part("token").is_some() != with_token {
            return None;
        }
        let (id, day, signed, signature) = (part("id")?, part("day")?, part("signed")?, part("signature")?);
        if id.starts_with(if with_token { "AKIA" } else { "ASIA" }) {
            return None;
        }
        let canonical = format!(
            "AWS4-HMAC-SHA256 Credential={id}/{day}/us-east-1/sts/aws4_request, SignedHeaders={signed}, \
             Signature={signature}"
        );
        Some((canonical, signed.split(';').map(str::to_owned).collect()))
    }

    /// The time in seconds since 1970.
    pub fn date(&self, date: &str) -> Option<i64> {
        let found = self.date.captures(date)?;
        let number = |name| found.name(name).and_then(|part| part.as_str().parse::<i64>().ok());
        let (year, month, day) = (number("year")?, number("month")?, number("day")?);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let month = usize::try_from(month).ok()? - 1;
        if day > lengths[month] {
            return None;
        }
        let leap_days = (year - 1).div_euclid(4) - (year - 1).div_euclid(100) + (year - 1).div_euclid(400);
        let days = 365 * (year - 1970) + leap_days - 477 + lengths[..month].iter().sum::<i64>() + day - 1;
        Some(((days * 24 + number("hour")?) * 60 + number("minute")?) * 60 + number("second")?)
    }

    pub fn token(&self, token: &str) -> bool {
        token.len() <= 16384 && self.token.is_match(token)
    }

    pub fn judge(&self, message: &[u8], now: i64) -> Result<Sent, Part> {
        if message.len() > 16384 + 1024 {
            return Err(Part::Message);
        }
        // Duplicate fields and trailing bytes are lost when the document is encoded again.
        let document = Document::from_reader(message).map_err(|_| Part::Message)?;
        if document.to_vec().ok().as_deref() != Some(message)
            || document
                .iter()
                .any(|(name, value)| !["a", "d", "t"].contains(&name.as_str()) || value.as_str().is_none())
        {
            return Err(Part::Message);
        }
        let text = |name| document.get_str(name).ok();
        let (header, date, token) = (text("a").ok_or(Part::Message)?, text("d").ok_or(Part::Message)?, text("t"));
        let at = self.date(date).ok_or(Part::Date)?;
        if (at - now).abs() > 900 {
            return Err(Part::Clock);
        }
        if token.is_some_and(|token| !self.token(token)) {
            return Err(Part::Token);
        }
        let (header, signed) = self.header(header, date, token.is_some()).ok_or(Part::Header)?;
        Ok(Sent { header, signed, date: date.to_owned(), token: token.map(str::to_owned) })
    }
}

/// The part that a reason in mongod's log names.
pub fn part_of(reason: &str) -> Option<Part> {
    let parts = [
        (Part::Message, "the client's second message"),
        (Part::Date, "X-Amz-Date must be a valid UTC time of the form"),
        (Part::Clock, "the client's clock is"),
        (Part::Token, "the session token"),
        (Part::Header, "the Authorization header"),
        (Part::Header, "Credential must"),
        (Part::Header, "the credential scope must"),
        (Part::Header, "the access key id"),
        (Part::Header, "an access key id that begins with A"),
        (Part::Header, "the client signed for"),
        (Part::Header, "SignedHeaders must"),
        (Part::Header, "the signature"),
    ];
    parts.iter().find(|(_, words)| reason.contains(words)).map(|(part, _)| *part)
}
