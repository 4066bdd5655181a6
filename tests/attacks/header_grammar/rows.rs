//! The messages: each is a valid one with one change, and the expected verdict.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};

use super::oracle::Part;
use crate::support::aws_client::{SignedLogin, Signer, amz_date, client_second};

/// One of the two signers.
pub type Sign = fn(&Signer) -> SignedLogin;

pub const SIGNERS: [(&str, Sign); 2] = [("aws-sigv4", Signer::sign), ("the signer by hand", Signer::sign_by_hand)];

/// Whose login a row changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    Anybody,
    /// A user's, without a session token.
    User,
    /// A role session's, with a session token.
    Role,
}

/// Makes a row's message with one of the two signers.
pub type Message = Box<dyn Fn(Sign, &Signer) -> Vec<u8>>;

pub struct Row {
    pub name: String,
    pub whose: Whose,
    pub expected: Result<(), Part>,
    pub message: Message,
}

#[derive(Default)]
struct Rows(Vec<Row>);

impl Rows {
    fn add(
        &mut self,
        name: impl Into<String>,
        whose: Whose,
        expected: Result<(), Part>,
        message: impl Fn(Sign, &Signer) -> Vec<u8> + 'static,
    ) {
        self.0.push(Row { name: name.into(), whose, expected, message: Box::new(message) });
    }

    /// Changes what is signed.
    fn signing(
        &mut self,
        name: &str,
        whose: Whose,
        expected: Result<(), Part>,
        change: impl Fn(Signer) -> Signer + 'static,
    ) {
        self.add(name, whose, expected, move |sign, signer| client_second(&sign(&change(signer.clone()))));
    }

    fn header(
        &mut self,
        name: impl Into<String>,
        expected: Result<(), Part>,
        change: impl Fn(&str) -> String + 'static,
    ) {
        self.add(name, Whose::Anybody, expected, move |sign, signer| {
            let mut login = sign(signer);
            login.authorization = change(&login.authorization);
            client_second(&login)
        });
    }

    /// Headers that must be denied: in each, the first occurrence of one text is replaced by
    /// another.
    fn refused_headers(&mut self, rows: &[(&'static str, &'static str, &'static str)]) {
        for &(name, from, to) in rows {
            self.header(name, Err(Part::Header), move |header| replace(header, from, to));
        }
    }

    fn date(&mut self, name: &str, expected: Result<(), Part>, change: impl Fn(&str) -> String + 'static) {
        self.add(name, Whose::Anybody, expected, move |sign, signer| {
            let mut login = sign(signer);
            login.date = change(&login.date);
            client_second(&login)
        });
    }

    fn token(&mut self, name: &str, expected: Result<(), Part>, change: impl Fn(&str) -> String + 'static) {
        self.add(name, Whose::Role, expected, move |sign, signer| {
            let mut login = sign(signer);
            login.token = login.token.as_deref().map(&change);
            client_second(&login)
        });
    }

    /// Changes the fields of the document before it is encoded.
    fn fields(
        &mut self,
        name: impl Into<String>,
        whose: Whose,
        expected: Result<(), Part>,
        change: impl Fn(&mut Vec<Field>) + 'static,
    ) {
        self.add(name, whose, expected, move |sign, signer| {
            let mut fields = fields_of(&sign(signer));
            change(&mut fields);
            encode(&fields)
        });
    }

    /// Changes the bytes of the document.
    fn bytes(&mut self, name: &str, expected: Result<(), Part>, change: impl Fn(&mut Vec<u8>) + 'static) {
        self.add(name, Whose::Anybody, expected, move |sign, signer| {
            let mut message = client_second(&sign(signer));
            change(&mut message);
            message
        });
    }
}

/// An element of a BSON document: its type, name and value.
type Field = (u8, Vec<u8>, Vec<u8>);

const STRING: u8 = 0x02;

fn string(text: &[u8]) -> Vec<u8> {
    let length = i32::try_from(text.len() + 1).expect("a short text");
    [&length.to_le_bytes(), text, &[0]].concat()
}

fn fields_of(login: &SignedLogin) -> Vec<Field> {
    let field = |name: &[u8], text: &str| (STRING, name.to_vec(), string(text.as_bytes()));
    let mut fields = vec![field(b"a", &login.authorization), field(b"d", &login.date)];
    fields.extend(login.token.as_ref().map(|token| field(b"t", token)));
    fields
}

/// Encodes these fields as a document without checking them.
fn encode(fields: &[Field]) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, name, value) in fields {
        body.push(*kind);
        body.extend(name);
        body.push(0);
        body.extend(value);
    }
    let length = i32::try_from(body.len() + 5).expect("a short document");
    [&length.to_le_bytes(), &body[..], &[0]].concat()
}

/// Replaces the first `from`, which must be present: a row without a change tests nothing.
fn replace(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "there is no {from:?} to replace");
    text.replacen(from, to, 1)
}

/// The three elements of a valid header.
fn elements(header: &str) -> [&str; 3] {
    let rest = header.strip_prefix("AWS4-HMAC-SHA256 ").expect("the scheme");
    rest.split(", ").collect::<Vec<_>>().try_into().expect("three elements")
}

/// The header with other elements.
fn with_elements(elements: &[&str]) -> String {
    format!("AWS4-HMAC-SHA256 {}", elements.join(", "))
}

/// The header with another value for one of its elements.
fn with_value(header: &str, which: usize, change: impl Fn(&str) -> String) -> String {
    let mut elements = elements(header).map(str::to_owned);
    let (name, value) = elements[which].split_once('=').expect("a name and a value");
    elements[which] = format!("{name}={}", change(value));
    with_elements(&elements.each_ref().map(String::as_str))
}

/// The header with other parts of the credential: key id, day, region, service and terminator.
fn with_credential(header: &str, change: impl Fn(&[&str]) -> String) -> String {
    with_value(header, 0, |value| change(&value.split('/').collect::<Vec<_>>()))
}

/// The header with another access key id.
fn with_key_id(header: &str, id: &str) -> String {
    with_credential(header, |parts| format!("{id}/{}", parts[1..].join("/")))
}

/// The header with another list of signed headers.
fn with_signed(header: &str, change: impl Fn(&mut Vec<&str>)) -> String {
    with_value(header, 1, |value| {
        let mut names = value.split(';').collect();
        change(&mut names);
        names.join(";")
    })
}

