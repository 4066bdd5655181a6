//! The classes of attack that have broken designs of this kind, one test for each: what a client
//! can try.
//!
//! What happened to others is said at each test, and which check stands in the way here. STS says
//! yes to anything, as the victim, unless it is STS's own check that counts. What a hostile STS can
//! try is in `hostile_sts`.

use std::thread;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, bson, doc};
use local_sts::{Identity, LocalSts, StsResponse};

use crate::support::aws_client::{self, Conversation, SignedLogin, Signer, client_first, client_second};
use crate::support::fixture::{ACCOUNT, Fixture, ROLE_USER_NAME, STS_HOST, assert_plain_denial, credentials};
use crate::support::wire::{WireClient, binary, is_ok};
use crate::target::Target;

/// What drivers sign, in their order.
const SIGNED_HEADERS: &str = "content-length;content-type;host;x-amz-date;x-mongodb-gs2-cb-flag;x-mongodb-server-nonce";

fn payload(document: Document) -> Vec<u8> {
    document.to_vec().expect("BSON")
}

/// A document with these fields in this order, names twice included.
fn fields(fields: &[(&str, Bson)]) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    for (name, value) in fields {
        let one = payload(doc! { *name: value.clone() });
        bytes.extend(&one[4..one.len() - 1]);
    }
    bytes.push(0);
    let length = u32::try_from(bytes.len()).expect("a short document");
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes
}

fn shift(seconds: i64) -> SystemTime {
    let by = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { SystemTime::now() - by } else { SystemTime::now() + by }
}

/// CVE-2020-16250 (Vault): the client wrote the request to STS, chose an action whose answer
/// repeats what the client wrote, and had a lenient reader find an identity in that.
///
/// Here a client writes three values of a request that is built from constants, and the answer is
/// one strict document. Answers like the one of that attack, and many others, are in
/// `hostile_sts::xml_tricks_log_nobody_in`.
#[test]
fn cve_2020_16250_the_client_cannot_make_sts_answer_another_question() {
    let mut target = Target::start();
    const OTHER_FIELD: &str = "an unknown field";
    const ACTION: &str = "Action=AssumeRoleWithWebIdentity&Version=2011-06-15";
    for (name, field, value) in [
        ("a body", "body", Bson::from(ACTION)),
        ("an action", "Action", "AssumeRoleWithWebIdentity".into()),
        ("a method", "method", "GET".into()),
        ("a URL", "u", "https://sts.amazonaws.com/?Action=AssumeRole".into()),
        ("headers", "headers", doc! { "Accept": "application/json" }.into()),
        ("options", "o", doc! {}.into()),
    ] {
        target.refuses_answer(name, OTHER_FIELD, |signer| {
            let signed = signer.sign();
            payload(doc! { "a": signed.authorization, "d": signed.date, field: value })
        });
    }
    // Headers that would change what is asked or how it is answered cannot even be signed.
    for header in
        ["accept", "content-encoding", "expect", "transfer-encoding", "x-amz-target", "x-http-method-override"]
    {
        target.refuses_answer(header, "the header", |signer| {
            client_second(&signer.with_header(header, "x").sign_by_hand())
        });
    }
    // Whatever was signed: what STS gets is the one question, and only that.
    target.asks_sts("another body's length and type", |signer| {
        signer.with_header("content-length", &ACTION.len().to_string()).with_header("content-type", "application/json")
    });
    for request in target.fixture.sts.requests() {
        assert_eq!((&*request.method, &*request.target), ("POST", "/"));
        assert_eq!(request.body, b"Action=GetCallerIdentity&Version=2011-06-15");
        assert_eq!(request.header("content-length"), Some("43"));
        assert_eq!(request.header("content-type"), Some("application/x-www-form-urlencoded"));
        assert_eq!(request.header("accept"), Some("text/xml"));
    }
    // And then the signature is for another request than the one that is sent.
    target.fixture.sts.set_response(StsResponse::Verified);
    let other = aws_client::login_with(target.fixture.mongod.port(), &target.keys, |signer| {
        signer.with_header("content-length", &ACTION.len().to_string())
    });
    assert_plain_denial("another body", &other.err().expect("a refusal"));
    target.still_serves("CVE-2020-16250");
}

