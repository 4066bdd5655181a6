//! Examples that a real server is given.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bson::{Bson, Document, doc};
use local_sts::{Identity, LocalSts};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use regex_lite::Regex;
use serde_json::Value;
use tempfile::TempDir;

use super::blocks::Block;
use super::recovery::{Fault, Machine};
use super::shell::{self, Statement};
use super::{INSTALLED, examples};
use crate::support::aws_client;
use crate::support::fixture::{ACCOUNT, Fixture, ROLE_USER_NAME, credentials};
use crate::support::mongod::{Builder, DEFAULT_VERSION, Mongod, command_of};
use crate::support::plugin;
use crate::support::wire::{WireClient, is_ok};

/// Files that examples name, made for the test.
pub struct Files {
    folder: TempDir,
}

impl Files {
    pub fn new() -> Self {
        static CA: OnceLock<String> = OnceLock::new();
        let folder = tempfile::tempdir().unwrap();
        let ca = CA.get_or_init(|| LocalSts::builder().start().unwrap().ca_pem().to_owned());
        fs::write(folder.path().join("corporate-ca.pem"), ca).unwrap();
        fs::write(folder.path().join("keyfile"), "key+of+the+tests").unwrap();
        fs::set_permissions(folder.path().join("keyfile"), PermissionsExt::from_mode(0o600)).unwrap();
        Self { folder }
    }

    /// The example with the files of the test in place of those that it names.
    pub fn adapt(&self, text: &str) -> String {
        let path = |name: &str| self.folder.path().join(name).to_str().unwrap().to_owned();
        text.replace("/etc/ssl/corporate-ca.pem", &path("corporate-ca.pem"))
            .replace("/etc/mongodb/keyfile", &path("keyfile"))
    }

    fn write(&self, text: &str) -> PathBuf {
        let path = self.folder.path().join("mongod.conf");
        fs::write(&path, self.adapt(text)).unwrap();
        path
    }
}

/// The lines below a key, without their common indentation.
fn below(text: &str, key: &str) -> Option<String> {
    let mut lines = text.lines().skip_while(|line| line.trim() != key);
    // An item of a list is as deep as its dash, and what is beside its key is deeper.
    let outer = lines.next().map(|line| line.len() - line.trim_start_matches([' ', '-']).len())?;
    let inner: Vec<_> =
        lines.take_while(|line| line.trim().is_empty() || line.len() - line.trim_start().len() > outer).collect();
    let depth = inner.iter().map(|line| line.len() - line.trim_start().len()).min()?;
    Some(inner.iter().map(|line| format!("{}\n", &line[depth..])).collect())
}

/// The parameters that a configuration sets, as text.
fn parameters(configuration: &str) -> BTreeMap<String, String> {
    let lines = below(configuration, "setParameter:").unwrap_or_default();
    let parameter = |line: &str| {
        let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line}"));
        let value = value.split("    #").next().unwrap().trim().trim_matches('"');
        (name.to_owned(), value.to_owned())
    };
    lines.lines().map(parameter).collect()
}