pub fn rows() -> Vec<Row> {
    let mut rows = Rows::default();
    accepted(&mut rows);
    casing(&mut rows);
    spacing(&mut rows);
    order_and_number_of_elements(&mut rows);
    signed_headers(&mut rows);
    encodings(&mut rows);
    control_characters(&mut rows);
    look_alikes(&mut rows);
    lengths(&mut rows);
    scopes(&mut rows);
    schemes(&mut rows);
    dates(&mut rows);
    tokens(&mut rows);
    documents(&mut rows);
    rows.0
}

/// Variants that the grammar allows. Most of them have a wrong signature, which only STS can
/// detect.
fn accepted(rows: &mut Rows) {
    for (name, left_out) in [
        ("content-length is not signed", &["content-length"][..]),
        ("content-type is not signed", &["content-type"]),
        ("neither content-length nor content-type is signed", &["content-length", "content-type"]),
    ] {
        rows.signing(name, Whose::Anybody, Ok(()), move |signer| {
            left_out.iter().fold(signer, |signer, name| signer.without_header(name))
        });
    }
    for (name, id) in [
        ("a key id of one letter", "A".to_owned()),
        ("a key id of one underscore", "_".to_owned()),
        ("a key id of digits", "0123456789".to_owned()),
        ("a key id in lower case", "akiaabcdefghijklmnop".to_owned()),
        ("a key id of letters, digits and underscores", "KEY_abc_019_XYZ".to_owned()),
        ("a key id of the greatest length", "A".repeat(128)),
    ] {
        rows.header(name, Ok(()), move |header| with_key_id(header, &id));
    }
    rows.header("a signature of zeros", Ok(()), |header| with_value(header, 2, |_| "0".repeat(64)));
    rows.header("a signature of all digits", Ok(()), |header| with_value(header, 2, |_| "0123456789abcdef".repeat(4)));
    rows.date("another second of the same minute", Ok(()), |date| {
        let last = date.as_bytes()[14] - b'0';
        format!("{}{}Z", &date[..14], (last + 1) % 10)
    });
    for (name, seconds) in [("a clock just not too fast", 890), ("a clock just not too slow", -890)] {
        rows.signing(name, Whose::Anybody, Ok(()), move |signer| signer.time(now_and(seconds)));
    }
    rows.token("a token of one character", Ok(()), |_| "t".to_owned());
    rows.token("a token of every printable character", Ok(()), |_| (b'!'..=b'~').map(char::from).collect());
    rows.token("a token of the greatest length", Ok(()), |_| "t".repeat(16384));
    rows.add("the longest message of all", Whose::Role, Ok(()), |sign, signer| {
        let mut login = sign(signer);
        login.authorization = with_key_id(&login.authorization, &"A".repeat(128));
        login.token = Some("t".repeat(16384));
        client_second(&login)
    });
    rows.fields("the date first", Whose::Anybody, Ok(()), |fields| fields.swap(0, 1));
    rows.fields("the token first", Whose::Role, Ok(()), |fields| fields.rotate_right(1));
}

fn casing(rows: &mut Rows) {
    rows.refused_headers(&[
        ("the scheme in lower case", "AWS4-HMAC-SHA256", "aws4-hmac-sha256"),
        ("the scheme in mixed case", "AWS4-HMAC-SHA256", "Aws4-Hmac-Sha256"),
        ("Credential in lower case", "Credential=", "credential="),
        ("Credential in upper case", "Credential=", "CREDENTIAL="),
        ("SignedHeaders in lower case", "SignedHeaders=", "signedheaders="),
        ("SignedHeaders in camel case", "SignedHeaders=", "signedHeaders="),
        ("Signature in lower case", "Signature=", "signature="),
        ("host in upper case", ";host;", ";HOST;"),
        ("x-amz-date capitalised", ";x-amz-date;", ";X-Amz-Date;"),
        ("the nonce's header as it is sent", "x-mongodb-server-nonce", "X-MongoDB-Server-Nonce"),
        ("the region in upper case", "/us-east-1/", "/US-EAST-1/"),
        ("the service in upper case", "/sts/", "/STS/"),
        ("the terminator in upper case", "aws4_request", "AWS4_REQUEST"),
    ]);
    rows.header("a signature in upper case", Err(Part::Header), |header| {
        with_value(header, 2, |_| "0123456789ABCDEF".repeat(4))
    });
    rows.header("a signature with one upper-case digit", Err(Part::Header), |header| {
        with_value(header, 2, |_| format!("{}A", "a".repeat(63)))
    });
}

fn spacing(rows: &mut Rows) {
    rows.refused_headers(&[
        ("no space after the scheme", "SHA256 ", "SHA256"),
        ("two spaces after the scheme", "SHA256 ", "SHA256  "),
        ("a tab after the scheme", "SHA256 ", "SHA256\t"),
        ("a space and a tab after the scheme", "SHA256 ", "SHA256 \t"),
        ("a no-break space after the scheme", "SHA256 ", "SHA256\u{a0}"),
        ("an ideographic space after the scheme", "SHA256 ", "SHA256\u{3000}"),
        ("no space after the first comma", ", SignedHeaders", ",SignedHeaders"),
        ("no space after the second comma", ", Signature", ",Signature"),
        ("two spaces after the first comma", ", SignedHeaders", ",  SignedHeaders"),
        ("two spaces after the second comma", ", Signature", ",  Signature"),
        ("a tab after the first comma", ", SignedHeaders", ",\tSignedHeaders"),
        ("a no-break space after the second comma", ", Signature", ",\u{a0}Signature"),
        ("a space before the first comma", ", SignedHeaders", " , SignedHeaders"),
        ("a space before the second comma", ", Signature", " , Signature"),
        ("no comma, only a space", ", SignedHeaders", " SignedHeaders"),
        ("a space before an equals sign", "Credential=", "Credential ="),
        ("a space after an equals sign", "Credential=", "Credential= "),
        ("a space before the signature", "Signature=", "Signature= "),
        ("a space before the list", "SignedHeaders=", "SignedHeaders= "),
        ("a space before a semicolon", ";host", " ;host"),
        ("a space after a semicolon", ";host", "; host"),
        ("a space before a slash", "/sts", " /sts"),
        ("a space after a slash", "/sts", "/ sts"),
        ("a leading space", "AWS4", " AWS4"),
        ("a leading tab", "AWS4", "\tAWS4"),
        ("a leading no-break space", "AWS4", "\u{a0}AWS4"),
        ("a leading byte order mark", "AWS4", "\u{feff}AWS4"),
    ]);
    for (name, end) in [
        ("a trailing space", " "),
        ("a trailing tab", "\t"),
        ("a trailing no-break space", "\u{a0}"),
        ("a trailing comma", ","),
        ("a trailing comma and space", ", "),
        ("a trailing semicolon", ";"),
    ] {
        rows.header(name, Err(Part::Header), move |header| format!("{header}{end}"));
    }
}

