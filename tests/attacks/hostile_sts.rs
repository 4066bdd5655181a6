//! Who answers for STS is hostile, or passes on what an attacker has written. It has the right
//! certificate, so that only the reading of its answers stands in the way.
//!
//! Every answer is one that a lenient reader would take for the victim's, or one that costs a
//! careless reader its memory or its time. The login is denied with the plain denial, in time, and
//! for the reason named here: an answer that is refused for another reason than its trick does not
//! show anything. What the attacker wrote is not in the log.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::thread;
use std::time::Duration;

use local_sts::{DelayProxy, Dns, DnsResponse, LocalSts, NetworkFault, StsResponse};

use crate::support::dns;
use crate::support::fixture::Fixture;
use crate::support::mongod::Mongod;
use crate::target::{SHORT_TIMEOUT, Target};

/// In whatever the attacker writes, and so in no log. No grammar of error codes or request ids
/// allows it.
const MARKER: &str = "planted_zqx";

/// Enough for an answer that comes at once.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The answer of the real STS to the victim, in the fewest words.
fn document(target: &Target) -> String {
    format!(
        "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
         <Arn>{}</Arn><UserId>AIDA0</UserId><Account>123456789012</Account></GetCallerIdentityResult>\
         <ResponseMetadata><RequestId>c97528d7-a1e2</RequestId></ResponseMetadata></GetCallerIdentityResponse>",
        target.fixture.user.arn
    )
}

