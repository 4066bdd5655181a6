//! Tests of tests/support, without the plugin.

use std::time::{Duration, UNIX_EPOCH};

use bson::{bson, doc};

use crate::support::aws_client::{Conversation, Credentials, Signer, amz_date, client_first, region_of};
use crate::support::mongod::Mongod;
use crate::support::wire::{WireClient, is_ok};

#[test]
fn a_server_starts_serves_its_admin_and_stops() {
    let mongod = Mongod::builder().preload(false).start();
    assert!(mongod.is_alive());

    mongod.create_external_user("arn:aws:iam::123456789012:user/alice", bson!([{ "role": "read", "db": "app" }]));
    let users = mongod.run_as_admin("$external", doc! { "usersInfo": 1 });
    assert_eq!(users.get_array("users").unwrap().len(), 1, "{users}");

    let refused = mongod.try_as_admin("app", doc! { "noSuchCommand": 1 });
    assert!(refused.is_err());

    let mut stranger = WireClient::connect(mongod.port()).unwrap();
    assert!(stranger.logged_in_users().unwrap().is_empty());
    let reply = stranger.command("app", doc! { "find": "c" }).unwrap();
    assert!(!is_ok(&reply), "authorization is off: {reply}");
    assert_eq!(reply.get_i32("code").ok(), Some(13));

    let line = mongod.wait_for_log(|line| line["msg"] == "Waiting for connections", Duration::ZERO);
    assert_eq!(line.expect("the line")["attr"]["port"], mongod.port());

    assert!(mongod.shutdown().success());
    assert!(!mongod.is_alive());
}

#[test]
fn a_server_that_refuses_its_options_reports_them() {
    let exit = Mongod::builder().preload(false).parameter("noSuchParameter", 1).expect_exit();
    assert!(!exit.status.success());
    assert!(exit.output().contains("noSuchParameter"), "{exit:?}");
}

#[test]
fn a_server_without_the_plugin_refuses_the_mechanism() {
    let mongod = Mongod::builder().preload(false).start();
    let refusal = Conversation::start(mongod.port()).err().expect("a refusal");
    assert!(!is_ok(&refusal));
}

#[test]
fn both_signers_agree() {
    let keys = Credentials::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
    let session = keys.clone().with_token("IQoJb3JpZ2luX2VjEJr//////////wEaCXVz+/=");
    for credentials in [&keys, &session] {
        for host in ["sts.amazonaws.com", "sts.eu-west-1.amazonaws.com"] {
            let signer = Signer::new(credentials, host, &[7; 64]).time(UNIX_EPOCH + Duration::from_secs(1_700_000_000));
            assert_eq!(signer.sign(), signer.sign_by_hand());
        }
    }
    let signer = Signer::new(&keys, "sts.amazonaws.com", &[7; 64]);
    let odd = signer.region("mars-1").service("execute-api").with_header("x-more", "1");
    assert_eq!(odd.sign(), odd.sign_by_hand());
}

#[test]
fn a_signature_covers_the_headers_that_drivers_sign() {
    let signer = |credentials: &Credentials| {
        Signer::new(credentials, "sts.amazonaws.com", &[7; 64]).time(UNIX_EPOCH + Duration::from_secs(1_700_000_000))
    };
    let keys = Credentials::new("AKIDEXAMPLE", "secret");
    let signed = signer(&keys).sign();
    assert_eq!(signed.date, "20231114T221320Z");
    assert_eq!(signed.token, None);
    let start = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20231114/us-east-1/sts/aws4_request, \
        SignedHeaders=content-length;content-type;host;x-amz-date;x-mongodb-gs2-cb-flag;\
        x-mongodb-server-nonce, Signature=";
    assert!(signed.authorization.starts_with(start), "{signed:?}");

    let with_token = signer(&keys.clone().with_token("token")).sign();
    assert_eq!(with_token.token.as_deref(), Some("token"));
    assert!(with_token.authorization.contains(";x-amz-date;x-amz-security-token;x-mongodb-gs2-cb-flag;"));

    let without = signer(&keys).without_header("x-mongodb-server-nonce").sign();
    assert!(without.authorization.contains(";x-mongodb-gs2-cb-flag, Signature="));
}

#[test]
fn dates_regions_and_first_messages_are_those_of_drivers() {
    assert_eq!(amz_date(UNIX_EPOCH), "19700101T000000Z");
    assert_eq!(region_of("sts.amazonaws.com"), "us-east-1");
    assert_eq!(region_of("sts"), "us-east-1");
    assert_eq!(region_of("sts.cn-north-1.amazonaws.com.cn"), "cn-north-1");
    // A document of 52 bytes: the nonce as binary, then p as an int32 of 110.
    let first = client_first(&[1; 32]);
    assert_eq!(first.len(), 52);
    assert_eq!(first[first.len() - 8..], [0x10, b'p', 0, 110, 0, 0, 0, 0]);
}