/// The three values are BSON strings, which carry any byte. A line break in one that is written
/// into a header as it is adds headers or a second request, and re-opens CVE-2020-16250 (tornado's
/// client over libcurl had to learn it).
///
/// Here each value has a grammar without control characters, and the header is written anew from
/// its checked parts.
#[test]
fn crlf_injection_in_the_three_values_never_reaches_sts() {
    let mut target = Target::start();
    let request = "\r\nContent-Length: 0\r\n\r\nPOST /?Action=AssumeRole HTTP/1.1\r\nHost: sts.amazonaws.com\r\n\r\n";
    let long = "t".repeat(16 * 1024);
    for (what, broken) in [
        ("a header", "\r\nX-Evil: 1"),
        ("a request", request),
        ("a line feed", "\n"),
        ("a carriage return", "\r"),
        ("a continued line", "\r\n folded"),
        ("NUL", "\0"),
        ("a tab", "\t"),
        ("a space", " "),
        ("DEL", "\u{7f}"),
        ("a C1 line break", "\u{85}"),
        ("a line separator", "\u{2028}"),
        ("a character that loses its high byte to a line feed", "\u{10a}"),
    ] {
        for at in ["before", "behind"] {
            let put = |value: &mut String| {
                *value = if at == "before" { format!("{broken}{value}") } else { format!("{value}{broken}") };
            };
            let reason =
                if at == "before" { "must use the scheme AWS4-HMAC-SHA256" } else { "the signature must be 64" };
            target.refuses(&format!("{what} {at} the header"), reason, |login| put(&mut login.authorization));
            target.refuses(&format!("{what} {at} the date"), "YYYYMMDDTHHMMSSZ", |login| put(&mut login.date));
            target.refuses_answer(&format!("{what} {at} the token"), "the session token contains a ", |signer| {
                let mut token = "token".to_owned();
                put(&mut token);
                let signed = signer.sign();
                // As it would be signed if it were allowed.
                let headers = SIGNED_HEADERS.replace("x-mongodb-gs2", "x-amz-security-token;x-mongodb-gs2");
                let authorization = signed.authorization.replace(SIGNED_HEADERS, &headers).replace("=AKIA", "=ASIA");
                client_second(&SignedLogin { authorization, token: Some(token), ..signed })
            });
        }
        let reason = if broken.contains('/') { "Credential must have the form" } else { "the access key id must" };
        target.refuses(&format!("{what} in the key id"), reason, |login| {
            login.authorization = login.authorization.replacen("/20", &format!("{broken}/20"), 1);
        });
    }
    target.refuses("an empty token", "0 bytes", |login| login.token = Some(String::new()));
    target.refuses("a token too long", "16385 bytes", |login| login.token = Some(format!("{long}t")));
    target.still_serves("line breaks");
}

/// The flag that says whether the client supports channel binding is signed; a server that takes
/// any value, or sends on what it got, lets the client choose a header.
///
/// Here only the value that drivers send is taken, and a constant is sent.
#[test]
fn channel_binding_flag_other_than_n_is_refused() {
    let mut target = Target::start();
    let nonce = || binary(&[7; 32]);
    const FLAG: &str = "the channel-binding flag, field p, must be the 32-bit integer 110";
    for (name, flag) in [
        ("y", Bson::Int32(i32::from(b'y'))),
        ("p", Bson::Int32(i32::from(b'p'))),
        ("N", Bson::Int32(i32::from(b'N'))),
        ("a line feed", Bson::Int32(10)),
        ("zero", Bson::Int32(0)),
        ("a negative number", Bson::Int32(-110)),
        ("n and a byte more", Bson::Int32(110 | 1 << 8)),
        ("a long", Bson::Int64(110)),
        ("a double", Bson::Double(110.0)),
        ("text", "n".into()),
        ("a line in a text", "n\r\nX-Evil: 1".into()),
        ("true", true.into()),
        ("null", Bson::Null),
        ("a list", vec![Bson::Int32(110)].into()),
    ] {
        target.refuses_first(name, &payload(doc! { "r": nonce(), "p": flag }), FLAG);
    }
    target.refuses_first("none", &payload(doc! { "r": nonce() }), FLAG);
    let twice = fields(&[("r", nonce()), ("p", Bson::Int32(110)), ("p", Bson::Int32(121))]);
    target.refuses_first("twice", &twice, "has a duplicate field");
    target.refuses_signed("a flag that is not signed", "does not cover the header x-mongodb-gs2-cb-flag", |signer| {
        signer.without_header("x-mongodb-gs2-cb-flag")
    });
    // Whatever flag was signed, the constant is sent, so that STS finds the signature wrong.
    target.fixture.sts.set_response(StsResponse::Verified);
    let other = aws_client::login_with(target.fixture.mongod.port(), &target.keys, |signer| {
        signer.with_header("x-mongodb-gs2-cb-flag", "y")
    });
    assert_plain_denial("another flag signed", &other.err().expect("a refusal"));
    for request in target.fixture.sts.requests() {
        assert_eq!(request.header("x-mongodb-gs2-cb-flag"), Some("n"));
    }
    target.still_serves("channel-binding flags");
}