fn http(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> StsResponse {
    let headers = vec![("Content-Type".to_owned(), content_type.to_owned()), ("X-Note".to_owned(), MARKER.to_owned())];
    StsResponse::Fixed { status, headers, body: body.into() }
}

/// An answer in bytes, with a header of this and a body of that.
fn raw(head: &str, body: &str) -> StsResponse {
    StsResponse::Raw(format!("{head}\r\n\r\n{body}").into_bytes())
}

/// The same answer without a trick is believed: what is refused is refused for its trick.
fn assert_believed(target: &Target, answer: StsResponse) {
    target.fixture.sts.set_response(answer);
    target.fixture.assert_still_serves("an answer without a trick");
}

fn assert_nothing_planted(target: &Target) {
    assert!(!target.fixture.mongod.log_text().contains(MARKER), "the attacker's text is in the log");
}

/// Class 16. Readers of XML were led astray by what is legal in it: text in an attacker's hands
/// that is markup in other eyes, names that are declared elsewhere, files and hosts that a document
/// asks for (CVE-2020-16250 was found that way). One form is read here and everything that STS does
/// not write is refused.
#[test]
fn xml_tricks_log_nobody_in() {
    let mut target = Target::start();
    let good = document(&target);
    assert_believed(&target, http(200, "text/xml", &*good));
    let elsewhere = LocalSts::builder().start().expect("an STS");
    let url = elsewhere.endpoint();
    let arn = target.fixture.user.arn.clone();
    let result_at = good.find("<GetCallerIdentityResult>").unwrap();
    let result = &good[result_at..good.find("<ResponseMetadata>").unwrap()];
    let element = format!("<Arn>{arn}</Arn>");
    let swap = |from: &str, to: &str| {
        assert_eq!(good.matches(from).count(), 1, "{from}");
        good.replace(from, to)
    };
    let escaped = good.replace('<', "&lt;").replace('>', "&gt;");
    let assumed = |inside: &str| {
        format!(
            "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
             <AssumeRoleWithWebIdentityResult>{inside}</AssumeRoleWithWebIdentityResult>\
             </AssumeRoleWithWebIdentityResponse>"
        )
    };
    let laughs: String =
        (1..10).map(|n| format!("<!ENTITY l{n} \"{}\">", format!("&l{};", n - 1).repeat(10))).collect();
    let doctype = |inside: &str| format!("<!DOCTYPE {MARKER} [{inside}]>");
    let attributes: String = (0..6000).map(|n| format!(" a{n}=\"\"")).collect();

    const DOCTYPE: &str = "it contains a document type declaration";
    const BROKEN: &str = "it is not a well-formed XML document";
    const MARKUP: &str = "it contains markup that STS does not send";
    const ATTRIBUTE: &str = "it contains an attribute that STS does not send";
    const PREFIX: &str = "it contains a name with a prefix";
    const DEEP: &str = "its elements are nested too deeply";
    const ENTITY: &str = "it contains an undefined entity";
    const CONTROL: &str = "it contains a control character";
    const UNIQUE_ID: &str = "its UserId is not a valid unique id";
    const MIXED: &str = "it mixes text and elements";
    const NO_RESULT: &str = "it does not contain exactly one GetCallerIdentityResult";
    const ONE_ARN: &str = "it does not contain exactly one Arn";
    let cases: Vec<(&str, String, &str)> = vec![
        // Document types, and the entities and files that they can ask for.
        ("a document type", format!("{}{good}", doctype("")), DOCTYPE),
        ("a document type behind a declaration", format!("<?xml version=\"1.0\"?>{}{good}", doctype("")), DOCTYPE),
        ("a document type behind the document", format!("{good}{}", doctype("")), DOCTYPE),
        (
            "a billion laughs",
            format!("{}{}", doctype(&format!("<!ENTITY l0 \"lol\">{laughs}")), swap("AIDA0", "&l9;")),
            DOCTYPE,
        ),
        (
            "a quadratic blow-up",
            format!(
                "{}{}",
                doctype(&format!("<!ENTITY a \"{}\">", "a".repeat(20_000))),
                swap("AIDA0", &"&a;".repeat(10_000))
            ),
            DOCTYPE,
        ),
        (
            "a file as an entity",
            format!("{}{}", doctype("<!ENTITY f SYSTEM \"file:///etc/passwd\">"), swap("AIDA0", "&f;")),
            DOCTYPE,
        ),
        (
            "a host as an entity",
            format!("{}{}", doctype(&format!("<!ENTITY f SYSTEM \"{url}\">")), swap("AIDA0", "&f;")),
            DOCTYPE,
        ),
        (
            "a host as a parameter entity",
            format!("{}{good}", doctype(&format!("<!ENTITY % p SYSTEM \"{url}\"> %p;"))),
            DOCTYPE,
        ),
        ("a host as the document type", format!("<!DOCTYPE {MARKER} SYSTEM \"{url}\">{good}"), DOCTYPE),
        (
            "the victim's name as an entity",
            format!("{}{}", doctype(&format!("<!ENTITY v \"{arn}\">")), swap(&arn, "&v;")),
            DOCTYPE,
        ),
        ("an entity that nobody declared", swap("AIDA0", "&planted_zqx;"), ENTITY),
        ("a reference to NUL", swap("AIDA0", "AIDA&#0;"), ENTITY),
        ("a reference to a surrogate", swap("AIDA0", "AIDA&#xd800;"), ENTITY),
        ("a reference beyond Unicode", swap("AIDA0", "AIDA&#x110000;"), ENTITY),
        ("a reference without an end", swap("AIDA0", "AIDA&lt"), BROKEN),
        // More than one document, or less.
        ("two documents", format!("{good}{good}"), BROKEN),
        ("text behind the document", format!("{good}{MARKER}"), BROKEN),
        ("text before the document", format!("{MARKER}{good}"), BROKEN),
        ("half a document", good[..good.len() / 2].to_owned(), BROKEN),
        ("an end too many", format!("{good}</GetCallerIdentityResponse>"), BROKEN),
        ("no document", String::new(), BROKEN),
        ("only white space", " \r\n\t".to_owned(), BROKEN),
        ("another root", good.replace("GetCallerIdentityResponse", "AssumeRoleResponse"), NO_RESULT),
        ("only the result", result.to_owned(), NO_RESULT),
        ("a result without a response", format!("<r>{result}</r>"), NO_RESULT),
        (
            "an error with status 200",
            format!("<ErrorResponse><Error><Code>{MARKER}</Code></Error></ErrorResponse>"),
            NO_RESULT,
        ),
        ("an error around the identity", format!("<ErrorResponse>{good}</ErrorResponse>"), NO_RESULT),
        // The victim's answer in another one, where AWS repeats what the caller wrote.
        ("in another answer", assumed(&good), NO_RESULT),
        ("in another answer's text", assumed(&format!("<Audience>{escaped}</Audience>")), NO_RESULT),
        ("in another answer's CDATA", assumed(&format!("<Audience><![CDATA[{good}]]></Audience>")), MARKUP),
        ("in another answer's comment", assumed(&format!("<!--{good}-->")), MARKUP),
        ("in another answer's instruction", assumed(&format!("<?p {good}?>")), MARKUP),
        ("in another answer's attribute", assumed(&format!("<Audience a='{good}'>x</Audience>")), ATTRIBUTE),
        (
            "in another answer's attribute, escaped",
            assumed(&format!("<Audience a='{escaped}'>x</Audience>")),
            ATTRIBUTE,
        ),
        // Elements twice, inside each other, or in another place: which of them counts must not be
        // a question.
        ("two ARNs", swap(&element, &element.repeat(2)), ONE_ARN),
        (
            "another ARN first",
            swap(&element, &format!("<Arn>arn:aws:iam::123456789012:user/{MARKER}</Arn>{element}")),
            ONE_ARN,
        ),
        ("an ARN in an ARN", swap(&element, &format!("<Arn>{element}</Arn>")), ONE_ARN),
        ("an ARN in the metadata too", swap("<RequestId>", &format!("{element}<RequestId>")), ONE_ARN),
        (
            "an ARN in the metadata only",
            swap(&element, "").replace("<RequestId>", &format!("{element}<RequestId>")),
            ONE_ARN,
        ),
        (
            "an ARN beside the result",
            swap(&element, "").replace("<ResponseMetadata>", &format!("{element}<ResponseMetadata>")),
            ONE_ARN,
        ),
        ("an ARN a level too deep", swap(&element, &format!("<x>{element}</x>")), ONE_ARN),
        ("two unique ids", swap("<UserId>", "<UserId>AIDA1</UserId><UserId>"), "exactly one UserId"),
        ("two accounts", swap("<Account>", "<Account>123456789012</Account><Account>"), "exactly one Account"),
        ("two results", swap(result, &result.repeat(2)), NO_RESULT),
        (
            "a result in a result",
            swap(result, &format!("<GetCallerIdentityResult>{result}</GetCallerIdentityResult>")),
            NO_RESULT,
        ),
        (
            "a result for the ARN alone",
            swap("</Arn>", "</Arn></GetCallerIdentityResult><GetCallerIdentityResult>"),
            NO_RESULT,
        ),
        ("an ARN in pieces", swap("<Arn>", "<Arn><b>x</b>"), MIXED),
        ("text among the elements", swap("<Arn>", &format!("{MARKER}<Arn>")), MIXED),
        ("no ARN", swap(&element, ""), ONE_ARN),
        ("an empty ARN", swap(&element, "<Arn/>"), BROKEN),
        ("a name in lower case", swap(&element, &element.to_lowercase()), ONE_ARN),
        ("no unique id", swap("<UserId>AIDA0</UserId>", ""), "exactly one UserId"),
        ("no account", swap("<Account>123456789012</Account>", ""), "exactly one Account"),
        ("an empty unique id", swap("AIDA0", ""), UNIQUE_ID),
        ("too long a unique id", swap("AIDA0", &"A".repeat(257)), UNIQUE_ID),
        ("a unique id of something else", swap("AIDA0", "AIDA planted_zqx"), UNIQUE_ID),
        // Markup that splits a text for one reader and not for another.
        ("a comment in the ARN", swap("alice", "al<!-- -->ice"), MARKUP),
        ("a comment at the ARN's end", swap("alice", &format!("alice<!--{MARKER}-->")), MARKUP),
        ("a comment before the document", format!("<!--{MARKER}-->{good}"), MARKUP),
        ("CDATA in the ARN", swap("alice", "<![CDATA[alice]]>"), MARKUP),
        ("an instruction in the ARN", swap("alice", "al<?p?>ice"), MARKUP),
        ("a style sheet", format!("<?xml-stylesheet href=\"{url}\"?>{good}"), MARKUP),
        ("an instruction behind the document", format!("{good}<?{MARKER}?>"), MARKUP),
        ("a declaration in the middle", swap("<Arn>", "<?xml version=\"1.0\"?><Arn>"), MARKUP),
        ("a declaration of XML 1.1", format!("<?xml version=\"1.1\"?>{good}"), MARKUP),
        ("a declaration of another encoding", format!("<?xml version=\"1.0\" encoding=\"UTF-7\"?>{good}"), MARKUP),
        ("a standalone declaration", format!("<?xml version=\"1.0\" standalone=\"yes\"?>{good}"), MARKUP),
        // Prefixes and attributes with which one element has two names.
        ("a prefix", good.replace("Arn>", "z:Arn>"), PREFIX),
        ("a prefix for another ARN", swap("<UserId>", "<z:Arn>x</z:Arn><UserId>"), PREFIX),
        ("a prefix at the root", good.replace("GetCallerIdentityResponse", "z:GetCallerIdentityResponse"), PREFIX),
        ("a namespace for a prefix", swap("<Arn>", "<Arn xmlns:z=\"urn:x\">"), ATTRIBUTE),
        ("space to be kept", swap("<Arn>", "<Arn xml:space=\"preserve\">"), ATTRIBUTE),
        ("another base", swap("<Arn>", &format!("<Arn xml:base=\"{url}\">")), ATTRIBUTE),
        ("an included document", swap("<Arn>", &format!("<xi:include href=\"{url}\"/><Arn>")), BROKEN),
        ("an attribute twice", swap("<Arn>", "<Arn a=\"1\" a=\"2\">"), BROKEN),
        ("an attribute without quotes", swap("<Arn>", "<Arn a=planted_zqx>"), BROKEN),
        ("markup in an attribute", swap("<Arn>", "<Arn a=\"<\">"), ATTRIBUTE),
        // Sizes.
        ("nine levels", swap("AIDA0", &format!("{}x{}", "<a>".repeat(6), "</a>".repeat(6))), DEEP),
        ("five thousand levels", swap("AIDA0", &format!("{}x{}", "<a>".repeat(5000), "</a>".repeat(5000))), DEEP),
        (
            "six thousand attributes, and two ARNs",
            swap(&element, &element.repeat(2)).replace("<UserId>", &format!("<UserId{attributes}>")),
            ONE_ARN,
        ),
        (
            "a hundred thousand attributes",
            swap("<UserId>", &format!("<UserId{}>", attributes.repeat(17))),
            "longer than 65536 bytes",
        ),
        ("too long a document", format!("{good}{}", " ".repeat(70_000)), "longer than 65536 bytes"),
        // Bytes.
        ("NUL", swap("AIDA0", "AIDA\0"), CONTROL),
        ("an escape sequence", swap("AIDA0", "\u{1b}[2J"), CONTROL),
        ("a C1 control character", swap("AIDA0", "AIDA\u{85}"), CONTROL),
        ("a byte order mark", format!("\u{feff}{good}"), "it begins with a byte order mark"),
        ("a byte order mark inside", swap("AIDA0", "AIDA\u{feff}"), UNIQUE_ID),
        ("a text that runs backwards", swap("AIDA0", "AIDA\u{202e}"), UNIQUE_ID),
    ];
    for (name, body, reason) in cases {
        target.denies_answer(name, http(200, "text/xml", body), TIMEOUT, reason);
    }
    let utf16 = |order: fn(u16) -> [u8; 2]| good.encode_utf16().flat_map(order).collect::<Vec<u8>>();
    let marked = |mark: &[u8], text: Vec<u8>| [mark, &*text].concat();
    for (name, body, reason) in [
        ("UTF-16 with its mark", marked(b"\xff\xfe", utf16(u16::to_le_bytes)), "it is not UTF-8"),
        ("the other UTF-16 with its mark", marked(b"\xfe\xff", utf16(u16::to_be_bytes)), "it is not UTF-8"),
        ("UTF-16", utf16(u16::to_le_bytes), CONTROL),
        ("the other UTF-16", utf16(u16::to_be_bytes), CONTROL),
        (
            "a slash in two bytes",
            good.replace("team/", "team\u{1}")
                .into_bytes()
                .split(|b| *b == 1)
                .collect::<Vec<_>>()
                .join(&b"\xc0\xaf"[..]),
            "it is not UTF-8",
        ),
        ("half a character", marked(good.as_bytes(), vec![0xe2, 0x82]), "it is not UTF-8"),
    ] {
        target.denies_answer(name, http(200, "text/xml", body), TIMEOUT, reason);
    }
    assert_eq!(elsewhere.connection_count(), 0, "a document had another host asked");
    assert_nothing_planted(&target);
    target.still_serves("XML tricks");
}

/// Class 13 and 14, from the side of STS: an ARN that is not what it seems, or not of the account
/// that STS says.
#[test]
fn principals_that_cannot_be_log_nobody_in() {
    let mut target = Target::start();
    let good = document(&target);
    let arn = target.fixture.user.arn.clone();
    const NOBODY: &str = "STS returned a principal that cannot log in";
    const ACCOUNT: &str = "its Account is not the account in its Arn";
    let long = format!("arn:aws:iam::123456789012:user/{}/alice", "p".repeat(2048));
    for (name, instead, reason) in [
        ("another account", "arn:aws:iam::210987654321:user/team/alice", ACCOUNT),
        ("another partition's form", "arn:evil:iam::123456789012:user/team/alice", NOBODY),
        ("a partition that begins like one", "arn:awsevil:iam::123456789012:user/team/alice", NOBODY),
        ("a partition in upper case", "arn:AWS:iam::123456789012:user/team/alice", NOBODY),
        ("no partition", "arn::iam::123456789012:user/team/alice", NOBODY),
        ("another service", "arn:aws:s3::123456789012:user/team/alice", NOBODY),
        ("a user of STS", "arn:aws:sts::123456789012:user/team/alice", NOBODY),
        ("a session of IAM", "arn:aws:iam::123456789012:assumed-role/reporting/s", NOBODY),
        ("a region", "arn:aws:iam:us-east-1:123456789012:user/team/alice", NOBODY),
        ("a role itself", "arn:aws:iam::123456789012:role/reporting", NOBODY),
        ("a group", "arn:aws:iam::123456789012:group/team/alice", NOBODY),
        ("a policy", "arn:aws:iam::123456789012:policy/team/alice", NOBODY),
        ("an identity provider", "arn:aws:iam::123456789012:saml-provider/alice", NOBODY),
        ("a type in upper case", "arn:aws:iam::123456789012:USER/team/alice", NOBODY),
        ("no resource", "arn:aws:iam::123456789012:", NOBODY),
        ("an account too short", "arn:aws:iam::12345678901:user/team/alice", NOBODY),
        ("an account of other digits", "arn:aws:iam::12345678901２:user/team/alice", NOBODY),
        ("AWS itself", "arn:aws:iam::aws:user/team/alice", NOBODY),
        ("a space before", " arn:aws:iam::123456789012:user/team/alice", NOBODY),
        ("a line after", "arn:aws:iam::123456789012:user/team/alice\n", NOBODY),
        ("a line that is referred to", "arn:aws:iam::123456789012:user/team/alice&#10;", NOBODY),
        ("a letter of another alphabet", "arn:aws:iam::123456789012:user/team/\u{430}lice", NOBODY),
        ("text that runs backwards", "arn:aws:iam::123456789012:user/\u{202e}ecila", NOBODY),
        ("too long an ARN", &long, NOBODY),
        ("no ARN at all", MARKER, NOBODY),
    ] {
        target.denies_answer(name, http(200, "text/xml", good.replace(&arn, instead)), TIMEOUT, reason);
    }
    for (name, account, reason) in [
        ("an Account of somebody else", "210987654321", ACCOUNT),
        ("no digits", MARKER, ACCOUNT),
        ("a space", "123456789012 ", ACCOUNT),
        ("nothing", "", ACCOUNT),
    ] {
        let body = good.replace(">123456789012<", &format!(">{account}<"));
        target.denies_answer(name, http(200, "text/xml", body), TIMEOUT, reason);
    }
    target.still_serves("principals that cannot be");
}

/// What is around the document: answers of HTTP that two readers could take for two things, and
/// what is no HTTP.
#[test]
fn http_tricks_log_nobody_in() {
    let mut target = Target::start();
    let good = document(&target);
    let length = good.len();
    let ok = "HTTP/1.1 200 OK\r\nContent-Type: text/xml";
    assert_believed(&target, raw(&format!("{ok}\r\nContent-Length: {length}"), &good));
    let chunked = |body: &str| format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let te = format!("{ok}\r\nTransfer-Encoding: chunked");
    assert_believed(&target, raw(&te, &chunked(&good)));
    // In a form that STS answers to who asks for it.
    let json = format!(
        "{{\"GetCallerIdentityResponse\":{{\"GetCallerIdentityResult\":{{\"Account\":\"123456789012\",\"Arn\":\"{}\",\
         \"UserId\":\"AIDA0\"}}}}}}",
        target.fixture.user.arn
    );

    const TYPE: &str = "its content type is not text/xml";
    const NO_CODE: &str = "without an STS error code";
    const ENCODING: &str = "its content is encoded, which the request does not allow";
    const NO_HTTP: &str = "the response is not a valid STS response: its HTTP is malformed or its header is too long";
    const BROKE_OFF: &str = "closed before the response was complete";
    const TWO_WAYS: &str = "its header says in two ways where the body ends";
    const BROKEN: &str = "it is not a well-formed XML document";
    const CLOSED: &str = "was closed before the response, after ";
    let with = |fields: &str, body: &str| raw(&format!("{ok}\r\n{fields}"), body);
    let status = |line: &str| raw(&format!("{line}\r\nContent-Type: text/xml\r\nContent-Length: {length}"), &good);
    let fields: String = (0..5000).map(|n| format!("X-{n}: {MARKER}\r\n")).collect();
    let encoded = |encoding: &str, body: &[u8]| StsResponse::Fixed {
        status: 200,
        headers: vec![
            ("Content-Type".to_owned(), "text/xml".to_owned()),
            ("Content-Encoding".to_owned(), encoding.to_owned()),
        ],
        body: body.to_vec(),
    };
    let cases: Vec<(&str, StsResponse, &str)> = vec![
        // What it says it is.
        ("JSON", http(200, "application/json", json.as_str()), TYPE),
        ("JSON that is called XML", http(200, "text/xml", json), BROKEN),
        ("HTML", http(200, "text/html", &*good), TYPE),
        ("a type that begins like the right one", http(200, "text/xml-planted_zqx", &*good), TYPE),
        ("another type of XML", http(200, "application/xml", &*good), TYPE),
        ("the right type as a parameter", http(200, "text/html; text/xml", &*good), TYPE),
        ("no type", raw(&format!("HTTP/1.1 200 OK\r\nContent-Length: {length}"), &good), TYPE),
        (
            "a type that is no text",
            StsResponse::Raw([&b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\xff\r\n\r\n"[..], good.as_bytes()].concat()),
            TYPE,
        ),
        ("gzip", encoded("gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\x03"), ENCODING),
        ("gzip that is none", encoded("gzip", good.as_bytes()), ENCODING),
        ("an unknown encoding", encoded(MARKER, good.as_bytes()), ENCODING),
        // The status.
        ("201", http(201, "text/xml", &*good), NO_CODE),
        ("203, from a proxy", http(203, "text/xml", &*good), NO_CODE),
        ("204 with a body", http(204, "text/xml", &*good), NO_CODE),
        ("206, a part", http(206, "text/xml", &*good), NO_CODE),
        ("304, as before", http(304, "text/xml", &*good), NO_CODE),
        ("a refusal with an identity in it", http(403, "text/xml", &*good), NO_CODE),
        (
            "a refusal whose code is no code",
            http(403, "text/xml", format!("<ErrorResponse><Error><Code>{MARKER}\n</Code></Error></ErrorResponse>")),
            NO_CODE,
        ),
        (
            "an error with an identity in it",
            http(500, "text/xml", &*good),
            "STS returned 500 without an STS error code",
        ),
        ("a change of the protocol", status("HTTP/1.1 101 Switching Protocols"), NO_CODE),
        ("a status of one digit", status("HTTP/1.1 2 OK"), NO_HTTP),
        ("a status in letters", status("HTTP/1.1 2OO OK"), NO_HTTP),
        ("a status that is negative", status("HTTP/1.1 -200 OK"), NO_HTTP),
        ("another version", status("HTTP/9.9 200 OK"), NO_HTTP),
        ("another protocol", status("planted_zqx/1.1 200 OK"), NO_HTTP),
        ("no header", StsResponse::Raw(good.clone().into_bytes()), NO_HTTP),
        ("SSH", StsResponse::Raw(b"SSH-2.0-planted_zqx\r\n".to_vec()), NO_HTTP),
        ("NUL", StsResponse::Raw(vec![0; 1000]), NO_HTTP),
        ("nothing", StsResponse::Raw(vec![]), CLOSED),
        ("half a header", StsResponse::Raw(ok.as_bytes().to_vec()), CLOSED),
        // The header's fields.
        ("NUL in a field", with("X-Note: a\0b", &good), NO_HTTP),
        ("a name with a space", with(&format!("Content-Length : {length}"), &good), NO_HTTP),
        ("a field without a name", with(&format!(": {MARKER}"), &good), NO_HTTP),
        ("a line without a colon", with(MARKER, &good), NO_HTTP),
        ("five thousand fields", with(&fields, &good), NO_HTTP),
        ("a hundred fields more than are read", with(&"X: y\r\n".repeat(200), &good), NO_HTTP),
        ("a field of 100 KB", with(&format!("X-Note: {}", MARKER.repeat(10_000)), &good), NO_HTTP),
        // Where the body ends.
        ("a length too great", with(&format!("Content-Length: {}", length + 1), &good), BROKE_OFF),
        ("a length too small", with(&format!("Content-Length: {}", length - 1), &good), BROKEN),
        ("two lengths", with(&format!("Content-Length: {length}\r\nContent-Length: 5"), &good), NO_HTTP),
        ("two lengths in one field", with(&format!("Content-Length: {length}, 5"), &good), NO_HTTP),
        ("a negative length", with(&format!("Content-Length: -{length}"), &good), NO_HTTP),
        ("a length with a sign", with(&format!("Content-Length: +{length}"), &good), NO_HTTP),
        ("a length in hexadecimal", with(&format!("Content-Length: 0x{length:x}"), &good), NO_HTTP),
        ("an empty length", with("Content-Length: ", &good), NO_HTTP),
        ("a length that overflows", with("Content-Length: 18446744073709551617", &good), NO_HTTP),
        ("a length and chunks", raw(&format!("{te}\r\nContent-Length: 5"), &chunked(&good)), TWO_WAYS),
        (
            "chunks and the length of the document",
            raw(&format!("{te}\r\nContent-Length: {length}"), &chunked(&good)),
            TWO_WAYS,
        ),
        ("chunks that are none", raw(&te, &good), BROKE_OFF),
        ("a chunk that overflows", raw(&te, &format!("fffffffffffffffff\r\n{good}\r\n0\r\n\r\n")), BROKE_OFF),
        ("a negative chunk", raw(&te, &format!("-{}", chunked(&good))), BROKE_OFF),
        ("a chunk too great", raw(&te, &format!("{:x}\r\n{good}\r\n0\r\n\r\n", length + 3)), BROKE_OFF),
        ("no last chunk", raw(&te, &chunked(&good)[..length + 4]), BROKE_OFF),
        ("gzip in chunks", raw(&format!("{ok}\r\nTransfer-Encoding: gzip, chunked"), &chunked(&good)), TWO_WAYS),
        ("chunks of chunks", raw(&format!("{ok}\r\nTransfer-Encoding: chunked, chunked"), &chunked(&good)), TWO_WAYS),
        ("another way to transfer", raw(&format!("{ok}\r\nTransfer-Encoding: planted_zqx"), &good), TWO_WAYS),
    ];
    for (name, answer, reason) in cases {
        target.denies_answer(name, answer, TIMEOUT, reason);
    }
    assert_nothing_planted(&target);
    target.still_serves("HTTP tricks");
}

/// Class 18, from the side of STS: an answer must not cost more memory or time than it is worth.
#[test]
fn an_answer_without_an_end_is_cut_off_in_size_and_in_time() {
    /// The server's own ups and downs are less than this, and a third of what is sent.
    const MEMORY: u64 = 32 << 20;
    let mut target = Target::start();
    let good = document(&target);
    let ok = "HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n";
    let blank = vec![b' '; 1 << 16];
    let chunk = [b"10000\r\n", &*blank, b"\r\n"].concat();
    let flood =
        |first: &str, again: &[u8], times| StsResponse::Flood { first: first.into(), repeated: again.to_vec(), times };
    const MB_100: usize = 1600;
    const TOO_LONG: &str = "the response is not a valid STS response: it is longer than 65536 bytes";
    const NO_HTTP: &str = "the response is not a valid STS response: its HTTP is malformed or its header is too long";

    let before = memory(&target.fixture.mongod);
    for (name, answer, reason) in [
        (
            "100 MB with their length",
            flood(
                &format!("{ok}Content-Length: {}\r\n\r\n{good}", length_of(&good, &blank, MB_100)),
                &blank,
                Some(MB_100),
            ),
            TOO_LONG,
        ),
        ("100 MB in chunks", flood(&format!("{ok}Transfer-Encoding: chunked\r\n\r\n"), &chunk, Some(MB_100)), TOO_LONG),
        ("100 MB until the end", flood(&format!("{ok}\r\n{good}"), &blank, Some(MB_100)), TOO_LONG),
        ("a body without an end", flood(&format!("{ok}\r\n{good}"), &blank, None), TOO_LONG),
        ("chunks without an end", flood(&format!("{ok}Transfer-Encoding: chunked\r\n\r\n"), &chunk, None), TOO_LONG),
        (
            "small chunks without an end",
            flood(&format!("{ok}Transfer-Encoding: chunked\r\n\r\n"), b"1\r\n \r\n", None),
            TOO_LONG,
        ),
        (
            "an error without an end",
            flood("HTTP/1.1 403 Forbidden\r\nContent-Type: text/xml\r\n\r\n", &blank, None),
            TOO_LONG,
        ),
        ("a header without an end", flood(ok, b"X-Note: planted_zqx\r\n", None), NO_HTTP),
        ("a field without an end", flood(&format!("{ok}X-Note: "), &blank, None), NO_HTTP),
        ("a status without an end", flood("HTTP/1.1 200 ", &blank, None), NO_HTTP),
    ] {
        target.denies_answer(name, answer, TIMEOUT, reason);
    }

    const NO_ANSWER: &str = "no response from sts.amazonaws.com (";
    const UNFINISHED: &str = " was not complete within ";
    // Each byte comes long before the time is over, so that only one deadline for all of them
    // helps.
    let pause = Duration::from_millis(100);
    let slow = |first: &str, rest: &str| StsResponse::Slow { first: first.into(), rest: rest.into(), pause };
    let with_length = format!("{ok}Content-Length: {}\r\n\r\n", good.len());
    for (name, answer, reason) in [
        ("silence", StsResponse::Silence, NO_ANSWER),
        ("a slow status", slow("", &format!("{with_length}{good}")), NO_ANSWER),
        ("a slow header", slow(ok, &format!("Content-Length: {}\r\n\r\n{good}", good.len())), NO_ANSWER),
        ("a slow body", slow(&with_length, &good), UNFINISHED),
        (
            "a slow end",
            slow(&format!("{with_length}{}", &good[..good.len() - 20]), &good[good.len() - 20..]),
            UNFINISHED,
        ),
        (
            "a slow chunk",
            slow(&format!("{ok}Transfer-Encoding: chunked\r\n\r\n"), &"1\r\n \r\n".repeat(99)),
            UNFINISHED,
        ),
        (
            "a slow size of a chunk",
            slow(&format!("{ok}Transfer-Encoding: chunked\r\n\r\n"), &"0".repeat(99)),
            UNFINISHED,
        ),
        (
            "a slow refusal",
            slow("HTTP/1.1 403 Forbidden\r\nContent-Type: text/xml\r\nContent-Length: 999\r\n\r\n", &good),
            UNFINISHED,
        ),
        ("continue without an end", flood("", b"HTTP/1.1 100 Continue\r\n\r\n", None), NO_ANSWER),
        ("hints without an end", flood("", b"HTTP/1.1 103 Early Hints\r\nLink: planted_zqx\r\n\r\n", None), NO_ANSWER),
    ] {
        target.denies_answer(name, answer, SHORT_TIMEOUT, reason);
    }
    let grown = memory(&target.fixture.mongod).saturating_sub(before);
    assert!(grown < MEMORY, "mongod has grown by {grown} bytes");
    assert_nothing_planted(&target);
    target.fixture.set_parameter("awsStsTimeoutMS", 10_000);
    target.still_serves("answers without an end");
}

/// Class 9. A redirect would let whoever answers, or a proxy before it, choose who is asked next.
#[test]
fn redirects_are_not_followed() {
    let mut target = Target::start();
    let good = document(&target);
    // It says yes, and its certificate is trusted.
    let second = LocalSts::builder().start().expect("a second STS");
    second.set_response(StsResponse::AcceptAll(target.fixture.user.clone()));
    target.fixture.trust(&[&target.fixture.sts, &second]);
    let port = second.address().port();
    for location in [
        format!("https://sts.amazonaws.com:{port}/"),
        second.endpoint(),
        format!("//127.0.0.1:{port}/"),
        "/".to_owned(),
    ] {
        for status in [300, 301, 302, 303, 307, 308] {
            let headers = vec![
                ("Location".to_owned(), location.clone()),
                ("Refresh".to_owned(), format!("0; url={location}")),
                ("Content-Type".to_owned(), "text/xml".to_owned()),
            ];
            let answer = StsResponse::Fixed { status, headers, body: good.clone().into_bytes() };
            let reason = format!("STS returned {status} without an STS error code");
            target.denies_answer(&format!("{status} to {location}"), answer, TIMEOUT, &reason);
        }
    }
    assert_eq!(second.connection_count(), 0, "a redirect was followed");
    // It would have been believed.
    target.fixture.set_parameter("awsStsEndpoint", second.endpoint());
    target.fixture.assert_still_serves("a move to the second STS");
    target.fixture.set_parameter("awsStsEndpoint", target.fixture.sts.endpoint());
    target.still_serves("redirects");
}

/// Class 17. Who a client is rests on STS's certificate: somebody else may say yes as loud as they
/// like.
#[test]
fn tls_somebody_else_who_answers_for_sts_is_not_believed() {
    let mut target = Target::start();
    let yes = StsResponse::AcceptAll(target.fixture.user.clone());
    const NOT_TRUSTED: &str = ") is not trusted: ";
    let impostors = [
        ("another authority", LocalSts::builder(), false),
        ("another name", LocalSts::builder().certificate_name("sts.example.com"), true),
        ("a name below", LocalSts::builder().certificate_name("evil.sts.amazonaws.com"), true),
        ("a name that ends so", LocalSts::builder().certificate_name("evil-sts.amazonaws.com"), true),
        ("another region", LocalSts::builder().certificate_name("sts.eu-west-1.amazonaws.com"), true),
        ("its address", LocalSts::builder().certificate_name("127.0.0.1"), true),
        ("a certificate that has ended", LocalSts::builder().expired_certificate(), true),
    ];
    for (name, builder, authority_is_trusted) in impostors {
        let impostor = builder.start().expect("an STS");
        impostor.set_response(yes.clone());
        if authority_is_trusted {
            target.fixture.trust(&[&impostor]);
        }
        target.fixture.set_parameter("awsStsEndpoint", impostor.endpoint());
        target.denies_login(name, TIMEOUT, NOT_TRUSTED);
        assert_eq!(impostor.connection_count(), 1, "{name}");
        assert_eq!(impostor.request_count(), 0, "{name}: a signature was sent to somebody else");
    }
    // Without the file only the system's roots are trusted.
    target.fixture.set_parameter("awsStsCAFile", "");
    target.fixture.set_parameter("awsStsEndpoint", target.fixture.sts.endpoint());
    target.denies_login("the system's roots", TIMEOUT, NOT_TRUSTED);

    // Nor is there a way without TLS, or time for one who plays with it.
    let plain = Tcp::serve(|connection| connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n\r\n"));
    target.fixture.set_parameter("awsStsEndpoint", plain.endpoint());
    target.denies_login("no TLS", TIMEOUT, "TLS handshake with sts.amazonaws.com (127.0.0.1:");
    let refused = target.fixture.mongod.try_as_admin(
        "admin",
        bson::doc! { "setParameter": 1, "awsStsEndpoint": plain.endpoint().replace("https", "http") },
    );
    assert!(refused.is_err(), "an endpoint without TLS was accepted");
    let silent = Tcp::serve(|_| Ok(()));
    target.fixture.set_parameter("awsStsTimeoutMS", i32::try_from(SHORT_TIMEOUT.as_millis()).unwrap());
    target.fixture.set_parameter("awsStsEndpoint", silent.endpoint());
    target.denies_login("silence before TLS", SHORT_TIMEOUT, "TLS handshake with sts.amazonaws.com (127.0.0.1:");
    let slow = Tcp::serve(|connection| {
        // A record of the handshake with 16 KiB that come one by one.
        connection.write_all(&[22, 3, 3, 64, 0, 2, 0, 63, 252])?;
        loop {
            connection.write_all(&[0])?;
            thread::sleep(Duration::from_millis(100));
        }
    });
    target.fixture.set_parameter("awsStsEndpoint", slow.endpoint());
    target.denies_login("slow TLS", SHORT_TIMEOUT, "TLS handshake with sts.amazonaws.com (127.0.0.1:");

    target.fixture.set_parameter("awsStsTimeoutMS", 10_000);
    target.fixture.trust(&[&target.fixture.sts]);
    target.fixture.set_parameter("awsStsEndpoint", target.fixture.sts.endpoint());
    target.fixture.sts.set_response(StsResponse::Verified);
    target.fixture.assert_still_serves("the right certificate");
    let requests = target.fixture.sts.requests();
    assert!(requests.iter().all(|request| request.server_name.as_deref() == Some("sts.amazonaws.com")), "{requests:?}");
    target.still_serves("certificates that are not trusted");
}

/// Class 17. The addresses of a name are raced to the end of the TLS handshake: one that answers
/// first and is not STS is passed over, whichever comes first, and gets no signature.
#[test]
fn tls_an_impostor_at_one_of_several_addresses_never_wins() {
    let names = Dns::start().expect("a DNS server");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let fixture = Fixture::start_with(|builder| dns::asking(builder, &names, folder.path()));
    let impostor = LocalSts::builder().start().expect("an STS");
    impostor.set_response(StsResponse::AcceptAll(fixture.role.clone()));
    // The same port at two addresses: STS itself, and the impostor.
    let (right, wrong) = (0..20)
        .find_map(|_| {
            let right = DelayProxy::start_on(([127, 0, 0, 2], 0).into(), fixture.sts.address()).ok()?;
            let there = ([127, 0, 0, 3], right.address().port()).into();
            Some((right, DelayProxy::start_on(there, impostor.address()).ok()?))
        })
        .expect("a port that is free at both addresses");
    let endpoint = |name: &str| format!("https://{name}.example.com:{}", right.address().port());
    for (name, order) in [("impostor-first", [&wrong, &right]), ("impostor-last", [&right, &wrong])] {
        names.set_response(DnsResponse::Addresses(order.iter().map(|way| way.address().ip()).collect()));
        fixture.set_parameter("awsStsEndpoint", endpoint(name));
        // STS is slow to answer, so that the impostor has the time to be first.
        right.set_round_trip(Duration::from_millis(200));
        fixture.assert_still_serves(name);
        right.set_round_trip(Duration::ZERO);
    }
    assert_eq!(impostor.connection_count(), 2, "the impostor was not tried");
    right.set_fault(NetworkFault::BlackHole);
    fixture.set_parameter("awsStsTimeoutMS", 1000);
    fixture.set_parameter("awsStsEndpoint", endpoint("impostor-alone"));
    fixture.login(&fixture.user).expect_err("nobody but the impostor answers");
    let reasons = fixture.denial_reasons(1);
    let expected = format!("the TLS connection to sts.amazonaws.com ({}) is not trusted: ", wrong.address());
    assert!(reasons[0].contains(&expected) && reasons[0].contains("; 2 addresses were tried"), "{reasons:?}");
    assert_eq!(impostor.request_count(), 0, "a signature was sent to somebody else");
    right.set_fault(NetworkFault::None);
    fixture.set_parameter("awsStsTimeoutMS", 10_000);
    fixture.assert_still_serves("an impostor");
}

/// Somebody who accepts connections and does this with them.
struct Tcp {
    port: u16,
}

impl Tcp {
    /// The thread ends with the test program; a connection stays open until the other side closes
    /// it.
    fn serve(act: impl Fn(&mut std::net::TcpStream) -> std::io::Result<()> + Send + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
        let port = listener.local_addr().expect("its address").port();
        thread::spawn(move || {
            let mut kept = Vec::new();
            for connection in listener.incoming() {
                let Ok(mut connection) = connection else { return };
                // An error is the other side's hanging up.
                let _ = act(&mut connection);
                kept.push(connection);
            }
        });
        Self { port }
    }

    fn endpoint(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }
}

fn length_of(document: &str, again: &[u8], times: usize) -> usize {
    document.len() + again.len() * times
}

/// The most memory that the server has had so far, in bytes.
fn memory(mongod: &Mongod) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", mongod.pid())).expect("the status of a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its greatest size");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib << 10
}
