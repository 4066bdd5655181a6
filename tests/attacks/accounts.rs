//! awsIamAllowedAccounts: what STS confirms is not enough where the operator has named the accounts
//! that may log in.

use local_sts::Identity;

use crate::support::fixture::{ACCOUNT, Fixture, assert_plain_denial};
use bson::bson;

const OTHER_ACCOUNT: &str = "210987654321";

#[test]
fn a_confirmed_caller_of_an_account_that_is_not_listed_is_refused_before_the_server_looks_for_a_user() {
    let both = format!("{ACCOUNT},{OTHER_ACCOUNT}");
    let fixture = Fixture::start_with(|builder| builder.parameter("awsIamAllowedAccounts", &both));
    fixture.set_parameter("awsIamAllowedAccounts", ACCOUNT);
    let namesake = Identity::iam_user(OTHER_ACCOUNT, "team/alice");
    let unknown = Identity::assumed_role(OTHER_ACCOUNT, "nobody", "session");
    // By mistake, one of the two has a user.
    fixture.mongod.create_external_user(&namesake.arn, bson!([{ "role": "readWrite", "db": "shop" }]));
    for identity in [&namesake, &unknown] {
        fixture.sts.add_identity(identity.clone());
        let reply = fixture.login(identity).expect_err("the account is not listed");
        // That the server names no user shows that it was not asked for one.
        assert_plain_denial(&identity.arn, &reply);
    }
    assert_eq!(fixture.sts.request_count(), 2, "STS says yes to both");
    let reasons = fixture.denial_reasons(2);
    for reason in &reasons {
        assert!(reason.contains("awsIamAllowedAccounts does not list account 210987654321"), "{reason}");
    }
    fixture.assert_still_serves("callers of another account");

    fixture.set_parameter("awsIamAllowedAccounts", both.as_str());
    assert!(fixture.login(&namesake).is_ok());
    fixture.set_parameter("awsIamAllowedAccounts", OTHER_ACCOUNT);
    fixture.login(&fixture.user).expect_err("its account is not listed any more");
    fixture.set_parameter("awsIamAllowedAccounts", both);
    fixture.assert_still_serves("a list as at startup");
}