/// The client's half of the nonce is copied beside the server's: a short one leaves bytes of memory
/// or of an old nonce in the challenge, a long one is written over what lies behind, and an empty
/// one is no half.
///
/// Here it has 32 bytes of the right type before it is copied anywhere.
#[test]
fn nonce_length_and_type_are_checked_before_it_is_copied() {
    let mut target = Target::start();
    const TYPE: &str = "field r, must be binary data of subtype 0";
    for length in [0, 1, 16, 31, 33, 48, 64] {
        let message = payload(doc! { "r": binary(&vec![7; length]), "p": 110 });
        target.refuses_first(&format!("{length} bytes"), &message, &format!("has {length} bytes, but must have 32"));
    }
    for length in [200, 100_000, 4 << 20] {
        let message = payload(doc! { "r": binary(&vec![7; length]), "p": 110 });
        target.refuses_first(&format!("{length} bytes"), &message, "the maximum is 128");
    }
    let of_type = |subtype| Bson::Binary(Binary { subtype, bytes: vec![7; 32] });
    for (name, nonce) in [
        ("a function", of_type(BinarySubtype::Function)),
        ("old binary data, whose length is there twice", of_type(BinarySubtype::BinaryOld)),
        ("a UUID", of_type(BinarySubtype::Uuid)),
        ("an encrypted value", of_type(BinarySubtype::Encrypted)),
        ("of a user's type", of_type(BinarySubtype::UserDefined(0x80))),
        ("text", "7".repeat(32).into()),
        ("a number", 7.into()),
        ("a list", vec![Bson::Int32(7); 8].into()),
        ("null", Bson::Null),
    ] {
        target.refuses_first(name, &payload(doc! { "r": nonce, "p": 110 }), TYPE);
    }
    target.refuses_first("none", &payload(doc! { "p": 110 }), TYPE);
    // Lengths that are not true. The nonce's is at byte 7, behind the document's, the type and the
    // name.
    for (name, length) in
        [("zero", 0), ("less", 31), ("more", 33), ("all", i32::MAX), ("negative", -1), ("least", i32::MIN)]
    {
        let mut message = client_first(&[7; 32]);
        message[7..11].copy_from_slice(&length.to_le_bytes());
        target.refuses_first(&format!("a length that says {name}"), &message, "is not a valid BSON document");
    }
    let twice = fields(&[("r", binary(&[7; 32])), ("r", binary(&[8; 32])), ("p", 110.into())]);
    target.refuses_first("two nonces", &twice, "has a duplicate field");
    target.still_serves("nonces of another length");
}

/// AWS demands that headers named x-amz-* are signed, and the nonce is not one of them. In designs
/// that did not look, a signature without the nonce was as good: one that was caught anywhere
/// worked for fifteen minutes.
///
/// Here the signature has to cover everything that ties it to this login, by a sorted list of known
/// names.
#[test]
fn signature_without_the_nonce_or_the_rest_is_refused() {
    let mut target = Target::start();
    for header in ["x-mongodb-server-nonce", "x-mongodb-gs2-cb-flag", "host", "x-amz-date"] {
        let reason = format!("does not cover the header {header}");
        target.refuses_signed(&format!("without {header}"), &reason, |signer| signer.without_header(header));
    }
    target.refuses_signed("without any of them", "does not cover the header host", |signer| {
        ["x-mongodb-server-nonce", "x-mongodb-gs2-cb-flag", "host", "x-amz-date"]
            .iter()
            .fold(signer, |signer, header| signer.without_header(header))
    });
    // Names that look like the nonce's to a reader who is not strict.
    const LIST: &str = "SignedHeaders must list the headers that drivers sign, sorted";
    const NO_NONCE: &str = "does not cover the header x-mongodb-server-nonce";
    for (name, instead, reason) in [
        ("in upper case", "X-MongoDB-Server-Nonce", NO_NONCE),
        ("longer", "x-mongodb-server-nonce2", NO_NONCE),
        ("shorter", "x-mongodb-server-nonc", NO_NONCE),
        ("after a space", " x-mongodb-server-nonce", NO_NONCE),
        ("with an underscore", "x-mongodb-server_nonce", NO_NONCE),
        ("empty", "", NO_NONCE),
        ("twice", "x-mongodb-server-nonce;x-mongodb-server-nonce", LIST),
        ("and nothing", "x-mongodb-server-nonce;", LIST),
        ("and another", "x-mongodb-server-nonce;x-other", LIST),
    ] {
        target.refuses(&format!("the nonce {name}"), reason, |login| {
            login.authorization = login.authorization.replace("x-mongodb-server-nonce", instead);
        });
    }
    for (name, list) in [
        ("another order", "content-type;content-length;host;x-amz-date;x-mongodb-gs2-cb-flag;x-mongodb-server-nonce"),
        ("the nonce before the flag", "host;x-amz-date;x-mongodb-server-nonce;x-mongodb-gs2-cb-flag"),
        ("a name twice", "host;host;x-amz-date;x-mongodb-gs2-cb-flag;x-mongodb-server-nonce"),
        ("commas", "host,x-amz-date,x-mongodb-gs2-cb-flag,x-mongodb-server-nonce"),
        ("no name", ""),
    ] {
        target.refuses(&format!("a list with {name}"), "the header", |login| {
            login.authorization = login.authorization.replace(SIGNED_HEADERS, list);
        });
    }
    // A token is as good as a key: it must be signed when it is sent, and sent when it is signed.
    target.refuses("a token that is not signed", "does not cover the header x-amz-security-token", |login| {
        login.authorization = login.authorization.replace("=AKIA", "=EXAM");
        login.token = Some("token".to_owned());
    });
    target.refuses("a token of a long-term key", "begins with AKIA belongs to a long-term key", |login| {
        login.token = Some("token".to_owned());
    });
    let role = credentials(&target.fixture.role);
    target.keys = role;
    target.refuses("a token that is kept back", "covers a session token, but the client sent none", |login| {
        login.authorization = login.authorization.replace("=ASIA", "=EXAM");
        login.token = None;
    });
    target.refuses("temporary credentials without their token", "begins with ASIA belongs to temporary", |login| {
        login.token = None;
    });
    target.refuses_signed(
        "a token that is sent and not signed",
        "does not cover the header x-amz-security-token",
        |s| s.without_header("x-amz-security-token"),
    );
    // The nonce that is sent on is this conversation's, whichever was signed.
    let mut conversation = Conversation::start(target.fixture.mongod.port()).expect("a challenge");
    let nonce = std::mem::replace(&mut conversation.nonce, vec![7; 64]);
    let signed = conversation.signer(&target.keys).sign();
    conversation.finish(&client_second(&signed)).expect("STS says yes to anything");
    let requests = target.fixture.sts.requests();
    let sent = requests.last().unwrap().header("x-mongodb-server-nonce");
    assert_eq!(sent, Some(&*BASE64_STANDARD.encode(nonce)));
    target.still_serves("signatures that do not cover the nonce");
}

