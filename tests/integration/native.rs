//! Servers with a built-in MONGODB-AWS: the plugin replaces it, unless the operator keeps it.
//!
//! The tests use a stock server with the object of `tests/native-stand-in` preloaded. The server
//! decides whether that object or the plugin registers first, and the order differs between starts.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use bson::{Bson, Document, doc};
use serde_json::Value;

use crate::support::aws_client::{self, MECHANISM, client_first};
use crate::support::fixture::{Fixture, STS_HOST};
use crate::support::mongod::{Builder, DEFAULT_VERSION, Mongod};
use crate::support::plugin;
use crate::support::wire::{WireClient, is_ok};

/// The plugin's log line about its own mechanism.
const PROVIDED: i32 = 88_000_001;
/// The plugin's log line about a mechanism that it has replaced.
const REPLACED: i32 = 88_000_003;

/// Keeps a server's built-in mechanism.
const KEEP_NATIVE: &str = "PSMDB_AWS_IAM_KEEP_NATIVE";

/// The reason by which the stand-in refuses every login.
const STAND_IN_WAS_USED: &str = "stand-in refuses every login";

/// How long a log line may take to be written.
const LOG_TIMEOUT: Duration = Duration::from_secs(10);

const REGIONAL_HOST: &str = "sts.eu-west-1.amazonaws.com";

/// Security levels of the stand-in: below, equal to and above that of the plugin.
const LEVELS: [&str; 3] = ["1", "2", "3"];

#[derive(Clone, Copy, Debug)]
enum Preload {
    StandInFirst,
    PluginFirst,
}

/// A server with a built-in mechanism.
#[derive(Clone, Copy, Debug)]
struct Native {
    preload: Option<Preload>,
    security_level: &'static str,
    /// Whether it has its own parameter awsStsHost, which the first such servers lack.
    parameter: bool,
}

impl Native {
    /// Every kind of server, with this order of preloaded objects.
    fn all(preload: Preload) -> impl Iterator<Item = Self> {
        LEVELS.into_iter().flat_map(move |security_level| {
            [true, false].map(|parameter| Self { preload: Some(preload), security_level, parameter })
        })
    }

    fn apply(self, builder: Builder) -> Builder {
        let (stand_in, plugin) = (stand_in().display(), plugin());
        let preloaded = match self.preload {
            None => stand_in.to_string(),
            Some(Preload::StandInFirst) => format!("{stand_in}:{}", plugin.display()),
            Some(Preload::PluginFirst) => format!("{}:{stand_in}", plugin.display()),
        };
        builder
            .plugin(preloaded.into())
            .authorization(false)
            .env("STAND_IN_SECURITY_LEVEL", self.security_level)
            .env("STAND_IN_PARAMETER", if self.parameter { "1" } else { "0" })
    }
}

/// The stand-in, compiled once for the series of the server that the tests run on.
fn stand_in() -> &'static Path {
    static STAND_IN: OnceLock<PathBuf> = OnceLock::new();
    STAND_IN.get_or_init(|| {
        let version = env::var("PSMDB_AWS_IAM_MONGOD_VERSION").unwrap_or_else(|_| DEFAULT_VERSION.to_owned());
        let series = match version.split_once('.') {
            Some(("4", _)) => 404,
            Some(("5", _)) => 500,
            Some(("6", _)) => 600,
            _ => panic!("the stand-in does not support mongod {version}"),
        };
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/native-stand-in");
        let folder = tempfile::Builder::new().prefix("stand-in-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let built = folder.path().join("stand_in.so");
        let output = Command::new("cc")
            .args(["-std=c++20", "-O1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror", "-Wl,-z,now"])
            .arg(format!("-DSERVER_SERIES={series}"))
            .arg(format!("-Wl,--version-script={}", sources.join("exports.map").display()))
            .arg(sources.join("stand_in.cpp"))
            .arg("-o")
            .arg(&built)
            .output()
            .expect("cc");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // Atomically: another test process may do the same.
        let finished = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("stand_in-{series}.so"));
        std::fs::rename(built, &finished).expect("a place for the stand-in");
        finished
    })
}

/// Runs a command without a login, on a server without authorization.
fn run(mongod: &Mongod, command: Document) -> Document {
    WireClient::connect(mongod.port()).and_then(|mut client| client.command("admin", command)).unwrap()
}

