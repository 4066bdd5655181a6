//! Whoever may set parameters, and no more than that, becomes nobody else: at runtime, whom the
//! server believes can only be chosen among what it was started with. And what an operator changes
//! binds logins that are under way.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use bson::{Bson, Document, bson, doc};
use local_sts::{DelayProxy, Identity, LocalSts};
use mongodb::options::{AuthMechanism, Credential};
use mongodb::sync::Client;

use crate::support::aws_client::{self, Conversation, client_second};
use crate::support::fixture::{ACCOUNT, Fixture, ROLE_USER_NAME, STS_HOST, assert_plain_denial, credentials};
use crate::support::mongod::Mongod;

const OTHER_ACCOUNT: &str = "210987654321";
const REGIONAL_HOST: &str = "sts.eu-west-1.amazonaws.com";
/// A fallback host, and nobody there: no login leaves this machine.
const NOBODY: &str = "sts.eu-west-1.amazonaws.com=https://127.0.0.1:1";
const TIMEOUT_MS: i32 = 2000;
const ATTACKER_HOST: &str = "sts.attacker.example";

/// The words of a refusal by the rule.
const HOST_RULE: &str = "must be a host that awsStsHost or awsStsFallbackHosts named at startup (";
const FILE_RULE: &str = "must be its startup value, ";
const ACCOUNT_RULE: &str = "must be one or more of the accounts listed at startup (";

/// Somebody with a password and a role that may set parameters.
struct Operator<'a> {
    fixture: &'a Fixture,
    client: Client,
}

impl<'a> Operator<'a> {
    fn new(fixture: &'a Fixture, role: &str) -> Self {
        let name = format!("{role}-only");
        let roles = bson!([role, { "role": "readWrite", "db": "app" }]);
        let user = doc! { "createUser": &name, "pwd": "x", "roles": roles, "mechanisms": ["SCRAM-SHA-256"] };
        fixture.mongod.run_as_admin("admin", user);
        let mut options = fixture.mongod.client_options();
        let credential = Credential::builder().username(name).password("x".to_owned());
        options.credential = Some(credential.mechanism(AuthMechanism::ScramSha256).build());
        Self { fixture, client: Client::with_options(options).expect("a client") }
    }

    fn run(&self, database: &str, command: Document) -> Result<Document, String> {
        self.client.database(database).run_command(command).run().map_err(|error| error.to_string())
    }

    fn set(&self, name: &str, value: impl Into<Bson>) -> Result<Document, String> {
        self.run("admin", doc! { "setParameter": 1, name: value.into() })
    }

    /// Asserts that a value is refused for this reason, and the parameter stays as it was.
    fn is_refused(&self, name: &str, value: &str, reason: &str) -> String {
        let read = || self.fixture.mongod.run_as_admin("admin", doc! { "getParameter": 1, name: 1 }).get(name).cloned();
        let before = read();
        let why = self.set(name, value).expect_err(value);
        assert!(why.contains(name) && why.contains(reason), "{name}={value}: {why}");
        assert_eq!(read(), before, "{name}={value}");
        why
    }

    fn is_accepted(&self, name: &str, value: impl Into<Bson>) {
        self.set(name, value).unwrap_or_else(|why| panic!("{name}: {why}"));
    }
}

/// An STS of the attacker's, which knows a key of their own as that of the database's root user.
struct Impostor {
    sts: LocalSts,
    forged: Identity,
    ca_file: tempfile::NamedTempFile,
}

impl Impostor {
    fn of(victim: &Identity) -> Self {
        let forged = Identity { secret_access_key: "chosen".to_owned(), ..victim.clone() };
        let forged = Identity { access_key_id: "AKIAATTACKERATTACKER".to_owned(), ..forged };
        let builder = LocalSts::builder().host_name(STS_HOST).host_name(ATTACKER_HOST).host_name(REGIONAL_HOST);
        let sts = builder.identity(forged.clone()).start().expect("an STS");
        let ca_file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(ca_file.path(), sts.ca_pem()).expect("a file for the CA");
        Self { sts, forged, ca_file }
    }