fn as_text(value: &Bson) -> String {
    match value {
        Bson::String(text) => text.clone(),
        Bson::Array(items) => items.iter().map(as_text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// Makes servers the members of a replica set, the first of them the primary.
fn initiate(members: &[&Mongod], set: &str) {
    let mut client = WireClient::connect(members[0].port()).unwrap();
    let member = |(number, mongod): (usize, &&Mongod)| {
        let id = i32::try_from(number).unwrap();
        doc! { "_id": id, "host": format!("127.0.0.1:{}", mongod.port()), "priority": i32::from(number == 0) }
    };
    let members: Vec<_> = members.iter().enumerate().map(member).collect();
    let set = doc! { "_id": set, "members": members };
    let reply = client.command("admin", doc! { "replSetInitiate": set }).unwrap();
    assert!(is_ok(&reply), "{reply}");
    let until = Instant::now() + Duration::from_secs(30);
    while !client.command("admin", doc! { "hello": 1 }).unwrap().get_bool("isWritablePrimary").unwrap_or(false) {
        assert!(Instant::now() < until, "no primary");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn assert_provided(mongod: &Mongod, place: &str) {
    let provided = mongod.log_lines().iter().any(|line| line["id"] == 88_000_001);
    assert!(provided, "{place}: the plugin does not serve MONGODB-AWS with it");
}

/// The configurations among the examples, each with the place where it stands.
pub fn configurations() -> Vec<(String, String)> {
    let part = |block: &Block, key: &str| {
        below(&block.text, key).unwrap_or_else(|| panic!("{block}: there is nothing below {key}"))
    };
    let mut found: Vec<_> = examples("yaml", "").into_iter().map(|block| (block.to_string(), block.text)).collect();
    for block in examples("yaml", "percona-operator") {
        found.push((block.to_string(), part(&block, "configuration: |")));
    }
    for block in examples("yaml", "community-operator") {
        assert!(block.text.contains(&format!("- name: LD_PRELOAD\n                  value: {INSTALLED}\n")), "{block}");
        found.push((block.to_string(), part(&block, "additionalMongodConfig:")));
    }
    found
}

#[test]
fn a_server_starts_with_each_configuration_and_has_its_values() {
    let mut done = BTreeSet::new();
    for (place, configuration) in configurations() {
        if !done.insert(configuration.clone()) {
            continue;
        }
        let files = Files::new();
        let mongod = Mongod::builder().configuration(files.write(&configuration)).start();
        if let Some(line) = configuration.lines().find_map(|line| line.trim().strip_prefix("replSetName: ")) {
            initiate(&[&mongod], line);
        }
        assert_provided(&mongod, &place);
        let expected = parameters(&configuration);
        assert!(!expected.is_empty(), "{place}: it sets no parameter");
        for (name, value) in expected {
            let reply = mongod.run_as_admin("admin", doc! { "getParameter": 1, &name: 1 });
            assert_eq!(as_text(reply.get(&name).unwrap()), files.adapt(&value), "{place}: {name}");
        }
    }
}

/// How members log in to each other.
enum Members {
    KeyFile,
    /// With this configuration beside the page's.
    Certificates(String),
}

/// Two members with the configuration of replica-sets-and-shards.md, or with another list. The
/// first is the primary.
fn assert_members_replicate(mechanisms: Option<&str>, members: &Members) {
    let block =
        examples("yaml", "").into_iter().find(|block| block.file.ends_with("replica-sets-and-shards.md")).unwrap();
    let parameters = parameters(&block.text);
    let host = parameters["awsStsHost"].clone();
    let shown = &parameters["authenticationMechanisms"];
    let mut text = block.text.replace(shown, mechanisms.unwrap_or(shown));
    // The server's line about a member that has logged in, and what is in it.
    let (id, words) = match members {
        Members::KeyFile => (20_250, ["SCRAM-SHA-256", "__system"]),
        Members::Certificates(options) => {
            text = text.replace("keyFile: /etc/mongodb/keyfile", "clusterAuthMode: x509") + options;
            (20_429, ["OU=database", "O=shop"])
        }
    };
    let user = Identity::iam_user(ACCOUNT, "alice");
    let sts = LocalSts::builder().host_name(&host).identity(user.clone()).start().unwrap();
    let files = Files::new();
    let configuration = files.write(&text);
    let ca = files.folder.path().join("sts.pem");
    fs::write(&ca, sts.ca_pem()).unwrap();
    let start = || {
        Mongod::builder()
            .configuration(configuration.clone())
            .parameter("awsStsEndpoint", sts.endpoint())
            .parameter("awsStsCAFile", ca.display())
            .start()
    };
    let (primary, secondary) = (start(), start());
    initiate(&[&primary, &secondary], "rs0");
    // The first user may be one of AWS: mongod trusts this machine until there is a user.
    let create = doc! {
        "createUser": &user.arn,
        "roles": [{ "role": "root", "db": "admin" }],
        "writeConcern": { "w": 2, "wtimeout": 60_000 },
    };
    let reply = WireClient::connect(primary.port()).unwrap().command("$external", create).unwrap();
    assert!(is_ok(&reply) && !reply.contains_key("writeConcernError"), "{reply}");
    for member in [&primary, &secondary] {
        let login = aws_client::login(member.port(), &credentials(&user), &host);
        let mut login = login.unwrap_or_else(|reply| panic!("{reply}"));
        assert_eq!(login.client.logged_in_users().unwrap(), [format!("{}@$external", user.arn)]);
    }
    let logged_in = |line: &Value| {
        let attributes = line["attr"].to_string();
        line["id"] == id && words.iter().all(|word| attributes.contains(word))
    };
    assert!(primary.log_lines().iter().any(logged_in), "no member has logged in to the primary: {words:?}");
}

#[test]
fn members_with_a_key_file_replicate_and_each_lets_clients_in() {
    assert_members_replicate(None, &Members::KeyFile);
}

#[test]
fn members_with_a_key_file_replicate_when_the_list_is_mongodb_aws_alone() {
    assert_members_replicate(Some("MONGODB-AWS"), &Members::KeyFile);
}

#[test]
fn members_with_certificates_replicate_when_the_list_is_mongodb_aws_alone() {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new([]).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "CA of the tests");
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let mut member = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    // Members recognise each other by these.
    member.distinguished_name.push(DnType::OrganizationName, "shop");
    member.distinguished_name.push(DnType::OrganizationalUnitName, "database");
    let certificate = member.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("member.pem"), certificate.pem() + &key.serialize_pem()).unwrap();
    fs::write(path("ca.pem"), ca_pem).unwrap();
    let options = format!(
        "net:\n  tls:\n    mode: preferTLS\n    certificateKeyFile: {}\n    CAFile: {}\n",
        path("member.pem").display(),
        path("ca.pem").display()
    );
    assert_members_replicate(Some("MONGODB-AWS"), &Members::Certificates(options));
}

#[test]
fn options_that_need_certificates_are_known_to_the_server() {
    for block in examples("yaml", "tls") {
        let files = Files::new();
        let output = command_of(DEFAULT_VERSION)
            .arg("--config")
            .arg(files.write(&block.text))
            .arg("--outputConfig")
            .output()
            .unwrap();
        assert!(output.status.success(), "{block}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A server in the environment of a unit or a container.
fn in_environment(place: &str, environment: &[(&str, &str)]) -> Builder {
    let preload = environment.iter().find(|(name, _)| *name == "LD_PRELOAD").map(|(_, value)| *value);
    assert_eq!(preload.unwrap_or(INSTALLED), INSTALLED, "{place}");
    let others = environment.iter().filter(|(name, _)| *name != "LD_PRELOAD");
    others.fold(Mongod::builder().plugin(plugin()), |builder, (name, value)| builder.env(name, *value))
}

#[test]
fn the_environment_of_a_unit_loads_the_plugin() {
    let mut done = BTreeSet::new();
    for block in examples("ini", "").into_iter().filter(|block| done.insert(block.text.clone())) {
        let mut lines = block.text.lines();
        assert_eq!(lines.next(), Some("[Service]"), "{block}");
        let environment: Vec<_> = lines
            .map(|line| {
                let variable = line.strip_prefix("Environment=").and_then(|rest| rest.split_once('='));
                variable.unwrap_or_else(|| panic!("{block}: {line}"))
            })
            .collect();
        assert_provided(&in_environment(&block.to_string(), &environment).start(), &block.to_string());
    }
}

#[test]
fn a_container_s_file_installs_and_starts_the_server() {
    for block in examples("dockerfile", "") {
        let place = block.to_string();
        let after = |word: &str| {
            let found = block.text.lines().find_map(|line| line.strip_prefix(word));
            found.unwrap_or_else(|| panic!("{place}: no {word}"))
        };
        assert!(after("COPY ").ends_with(&format!(" libpsmdb_aws_iam.so {INSTALLED}")), "{place}");
        let variable = after("ENV ").split_once('=').unwrap();
        let command: Vec<String> =
            serde_json::from_str(after("CMD ")).unwrap_or_else(|error| panic!("{place}: {error}"));
        assert_eq!(command[0], "mongod", "{place}");
        let empty = Files::new();
        let builder = in_environment(&place, &[variable]).configuration(empty.write("{}\n"));
        let builder = command[1..].iter().fold(builder, Builder::arg);
        assert_provided(&builder.start(), &place);
    }
}

/// What differs from machine to machine, made the same.
fn masked(text: &str, machine: Option<&Machine>) -> String {
    let mut text = text.to_owned();
    if let Some(machine) = machine {
        text = text.replace(machine.object().to_str().unwrap(), INSTALLED);
        text = text.replace(machine.server().to_str().unwrap(), "/usr/bin/mongod");
    }
    for (pattern, word) in [(r"[^ ]*/libc\.so\.6", "libc.so.6"), (r"GLIBC_[0-9.]+", "GLIBC_N")] {
        text = Regex::new(pattern).unwrap().replace_all(&text, word).into_owned();
    }
    text
}

#[test]
fn a_server_that_cannot_start_says_what_is_shown_and_where() {
    let parameter = |builder: Builder| builder.parameter("awsStsHost", "sts.amazonaws.com");
    for block in examples("text", "start") {
        let fault = match &*block.detail {
            "no-plugin" | "unknown-parameter" => Some(Fault::NotPreloaded),
            "differs" => Some(Fault::ServerDiffers),
            "missing" => Some(Fault::ObjectMissing),
            "empty" => Some(Fault::ObjectEmpty),
            "truncated" => Some(Fault::ObjectTruncated),
            "newer-glibc" => Some(Fault::NewerGlibc),
            "bad-value" => None,
            other => panic!("{block}: how does a server fail to start that is {other:?}?"),
        };
        let machine = fault.map(Machine::with);
        let server = || machine.as_ref().unwrap().builder(true).mechanisms("MONGODB-AWS,SCRAM-SHA-256");
        let exit = match &*block.detail {
            "no-plugin" => server().expect_exit(),
            "bad-value" => Mongod::builder().parameter("awsStsTimeoutMS", 5).expect_exit(),
            _ => parameter(server()).expect_exit(),
        };
        let screen = masked(&[&*exit.stdout, &*exit.stderr].concat(), machine.as_ref());
        let (found, other) = if block.detail == "no-plugin" { (&exit.log, &screen) } else { (&screen, &exit.log) };
        for line in masked(block.text.trim_end(), None).lines() {
            assert!(found.contains(line), "{block}: {line}\nis not in\n{found}");
            assert!(!other.contains(line), "{block}: {line}\nis elsewhere too:\n{other}");
        }
    }
}

/// The loader does not say which of the two it is.
#[test]
fn an_object_that_the_server_may_not_read_looks_like_one_that_is_missing() {
    let loader = |fault| {
        let machine = Machine::with(fault);
        masked(&machine.builder(true).mechanisms("MONGODB-AWS").expect_exit().stderr, Some(&machine))
    };
    let missing = loader(Fault::ObjectMissing);
    assert!(missing.contains("cannot be preloaded"), "{missing}");
    assert_eq!(loader(Fault::ObjectUnreadable), missing);
}

/// All statements in their order, on one server; the same statement is run once.
#[test]
fn the_database_s_shell_does_what_is_shown() {
    let mongod = Mongod::builder().start();
    let mut done = BTreeSet::new();
    for block in examples("js", "") {
        for Statement { code, reply: expected } in shell::statements(&block.text) {
            let known = shell::NOT_RUN.iter().any(|(statement, reason)| *statement == code && !reason.is_empty());
            if known || !done.insert(code.clone()) {
                continue;
            }
            let (database, command) =
                shell::command(&code).unwrap_or_else(|| panic!("{block}: shell::command does not know {code}"));
            let reply = mongod.run_as_admin(&database, command);
            let reply = shell::part_of_reply(&code, reply)
                .unwrap_or_else(|| panic!("{block}: the reply has nothing at the end of {code}"));
            if let Some(expected) = expected {
                assert_shows(&block.to_string(), &expected, &reply);
            }
        }
    }
}

fn assert_shows(place: &str, expected: &Document, reply: &Document) {
    for (name, value) in expected {
        let shown = reply.get(name).unwrap_or_else(|| panic!("{place}: {name} is not in {reply}"));
        let number =
            |value: &Bson| value.as_f64().or(value.as_i32().map(f64::from)).or(value.as_i64().map(|n| n as f64));
        let same = match number(value) {
            Some(_) => number(value) == number(shown),
            None => value == shown,
        };
        assert!(same, "{place}: {name} is {shown}, not {value}");
    }
}

/// What monitoring.md says about exporters that read the diagnostic data.
#[test]
fn the_counters_are_in_the_diagnostic_data() {
    let mongod = Mongod::builder().start();
    mongod.run_as_admin("admin", doc! { "setParameter": 1, "diagnosticDataCollectionEnabled": true });
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let data = mongod.run_as_admin("admin", doc! { "getDiagnosticData": 1 });
        let status = data.get_document("data").and_then(|data| data.get_document("serverStatus"));
        if status.is_ok_and(|status| status.contains_key("awsIam")) {
            return;
        }
        assert!(Instant::now() < until, "{data}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// What users-and-roles.md says about taking a user away.
#[test]
fn who_is_dropped_loses_its_rights_on_open_connections() {
    let fixture = Fixture::start();
    let client = fixture.driver(&fixture.role);
    let find = || client.database("shop").collection::<Document>("orders").find_one(doc! {}).run();
    find().expect("the role may read");
    fixture.mongod.run_as_admin("$external", doc! { "dropUser": ROLE_USER_NAME });
    find().expect_err("the user is not there any more");
}

#[test]
fn what_is_below_a_key_is_found() {
    let text = "a:\n  - b: |\n      c:\n        d: 1\n    e: 2\nf: 3\n";
    assert_eq!(below(text, "- b: |").unwrap(), "c:\n  d: 1\n");
    assert_eq!(below(text, "b: |"), None);
}