fn parameter(mongod: &Mongod, name: &str) -> Option<Bson> {
    run(mongod, doc! { "getParameter": 1, name: 1 }).get(name).cloned()
}

fn set_sts_host(mongod: &Mongod, host: &str) -> Document {
    run(mongod, doc! { "setParameter": 1, "awsStsHost": host })
}

fn lines_of(mongod: &Mongod, id: i32) -> Vec<Value> {
    mongod.log_lines().into_iter().filter(|line| line["id"] == id).collect()
}

fn sasl_start(mongod: &Mongod) -> Document {
    WireClient::connect(mongod.port())
        .and_then(|mut client| client.sasl_start(MECHANISM, &client_first(&[7; 32])))
        .expect("a reply to saslStart")
}

fn assert_the_stand_in_serves(mongod: &Mongod) {
    let reply = sasl_start(mongod);
    assert!(!is_ok(&reply), "{reply}");
    let used = |line: &Value| line.to_string().contains(STAND_IN_WAS_USED);
    assert!(mongod.wait_for_log(used, LOG_TIMEOUT).is_some(), "{}", mongod.log_text());
}

/// Asserts that awsStsHost is the stand-in's, which cannot be changed at runtime.
fn assert_the_parameter_is_the_stand_in_s(mongod: &Mongod, value: &str) {
    assert_eq!(parameter(mongod, "awsStsHost"), Some(value.into()));
    let reply = set_sts_host(mongod, REGIONAL_HOST);
    assert!(reply.get_str("errmsg").is_ok_and(|message| message.contains("at runtime")), "{reply}");
    assert_eq!(parameter(mongod, "awsStsHost"), Some(value.into()));
}

fn assert_the_plugin_replaces_it(native: Native) {
    let fixture = Fixture::start_with(|builder| {
        native.apply(builder).parameter("awsStsHost", REGIONAL_HOST).parameter("awsStsFallbackHosts", STS_HOST)
    });
    let mongod = &fixture.mongod;

    // The plugin has the value of the command line.
    assert_eq!(parameter(mongod, "awsStsHost"), Some(REGIONAL_HOST.into()), "{native:?}");
    let conversation =
        aws_client::Conversation::start(mongod.port()).unwrap_or_else(|reply| panic!("{native:?}: {reply}"));
    assert_eq!(conversation.host, REGIONAL_HOST, "{native:?}");

    // The parameter is the plugin's, since it can be changed at runtime.
    let reply = set_sts_host(mongod, STS_HOST);
    assert!(is_ok(&reply), "{native:?}: {reply}");
    assert_eq!(parameter(mongod, "awsStsHost"), Some(STS_HOST.into()), "{native:?}");
    fixture.assert_still_serves(&format!("the start as {native:?}"));

    let status = mongod.run_as_admin("admin", doc! { "serverStatus": 1 });
    let section = status.get_document("awsIam").expect("the section");
    assert!(section.get_bool("nativeMechanismReplaced").unwrap(), "{native:?}: {section}");
    assert!(!mongod.log_text().contains(STAND_IN_WAS_USED), "{native:?}");
    assert_eq!(lines_of(mongod, REPLACED).len(), 1, "{native:?}: {}", mongod.log_text());
    assert_eq!(mongod.stderr_text(), "", "{native:?}");
    assert!(mongod.shutdown().success(), "{native:?}");
}

#[test]
fn the_stand_in_by_itself_is_a_server_with_the_mechanism() {
    for security_level in LEVELS {
        let native = Native { preload: None, security_level, parameter: true };
        let mongod = native.apply(Mongod::builder()).parameter("awsStsHost", "sts.example.com").start();
        assert_the_stand_in_serves(&mongod);
        assert_the_parameter_is_the_stand_in_s(&mongod, "sts.example.com");
        assert!(mongod.shutdown().success());
    }
}

#[test]
fn the_stand_in_without_its_parameter_has_none() {
    let native = Native { preload: None, security_level: "2", parameter: false };
    let mongod = native.apply(Mongod::builder()).start();
    assert_the_stand_in_serves(&mongod);
    assert_eq!(parameter(&mongod, "awsStsHost"), None);
}