fn order_and_number_of_elements(rows: &mut Rows) {
    // 0 is Credential, 1 is SignedHeaders, 2 is Signature.
    for (name, order) in [
        ("SignedHeaders before Credential", &[1, 0, 2][..]),
        ("Signature before SignedHeaders", &[0, 2, 1]),
        ("Signature first", &[2, 0, 1]),
        ("Credential last", &[1, 2, 0]),
        ("all backwards", &[2, 1, 0]),
        ("no Credential", &[1, 2]),
        ("no SignedHeaders", &[0, 2]),
        ("no Signature", &[0, 1]),
        ("no element at all", &[]),
        ("Credential twice", &[0, 0, 1, 2]),
        ("SignedHeaders twice", &[0, 1, 1, 2]),
        ("Signature twice", &[0, 1, 2, 2]),
        ("Credential once more at the end", &[0, 1, 2, 0]),
        ("SignedHeaders once more at the end", &[0, 1, 2, 1]),
        ("Credential once more in the middle", &[0, 1, 0, 2]),
        ("all elements twice", &[0, 1, 2, 0, 1, 2]),
    ] {
        rows.header(name, Err(Part::Header), move |header| {
            let good = elements(header);
            with_elements(&order.iter().map(|at| good[*at]).collect::<Vec<_>>())
        });
    }
    for (name, at, more) in [
        ("another credential first", 0, "Credential=A/20260101/us-east-1/sts/aws4_request"),
        ("another credential last", 3, "Credential=A/20260101/us-east-1/sts/aws4_request"),
        ("a shorter list of signed headers last", 3, "SignedHeaders=host"),
        ("an unknown element first", 0, "Algorithm=AWS4-HMAC-SHA256"),
        ("an unknown element in the middle", 1, "Realm=x"),
        ("an unknown element last", 3, "Expires=300"),
        ("an empty element first", 0, ""),
        ("an empty element in the middle", 2, ""),
        ("an element without a name", 3, "=x"),
        ("an element without a value", 3, "Signature"),
    ] {
        rows.header(name, Err(Part::Header), move |header| {
            let mut elements = elements(header).to_vec();
            elements.insert(at, more);
            with_elements(&elements)
        });
    }
    for (name, between) in [
        ("the value twice, joined by a comma", ","),
        ("the value twice, joined by a comma and a space", ", "),
        ("the value twice, joined by a line", "\r\n"),
        ("the value twice, joined by nothing", ""),
    ] {
        rows.header(name, Err(Part::Header), move |header| [header, header].join(between));
    }
    rows.refused_headers(&[
        ("semicolons between the elements", ", SignedHeaders", "; SignedHeaders"),
        ("an ampersand between the elements", ", Signature", "&Signature"),
        ("Credential with a colon", "Credential=", "Credential:"),
        ("Credential with two equals signs", "Credential=", "Credential=="),
        ("Credential under the name of the query parameter", "Credential=", "X-Amz-Credential="),
        ("SignedHeaders in the singular", "SignedHeaders=", "SignedHeader="),
    ]);
}

fn signed_headers(rows: &mut Rows) {
    for required in ["host", "x-amz-date", "x-mongodb-gs2-cb-flag", "x-mongodb-server-nonce"] {
        let name = format!("{required} is not signed");
        rows.signing(&name, Whose::Anybody, Err(Part::Header), |signer| signer.without_header(required));
    }
    rows.add("a long-term key with a session token", Whose::Role, Err(Part::Header), |sign, signer| {
        let mut login = sign(signer);
        login.authorization = with_key_id(&login.authorization, "AKIAEXAMPLE");
        client_second(&login)
    });
    rows.add("temporary credentials without a session token", Whose::User, Err(Part::Header), |sign, signer| {
        let mut login = sign(signer);
        login.authorization = with_key_id(&login.authorization, "ASIAEXAMPLE");
        client_second(&login)
    });
    rows.signing("the token is not signed", Whose::Role, Err(Part::Header), |signer| {
        signer.without_header("x-amz-security-token")
    });
    rows.add("a token is signed that nobody sends", Whose::User, Err(Part::Header), |sign, signer| {
        let mut login = sign(signer);
        login.authorization = replace(&login.authorization, "x-amz-date;", "x-amz-date;x-amz-security-token;");
        client_second(&login)
    });
    // At their place in the sorted list, so that only the name is wrong.
    for unknown in [
        "accept",
        "authorization",
        "connection",
        "content-encoding",
        "cookie",
        "date",
        "expect",
        "range",
        "transfer-encoding",
        "user-agent",
        "x-amz-content-sha256",
        "x-amz-expires",
        "x-amz-target",
        "x-amzn-trace-id",
        "x-forwarded-host",
        "x-mongodb-other",
        ":authority",
    ] {
        rows.header(format!("{unknown} is signed too"), Err(Part::Header), move |header| {
            with_signed(header, |names| {
                names.push(unknown);
                names.sort_unstable();
            })
        });
    }
    for known in ["content-length", "content-type", "host", "x-amz-date", "x-mongodb-server-nonce"] {
        rows.header(format!("{known} is signed twice"), Err(Part::Header), move |header| {
            with_signed(header, |names| {
                names.push(known);
                names.sort_unstable();
            })
        });
    }
    rows.header("the list backwards", Err(Part::Header), |header| with_signed(header, |names| names.reverse()));
    rows.header("the nonce first in the list", Err(Part::Header), |header| {
        with_signed(header, |names| names.rotate_right(1))
    });
    rows.header("host last in the list", Err(Part::Header), |header| {
        with_signed(header, |names| {
            names.retain(|name| *name != "host");
            names.push("host");
        })
    });
    rows.header("an unknown header last in the list", Err(Part::Header), |header| {
        with_signed(header, |names| names.push("z"))
    });
    rows.refused_headers(&[
        ("two neighbours in the list swapped", "content-length;content-type", "content-type;content-length"),
        ("a comma in the list", "content-length;", "content-length,"),
        ("a bar in the list", "content-length;", "content-length|"),
        ("an empty name first in the list", "SignedHeaders=", "SignedHeaders=;"),
        ("an empty name in the list", ";host;", ";;host;"),
        ("an empty name last in the list", ", Signature", ";, Signature"),
        ("a header's value in the list", ";host;", ";host:sts.amazonaws.com;"),
        ("an underscore in a header's name", "x-amz-date", "x_amz_date"),
        ("the beginning of a header's name", "x-mongodb-server-nonce", "x-mongodb-server-nonc"),
        ("more than a header's name", "x-mongodb-server-nonce", "x-mongodb-server-nonces"),
        ("a star for every header", "content-length;", "*;"),
    ]);
}