    /// Asserts that the key logs nobody in, however often it is tried, and that the right client
    /// still logs in once the way to STS is the old one again.
    fn logs_nobody_in(&self, fixture: &Fixture, way: &str) {
        for _ in 0..4 {
            let reply =
                aws_client::login_with(fixture.mongod.port(), &credentials(&self.forged), |signer| signer).err();
            assert_plain_denial(way, &reply.unwrap_or_else(|| panic!("{way}: logged in")));
        }
        assert_eq!(self.sts.request_count(), 0, "{way}: a signature was sent to the attacker");
        fixture.set_parameter("awsStsEndpoint", fixture.sts.endpoint());
        fixture.set_parameter("awsStsTimeoutMS", TIMEOUT_MS);
        fixture.set_parameter("awsStsFallbackHosts", NOBODY);
        fixture.assert_still_serves(way);
    }
}

fn assert_sets_parameters_and_becomes_nobody(role: &str) {
    let fixture = Fixture::start_with(|builder| {
        builder
            .parameter("awsStsFallbackHosts", NOBODY)
            .parameter("awsStsTimeoutMS", TIMEOUT_MS)
            .parameter("awsIamAllowedAccounts", ACCOUNT)
    });
    let dba = Identity::iam_user(ACCOUNT, "dba");
    fixture.sts.add_identity(dba.clone());
    fixture.mongod.create_external_user(&dba.arn, bson!([{ "role": "root", "db": "admin" }]));
    let impostor = Impostor::of(&dba);
    let (sts, ca_file) = (&impostor.sts, impostor.ca_file.path().to_str().expect("UTF-8"));
    let attacker = Operator::new(&fixture, role);

    // A CA and an address of their own, one by one and in one command.
    let why = attacker.is_refused("awsStsCAFile", ca_file, FILE_RULE);
    assert!(why.contains(fixture.ca_file().to_str().expect("UTF-8")), "{why}");
    attacker.is_accepted("awsStsEndpoint", sts.endpoint());
    impostor.logs_nobody_in(&fixture, "an endpoint and a CA");
    let both = doc! { "setParameter": 1, "awsStsEndpoint": sts.endpoint(), "awsStsCAFile": ca_file };
    attacker.run("admin", both).expect_err("the CA is not the server's");
    impostor.logs_nobody_in(&fixture, "an endpoint and a CA at once");

    // A CA without a way into the file system: in a file that the server itself writes.
    let validator = doc! { "x": { "$ne": format!("\n{}\n", sts.ca_pem().trim()) } };
    attacker.run("app", doc! { "create": "planted", "validator": validator }).expect("it may write there");
    fixture.mongod.run_as_admin("admin", doc! { "fsync": 1 });
    let options = fixture.mongod.run_as_admin("admin", doc! { "getCmdLineOpts": 1 });
    let storage = options.get_document("parsed").and_then(|parsed| parsed.get_document("storage"));
    let catalog = format!("{}/_mdb_catalog.wt", storage.unwrap().get_str("dbPath").unwrap());
    let planted = fs::read(&catalog).expect("the catalog");
    assert!(planted.windows(27).any(|bytes| bytes == b"-----BEGIN CERTIFICATE-----"), "nothing is planted");
    let why = attacker.is_refused("awsStsCAFile", &catalog, FILE_RULE);
    attacker.is_accepted("awsStsEndpoint", sts.endpoint());
    impostor.logs_nobody_in(&fixture, "a certificate in a database file");
    // Nor does a refusal tell what is in the file system.
    for path in ["/etc/hostname", "/etc", "/dev/zero", "/does/not/exist", "/root/.ssh/id_ed25519"] {
        assert_eq!(attacker.is_refused("awsStsCAFile", path, FILE_RULE), why, "{path}");
    }

    // A host of their own, for which they have a certificate.
    attacker.is_refused("awsStsHost", ATTACKER_HOST, HOST_RULE);
    attacker.is_accepted("awsStsEndpoint", sts.endpoint());
    impostor.logs_nobody_in(&fixture, "a host and an endpoint");

    // The same as a fallback, while the real STS cannot answer.
    let fallback = format!("{ATTACKER_HOST}={}", sts.endpoint());
    let why = attacker.is_refused("awsStsFallbackHosts", &fallback, HOST_RULE);
    assert!(why.contains(&format!("({STS_HOST}, {REGIONAL_HOST})")), "{why}");
    attacker.is_refused("awsStsFallbackHosts", &format!("{NOBODY},{fallback}"), HOST_RULE);
    attacker.is_accepted("awsStsTimeoutMS", 100);
    attacker.is_accepted("awsStsEndpoint", "https://127.0.0.1:1");
    attacker.is_accepted("awsStsFallbackHosts", "");
    impostor.logs_nobody_in(&fixture, "a fallback host and a short timeout");
    // Addresses are free, and worth nothing without a certificate.
    attacker.is_accepted("awsStsTimeoutMS", 500);
    attacker.is_accepted("awsStsEndpoint", "https://127.0.0.1:1");
    attacker.is_accepted("awsStsFallbackHosts", format!("{STS_HOST}={0},{REGIONAL_HOST}={0}", sts.endpoint()));
    impostor.logs_nobody_in(&fixture, "addresses of trusted hosts");

    // The second lock.
    let namesake = Identity::iam_user(OTHER_ACCOUNT, "team/alice");
    fixture.sts.add_identity(namesake.clone());
    fixture.mongod.create_external_user(&namesake.arn, bson!([{ "role": "readWrite", "db": "shop" }]));
    attacker.is_refused("awsIamAllowedAccounts", "", ACCOUNT_RULE);
    attacker.is_refused("awsIamAllowedAccounts", &format!("{ACCOUNT},{OTHER_ACCOUNT}"), ACCOUNT_RULE);
    assert_plain_denial("another account", &fixture.login(&namesake).expect_err("its account is not listed"));
    fixture.assert_still_serves("all of it");
}

