//! The ARN that STS returns, and the user name derived from it.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use psmdb_aws_iam::denial;
use psmdb_aws_iam::principal::{Kind, MAX_ARN_LENGTH, Principal, is_account};

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok(arn) = str::from_utf8(data) else { return Corpus::Reject };
    let principal = match Principal::parse(arn) {
        Ok(principal) => principal,
        Err(denial) => {
            assert_eq!(denial.kind(), denial::Kind::RefusedBySts);
            assert!(!denial.reason().contains(char::is_control));
            return Corpus::Keep;
        }
    };
    assert!(arn.len() <= MAX_ARN_LENGTH);
    let name = principal.user_name(Default::default());
    assert!(name.bytes().all(|byte| byte.is_ascii_graphic()), "{name:?}");
    assert!(is_account(&principal.account));
    // The account and the partition keep their places.
    let field = |text: &str, at: usize| text.split(':').nth(at).map(str::to_owned);
    for at in [1, 4] {
        assert_eq!(field(&name, at), field(arn, at));
    }
    assert_eq!(field(&name, 4).as_deref(), Some(principal.account.as_str()));

    // The kind of principal can be read from the name, so two kinds never share one.
    let resource = name.splitn(6, ':').nth(5).expect("an ARN has six fields");
    match &principal.kind {
        Kind::User { path_and_name } => assert_eq!(resource, format!("user/{path_and_name}")),
        Kind::Root => assert_eq!(resource, "root"),
        Kind::FederatedUser { name } => assert_eq!(resource, format!("federated-user/{name}")),
        Kind::AssumedRole { role, session } => {
            assert_eq!(resource, format!("role/{role}"));
            assert!(!role.contains('/') && !session.contains('/'));
            // The caller chooses the session's name.
            let other = format!("{}/another", arn.strip_suffix(&format!("/{session}")).expect("it is the end"));
            if other.len() <= MAX_ARN_LENGTH {
                assert_eq!(
                    Principal::parse(&other).expect("another valid session").user_name(Default::default()),
                    name
                );
            }
            // The name itself is never an ARN that STS returns.
            assert!(Principal::parse(&name).is_err());
            return Corpus::Keep;
        }
    }
    assert_eq!(name, arn);
    assert_eq!(Principal::parse(&name).expect("the name is an ARN"), principal);
    Corpus::Keep
});