fn encodings(rows: &mut Rows) {
    rows.refused_headers(&[
        ("a slash percent-encoded", "/sts/", "%2Fsts/"),
        ("a semicolon percent-encoded", ";host", "%3Bhost"),
        ("an equals sign percent-encoded", "Credential=", "Credential%3D"),
        ("a comma percent-encoded", ", SignedHeaders", "%2C SignedHeaders"),
        ("a space percent-encoded", ", SignedHeaders", ",%20SignedHeaders"),
        ("a space as a plus", "SHA256 ", "SHA256+"),
        ("a letter percent-encoded", "/sts/", "/st%73/"),
        ("a letter percent-encoded twice", "/sts/", "/st%2573/"),
        ("a line percent-encoded", "/sts/", "/sts%0d%0a/"),
        ("a slash as in JSON", "/sts/", "\\/sts/"),
        ("a slash as in HTML", "/sts/", "&#47;sts/"),
        ("a quoted pair", ";host", ";h\\ost"),
        ("a folded line", ", SignedHeaders", ",\r\n SignedHeaders"),
        ("a line folded by a tab", ", Signature", ",\r\n\tSignature"),
        ("a line folded by a bare newline", ", Signature", ",\n Signature"),
        ("an encoded word", "/sts/", "/=?utf-8?q?sts?=/"),
        ("a comment", "SHA256 ", "SHA256 (x) "),
    ]);
    for (name, which) in [("a quoted credential", 0), ("a quoted list of signed headers", 1), ("a quoted signature", 2)]
    {
        rows.header(name, Err(Part::Header), move |header| with_value(header, which, |value| format!("\"{value}\"")));
    }
    rows.header("a key id percent-encoded", Err(Part::Header), |header| with_key_id(header, "AKI%41EXAMPLE"));
    rows.header("a key id in base64", Err(Part::Header), |header| with_key_id(header, "QUtJQQ=="));
    let signature = |encode: fn(&[u8]) -> String| {
        move |header: &str| with_value(header, 2, |value| encode(&hex::decode(value).expect("digits")))
    };
    rows.header("a signature in base64", Err(Part::Header), signature(|bytes| BASE64_STANDARD.encode(bytes)));
    rows.header("a signature in base64url", Err(Part::Header), signature(|bytes| BASE64_URL_SAFE.encode(bytes)));
    rows.header("a signature with a prefix", Err(Part::Header), |header| {
        with_value(header, 2, |value| format!("0x{}", &value[2..]))
    });
    rows.header("the value in base64", Err(Part::Header), |header| BASE64_STANDARD.encode(header));
    rows.header("the value in quotes", Err(Part::Header), |header| format!("\"{header}\""));
    rows.header("the header's name before the value", Err(Part::Header), |header| format!("Authorization: {header}"));
}

fn control_characters(rows: &mut Rows) {
    for (name, character) in [
        ("a NUL", "\0"),
        ("a backspace", "\u{8}"),
        ("a newline", "\n"),
        ("a vertical tab", "\u{b}"),
        ("a form feed", "\u{c}"),
        ("a carriage return", "\r"),
        ("a CRLF", "\r\n"),
        ("a CRLF and a header", "\r\nX-Evil: 1"),
        ("a CRLF and a body", "\r\n\r\nAction=AssumeRole"),
        ("an ESC", "\u{1b}"),
        ("a DEL", "\u{7f}"),
        ("the control character U+0080", "\u{80}"),
        ("the control character NEL", "\u{85}"),
        ("a line separator", "\u{2028}"),
        ("a replacement character", "\u{fffd}"),
    ] {
        rows.header(format!("{name} after the value"), Err(Part::Header), move |header| format!("{header}{character}"));
        rows.header(format!("{name} before the value"), Err(Part::Header), move |header| {
            format!("{character}{header}")
        });
        rows.header(format!("{name} in the key id"), Err(Part::Header), move |header| {
            with_credential(header, |parts| format!("{}{character}/{}", parts[0], parts[1..].join("/")))
        });
        rows.header(format!("{name} in the list"), Err(Part::Header), move |header| {
            replace(header, ";host", &format!(";host{character}"))
        });
        rows.header(format!("{name} in the scope"), Err(Part::Header), move |header| {
            replace(header, "/sts/", &format!("/sts{character}/"))
        });
    }
}