/// A header with an element twice is read one way by who checks it and another way by who obeys it
/// (Vault reads it with a greedy pattern and takes the last).
///
/// Here there is one anchored form, each element once and in order, and what was checked is what is
/// sent.
#[test]
fn two_readings_of_one_header_are_none() {
    let mut target = Target::start();
    type Edit = fn(&str) -> String;
    let cases: [(&str, Edit, &str); 15] = [
        (
            "another order",
            |a| {
                a.replace("SignedHeaders=", "x")
                    .replace("Credential=", "SignedHeaders=")
                    .replace(", x", ", Credential=")
            },
            "no Credential in its place",
        ),
        (
            "two credentials",
            |a| a.replace("SignedHeaders=", "Credential=A/b/c/d/e, SignedHeaders="),
            "no SignedHeaders in its place",
        ),
        ("two lists", |a| a.replace("Signature=", "SignedHeaders=host, Signature="), "no Signature in its place"),
        ("two signatures", |a| format!("{a}, Signature={}", "0".repeat(64)), "more than three elements"),
        ("an element more", |a| format!("{a}, x=y"), "more than three elements"),
        ("an element more, first", |a| a.replacen(' ', " x=y, ", 1), "no Credential in its place"),
        ("a comma at the end", |a| format!("{a}, "), "more than three elements"),
        ("two schemes", |a| format!("AWS4-HMAC-SHA256 Credential=x, {a}"), "no SignedHeaders in its place"),
        ("two headers in one", |a| format!("{a},{a}"), "more than three elements"),
        ("a name in another case", |a| a.replace("SignedHeaders", "signedheaders"), "no SignedHeaders in its place"),
        ("no space behind a comma", |a| a.replace(", ", ","), "no SignedHeaders in its place"),
        ("a value in quotes", |a| a.replace("Signature=", "Signature=\""), "the signature must be 64"),
        ("a signature in upper case", |a| a[..a.len() - 64].to_owned() + &"A".repeat(64), "the signature must be 64"),
        ("another scheme", |a| a.replace("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"), "AWS4-HMAC-SHA256"),
        ("the header in the scheme of old", |_| "AWS AKIDEXAMPLE:c2lnbmF0dXJl".to_owned(), "AWS4-HMAC-SHA256"),
    ];
    for (name, edit, reason) in cases {
        target.refuses(name, reason, |login| login.authorization = edit(&login.authorization));
    }
    // What is sent says the same as what was checked.
    let conversation = Conversation::start(target.fixture.mongod.port()).expect("a challenge");
    let signed = conversation.signer(&target.keys).sign();
    conversation.finish(&client_second(&signed)).expect("a login");
    let requests = target.fixture.sts.requests();
    let request = requests.last().unwrap();
    let sent: Vec<_> = request.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("authorization")).collect();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].1, signed.authorization);
    target.still_serves("two readings of one header");
}

/// CVE-2022-2385 (aws-iam-authenticator): query parameters twice, in different case: one was
/// checked, the other was what STS obeyed, and the client was whom it said it was.
///
/// Here there are no names of the client's, a field is there once and in its case, and only STS
/// says who it is.
#[test]
fn cve_2022_2385_fields_twice_or_in_another_case_are_refused_and_only_sts_names_the_client() {
    let mut target = Target::start();
    for (name, twice, reason) in [
        ("a header twice", "a", "has a duplicate field"),
        ("a date twice", "d", "has a duplicate field"),
        ("a header in upper case too", "A", "an unknown field"),
        ("a date in upper case too", "D", "an unknown field"),
        ("a token in upper case", "T", "an unknown field"),
        ("a field without a name", "", "an unknown field"),
    ] {
        for last in [false, true] {
            target.refuses_answer(name, reason, |signer| {
                let signed = signer.sign();
                let mut all = vec![("a", Bson::from(signed.authorization)), ("d", signed.date.into())];
                all.insert(if last { 2 } else { 0 }, (twice, "AWS4-HMAC-SHA256 Credential=x".into()));
                fields(&all)
            });
        }
    }
    target.refuses("two names of one parameter", "no SignedHeaders in its place", |login| {
        login.authorization =
            login.authorization.replace("SignedHeaders=", "credential=AKIDVICTIM/b/c/d/e, SignedHeaders=");
    });
    target.refuses("parameters of a query", "the access key id must", |login| {
        login.authorization = login.authorization.replace("Credential=", "Credential=?X-Amz-Credential=");
    });

    // The key id is the victim's, and the rest says that the client is the victim. STS says that it
    // is somebody else.
    let attacker = Identity::iam_user("210987654321", "team/alice");
    target.fixture.sts.set_response(StsResponse::AcceptAll(attacker.clone()));
    let reply = target.fixture.login(&target.fixture.user).expect_err("a claim was believed");
    assert!(reply.get_str("errmsg").unwrap().contains(&attacker.arn), "{reply}");
    target.fixture.sts.set_response(StsResponse::AcceptAll(target.fixture.role.clone()));
    assert_eq!(target.fixture.login(&target.fixture.user).unwrap(), [format!("{ROLE_USER_NAME}@$external")]);
    target.still_serves("CVE-2022-2385");
}

