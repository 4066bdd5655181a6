//! Logins that are right, by the official driver and by a raw client.

use std::thread;

use bson::{Document, doc};
use mongodb::error::{Error, ErrorKind};

use crate::support::aws_client;
use crate::support::fixture::{ACCOUNT, Fixture, ROLE_USER_NAME, STS_HOST, credentials};
use crate::support::wire::is_ok;

/// MongoDB's error code for "not authorized on … to execute command".
const UNAUTHORIZED: i32 = 13;

fn code(error: &Error) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(command) => Some(command.code),
        _ => None,
    }
}

#[test]
fn an_iam_user_logs_in_with_the_official_driver_and_has_the_rights_of_its_roles() {
    let fixture = Fixture::start();
    let client = fixture.driver(&fixture.user);
    let status = client.database("admin").run_command(doc! { "connectionStatus": 1 }).run().unwrap();
    let info = status.get_document("authInfo").unwrap();
    let users = info.get_array("authenticatedUsers").unwrap();
    assert_eq!(users, &vec![doc! { "user": &fixture.user.arn, "db": "$external" }.into()]);
    let roles = info.get_array("authenticatedUserRoles").unwrap();
    assert_eq!(roles, &vec![doc! { "role": "readWrite", "db": "shop" }.into()]);

    let shop = client.database("shop").collection::<Document>("orders");
    shop.insert_one(doc! { "item": 1 }).run().unwrap();
    assert_eq!(shop.find_one(doc! {}).run().unwrap().unwrap().get_i32("item").unwrap(), 1);
    let elsewhere = client.database("admin").collection::<Document>("system.users").find_one(doc! {}).run();
    assert_eq!(code(&elsewhere.unwrap_err()), Some(UNAUTHORIZED));
}

#[test]
fn a_session_of_a_role_logs_in_with_the_official_driver_as_its_role() {
    let fixture = Fixture::start();
    let client = fixture.driver(&fixture.role);
    let status = client.database("admin").run_command(doc! { "connectionStatus": 1 }).run().unwrap();
    let users = status.get_document("authInfo").unwrap().get_array("authenticatedUsers").unwrap();
    assert_eq!(users, &vec![doc! { "user": ROLE_USER_NAME, "db": "$external" }.into()]);

    let shop = client.database("shop").collection::<Document>("orders");
    assert!(shop.find_one(doc! {}).run().unwrap().is_none());
    assert_eq!(code(&shop.insert_one(doc! { "item": 1 }).run().unwrap_err()), Some(UNAUTHORIZED));
}

#[test]
fn the_server_s_log_names_the_user_the_arn_and_the_unique_id() {
    let fixture = Fixture::start();
    fixture.login(&fixture.role).unwrap();
    let lines = fixture.success_lines();
    let attributes = &lines[0]["attr"];
    let text = attributes.to_string();
    assert!(text.contains(ROLE_USER_NAME), "{text}");
    assert!(fixture.denial_reasons(0).is_empty());
    if fixture.mongod.version().starts_with("4.4") {
        return; // It asks for no more information.
    }
    let extra = &attributes["extraInfo"];
    assert_eq!(extra["awsId"], fixture.role.user_id, "{text}");
    assert_eq!(extra["awsArn"], fixture.role.arn, "{text}");
}

/// A server that is told to be quiet does not say that a login succeeded, and the plugin must not
/// call it a failure.
#[test]
fn a_quiet_server_s_log_calls_no_login_failed() {
    let fixture = Fixture::start_with(|builder| builder.arg("--quiet"));
    fixture.login(&fixture.user).unwrap();
    let text = fixture.mongod.log_text();
    assert!(!text.contains("Authentication failed"), "{text}");
    // 4.4 does not tell the plugin whether it has let a client in, and gets no such line.
    let explained = text.contains("systemLog.quiet, which hides successes");
    assert_eq!(explained, !fixture.mongod.version().starts_with("4.4"), "{text}");
}