fn look_alikes(rows: &mut Rows) {
    rows.refused_headers(&[
        ("a Cyrillic letter in the terminator", "aws4_request", "\u{430}ws4_request"),
        ("a Cyrillic letter in the region", "us-east-1", "us-e\u{430}st-1"),
        ("a Greek letter in the scheme", "AWS4", "\u{391}WS4"),
        ("a Greek question mark for a semicolon", ";host", "\u{37e}host"),
        ("a long s in the service", "/sts/", "/\u{17f}ts/"),
        ("a long s in a header's name", ";host;", ";ho\u{17f}t;"),
        ("a ligature in the service", "/sts/", "/\u{fb06}s/"),
        ("a dotless i in an element's name", "Signature=", "S\u{131}gnature="),
        ("a dotted capital I in an element's name", "Signature=", "S\u{130}gnature="),
        ("full-width letters in the service", "/sts/", "/\u{ff53}\u{ff54}\u{ff53}/"),
        ("a full-width slash", "/sts/", "\u{ff0f}sts/"),
        ("a fraction slash", "/sts/", "\u{2044}sts/"),
        ("a full-width comma", ", SignedHeaders", "\u{ff0c} SignedHeaders"),
        ("a full-width equals sign", "Credential=", "Credential\u{ff1d}"),
        ("a full-width digit in the region", "us-east-1", "us-east-\u{ff11}"),
        ("a hyphen that does not break", "AWS4-HMAC", "AWS4\u{2011}HMAC"),
        ("a soft hyphen", ";host;", ";ho\u{ad}st;"),
        ("a zero-width space", ";host;", ";ho\u{200b}st;"),
        ("a zero-width joiner", "/sts/", "/st\u{200d}s/"),
        ("a word joiner", "AWS4", "AWS\u{2060}4"),
        ("a right-to-left mark", ";host;", ";\u{200f}host;"),
        ("a right-to-left override", "/sts/", "/\u{202e}sts/"),
        ("a combining accent", "/sts/", "/sts\u{301}/"),
        ("a variation selector", ";host;", ";host\u{fe0f};"),
        ("a tag character", ";host;", ";host\u{e0061};"),
    ]);
    rows.add("a Kelvin sign in a header's name", Whose::Role, Err(Part::Header), |sign, signer| {
        let mut login = sign(signer);
        login.authorization = replace(&login.authorization, "security-token", "security-to\u{212a}en");
        client_second(&login)
    });
    for (name, id) in [
        ("a Kelvin sign in the key id", "A\u{212a}IAEXAMPLE"),
        ("a long s in the key id", "AKIAEXAMPLE\u{17f}"),
        ("full-width letters in the key id", "\u{ff21}\u{ff2b}\u{ff29}\u{ff21}"),
        ("an Arabic digit in the key id", "AKIAEXAMPLE\u{661}"),
        ("a letter with an accent in the key id", "AKIAEXAMPLÉ"),
        ("a hyphen in the key id", "AKIA-EXAMPLE"),
        ("a dot in the key id", "AKIA.EXAMPLE"),
        ("a plus in the key id", "AKIA+EXAMPLE"),
        ("a colon in the key id", "AKIA:EXAMPLE"),
        ("a space in the key id", "AKIA EXAMPLE"),
        ("a comma in the key id", "AKIA,EXAMPLE"),
        ("a semicolon in the key id", "AKIA;EXAMPLE"),
        ("an equals sign in the key id", "AKIA=EXAMPLE"),
        ("a quote in the key id", "AKIA\"EXAMPLE"),
        ("an at sign in the key id", "AKIA@EXAMPLE"),
        ("a bracket in the key id", "AKIA[EXAMPLE"),
        ("a backtick in the key id", "AKIA`EXAMPLE"),
        ("a brace in the key id", "AKIA{EXAMPLE"),
    ] {
        rows.header(name, Err(Part::Header), move |header| with_key_id(header, id));
    }
    for (name, digit) in [
        ("a full-width digit in the signature", "\u{ff11}"),
        ("an Arabic digit in the signature", "\u{661}"),
        ("a Cyrillic letter in the signature", "\u{430}"),
        ("the letter g in the signature", "g"),
        ("a colon in the signature", ":"),
        ("a slash in the signature", "/"),
        ("a backtick in the signature", "`"),
    ] {
        // As long as a valid one, so that it is not denied for its length.
        rows.header(name, Err(Part::Header), move |header| {
            with_value(header, 2, |value| format!("{digit}{}", &value[digit.len()..]))
        });
    }
    rows.header("full-width digits in the scope's day", Err(Part::Header), |header| {
        with_credential(header, |parts| {
            let wide = |digit: char| char::from_u32(digit as u32 - '0' as u32 + 0xff10).expect("a digit");
            let day: String = parts[1].chars().map(wide).collect();
            format!("{}/{day}/{}", parts[0], parts[2..].join("/"))
        })
    });
}

fn lengths(rows: &mut Rows) {
    rows.header("an empty value", Err(Part::Header), |_| String::new());
    rows.header("a key id one too long", Err(Part::Header), |header| with_key_id(header, &"A".repeat(129)));
    rows.header("a key id of a kilobyte", Err(Part::Header), |header| with_key_id(header, &"A".repeat(1000)));
    rows.header("a value longer than any message", Err(Part::Message), |header| {
        with_key_id(header, &"A".repeat(17_408))
    });
    for (name, which) in [("an empty credential", 0), ("an empty list of signed headers", 1), ("an empty signature", 2)]
    {
        rows.header(name, Err(Part::Header), move |header| with_value(header, which, |_| String::new()));
    }
    for (name, digits) in [
        ("a signature one digit short", 63),
        ("a signature one digit long", 65),
        ("a signature of another hash", 128),
        ("a signature of one digit", 1),
        ("a signature of a kilobyte", 1000),
    ] {
        rows.header(name, Err(Part::Header), move |header| with_value(header, 2, |_| "a".repeat(digits)));
    }
    rows.header("a list of a hundred names", Err(Part::Header), |header| {
        with_signed(header, |names| names.splice(0..0, ["content-length"; 100]).for_each(drop))
    });
    rows.refused_headers(&[
        ("an empty scheme", "AWS4-HMAC-SHA256 ", " "),
        ("no scheme", "AWS4-HMAC-SHA256 ", ""),
        ("a scheme that is too long", "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256256"),
        ("a scheme that is too short", "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA"),
    ]);
    rows.add("a message of the greatest length", Whose::Role, Err(Part::Token), padded(17_408));
    rows.add("a message of one byte more", Whose::Role, Err(Part::Message), padded(17_409));
}

/// A message of this length, reached with a token that is too long.
fn padded(length: usize) -> impl Fn(Sign, &Signer) -> Vec<u8> {
    move |sign, signer| {
        let mut login = sign(signer);
        login.token = Some(String::new());
        let rest = client_second(&login).len();
        login.token = Some("t".repeat(length - rest));
        client_second(&login)
    }
}

