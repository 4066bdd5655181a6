//! The section `awsIam` of `serverStatus`.

use bson::{Document, doc};

use crate::support::aws_client::{self, Conversation};
use crate::support::fixture::{Fixture, credentials};
use crate::support::mongod::Mongod;
use local_sts::Answer;

fn section(mongod: &Mongod) -> Document {
    let status = mongod.run_as_admin("admin", doc! { "serverStatus": 1 });
    status.get_document("awsIam").expect("the section").clone()
}

fn logins(mongod: &Mongod) -> Document {
    section(mongod).get_document("logins").unwrap().clone()
}

#[test]
fn every_login_is_counted_by_how_it_ended() {
    let fixture = Fixture::start();
    let before = section(&fixture.mongod);
    assert_eq!(before.get_str("version").unwrap(), env!("CARGO_PKG_VERSION"));
    assert_eq!(before.get_str("stsHost").unwrap(), "sts.amazonaws.com");
    assert_eq!(before.get_document("logins").unwrap().get_i64("started").unwrap(), 0);

    fixture.login(&fixture.user).unwrap();
    fixture.login(&fixture.role).unwrap();
    let mut wrong_secret = fixture.user.clone();
    wrong_secret.secret_access_key = "x".repeat(40);
    fixture.login(&wrong_secret).unwrap_err();
    let conversation = Conversation::start(fixture.mongod.port()).unwrap();
    let region = conversation.signer(&credentials(&fixture.user)).region("eu-west-1").sign();
    assert!(conversation.finish(&aws_client::client_second(&region)).is_err());
    fixture.sts.set_answer(Answer::Raw(vec![]));
    fixture.login(&fixture.user).unwrap_err();

    fixture.sts.set_answer(Answer::Verified);
    fixture.set_parameter("awsIamAllowedAccounts", "210987654321");
    fixture.login(&fixture.user).unwrap_err();

    let expected = doc! {
        "started": 6_i64,
        "confirmed": 2_i64,
        "denied": {
            "malformedMessage": 1_i64,
            "refusedBySts": 1_i64,
            "accountNotAllowed": 1_i64,
            "stsUnavailable": 1_i64,
            "internal": 0_i64,
        },
    };
    assert_eq!(logins(&fixture.mongod), expected);
}

#[test]
fn the_section_can_be_left_out() {
    let mongod = Mongod::builder().start();
    let status = mongod.run_as_admin("admin", doc! { "serverStatus": 1, "awsIam": 0 });
    assert!(!status.contains_key("awsIam"));
}
