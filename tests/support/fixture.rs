//! A mongod with the plugin, an STS, and two principals who have users, as most tests need them.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use bson::{Bson, Document, bson, doc};
use local_sts::{Identity, LocalSts};
use mongodb::options::{AuthMechanism, Credential};
use mongodb::sync::Client;
use serde_json::Value;
use tempfile::TempDir;

use super::aws_client::{self, Credentials};
use super::mongod::{Builder, Mongod};
use super::sts::TestSts;
pub use super::sts::{ACCOUNT, ROLE_USER_NAME};
use super::wire::is_ok;

pub const STS_HOST: &str = "sts.amazonaws.com";

/// MongoDB's error code AuthenticationFailed.
pub const AUTHENTICATION_FAILED: i32 = 18;

/// The plugin's log line about a principal without a user.
const USER_REFUSED: i32 = 88_000_002;

const CA_FILE: &str = "ca.pem";

/// How long a log line may take to be written.
const LOG_LIMIT: Duration = Duration::from_secs(10);

pub struct Fixture {
    pub mongod: Mongod,
    pub sts: LocalSts,
    /// May read and write the database `shop`.
    pub user: Identity,
    /// A session of the role `reporting`, which may read `shop`.
    pub role: Identity,
    folder: TempDir,
}

impl Fixture {
    pub fn start() -> Self {
        Self::start_with(|builder| builder)
    }

    /// Starts mongod with further options.
    pub fn start_with(options: impl FnOnce(Builder) -> Builder) -> Self {
        Self::start_prepared(options, |_| ())
    }

    /// Starts mongod with further options, and calls `prepare` before users are created.
    pub fn start_prepared(options: impl FnOnce(Builder) -> Builder, prepare: impl FnOnce(&Mongod)) -> Self {
        let test = TestSts::new();
        let ca_file = test.ca_file();
        let TestSts { sts, user, role, folder } = test;
        let builder =
            Mongod::builder().parameter("awsStsEndpoint", sts.endpoint()).parameter("awsStsCAFile", ca_file.display());
        let mongod = options(builder).start();
        prepare(&mongod);
        mongod.create_external_user(&user.arn, bson!([{ "role": "readWrite", "db": "shop" }]));
        mongod.create_external_user(ROLE_USER_NAME, bson!([{ "role": "read", "db": "shop" }]));
        Self { mongod, sts, user, role, folder }
    }

    /// Trusts the CAs of these STSs and no others: writes them into the file of awsStsCAFile, and
    /// has it read again.
    pub fn trust(&self, stss: &[&LocalSts]) {
        self.set_parameter("awsStsCAFile", write_cas(self.folder.path(), stss).to_str().unwrap());
    }