fn scopes(rows: &mut Rows) {
    for (name, region) in [
        ("another region", "eu-west-1"),
        ("a neighbouring region", "us-east-2"),
        ("the beginning of the region", "us-east"),
        ("more than the region", "us-east-1a"),
        ("every region", "*"),
        ("the region of SigV4A", "aws-global"),
    ] {
        rows.signing(name, Whose::Anybody, Err(Part::Header), move |signer| signer.region(region));
    }
    for (name, service) in [
        ("another service", "iam"),
        ("the service execute-api", "execute-api"),
        ("the beginning of the service", "st"),
        ("more than the service", "sts-fips"),
        ("the service's host", "sts.amazonaws.com"),
    ] {
        rows.signing(name, Whose::Anybody, Err(Part::Header), move |signer| signer.service(service));
    }
    for (name, day) in [
        ("the day of another year", "20200101"),
        ("a day of another form", "2026-01-01"),
        ("a day that never was", "20260230"),
        ("an empty day", ""),
        ("the date for the day", "20260131T000000Z"),
    ] {
        rows.header(name, Err(Part::Header), move |header| {
            with_credential(header, |parts| format!("{}/{day}/{}", parts[0], parts[2..].join("/")))
        });
    }
    // A different day at any time, also around midnight.
    for (name, hours) in [("a day before", -36), ("a day after", 36)] {
        rows.header(name, Err(Part::Header), move |header| {
            let other = amz_date(now_and(hours * 3600));
            with_credential(header, |parts| format!("{}/{}/{}", parts[0], &other[..8], parts[2..].join("/")))
        });
    }
    for (name, order) in [
        ("no key id in the credential", &[1, 2, 3, 4][..]),
        ("no day in the scope", &[0, 2, 3, 4]),
        ("no region in the scope", &[0, 1, 3, 4]),
        ("no service in the scope", &[0, 1, 2, 4]),
        ("no terminator in the scope", &[0, 1, 2, 3]),
        ("no scope", &[0]),
        ("region and service swapped", &[0, 1, 3, 2, 4]),
        ("day and region swapped", &[0, 2, 1, 3, 4]),
        ("service and terminator swapped", &[0, 1, 2, 4, 3]),
        ("the scope before the key id", &[1, 2, 3, 4, 0]),
        ("the key id twice", &[0, 0, 1, 2, 3, 4]),
        ("the region twice", &[0, 1, 2, 2, 3, 4]),
        ("the terminator twice", &[0, 1, 2, 3, 4, 4]),
    ] {
        rows.header(name, Err(Part::Header), move |header| {
            with_credential(header, |parts| order.iter().map(|at| parts[*at]).collect::<Vec<_>>().join("/"))
        });
    }
    rows.header("a slash before the key id", Err(Part::Header), |header| {
        replace(header, "Credential=", "Credential=/")
    });
    rows.header("an empty key id", Err(Part::Header), |header| with_key_id(header, ""));
    rows.header("a key id with a path", Err(Part::Header), |header| with_key_id(header, "AKIA/EXAMPLE"));
    rows.refused_headers(&[
        ("a slash after the scope", "/aws4_request", "/aws4_request/"),
        ("two slashes in the scope", "/sts/", "//sts/"),
        ("a backslash in the scope", "/sts/", "\\sts/"),
        ("dots in the scope", "/sts/", "/../sts/"),
        ("an empty region", "/us-east-1/", "//"),
        ("an empty service", "/sts/", "//"),
        ("an empty terminator", "/aws4_request", "/"),
        ("another terminator", "aws4_request", "aws5_request"),
        ("more than the terminator", "aws4_request", "aws4_requests"),
        ("the beginning of the terminator", "aws4_request", "aws4_reques"),
        ("a hyphen in the terminator", "aws4_request", "aws4-request"),
    ]);
}

fn schemes(rows: &mut Rows) {
    rows.refused_headers(&[
        ("another hash", "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA512"),
        ("an old hash", "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1"),
        ("the scheme of SigV4A", "AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"),
        ("the scheme of chunks", "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256-PAYLOAD"),
        ("the scheme of certificates", "AWS4-HMAC-SHA256", "AWS4-X509-RSA-SHA256"),
        ("the scheme of version 3", "AWS4-HMAC-SHA256", "AWS3-HTTPS"),
        ("the scheme alone twice", "AWS4-HMAC-SHA256 ", "AWS4-HMAC-SHA256 AWS4-HMAC-SHA256 "),
        ("a comma after the scheme", "SHA256 ", "SHA256, "),
        ("an equals sign after the scheme", "SHA256 ", "SHA256="),
        ("another scheme before", "AWS4-HMAC-SHA256", "Basic QTpi, AWS4-HMAC-SHA256"),
    ]);
    for (name, value) in [
        ("the scheme alone", "AWS4-HMAC-SHA256"),
        ("the scheme and a space", "AWS4-HMAC-SHA256 "),
        ("Basic", "Basic QUtJQTpzZWNyZXQ="),
        ("Bearer", "Bearer QUtJQTpzZWNyZXQ="),
        ("version 2", "AWS AKIAEXAMPLE:frJIUN8DYpKDtOLCwo//yllqDzg="),
    ] {
        rows.header(name, Err(Part::Header), move |_| value.to_owned());
    }
    rows.header("two schemes, ours first", Err(Part::Header), |header| format!("{header}, Basic QTpi"));
    rows.header("two schemes, ours last", Err(Part::Header), |header| format!("Bearer x, {header}"));
}

fn dates(rows: &mut Rows) {
    // Of the right form, and wrong only in the time.
    for (name, date) in [
        ("a leap day", "20240229T235959Z"),
        ("the leap day of a century", "20000229T000000Z"),
        ("the year zero", "00000101T000000Z"),
        ("the last year", "99991231T235959Z"),
        ("a year of the Buddhist calendar", "25690131T191300Z"),
        ("a year of the Islamic calendar", "14470131T191300Z"),
    ] {
        rows.date(name, Err(Part::Clock), move |_| date.to_owned());
    }
    for (name, date) in [
        ("an empty date", ""),
        ("a leap second", "20161231T235960Z"),
        ("a leap day in another year", "20250229T191300Z"),
        ("a leap day in a century without", "19000229T191300Z"),
        ("the 31st of April", "20260431T191300Z"),
        ("the day zero", "20260100T191300Z"),
        ("the 32nd", "20260132T191300Z"),
        ("the month zero", "20260031T191300Z"),
        ("the 13th month", "20261301T191300Z"),
        ("the 24th hour", "20260131T240000Z"),
        ("the 60th minute", "20260131T196000Z"),
        ("the 99th second", "20260131T191399Z"),
        ("a year of five digits", "120260131T191300Z"),
        ("a year of two digits", "260131T191300Z"),
        ("a year with a sign", "+2020131T191300Z"),
        ("a year before Christ", "-0260131T191300Z"),
        ("the extended form", "2026-01-31T19:13:00Z"),
        ("a week's day", "2026W056T191300Z"),
        ("the day of the year", "2026031T191300Z"),
        ("the date of HTTP", "Sat, 31 Jan 2026 19:13:00 GMT"),
        ("seconds since 1970", "1769886780"),
        ("the day only", "20260131"),
        ("no seconds", "20260131T1913Z"),
        ("no digits", "YYYYMMDDTHHMMSSZ"),
        ("hexadecimal digits", "2026013aT191300Z"),
        ("spaces for zeros", "2026 131T191300Z"),
        ("full-width digits", "\u{ff12}\u{ff10}\u{ff12}\u{ff16}0131"),
        ("Arabic digits", "\u{662}\u{660}\u{662}\u{666}0131T191300Z"),
        ("a year of an emperor", "R0080131T191300Z"),
    ] {
        rows.date(name, Err(Part::Date), move |_| date.to_owned());
    }
    type Change = fn(&str) -> String;
    let changes: [(&str, Change); 24] = [
        ("second 60 today", |date| format!("{}60Z", &date[..13])),
        ("a fraction", |date| format!("{}.000Z", &date[..15])),
        ("a fraction after a comma", |date| format!("{},5Z", &date[..15])),
        ("an offset", |date| format!("{}+0000", &date[..15])),
        ("an offset of two digits", |date| format!("{}+00", &date[..15])),
        ("an offset after the Z", |date| format!("{date}+00:00")),
        ("a lower-case t", |date| date.replace('T', "t")),
        ("a lower-case z", |date| date.replace('Z', "z")),
        ("no T", |date| date.replace('T', "")),
        ("a space for the T", |date| date.replace('T', " ")),
        ("an underscore for the T", |date| date.replace('T', "_")),
        ("no Z", |date| date.replace('Z', "")),
        ("another letter for the Z", |date| date.replace('Z', "A")),
        ("a Cyrillic T", |date| date.replace('T', "\u{422}")),
        ("a space before the date", |date| format!(" {date}")),
        ("a space after the date", |date| format!("{date} ")),
        ("a newline after the date", |date| format!("{date}\n")),
        ("a NUL after the date", |date| format!("{date}\0")),
        ("a header after the date", |date| format!("{date}\r\nX-Evil: 1")),
        ("two dates joined", |date| format!("{date}{date}")),
        ("two dates and a comma", |date| format!("{date}, {date}")),
        ("a sign for a digit", |date| format!("{}+{}", &date[..13], &date[14..])),
        ("a digit after the date", |date| format!("{date}0")),
        ("a date in quotes", |date| format!("\"{date}\"")),
    ];
    for (name, change) in changes {
        rows.date(name, Err(Part::Date), change);
    }
    for (name, seconds) in [
        ("a clock just too fast", 910),
        ("a clock just too slow", -910),
        ("a clock a day ahead", 86_400),
        ("a clock a day behind", -86_400),
    ] {
        rows.signing(name, Whose::Anybody, Err(Part::Clock), move |signer| signer.time(now_and(seconds)));
    }
}