#[test]
fn who_has_the_role_host_manager_becomes_nobody_else_by_setting_parameters() {
    assert_sets_parameters_and_becomes_nobody("hostManager");
}

#[test]
fn who_has_the_role_cluster_admin_becomes_nobody_else_by_setting_parameters() {
    assert_sets_parameters_and_becomes_nobody("clusterAdmin");
}

#[test]
fn a_server_started_without_a_ca_file_takes_none_at_runtime() {
    let mongod = Mongod::builder().start();
    for path in ["/etc/hostname", "/does/not/exist"] {
        let error = mongod.try_as_admin("admin", doc! { "setParameter": 1, "awsStsCAFile": path }).unwrap_err();
        assert!(error.to_string().contains("must be empty, as it was at startup"), "{error}");
    }
    mongod.run_as_admin("admin", doc! { "setParameter": 1, "awsStsCAFile": "" });
}

#[test]
fn every_change_that_names_nobody_new_works_at_runtime() {
    let regional = LocalSts::builder().host_name(REGIONAL_HOST).start().expect("an STS");
    let fallback = format!("{REGIONAL_HOST}={}", regional.endpoint());
    let fixture = Fixture::start_with(|builder| {
        builder
            .parameter("awsStsFallbackHosts", &fallback)
            .parameter("awsIamAllowedAccounts", format!("{ACCOUNT},{OTHER_ACCOUNT}"))
    });
    regional.add_identity(fixture.user.clone());
    let operator = Operator::new(&fixture, "hostManager");
    fixture.trust(&[&fixture.sts, &regional]);

    let detour = DelayProxy::start(fixture.sts.address()).expect("a proxy");
    operator.is_accepted("awsStsEndpoint", detour.endpoint());
    fixture.assert_still_serves("another address");
    operator.is_accepted("awsStsProxy", "http://127.0.0.1:1");
    operator.is_accepted("awsStsTimeoutMS", 200);
    fixture.login(&fixture.user).expect_err("the proxy is not there");
    operator.is_accepted("awsStsProxy", "");
    operator.is_accepted("awsStsTimeoutMS", 5000);
    fixture.assert_still_serves("a proxy and a timeout");

    // Root certificates: replaced, left out, put back.
    let renewed = LocalSts::builder().identity(fixture.user.clone()).start().expect("an STS");
    fixture.trust(&[&renewed]);
    operator.is_accepted("awsStsCAFile", fixture.ca_file().to_str().unwrap());
    operator.is_accepted("awsStsEndpoint", renewed.endpoint());
    fixture.assert_still_serves("a CA file that was read again");
    operator.is_accepted("awsStsCAFile", "");
    fixture.login(&fixture.user).expect_err("only the system's roots are trusted");
    fixture.trust(&[&fixture.sts, &regional]);
    operator.is_accepted("awsStsCAFile", fixture.ca_file().to_str().unwrap());
    operator.is_accepted("awsStsEndpoint", fixture.sts.endpoint());
    fixture.assert_still_serves("a CA file that was left out");

    // A change of region, and back.
    operator.is_accepted("awsStsHost", REGIONAL_HOST);
    operator.is_accepted("awsStsEndpoint", regional.endpoint());
    operator.is_accepted("awsStsFallbackHosts", format!("{STS_HOST}={}", fixture.sts.endpoint()));
    aws_client::login(fixture.mongod.port(), &credentials(&fixture.user), REGIONAL_HOST).expect("the other region");
    operator.is_accepted("awsStsFallbackHosts", "");
    operator.is_accepted("awsStsHost", STS_HOST);
    operator.is_accepted("awsStsEndpoint", fixture.sts.endpoint());
    operator.is_accepted("awsStsFallbackHosts", NOBODY);
    fixture.assert_still_serves("the change of region");

    // An account that is locked out and let in again.
    for (accounts, is_in) in
        [(OTHER_ACCOUNT, false), (ACCOUNT, true), (OTHER_ACCOUNT, false), ("210987654321,123456789012", true)]
    {
        operator.is_accepted("awsIamAllowedAccounts", accounts);
        assert_eq!(fixture.login(&fixture.user).is_ok(), is_in, "{accounts}");
    }
    for format in ["assumedRole", "iamRole"] {
        operator.is_accepted("awsIamRoleUserFormat", format);
    }
    assert_eq!(fixture.login(&fixture.role).expect("the role"), [format!("{ROLE_USER_NAME}@$external")]);
}