/// Where the client chooses whom the server asks, it sets up an STS of its own, or has the server
/// knock at doors inside the network; aws-iam-authenticator and others need lists of what is
/// allowed.
///
/// Here the host and the address come from the configuration. A client has no word for them.
#[test]
fn host_override_by_the_client_is_not_possible() {
    let mut target = Target::start();
    // A client's own STS, which says yes. Its certificate is trusted, so that only the address is
    // between.
    let evil = LocalSts::builder().start().expect("an STS");
    evil.set_response(StsResponse::AcceptAll(target.fixture.user.clone()));
    target.fixture.trust(&[&target.fixture.sts, &evil]);
    let host = evil.endpoint().replace("https://", "");
    for field in ["h", "host", "sts", "endpoint", "region"] {
        let first = payload(doc! { "r": binary(&[7; 32]), "p": 110, field: &host });
        target.refuses_first(&format!("{field} in the first message"), &first, "an unknown field");
        target.refuses_answer(&format!("{field} in the second message"), "an unknown field", |signer| {
            let signed = signer.sign();
            payload(doc! { "a": signed.authorization, "d": signed.date, field: &host })
        });
    }
    for (name, region) in [
        ("a host as the region", &*host),
        ("a region with a host behind", "us-east-1.evil.example.com"),
        ("a region that ends the host", "us-east-1@evil"),
        ("a region with a path", "us-east-1/../evil"),
        ("a region of another partition", "cn-north-1"),
    ] {
        target.refuses(name, "MONGODB-AWS: ", |login| {
            login.authorization = login.authorization.replace("us-east-1", region);
        });
    }
    // A signature may be over any host; what is asked is the configured one, which finds the
    // signature wrong.
    target.asks_sts("another host signed", |signer| signer.with_header("host", &host).region("us-east-1"));
    target.fixture.sts.set_response(StsResponse::Verified);
    let other = aws_client::login_with(target.fixture.mongod.port(), &target.keys, |signer| {
        signer.with_header("host", "sts.eu-west-1.amazonaws.com")
    });
    assert_plain_denial("another host", &other.err().expect("a refusal"));
    let requests = target.fixture.sts.requests();
    assert!(requests.iter().all(|request| request.header("host") == Some(STS_HOST)), "{requests:?}");
    assert_eq!(evil.connection_count(), 0, "a client chose who is asked");
    target.still_serves("hosts of the client's");
}

/// A signature for another region, service or day was made for somebody else: a caught request to
/// another service must not log anybody in, and what STS would turn down need not reach it.
#[test]
fn cross_region_and_cross_service_scope_is_refused_before_sts() {
    let other = "sts.eu-west-1.amazonaws.com";
    let mut target = Target::start_with(|builder| builder.parameter("awsStsFallbackHosts", other));
    for region in ["eu-west-1", "us-east-2", "us-gov-west-1", "aws-global", "US-EAST-1", "*", ""] {
        // Only text that looks like a region is repeated.
        let is_plain = region.contains(|c: char| c.is_ascii_lowercase());
        let shown = if is_plain { format!("region {region}") } else { "another region".to_owned() };
        let reason = format!("the client signed for {shown}, but awsStsHost implies region us-east-1");
        target.refuses(&format!("region {region}"), &reason, |login| {
            login.authorization = login.authorization.replace("us-east-1", region);
        });
    }
    for service in ["iam", "s3", "STS", "sts.amazonaws.com", "execute-api", ""] {
        target.refuses_signed(&format!("service {service}"), "must end in sts/aws4_request", |s| s.service(service));
    }
    const FORM: &str = "Credential must have the form";
    for (name, scope, reason) in [
        ("another end", "/sts/aws5_request", "must end in sts/aws4_request"),
        ("an end in upper case", "/sts/AWS4_REQUEST", "must end in sts/aws4_request"),
        ("no end", "/sts", FORM),
        ("an empty end", "/sts/", "must end in sts/aws4_request"),
        ("a part more", "/sts/aws4_request/x", FORM),
        ("a service more", "/iam/sts/aws4_request", FORM),
        ("a slash twice", "//sts/aws4_request", FORM),
    ] {
        target.refuses(name, reason, |login| {
            login.authorization = login.authorization.replace("/sts/aws4_request", scope)
        });
    }
    const DAY: &str = "the credential scope must contain the day of X-Amz-Date";
    for (name, day) in
        [("an old day", "/20200101/"), ("a day to come", "/29991231/"), ("no day", "//"), ("a year", "/2026/")]
    {
        target.refuses(name, DAY, |login| {
            let today = format!("/{}/", &login.date[..8]);
            login.authorization = login.authorization.replace(&today, day);
        });
    }
    // The region is that of the configured host, not a constant.
    target.fixture.set_parameter("awsStsHost", other);
    let reason = "the client signed for region us-east-1, but awsStsHost implies region eu-west-1";
    target.refuses_signed("the region of another host", reason, |signer| signer.region("us-east-1"));
    target.fixture.set_parameter("awsStsHost", STS_HOST);
    target.still_serves("scopes of others");
}