fn tokens(rows: &mut Rows) {
    rows.token("an empty token", Err(Part::Token), |_| String::new());
    rows.token("a token one too long", Err(Part::Token), |_| "t".repeat(16385));
    rows.token("a token longer than any message", Err(Part::Message), |_| "t".repeat(17_409));
    for (name, character) in [
        ("a space", " "),
        ("a tab", "\t"),
        ("a NUL", "\0"),
        ("a newline", "\n"),
        ("a carriage return", "\r"),
        ("a CRLF and a header", "\r\nX-Evil: 1"),
        ("an ESC", "\u{1b}"),
        ("the last control character", "\u{1f}"),
        ("a DEL", "\u{7f}"),
        ("the control character U+0080", "\u{80}"),
        ("a no-break space", "\u{a0}"),
        ("a letter with an accent", "é"),
        ("a zero-width space", "\u{200b}"),
        ("a byte order mark", "\u{feff}"),
        ("a full-width plus", "\u{ff0b}"),
    ] {
        rows.token(&format!("{name} before the token"), Err(Part::Token), move |token| format!("{character}{token}"));
        rows.token(&format!("{name} after the token"), Err(Part::Token), move |token| format!("{token}{character}"));
        rows.token(&format!("{name} in the token"), Err(Part::Token), move |token| {
            format!("{}{character}{}", &token[..4], &token[4..])
        });
    }
    rows.add("a token that is sent and not signed", Whose::User, Err(Part::Header), |sign, signer| {
        let login = sign(signer);
        // Not an AKIA key, with which a token would be denied.
        let authorization = with_key_id(&login.authorization, "EXAMPLE");
        client_second(&SignedLogin { authorization, token: Some("token".to_owned()), ..login })
    });
    rows.add("a token that is signed and not sent", Whose::Role, Err(Part::Header), |sign, signer| {
        let login = sign(signer);
        // Not an ASIA key, which would need a token.
        let authorization = with_key_id(&login.authorization, "EXAMPLE");
        client_second(&SignedLogin { authorization, token: None, ..login })
    });
}

fn documents(rows: &mut Rows) {
    let refused = Err(Part::Message);
    for (at, name, whose) in
        [(0, "the header", Whose::Anybody), (1, "the date", Whose::Anybody), (2, "the token", Whose::Role)]
    {
        rows.fields(format!("{name} twice"), whose, refused, move |fields| fields.push(fields[at].clone()));
        rows.fields(format!("{name} once more, another"), whose, refused, move |fields| {
            let name = fields[at].1.clone();
            fields.insert(0, (STRING, name, string(b"x")));
        });
        rows.fields(format!("{name} under an upper-case name"), whose, refused, move |fields| {
            fields[at].1.make_ascii_uppercase();
        });
        rows.fields(format!("{name} under a longer name"), whose, refused, move |fields| fields[at].1.push(b'a'));
        rows.fields(format!("{name} under an empty name"), whose, refused, move |fields| fields[at].1.clear());
        // These two are encoded like strings; only the type differs.
        rows.fields(format!("{name} as a symbol"), whose, refused, move |fields| fields[at].0 = 0x0e);
        rows.fields(format!("{name} as code"), whose, refused, move |fields| fields[at].0 = 0x0d);
        rows.fields(format!("{name} as binary data"), whose, refused, move |fields| {
            let text = fields[at].2[4..].to_vec();
            let length = i32::try_from(text.len()).expect("a short text");
            fields[at].2 = [&length.to_le_bytes()[..], &[0], &text].concat();
            fields[at].0 = 0x05;
        });
        for (kind, code, value) in [
            ("a document", 0x03, encode(&[])),
            ("an array of strings", 0x04, encode(&[(STRING, b"0".to_vec(), string(b"x"))])),
            ("nothing defined", 0x06, vec![]),
            ("null", 0x0a, vec![]),
            ("a truth value", 0x08, vec![1]),
            ("a date of BSON", 0x09, vec![0; 8]),
            ("a 32-bit number", 0x10, vec![0; 4]),
            ("a 64-bit number", 0x12, vec![0; 8]),
            ("a regular expression", 0x0b, b"x\0\0".to_vec()),
            ("an unknown type", 0x20, vec![]),
        ] {
            rows.fields(format!("{name} as {kind}"), whose, refused, move |fields| {
                fields[at].0 = code;
                fields[at].2.clone_from(&value);
            });
        }
        rows.fields(format!("{name} with the byte 0x80"), whose, refused, move |fields| {
            let last = fields[at].2.len() - 2;
            fields[at].2[last] = 0x80;
        });
        rows.fields(format!("{name} with half a surrogate"), whose, refused, move |fields| {
            fields[at].2 = string(b"x\xed\xa0\x80");
        });
        rows.fields(format!("{name} with a slash of two bytes"), whose, refused, move |fields| {
            fields[at].2 = string(b"x\xc0\xaf");
        });
        rows.fields(format!("{name} without its end"), whose, refused, move |fields| {
            *fields[at].2.last_mut().expect("the end") = b'x';
        });
        rows.fields(format!("{name} longer than it says"), whose, refused, move |fields| fields[at].2[0] -= 1);
        rows.fields(format!("{name} shorter than it says"), whose, refused, move |fields| fields[at].2[0] += 1);
        rows.fields(format!("{name} of negative length"), whose, refused, move |fields| fields[at].2[3] = 0xff);
    }
    rows.fields("no header", Whose::Anybody, refused, |fields| drop(fields.remove(0)));
    rows.fields("no date", Whose::Anybody, refused, |fields| drop(fields.remove(1)));
    rows.fields("no field", Whose::Anybody, refused, Vec::clear);
    for more in ["p", "c", "o", "h", "s", "r", "x", "$db", ""] {
        rows.fields(format!("a further field {more:?}"), Whose::Anybody, refused, move |fields| {
            fields.push((STRING, more.as_bytes().to_vec(), string(b"n")));
        });
    }
    rows.fields("a further field whose name is not UTF-8", Whose::Anybody, refused, |fields| {
        fields.push((STRING, vec![0xff], string(b"n")));
    });
    rows.bytes("a byte after the document", refused, |message| message.push(0));
    rows.bytes("the document twice", refused, |message| message.extend_from_within(..));
    rows.bytes("a document cut short", refused, |message| message.truncate(message.len() - 1));
    rows.bytes("a document longer than it says", refused, |message| message[0] = message[0].wrapping_sub(1));
    rows.bytes("a document shorter than it says", refused, |message| message[0] = message[0].wrapping_add(1));
    rows.bytes("a document without its end", refused, |message| *message.last_mut().expect("the end") = 1);
    rows.bytes("no bytes", refused, Vec::clear);
}