/// Ends a conversation as this identity; the users that the connection is logged in as, or the
/// refusal.
fn finish(conversation: Conversation, identity: &Identity) -> Result<Vec<String>, Document> {
    let signed = conversation.signer(&credentials(identity)).sign();
    let mut login = conversation.finish(&client_second(&signed))?;
    Ok(login.client.logged_in_users().expect("a reply to connectionStatus"))
}

/// Ends a conversation while `act` happens before STS answers.
fn finish_while(
    fixture: &Fixture,
    conversation: Conversation,
    identity: &Identity,
    act: impl FnOnce(),
) -> Result<Vec<String>, Document> {
    fixture.sts.set_processing_time(Duration::from_millis(1500));
    let result = thread::scope(|scope| {
        let login = scope.spawn(|| finish(conversation, identity));
        let until = Instant::now() + Duration::from_secs(10);
        while fixture.sts.in_flight() == 0 {
            assert!(Instant::now() < until && !login.is_finished(), "STS is not asked");
            thread::sleep(Duration::from_millis(5));
        }
        act();
        assert!(!login.is_finished(), "STS has answered before");
        login.join().expect("no panic")
    });
    fixture.sts.set_processing_time(Duration::ZERO);
    result
}

#[test]
fn a_list_of_accounts_binds_logins_that_began_before_it() {
    let fixture = Fixture::start();
    let contractor = Identity::iam_user(OTHER_ACCOUNT, "contractor");
    fixture.sts.add_identity(contractor.clone());
    fixture.mongod.create_external_user(&contractor.arn, bson!([{ "role": "readWrite", "db": "shop" }]));
    let start = || Conversation::start(fixture.mongod.port()).expect("a challenge");
    let (first, second) = (start(), start());
    let lock = || fixture.set_parameter("awsIamAllowedAccounts", ACCOUNT);
    let reply = finish_while(&fixture, first, &contractor, lock).expect_err("its account was locked out");
    assert_plain_denial("while STS is asked", &reply);
    let reply = finish(second, &contractor).expect_err("its account was locked out");
    assert_plain_denial("before STS is asked", &reply);
    for reason in fixture.denial_reasons(2) {
        assert!(reason.contains("awsIamAllowedAccounts does not list account 210987654321"), "{reason}");
    }
    fixture.assert_still_serves("a lock");
    // Nor does a login under way keep an account out that was let in.
    let third = start();
    fixture.set_parameter("awsIamAllowedAccounts", "");
    assert_eq!(finish(third, &contractor).expect("no lock"), [format!("{}@$external", contractor.arn)]);
}

#[test]
fn the_name_of_a_role_s_user_is_that_of_the_format_in_force_at_the_end() {
    let fixture = Fixture::start();
    let name = "arn:aws:sts::123456789012:assumed-role/reporting/*";
    fixture.mongod.create_external_user(name, bson!([{ "role": "read", "db": "shop" }]));
    let start = || Conversation::start(fixture.mongod.port()).expect("a challenge");
    let before = start();
    fixture.set_parameter("awsIamRoleUserFormat", "assumedRole");
    assert_eq!(finish(before, &fixture.role).expect("a user"), [format!("{name}@$external")]);
    let back = || fixture.set_parameter("awsIamRoleUserFormat", "iamRole");
    let users = finish_while(&fixture, start(), &fixture.role, back).expect("a user");
    assert_eq!(users, [format!("{ROLE_USER_NAME}@$external")]);
}

