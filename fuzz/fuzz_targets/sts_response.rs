//! The response of STS. A second XML parser must find the same identity in every accepted document.
//!
//! The first line of an input is the status, a space and the content type; the rest is the body.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use psmdb_aws_iam::denial::Kind;
use psmdb_aws_iam::principal::{MAX_ARN_LENGTH, Principal};
use psmdb_aws_iam::sts::response::{CallerIdentity, MAX_BODY_LENGTH, Response, read};

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return Corpus::Reject };
    let (head, body) = (&data[..end], &data[end + 1..]);
    let Some((status, content_type)) = str::from_utf8(head).ok().and_then(|head| head.split_once(' ')) else {
        return Corpus::Reject;
    };
    let Ok(status) = status.parse() else { return Corpus::Reject };
    match read(&Response { status, content_type, body }) {
        Ok(identity) => {
            assert_eq!(status, 200);
            let media_type = content_type.split(';').next().unwrap().trim();
            assert!(media_type.eq_ignore_ascii_case("text/xml"), "{content_type:?}");
            assert!(body.len() <= MAX_BODY_LENGTH);
            accepted(&identity, str::from_utf8(body).expect("only UTF-8 is accepted"));
        }
        Err(denial) => {
            match denial.kind() {
                Kind::Throttled | Kind::StsUnavailable => {}
                // With status 200, an ARN that cannot log in.
                Kind::RefusedBySts => assert!((400..500).contains(&status) || status == 200),
                kind => panic!("{kind:?}"),
            }
            let reason = denial.reason();
            // The longest reason contains an ARN.
            assert!(!reason.is_empty() && reason.len() < MAX_ARN_LENGTH + 200 && reason.is_ascii(), "{reason:?}");
            assert!(!reason.contains(char::is_control), "{reason:?}");
        }
    }
    Corpus::Keep
});

fn accepted(identity: &CallerIdentity, body: &str) {
    assert_eq!(Principal::parse(&identity.arn).as_ref(), Ok(&identity.principal));
    assert!(!identity.user_id.is_empty() && identity.user_id.bytes().all(|byte| byte.is_ascii_graphic()));

    // Documents with harmless syntax errors may be accepted; in others, both parsers must read the
    // same.
    let Ok(document) = roxmltree::Document::parse(body) else { return };
    let text = |name: &str| {
        let mut found = document.descendants().filter(|node| node.is_element() && node.tag_name().name() == name);
        let (Some(element), None) = (found.next(), found.next()) else { panic!("not exactly one {name}") };
        let path: Vec<&str> = element.ancestors().skip(1).map(|node| node.tag_name().name()).collect();
        assert_eq!(path, ["GetCallerIdentityResult", "GetCallerIdentityResponse", ""]);
        assert!(element.children().all(|child| child.is_text()));
        element.children().filter_map(|child| child.text()).collect::<String>()
    };
    assert_eq!(text("Arn"), identity.arn);
    assert_eq!(text("UserId"), identity.user_id);
    assert_eq!(text("Account"), identity.principal.account);
}