fn now_and(seconds: i64) -> SystemTime {
    let by = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { SystemTime::now() - by } else { SystemTime::now() + by }
}

/// First messages, each with the expected reason of its denial.
pub fn first_messages() -> Vec<(String, Result<(), &'static str>, Vec<u8>)> {
    const WHOLE: Result<(), &str> = Err("the client's first message");
    const NONCE: Result<(), &str> = Err("the client's nonce");
    const FLAG: Result<(), &str> = Err("the channel-binding flag");
    let binary = |subtype: u8, bytes: &[u8]| {
        let length = i32::try_from(bytes.len()).expect("a short nonce");
        [&length.to_le_bytes()[..], &[subtype], bytes].concat()
    };
    let nonce = |value| (0x05, b"r".to_vec(), value);
    let flag = |value: i32| (0x10, b"p".to_vec(), value.to_le_bytes().to_vec());
    let good = || vec![nonce(binary(0, &[7; 32])), flag(110)];

    let mut rows = vec![];
    let mut add = |name: &str, expected, message| rows.push((name.to_owned(), expected, message));
    add("the flag first", Ok(()), encode(&[flag(110), nonce(binary(0, &[7; 32]))]));
    add("a nonce of zeros", Ok(()), encode(&[nonce(binary(0, &[0; 32])), flag(110)]));
    add("a nonce of other bytes", Ok(()), encode(&[nonce(binary(0, &[0xff; 32])), flag(110)]));
    for length in [0, 1, 16, 31, 33, 64, 100, 108] {
        let message = encode(&[nonce(binary(0, &vec![7; length])), flag(110)]);
        add(&format!("a nonce of {length} bytes"), NONCE, message);
    }
    let longest = encode(&[nonce(binary(0, &[7; 108])), flag(110)]);
    assert_eq!(longest.len(), 128, "the greatest length");
    add("a message of one byte more", WHOLE, encode(&[nonce(binary(0, &[7; 109])), flag(110)]));
    add("a nonce of a kilobyte", WHOLE, encode(&[nonce(binary(0, &[7; 1024])), flag(110)]));
    for subtype in (1..=9).chain([0x80, 0xff]) {
        // The old subtype contains a second length.
        let bytes = if subtype == 2 { [&[32, 0, 0, 0][..], &[7; 32]].concat() } else { vec![7; 32] };
        add(&format!("a nonce of subtype {subtype}"), NONCE, encode(&[nonce(binary(subtype, &bytes)), flag(110)]));
    }
    for (name, value) in [
        ("y", i32::from(b'y')),
        ("p", i32::from(b'p')),
        ("N", i32::from(b'N')),
        ("zero", 0),
        ("minus 110", -110),
        ("110 and a bit more", 110 + 256),
        ("110 of another byte order", 110 << 24),
    ] {
        add(&format!("the flag {name}"), FLAG, encode(&[nonce(binary(0, &[7; 32])), flag(value)]));
    }
    for (name, kind, value) in [
        ("a double", 0x01, 110_f64.to_le_bytes().to_vec()),
        ("a string", STRING, string(b"n")),
        ("binary data", 0x05, binary(0, b"n")),
        ("nothing defined", 0x06, vec![]),
        ("a truth value", 0x08, vec![1]),
        ("a date of BSON", 0x09, 110_i64.to_le_bytes().to_vec()),
        ("null", 0x0a, vec![]),
        ("code", 0x0d, string(b"n")),
        ("a symbol", 0x0e, string(b"n")),
        ("a timestamp", 0x11, 110_i64.to_le_bytes().to_vec()),
        ("a 64-bit number", 0x12, 110_i64.to_le_bytes().to_vec()),
    ] {
        for (which, at, expected) in [("the nonce", 0, NONCE), ("the flag", 1, FLAG)] {
            let mut fields = good();
            (fields[at].0, fields[at].2) = (kind, value.clone());
            add(&format!("{which} as {name}"), expected, encode(&fields));
        }
    }
    for (which, at, expected) in [("the nonce", 0, NONCE), ("the flag", 1, FLAG)] {
        let mut fields = good();
        fields.remove(at);
        add(&format!("no {}", &which[4..]), expected, encode(&fields));
        let mut fields = good();
        fields.push(fields[at].clone());
        add(&format!("{which} twice"), WHOLE, encode(&fields));
        let mut fields = good();
        fields[at].1.make_ascii_uppercase();
        add(&format!("{which} under an upper-case name"), WHOLE, encode(&fields));
    }
    for more in ["s", "h", "c", "a", "n", ""] {
        let mut fields = good();
        fields.push((STRING, more.as_bytes().to_vec(), string(b"sts.amazonaws.com")));
        add(&format!("a further field {more:?}"), WHOLE, encode(&fields));
    }
    let whole = encode(&good());
    add("a byte after the document", WHOLE, [&whole[..], &[0]].concat());
    add("the document twice", WHOLE, [&whole[..], &whole].concat());
    add("a document cut short", WHOLE, whole[..whole.len() - 1].to_vec());
    add("no bytes", WHOLE, vec![]);
    rows
}