/// A date that STS would turn down, or that two readers take for two moments.
///
/// Here it has one form and must be a real moment within fifteen minutes; STS stays the judge.
#[test]
fn dates_out_of_time_or_of_another_form_are_refused_before_sts() {
    let mut target = Target::start();
    for (name, seconds, reason) in [
        ("16 minutes ago", -960, "seconds behind the server's, and the limit is 900 seconds"),
        ("in 16 minutes", 960, "seconds ahead of the server's, and the limit is 900 seconds"),
        ("an hour ago", -3600, "seconds behind"),
        ("a day ago", -86_400, "seconds behind"),
        ("in a year", 31_536_000, "ahead of"),
    ] {
        target.refuses_signed(name, reason, |signer| signer.time(shift(seconds)));
    }
    target.asks_sts("14 minutes ago", |signer| signer.time(shift(-840)));
    target.asks_sts("in 14 minutes", |signer| signer.time(shift(840)));
    const FORM: &str = "X-Amz-Date must be a valid UTC time of the form YYYYMMDDTHHMMSSZ";
    for (name, date, reason) in [
        ("the first moment", "00000101T000000Z", "behind"),
        ("the last moment", "99991231T235959Z", "ahead of"),
        ("no such day", "20260230T000000Z", FORM),
        ("no such month", "20261301T000000Z", FORM),
        ("a day of zero", "20260100T000000Z", FORM),
        ("an hour of 24", "20260101T240000Z", FORM),
        ("a leap second", "20161231T235960Z", FORM),
        ("lower case", "20260101t000000z", FORM),
        ("no zone", "20260101T000000", FORM),
        ("another zone", "20260101T000000+0000", FORM),
        ("hyphens", "2026-01-01T00:00:00Z", FORM),
        ("parts of a second", "20260101T000000.000Z", FORM),
        ("a sign", "+0260101T000000Z", FORM),
        ("a date of HTTP", "Thu, 01 Jan 1970 00:00:00 GMT", FORM),
        ("seconds since 1970", "1767225600", FORM),
        ("other digits", "２０２６0101T000000Z", FORM),
        ("nothing", "", FORM),
    ] {
        target.refuses(name, reason, |login| login.date = date.to_owned());
    }
    target.still_serves("dates");
}

/// A rogue server M passes V's challenge on to a client that logs in to M, and the client's answer
/// to V.
///
/// The protocol has no defence against that while it happens: the nonce does not name the server.
/// This test says so, as the documents do: TLS with verified certificates keeps clients away from
/// M. What M has caught is worth nothing later, or in another conversation, since V draws its half
/// of the nonce anew.
#[test]
fn relay_while_it_is_live_is_not_defended_and_what_was_caught_is_worth_nothing() {
    let fixture = Fixture::start();
    let victim = credentials(&fixture.user);
    let port = fixture.mongod.port();
    // All that a client knows of the server that it logs in to is what that server tells it.
    let answer_of_the_victim = |nonce: &[u8], host: &str| client_second(&Signer::new(&victim, host, nonce).sign());

    // Live: M has a conversation of its own with V.
    let relayed = Conversation::start(port).expect("a challenge");
    let nonce = relayed.nonce.clone();
    let caught = answer_of_the_victim(&relayed.nonce, &relayed.host);
    let mut rogue = relayed.finish(&caught).unwrap_or_else(|reply| panic!("{reply}"));
    assert_eq!(rogue.client.logged_in_users().unwrap(), [format!("{}@$external", fixture.user.arn)]);

    // Caught: later, in another conversation, and with the same half of the nonce as before.
    for _ in 0..3 {
        let later = Conversation::start(port).expect("a challenge");
        assert_plain_denial("caught", &later.finish(&caught).err().expect("a refusal"));
    }
    for half in nonce.chunks(32) {
        let half = half.try_into().expect("32 bytes");
        let mut client = WireClient::connect(port).unwrap();
        let reply = client.sasl_start(aws_client::MECHANISM, &client_first(half)).unwrap();
        assert!(is_ok(&reply), "{reply}");
        let reply = client.sasl_continue(reply.get("conversationId").unwrap(), &caught).unwrap();
        assert_plain_denial("caught, with a half of its nonce", &reply);
        assert!(client.logged_in_users().unwrap().is_empty());
    }
    // M makes up a challenge before it asks V: the answer is for another nonce than V's.
    let made_up = answer_of_the_victim(&[7; 64], STS_HOST);
    let mut client = WireClient::connect(port).unwrap();
    let reply = client.sasl_start(aws_client::MECHANISM, &client_first(&[7; 32])).unwrap();
    let reply = client.sasl_continue(reply.get("conversationId").unwrap(), &made_up).unwrap();
    assert_plain_denial("a challenge that M made up", &reply);
    for reason in fixture.denial_reasons(6) {
        assert!(reason.contains("STS returned 403 SignatureDoesNotMatch"), "{reason}");
    }
    fixture.assert_still_serves("a relay");
}