#[test]
fn what_sts_receives_is_built_from_constants_and_three_values_of_the_client() {
    let fixture = Fixture::start();
    fixture.login(&fixture.role).unwrap();
    let requests = fixture.sts.requests();
    let [request] = &requests[..] else { panic!("{} requests", requests.len()) };
    assert_eq!((&*request.method, &*request.target), ("POST", "/"));
    assert_eq!(request.body, b"Action=GetCallerIdentity&Version=2011-06-15");
    let mut names: Vec<_> = request.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "accept",
            "authorization",
            "content-length",
            "content-type",
            "host",
            "user-agent",
            "x-amz-date",
            "x-amz-security-token",
            "x-mongodb-gs2-cb-flag",
            "x-mongodb-server-nonce",
        ]
    );
    assert_eq!(request.header("host"), Some(STS_HOST));
    assert_eq!(request.header("x-mongodb-gs2-cb-flag"), Some("n"));
    assert_eq!(request.header("x-amz-security-token"), fixture.role.session_token.as_deref());
    assert_eq!(request.header("x-mongodb-server-nonce").map(str::len), Some(88));
}

#[test]
fn the_server_s_half_of_the_nonce_is_new_in_every_conversation() {
    let fixture = Fixture::start();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..32 {
        let conversation = aws_client::Conversation::start(fixture.mongod.port()).unwrap();
        assert!(seen.insert(conversation.nonce[32..].to_vec()));
    }
}

#[test]
fn many_clients_log_in_at_once_over_pooled_connections() {
    const CLIENTS: usize = 8;
    const LOGINS: usize = 25;
    let fixture = Fixture::start();
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                for _ in 0..LOGINS {
                    fixture.login(&fixture.user).expect("a login");
                }
            });
        }
    });
    assert_eq!(fixture.sts.request_count(), CLIENTS * LOGINS);
    let connections = fixture.sts.connection_count();
    assert!(connections <= 2 * CLIENTS, "{connections} connections for {} logins", CLIENTS * LOGINS);
}

#[test]
fn federated_users_and_the_root_user_log_in_under_their_arns() {
    let fixture = Fixture::start();
    for arn in ["arn:aws:sts::123456789012:federated-user/fred", "arn:aws:iam::123456789012:root"] {
        let mut identity = local_sts::Identity::iam_user(ACCOUNT, "x");
        arn.clone_into(&mut identity.arn);
        fixture.sts.add_identity(identity.clone());
        fixture.mongod.create_external_user(arn, bson::bson!([]));
        assert_eq!(fixture.login(&identity).unwrap(), [format!("{arn}@$external")]);
    }
}

#[test]
fn a_login_leaves_the_connection_usable_for_another_user() {
    let fixture = Fixture::start();
    let mut login = aws_client::login(fixture.mongod.port(), &credentials(&fixture.user), STS_HOST).unwrap();
    let reply = login.client.command("$external", doc! { "logout": 1 }).unwrap();
    assert!(is_ok(&reply), "{reply}");
    assert!(login.client.logged_in_users().unwrap().is_empty());
}

#[test]
fn a_role_can_log_in_as_the_user_that_other_servers_name_it() {
    let fixture = Fixture::start_with(|builder| builder.parameter("awsIamRoleUserFormat", "assumedRole"));
    let name = "arn:aws:sts::123456789012:assumed-role/reporting/*";
    fixture.login(&fixture.role).expect_err("the user has its name in the other format");
    fixture.mongod.create_external_user(name, bson::bson!([]));
    assert_eq!(fixture.login(&fixture.role).unwrap(), [format!("{name}@$external")]);
    fixture.set_parameter("awsIamRoleUserFormat", "iamRole");
    assert_eq!(fixture.login(&fixture.role).unwrap(), [format!("{ROLE_USER_NAME}@$external")]);
}