#[test]
fn a_change_of_whom_the_server_trusts_denies_logins_that_began_before_it() {
    let fixture = Fixture::start_with(|builder| builder.parameter("awsStsFallbackHosts", NOBODY));
    let dba = Identity::iam_user(ACCOUNT, "dba");
    fixture.sts.add_identity(dba.clone());
    fixture.mongod.create_external_user(&dba.arn, bson!([{ "role": "root", "db": "admin" }]));
    let impostor = Impostor::of(&dba);
    let start = || Conversation::start(fixture.mongod.port()).expect("a challenge");

    // A wrong certificate was in the file for a moment, and logins began that would ask the wrong
    // STS.
    fixture.trust(&[&impostor.sts]);
    fixture.set_parameter("awsStsEndpoint", impostor.sts.endpoint());
    let begun = [start(), start()];
    fixture.trust(&[&fixture.sts]);
    fixture.set_parameter("awsStsEndpoint", fixture.sts.endpoint());
    for conversation in begun {
        assert_plain_denial("a wrong CA", &finish(conversation, &impostor.forged).expect_err("it is not trusted"));
    }
    assert_eq!(impostor.sts.request_count(), 0);
    fixture.assert_still_serves("a wrong CA");

    // The hosts, there and back again.
    type Change = fn(&Fixture);
    let changes: [(&str, Change); 3] = [
        ("the host", |fixture| {
            fixture.set_parameter("awsStsHost", REGIONAL_HOST);
            fixture.set_parameter("awsStsHost", STS_HOST);
        }),
        ("the fallback hosts", |fixture| {
            fixture.set_parameter("awsStsFallbackHosts", "");
            fixture.set_parameter("awsStsFallbackHosts", NOBODY);
        }),
        ("the certificates", |fixture| {
            fixture.set_parameter("awsStsCAFile", "");
            fixture.trust(&[&fixture.sts]);
        }),
    ];
    for (name, change) in changes {
        let asked = fixture.sts.request_count();
        let conversation = start();
        change(&fixture);
        assert_plain_denial(name, &finish(conversation, &fixture.user).expect_err("it began before the change"));
        assert_eq!(fixture.sts.request_count(), asked, "{name}: STS was asked");
        let conversation = start();
        let reply = finish_while(&fixture, conversation, &fixture.user, || change(&fixture));
        assert_plain_denial(name, &reply.expect_err("the change came before the answer"));
        assert_eq!(fixture.sts.request_count(), asked + 1, "{name}");
        fixture.assert_still_serves(name);
    }
    for reason in fixture.denial_reasons(8) {
        let said = "awsStsHost, awsStsFallbackHosts or awsStsCAFile was changed after this login began; the client \
                    must log in again; the client claimed access key id AKIA";
        assert!(reason.contains(said), "{reason}");
    }
}

#[test]
fn a_change_of_the_way_to_sts_denies_no_login_under_way() {
    let fixture = Fixture::start_with(|builder| {
        builder.parameter("awsStsFallbackHosts", format!("{NOBODY},sts.eu-west-2.amazonaws.com=https://127.0.0.1:1"))
    });
    fixture.assert_still_serves("the start");
    let detour = DelayProxy::start(fixture.sts.address()).expect("a proxy");
    let ca_file = fixture.ca_file().display().to_string();
    let other_order = format!("sts.eu-west-2.amazonaws.com=https://127.0.0.1:2,{NOBODY}");
    for (name, value) in [
        ("awsStsEndpoint", bson!(detour.endpoint())),
        ("awsStsProxy", bson!("http://127.0.0.1:1")),
        ("awsStsProxy", bson!("")),
        ("awsStsTimeoutMS", bson!(5000)),
        ("awsStsFallbackHosts", bson!(other_order)),
        // What changes nothing.
        ("awsStsHost", bson!(STS_HOST)),
        ("awsStsCAFile", bson!(ca_file)),
    ] {
        let change = || fixture.set_parameter(name, value.clone());
        let start = || Conversation::start(fixture.mongod.port()).expect("a challenge");
        let before = start();
        let during = start();
        finish_while(&fixture, during, &fixture.user, change).unwrap_or_else(|reply| panic!("{name}: {reply}"));
        finish(before, &fixture.user).unwrap_or_else(|reply| panic!("{name}: {reply}"));
        fixture.set_parameter("awsStsProxy", "");
    }
}