/// CVE-2025-11621 (Vault): an entry that was cached for a role of one account was found for a role
/// of the same name in another.
///
/// Here nothing is cached, and the name of a user is the whole ARN with partition and account.
#[test]
fn cve_2025_11621_the_same_role_name_in_another_account_is_another_user() {
    const OTHER_ACCOUNT: &str = "210987654321";
    let mut target = Target::start();
    let victim = target.fixture.role.clone();
    let as_victim = [format!("{ROLE_USER_NAME}@$external")];
    for account in [OTHER_ACCOUNT, "123456789013", "023456789012", "000000000000"] {
        // Whatever is kept of the victim's login is fresh.
        target.fixture.sts.set_response(StsResponse::AcceptAll(victim.clone()));
        assert_eq!(target.fixture.login(&victim).unwrap(), as_victim);
        let mut namesake = Identity::assumed_role(account, "reporting", "i-0123456789abcdef0");
        target.knows_nobody(&format!("a role in {account}"), &namesake);
        namesake.access_key_id.clone_from(&victim.access_key_id);
        namesake.session_token.clone_from(&victim.session_token);
        namesake.user_id.clone_from(&victim.user_id);
        target.knows_nobody(&format!("a role in {account} with the same keys and the same unique id"), &namesake);
        target.knows_nobody(&format!("a user in {account}"), &Identity::iam_user(account, "team/alice"));
    }
    for partition in ["aws-cn", "aws-us-gov", "aws-iso", "aws-x"] {
        for of_ours in [&victim, &target.fixture.user.clone()] {
            let arn = of_ours.arn.replace("arn:aws:", &format!("arn:{partition}:"));
            target.knows_nobody(partition, &Identity { arn, ..of_ours.clone() });
        }
    }

    // Both roles have users here, and both log in at once, over the same kept connections: each is
    // always itself.
    let namesake = Identity::assumed_role(OTHER_ACCOUNT, "reporting", "i-0123456789abcdef0");
    let its_user = format!("arn:aws:iam::{OTHER_ACCOUNT}:role/reporting");
    target.fixture.mongod.create_external_user(&its_user, bson!([]));
    target.fixture.sts.add_identity(namesake.clone());
    target.fixture.sts.set_response(StsResponse::Verified);
    let fixture = &target.fixture;
    let as_namesake = [format!("{its_user}@$external")];
    thread::scope(|scope| {
        for (identity, expected) in [(&victim, &as_victim), (&namesake, &as_namesake)].repeat(2) {
            scope.spawn(move || {
                for _ in 0..25 {
                    assert_eq!(&fixture.login(identity).unwrap()[..], expected);
                }
            });
        }
    });
    target.still_serves("CVE-2025-11621");
}