#[test]
fn the_stand_in_exports_what_such_a_server_does_and_no_more() {
    let output = Command::new("nm").args(["-D", "--defined-only"]).arg(stand_in()).output().expect("nm, of binutils");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut names: Vec<_> = text.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "_ZTIN5mongo6awsIam13ServerFactoryE",
            "_ZTIN5mongo6awsIam15ServerMechanismE",
            "_ZTSN5mongo6awsIam13ServerFactoryE",
            "_ZTSN5mongo6awsIam15ServerMechanismE",
            "_ZTVN5mongo6awsIam13ServerFactoryE",
            "_ZTVN5mongo6awsIam15ServerMechanismE",
        ]
    );
}

#[test]
fn the_plugin_replaces_a_mechanism_that_is_registered_before_it() {
    Native::all(Preload::StandInFirst).for_each(assert_the_plugin_replaces_it);
}

#[test]
fn the_plugin_replaces_a_mechanism_that_is_registered_after_it() {
    Native::all(Preload::PluginFirst).for_each(assert_the_plugin_replaces_it);
}

#[test]
fn a_mechanism_that_is_not_enabled_is_not_replaced_but_its_parameter_is() {
    for preload in [Preload::StandInFirst, Preload::PluginFirst] {
        let native = Native { preload: Some(preload), security_level: "3", parameter: true };
        let mongod = native
            .apply(Mongod::builder())
            .mechanisms("SCRAM-SHA-256")
            .parameter("awsStsHost", REGIONAL_HOST)
            .parameter("awsStsFallbackHosts", STS_HOST)
            .start();
        assert_eq!(parameter(&mongod, "awsStsHost"), Some(REGIONAL_HOST.into()));
        assert!(!is_ok(&set_sts_host(&mongod, "sts.attacker.example")), "the rule holds without the mechanism too");
        assert!(is_ok(&set_sts_host(&mongod, STS_HOST)));
        assert_eq!(lines_of(&mongod, PROVIDED), [] as [Value; 0]);
        let reply = sasl_start(&mongod);
        assert!(!is_ok(&reply), "{reply}");
        assert!(mongod.shutdown().success());
    }
}

#[test]
fn a_server_s_own_mechanism_is_kept_on_request() {
    for preload in [Preload::StandInFirst, Preload::PluginFirst] {
        for security_level in LEVELS {
            let native = Native { preload: Some(preload), security_level, parameter: true };
            let mongod = native
                .apply(Mongod::builder())
                .env(KEEP_NATIVE, "1")
                .parameter("awsStsHost", "sts.example.com")
                .start();
            assert_the_stand_in_serves(&mongod);
            assert_the_parameter_is_the_stand_in_s(&mongod, "sts.example.com");
            assert_eq!(parameter(&mongod, "awsStsEndpoint"), None);
            assert_eq!(lines_of(&mongod, PROVIDED), [] as [Value; 0]);
            assert_eq!(lines_of(&mongod, REPLACED), [] as [Value; 0]);
            // One line, in the log or in the output, gives the reason.
            let written = [mongod.log_text(), mongod.stdout_text(), mongod.stderr_text()].concat();
            assert_eq!(written.lines().filter(|line| line.contains(KEEP_NATIVE)).count(), 1, "{written}");
            assert!(mongod.shutdown().success());
        }
    }
}

#[test]
fn a_server_s_own_mechanism_without_a_parameter_is_kept_without_one() {
    let native = Native { preload: Some(Preload::PluginFirst), security_level: "2", parameter: false };
    let mongod = native.apply(Mongod::builder()).env(KEEP_NATIVE, "1").start();
    assert_the_stand_in_serves(&mongod);
    assert_eq!(parameter(&mongod, "awsStsHost"), None);
}

#[test]
fn a_request_to_keep_what_is_not_there_has_no_effect() {
    let fixture = Fixture::start_with(|builder| builder.env(KEEP_NATIVE, "1"));
    fixture.assert_still_serves("the start");
    assert_eq!(lines_of(&fixture.mongod, PROVIDED).len(), 1);
    assert_eq!(lines_of(&fixture.mongod, REPLACED), [] as [Value; 0]);
    assert!(!fixture.mongod.log_text().contains(KEEP_NATIVE));
    assert_eq!(fixture.mongod.stderr_text(), "");
}