    /// Returns the file of awsStsCAFile at startup.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join(CA_FILE)
    }

    /// Logs in by the raw client; returns the users that the connection is logged in as.
    pub fn login(&self, identity: &Identity) -> Result<Vec<String>, Document> {
        let mut login = aws_client::login(self.mongod.port(), &credentials(identity), STS_HOST)?;
        Ok(login.client.logged_in_users().expect("a reply to connectionStatus"))
    }

    /// Asserts that the server still serves, and still lets the right client in.
    pub fn assert_still_serves(&self, after: &str) {
        assert!(self.mongod.is_alive(), "mongod has stopped after: {after}");
        let users = self.login(&self.user).unwrap_or_else(|reply| panic!("after {after}: {reply}"));
        assert_eq!(users, [format!("{}@$external", self.user.arn)], "after {after}");
    }

    /// Returns a client of the official driver that logs in as this identity.
    pub fn driver(&self, identity: &Identity) -> Client {
        let properties = identity.session_token.as_ref().map(|token| doc! { "AWS_SESSION_TOKEN": token });
        let mut credential = Credential::builder()
            .username(identity.access_key_id.clone())
            .password(identity.secret_access_key.clone())
            .source("$external".to_owned())
            .mechanism(AuthMechanism::MongoDbAws)
            .build();
        credential.mechanism_properties = properties;
        let mut options = self.mongod.client_options();
        options.credential = Some(credential);
        Client::with_options(options).expect("a client")
    }

    /// Creates the user that [`Fixture::scram_login`] logs in as.
    pub fn create_scram_user(&self) {
        let carol = doc! {
            "createUser": "carol", "pwd": "carol's", "roles": ["readAnyDatabase"], "mechanisms": ["SCRAM-SHA-256"],
        };
        self.mongod.run_as_admin("admin", carol);
    }

    /// Logs in by SCRAM over a new connection, without STS.
    pub fn scram_login(&self) {
        let mut options = self.mongod.client_options();
        let credential = Credential::builder().username("carol".to_owned()).password("carol's".to_owned());
        options.credential = Some(credential.mechanism(AuthMechanism::ScramSha256).build());
        let client = Client::with_options(options).expect("a client");
        client.database("admin").run_command(doc! { "ping": 1 }).run().expect("carol logs in");
    }

    /// Returns a counter of `sts` in serverStatus.
    pub fn sts_counter(&self, name: &str) -> i64 {
        let status = self.mongod.run_as_admin("admin", doc! { "serverStatus": 1 });
        let section = status.get_document("awsIam").and_then(|section| section.get_document("sts"));
        section.expect("the section").get_i64(name).expect("the counter")
    }

    /// Sets a parameter at runtime.
    pub fn set_parameter(&self, name: &str, value: impl Into<Bson>) {
        self.mongod.run_as_admin("admin", doc! { "setParameter": 1, name: value.into() });
    }

    /// Returns the reasons of the failed logins by MONGODB-AWS in mongod's log, oldest first.
    ///
    /// # Panics
    /// When there are not exactly `count` of them.
    pub fn denial_reasons(&self, count: usize) -> Vec<String> {
        let until = Instant::now() + LOG_LIMIT;
        loop {
            let reasons: Vec<_> = self.mongod.log_lines().iter().filter_map(denial_reason).collect();
            if reasons.len() == count {
                return reasons;
            }
            assert!(Instant::now() < until, "not {count} reasons but {}: {reasons:#?}", reasons.len());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for a log line of a successful login by MONGODB-AWS; returns all of them.
    ///
    /// # Panics
    /// When there is none in time.
    pub fn success_lines(&self) -> Vec<Value> {
        let fits = |line: &Value| {
            // 4.4 words it the other way.
            let succeeded = line["msg"] == "Authentication succeeded" || line["msg"] == "Successful authentication";
            succeeded && line["attr"]["mechanism"] == aws_client::MECHANISM
        };
        self.mongod.wait_for_log(fits, LOG_LIMIT).expect("a line of a successful login");
        self.mongod.log_lines().into_iter().filter(fits).collect()
    }
}

fn denial_reason(line: &Value) -> Option<String> {
    if line["id"] == USER_REFUSED {
        return line["msg"].as_str().map(str::to_owned);
    }
    let failed = line["msg"] == "Authentication failed" && line["attr"]["mechanism"] == aws_client::MECHANISM;
    // 4.4 calls it the result.
    let reason = line["attr"]["error"].as_str().or_else(|| line["attr"]["result"].as_str());
    failed.then(|| reason.unwrap_or_default().to_owned())
}

fn write_cas(folder: &Path, stss: &[&LocalSts]) -> PathBuf {
    let path = folder.join(CA_FILE);
    let text: String = stss.iter().map(|sts| sts.ca_pem()).collect();
    std::fs::write(&path, text).expect("a file for the CAs");
    path
}

/// Returns the credentials of an identity.
pub fn credentials(identity: &Identity) -> Credentials {
    let credentials = Credentials::new(&identity.access_key_id, &identity.secret_access_key);
    match &identity.session_token {
        Some(token) => credentials.with_token(token),
        None => credentials,
    }
}

/// Asserts that the reply contains only that the login failed.
pub fn assert_plain_denial(name: &str, reply: &Document) {
    assert!(!is_ok(reply), "{name}: {reply}");
    assert_eq!(reply.get_i32("code").unwrap(), AUTHENTICATION_FAILED, "{name}: {reply}");
    assert_eq!(reply.get_str("errmsg").unwrap(), "Authentication failed.", "{name}");
}