/// Names of sessions and paths are the caller's to choose, and whoever can make a user or a role
/// chooses its name. Where a name is matched by a pattern, by its beginning, or after it was made
/// "canonical", one of these is the victim's.
///
/// Here a name is compared whole and byte by byte, without patterns, and fields that STS cannot
/// have written are refused.
#[test]
fn wildcard_and_canonicalisation_tricks_find_no_user() {
    let mut target = Target::start();
    // An administrator may have thought that these work as patterns.
    for pattern in [
        "*",
        "arn:.*",
        "arn:aws:iam::*:role/*",
        "arn:aws:iam::123456789012:*",
        "arn:aws:iam::123456789012:role/*",
        "arn:aws:iam::123456789012:role/?ther",
        "arn:aws:iam::123456789012:role/oth",
        "arn:aws:iam::123456789012:user/*",
        "arn:aws:iam::123456789012:user/team/",
        "arn:aws:iam::123456789012:user/*/carol",
        "arn:aws:sts::123456789012:assumed-role/other/*",
        "arn:aws:sts::123456789012:assumed-role/reporting/i-0123456789abcdef0",
        "/arn:aws:iam::123456789012:role\\/.*/",
    ] {
        target.fixture.mongod.create_external_user(pattern, bson!([]));
    }
    let of =
        |resource: &str| Identity { arn: format!("arn:aws:{resource}"), ..Identity::iam_user(ACCOUNT, "somebody") };
    for (name, resource) in [
        ("a role that a pattern fits", "sts::123456789012:assumed-role/other/s"),
        ("a role with one letter more than a user's name", "sts::123456789012:assumed-role/othe/s"),
        ("a user that a pattern fits", "iam::123456789012:user/bob"),
        ("a user below a user's name", "iam::123456789012:user/team/bob"),
        ("a user that a star in a path fits", "iam::123456789012:user/x/carol"),
        ("a star as a role", "sts::123456789012:assumed-role/*/s"),
        ("a star as a user", "iam::123456789012:user/*"),
        // Like the victim's name, the user team/alice.
        ("the beginning of a name", "iam::123456789012:user/team/alic"),
        ("more than a name", "iam::123456789012:user/team/alice2"),
        ("no path", "iam::123456789012:user/alice"),
        ("another path", "iam::123456789012:user/x/team/alice"),
        ("only the path", "iam::123456789012:user/team"),
        ("another case", "iam::123456789012:user/team/ALICE"),
        ("another case of the path", "iam::123456789012:user/Team/alice"),
        ("a slash twice", "iam::123456789012:user/team//alice"),
        ("a slash first", "iam::123456789012:user//team/alice"),
        ("a slash at the end", "iam::123456789012:user/team/alice/"),
        ("a dot as a folder", "iam::123456789012:user/team/./alice"),
        ("two dots as a folder", "iam::123456789012:user/x/../team/alice"),
        ("a backslash", "iam::123456789012:user/team\\alice"),
        ("a percent sign", "iam::123456789012:user/team%2Falice"),
        ("a dot at the end", "iam::123456789012:user/team/alice."),
        ("a space at the end", "iam::123456789012:user/team/alice "),
        ("a line feed at the end", "iam::123456789012:user/team/alice\n"),
        ("a letter of another alphabet", "iam::123456789012:user/team/\u{430}lice"),
        ("a wide letter", "iam::123456789012:user/team/\u{ff41}lice"),
        ("a letter that folds to another", "iam::123456789012:user/team/al\u{131}ce"),
        ("a space without width", "iam::123456789012:user/team/alice\u{200b}"),
        ("a mark that is combined", "iam::123456789012:user/team/alice\u{301}"),
        // Like the victim's role, reporting.
        ("the beginning of a role's name", "sts::123456789012:assumed-role/reportin/s"),
        ("more than a role's name", "sts::123456789012:assumed-role/reporting2/s"),
        ("another case of a role", "sts::123456789012:assumed-role/Reporting/s"),
        ("a session that is named as a role", "sts::123456789012:assumed-role/x/reporting"),
        ("a role with a path", "sts::123456789012:assumed-role/x/reporting/s"),
        ("a role without a session", "sts::123456789012:assumed-role/reporting"),
        ("a session without a name", "sts::123456789012:assumed-role/reporting/"),
        ("a session with a slash", "sts::123456789012:assumed-role/reporting/x/y"),
        ("a session that is a star", "sts::123456789012:assumed-role/reporting/*"),
        ("a session that is an ARN", "sts::123456789012:assumed-role/x/arn:aws:iam::123456789012:role/reporting"),
        ("the role itself", "iam::123456789012:role/reporting"),
        ("a user whose path is a role's", "iam::123456789012:user/role/reporting"),
        ("a user whose path is an ARN", "iam::123456789012:user/arn:aws:iam::123456789012:role/reporting"),
        ("a federated user", "sts::123456789012:federated-user/reporting"),
        ("a federated user with a path", "sts::123456789012:federated-user/team/alice"),
    ] {
        target.knows_nobody(name, &of(resource));
    }
    // Whatever its session is called, a role is that role and nothing else.
    for session in ["alice", "root", "admin", "role", "reporting", "123456789012", "-", "a=b,c@d.e+f"] {
        let session = Identity::assumed_role(ACCOUNT, "reporting", session);
        target.fixture.sts.set_response(StsResponse::AcceptAll(session.clone()));
        assert_eq!(target.fixture.login(&session).unwrap(), [format!("{ROLE_USER_NAME}@$external")]);
    }
    // IAM allows a star in a path. It is a star.
    let star = of("iam::123456789012:user/*/carol");
    target.fixture.sts.set_response(StsResponse::AcceptAll(star.clone()));
    assert_eq!(target.fixture.login(&star).unwrap(), [format!("{}@$external", star.arn)]);
    target.still_serves("look-alikes");
}

/// A role that is deleted and made again has the same ARN and another unique id. It is the same
/// user here, as the documents say; the log tells the two apart.
#[test]
fn re_created_role_is_the_same_user_and_the_log_tells_them_apart() {
    let fixture = Fixture::start();
    let again = Identity::assumed_role(ACCOUNT, "reporting", "i-0123456789abcdef0");
    assert_eq!(again.arn, fixture.role.arn);
    assert_ne!(again.user_id, fixture.role.user_id);
    fixture.sts.add_identity(again.clone());
    for role in [&fixture.role, &again] {
        assert_eq!(fixture.login(role).unwrap(), [format!("{ROLE_USER_NAME}@$external")]);
    }
    // 4.4 asks for no more information.
    if !fixture.mongod.version().starts_with("4.4") {
        let id_of = |role: &Identity| {
            let fits = |line: &serde_json::Value| line["attr"]["extraInfo"]["awsId"] == role.user_id;
            fixture.mongod.wait_for_log(fits, Duration::from_secs(10)).is_some()
        };
        assert!(id_of(&fixture.role) && id_of(&again), "the log does not name the unique ids");
    }
    fixture.assert_still_serves("a role that was made again");
}
