//! The same short round on each of the older and newer servers that can be had: what differs
//! between them is how the plugin is registered, how parameters are passed, and what the log looks
//! like. The whole set of tests runs on one of them by `make test-servers`.

use std::time::{Duration, Instant};

use bson::{bson, doc};

use crate::preload::assert_works_in_the_background;
use crate::support::fixture::{Fixture, ROLE_USER_NAME};
use crate::support::mongod::Mongod;
use crate::support::wire::{WireClient, is_ok};

fn round(version: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mongod.conf");
    std::fs::write(&file, "setParameter:\n  awsStsTimeoutMS: 2500\n").unwrap();
    let regional = "sts.eu-west-1.amazonaws.com";
    let fixture = Fixture::start_with(|builder| {
        builder.version(version).arg("--config").arg(&file).parameter("awsStsFallbackHosts", regional)
    });
    let mongod = &fixture.mongod;

    // Logins, and their lines in the log.
    assert_eq!(fixture.login(&fixture.user).unwrap(), [format!("{}@$external", fixture.user.arn)]);
    assert_eq!(fixture.login(&fixture.role).unwrap(), [format!("{ROLE_USER_NAME}@$external")]);
    let status = fixture.driver(&fixture.role).database("admin").run_command(doc! { "connectionStatus": 1 }).run();
    assert!(status.unwrap().to_string().contains(ROLE_USER_NAME));
    let line = fixture.success_lines()[0]["attr"].clone();
    if !version.starts_with("4.4") {
        assert_eq!(line["extraInfo"]["awsId"], fixture.user.user_id, "{line}");
        assert_eq!(line["extraInfo"]["awsArn"], fixture.user.arn, "{line}");
    }
    let mut wrong_secret = fixture.user.clone();
    wrong_secret.secret_access_key = "x".repeat(40);
    fixture.login(&wrong_secret).unwrap_err();
    assert!(fixture.denial_reasons(1)[0].contains("SignatureDoesNotMatch"));

    // Parameters, from the file, at runtime, and refused.
    let get = |name: &str| mongod.run_as_admin("admin", doc! { "getParameter": 1, name: 1 }).get(name).cloned();
    assert_eq!(get("awsStsTimeoutMS"), Some(bson!(2500)));
    fixture.set_parameter("awsStsTimeoutMS", 5000);
    fixture.set_parameter("awsStsHost", regional);
    assert_eq!(get("awsStsTimeoutMS"), Some(bson!(5000)));
    assert_eq!(get("awsStsHost"), Some(bson!(regional)));
    let all = mongod.run_as_admin("admin", doc! { "getParameter": "*" });
    assert_eq!(all.get_str("awsStsHost").unwrap(), regional);
    let refused = mongod.try_as_admin("admin", doc! { "setParameter": 1, "awsStsHost": "https://sts" }).unwrap_err();
    assert!(refused.to_string().contains("must be a host name in lower case"), "{refused}");
    let other = doc! { "setParameter": 1, "awsStsHost": "sts.attacker.example" };
    let refused = mongod.try_as_admin("admin", other).unwrap_err();
    assert!(
        refused.to_string().contains("must be a host that awsStsHost or awsStsFallbackHosts named at startup"),
        "{refused}"
    );
    fixture.set_parameter("awsStsHost", "sts.amazonaws.com");

    let section = mongod.run_as_admin("admin", doc! { "serverStatus": 1 });
    let confirmed = section.get_document("awsIam").unwrap().get_document("logins").unwrap().get_i64("confirmed");
    assert!(confirmed.unwrap() >= 3);
    fixture.assert_still_serves("the round");
    assert!(mongod.shutdown().success());

    let exit = Mongod::builder().version(version).parameter("awsStsTimeoutMS", 5).expect_exit();
    assert!(
        !exit.status.success() && exit.output().contains("between 100 and 60000 milliseconds"),
        "{}",
        exit.output()
    );
    assert_works_in_the_background(version);
}

/// A member of a replica set, with a key file, in which users are replicated data.
fn replica_set_member(version: &str) {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "key+of+the+tests").unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let fixture = Fixture::start_prepared(
        |builder| builder.version(version).arg("--replSet").arg("rs").arg("--keyFile").arg(&key),
        |mongod| {
            let mut client = WireClient::connect(mongod.port()).unwrap();
            let member = format!("127.0.0.1:{}", mongod.port());
            let set = doc! { "_id": "rs", "members": [{ "_id": 0, "host": member }] };
            let reply = client.command("admin", doc! { "replSetInitiate": set }).unwrap();
            assert!(is_ok(&reply), "{reply}");
            let until = Instant::now() + Duration::from_secs(30);
            while !client.command("admin", doc! { "isMaster": 1 }).unwrap().get_bool("ismaster").unwrap_or(false) {
                assert!(Instant::now() < until, "no primary");
                std::thread::sleep(Duration::from_millis(50));
            }
        },
    );
    fixture.assert_still_serves("the election");
    assert!(fixture.mongod.shutdown().success());
}

#[test]
fn on_mongod_4_4_2() {
    round("4.4.2");
}

#[test]
fn on_mongod_5_0_4() {
    round("5.0.4");
}

#[test]
fn on_mongod_6_0_5() {
    round("6.0.5");
}

#[test]
fn on_mongod_6_0_24() {
    round("6.0.24");
}

#[test]
fn on_mongod_6_0_27() {
    round("6.0.27");
}

#[test]
fn on_members_of_replica_sets() {
    for version in ["4.4.2", "6.0.5"] {
        replica_set_member(version);
    }
}
