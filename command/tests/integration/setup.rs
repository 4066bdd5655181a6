//! `setup` on systems in a folder.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use bson::doc;
use psmdb_aws_iam::aws::PARTITIONS;
use tempfile::TempDir;

use super::{Ended, command, run};
use crate::support::doubles::file_of;
use crate::support::mongod::{DEFAULT_VERSION, Mongod, binary_of, command_of};
use crate::support::plugin;

const OBJECT: &str = "/usr/lib/psmdb-aws-iam/libpsmdb_aws_iam.so";

/// The version of the servers at [`System::server`].
const VERSION: &str = "6.0.5";

/// A folder that looks like a machine with a server.
struct System(TempDir);

impl System {
    fn new() -> Self {
        let system = Self(tempfile::tempdir().expect("a temporary folder"));
        system.server("/usr/bin/mongod");
        system
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    /// The location of a path of the system. Its folders are created writable only by their owner,
    /// whatever the umask of the tests.
    fn path(&self, path: &str) -> PathBuf {
        let mut folder = self.root().to_owned();
        let path = Path::new(&path[1..]);
        for name in path.parent().unwrap() {
            folder.push(name);
            if fs::create_dir(&folder).is_ok() {
                set_mode(&folder, 0o755);
            }
        }
        self.root().join(path)
    }

    /// A file of the system.
    fn file(&self, path: &str, text: &str) {
        fs::write(self.path(path), text).unwrap();
    }

    /// A server at this path: a double, since a debug build of the command needs half a second to
    /// read a real one.
    fn server(&self, path: &str) {
        symlink(file_of("6_0"), self.path(path)).unwrap();
    }

    /// The object at this path.
    fn object(&self, path: &str) -> PathBuf {
        let path = self.path(path);
        fs::copy(plugin(), &path).unwrap();
        set_mode(&path, 0o755);
        path
    }

    /// A system with everything in place but the drop-in and the list of mechanisms.
    fn with_unit(unit: &str) -> Self {
        let system = Self::new();
        system.object(OBJECT);
        system.file("/usr/lib/systemd/system/mongod.service", unit);
        system.file("/etc/mongo/mongod.conf", "");
        system
    }

    fn setup(&self, arguments: &[&str]) -> Ended {
        let mut command = command(&["setup", "--root", self.root().to_str().unwrap()]);
        run(command.args(arguments))
    }

    fn printed(&self, arguments: &[&str]) -> String {
        self.setup(arguments).printed()
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

const UNIT: &str = "\
[Unit]
# ExecStart=/opt/not/mongod -f /etc/not.conf
[Service]
User=nobody
Environment=\"OPTIONS=-f /etc/mongo/mongod.conf\"
ExecStart=/usr/bin/mongod $OPTIONS
";

#[test]
fn the_printed_text_is_for_the_machine_s_unit_and_server() {
    let system = System::new();
    let server = system.path("/usr/bin/mongod");
    fs::remove_file(&server).unwrap();
    symlink(binary_of(DEFAULT_VERSION), &server).unwrap();
    system.file("/usr/lib/systemd/system/mongod.service", UNIT);
    system.object(OBJECT);
    system.file("/etc/mongo/mongod.conf", "# nothing yet\n");
    let expected = format!(
        "# psmdb-aws-iam {} supports {}/usr/bin/mongod (mongod {DEFAULT_VERSION}).\n\
         \n# 1. The object is installed: {OBJECT}\n\
         \n# 2. /etc/systemd/system/mongod.service.d/psmdb-aws-iam.conf:\n[Service]\nEnvironment=LD_PRELOAD={OBJECT}\n\
         \n# 3. /etc/mongo/mongod.conf, in its existing sections:\n\
         # The list replaces the server's default: include the mechanisms of your users.\n\
         security:\n  authorization: enabled\nsetParameter:\n  authenticationMechanisms: MONGODB-AWS,SCRAM-SHA-256\n  \
         awsStsHost: sts.eu-west-1.amazonaws.com\n\
         \n# Then restart the server, and check its log for id 88000001.\n\
         sudo systemctl daemon-reload\nsudo systemctl restart mongod\n",
        env!("CARGO_PKG_VERSION"),
        system.root().display(),
    );
    let before = list(system.root());
    assert_eq!(system.printed(&["--region", "eu-west-1"]), expected);
    assert_eq!(list(system.root()), before, "something was changed");
}

/// Every file and folder below.
fn list(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        found.push(entry.path().display().to_string());
        if entry.file_type().unwrap().is_dir() {
            found.extend(list(&entry.path()));
        }
    }
    found.sort();
    found
}

#[test]
fn an_object_that_is_not_found_must_be_installed() {
    let system = System::new();
    // A build may have left an object beside the command; there is none beside this copy.
    let copy = system.root().join("psmdb-aws-iam");
    fs::copy(env!("CARGO_BIN_EXE_psmdb-aws-iam"), &copy).unwrap();
    let mut command = Command::new(copy);
    let text =
        run(command.args(["setup", "--root", system.root().to_str().unwrap(), "--region", "eu-west-1"])).printed();
    assert!(text.contains("\n# 1. The object was not found. Install the package"), "{text}");
}

#[test]
fn existing_configuration_is_kept() {
    let system = System::new();
    system.object(OBJECT);
    system.file("/etc/systemd/system/mongod.service", UNIT);
    system.file(
        "/etc/systemd/system/mongod.service.d/10.conf",
        "[Service]\nEnvironment=\"LD_PRELOAD=/usr/lib/libjemalloc.so.2\"\n",
    );
    system.file(
        "/etc/mongo/mongod.conf",
        "net: {}\nsetParameter:\n  authenticationMechanisms: \"SCRAM-SHA-256,MONGODB-X509\" # ours\n",
    );
    let text = system.printed(&["--region", "cn-north-1"]);
    for part in [
        &*format!(
            "psmdb-aws-iam.conf, which keeps the unit's preloaded objects:\n[Service]\nEnvironment=LD_PRELOAD=/usr/lib/libjemalloc.so.2:{OBJECT}\n"
        ),
        "\n  authenticationMechanisms: MONGODB-AWS,SCRAM-SHA-256,MONGODB-X509\n",
        "\n  awsStsHost: sts.cn-north-1.amazonaws.com.cn\n",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert!(!text.contains("replaces the server's default"), "{text}");

    // The second time, less is left to do.
    system
        .file("/etc/systemd/system/mongod.service.d/20.conf", &format!("[Service]\nEnvironment=LD_PRELOAD={OBJECT}\n"));
    system.file("/etc/mongo/mongod.conf", "setParameter:\n  authenticationMechanisms: MONGODB-AWS,SCRAM-SHA-1\n");
    let text = system.printed(&[]);
    for part in [
        "\n# 2. The unit mongod preloads the object.\n",
        "\n  authenticationMechanisms: MONGODB-AWS,SCRAM-SHA-1\n",
        "\n  awsStsHost: sts.REGION.amazonaws.com    # replace REGION, or give --region\n",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn the_server_is_that_of_the_unit_or_of_path_or_the_one_that_is_named() {
    let system = System::new();
    system.object(OBJECT);
    system.file("/opt/db.conf", "");
    let shown = |path: &str| {
        let version = env!("CARGO_PKG_VERSION");
        format!("# psmdb-aws-iam {version} supports {}{path} (mongod {VERSION}).\n", system.root().display())
    };
    // PATH is /usr/bin:/bin.
    let text = system.printed(&[]);
    assert!(text.starts_with(&shown("/usr/bin/mongod")), "{text}");
    assert!(text.contains("\n# 2. There is no systemd unit for the server."), "{text}");
    assert!(text.contains(&format!("\nLD_PRELOAD={OBJECT}\n")), "{text}");
    assert!(text.contains("\n# 3. /etc/mongod.conf, ") && !text.contains("systemctl"), "{text}");

    system.server("/opt/db/mongod");
    system.file(
        "/lib/systemd/system/mongod.service",
        "[Service]\nExecStartPre=/bin/rm -f /run/mongod\nExecStart=-/usr/bin/numactl --all \\\n  /opt/db/mongod --config=/opt/db.conf --dbpath /var/lib/mongod\n",
    );
    let text = system.printed(&[]);
    assert!(text.starts_with(&shown("/opt/db/mongod")) && text.contains("\n# 3. /opt/db.conf, "), "{text}");

    system.server("/srv/mongod");
    let named = system.root().join("srv/mongod");
    let object = system.object("/srv/my.so");
    let object = object.to_str().unwrap();
    let text = system.printed(&["--server", named.to_str().unwrap(), "--object", object]);
    assert!(text.starts_with(&shown("/srv/mongod")), "{text}");
    assert!(text.contains(&format!("\nsudo install -D -o root -g root -m 0755 {object} {OBJECT}\n")), "{text}");
    assert!(!text.contains("restorecon"), "{text}");
    system.file("/etc/selinux/config", "");
    let text = system.printed(&["--object", object]);
    assert!(text.contains("\nsudo restorecon -Rv /usr/lib/psmdb-aws-iam\n"), "{text}");
}

#[test]
fn the_region_is_looked_for_where_the_aws_cli_does() {
    let system = System::new();
    system.object(OBJECT);
    system.file("/config", "[default]\nregion = eu-north-1\n[profile shop]\nregion = us-gov-west-1\n");
    let config = system.root().join("config");
    let host = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = command(&["setup", "--root", system.root().to_str().unwrap()]);
        let ended = run(command.args(arguments).env("AWS_CONFIG_FILE", &config).envs(variables.iter().copied()));
        let text = ended.printed();
        text.split_once("awsStsHost: ").expect("the line").1.lines().next().expect("the value").to_owned()
    };
    for (name, arguments, variables, expected) in [
        (
            "the option",
            &["--region", "eu-west-1"][..],
            &[("AWS_REGION", "us-east-2")][..],
            "sts.eu-west-1.amazonaws.com",
        ),
        ("AWS_REGION", &[], &[("AWS_REGION", "us-east-2")], "sts.us-east-2.amazonaws.com"),
        ("the profile", &[], &[], "sts.eu-north-1.amazonaws.com"),
        ("another profile", &["--profile", "shop"], &[], "sts.us-gov-west-1.amazonaws.com"),
    ] {
        assert_eq!(host(arguments, variables), expected, "{name}");
    }
    // Files that are not needed are not read.
    let text = host(&["--region", "eu-west-1"], &[("AWS_CONFIG_FILE", "/etc")]);
    assert_eq!(text, "sts.eu-west-1.amazonaws.com");
    for partition in &PARTITIONS {
        let region = partition.example_region;
        let expected = format!("sts.{region}.{}", partition.suffix);
        assert_eq!(host(&["--region", region], &[]), expected, "{region}");
    }
    for (arguments, name) in [
        (&["--profile", "nope"][..], "nope"),
        (&["--profile", "nope", "--region", "eu-west-1"], "nope"),
        (&[], "other"),
    ] {
        let mut command = command(&["setup", "--root", system.root().to_str().unwrap()]);
        let said = run(command.args(arguments).env("AWS_CONFIG_FILE", &config).env("AWS_PROFILE", "other")).refused(2);
        assert!(said.contains(&format!("there is no profile {name} in ")), "{said}");
        assert!(said.contains(config.to_str().unwrap()), "{said}");
    }
    let said = system.setup(&["--region", "Europe"]).refused(2);
    assert!(said.contains("the region \"Europe\" is not valid: it must be a name such as eu-west-1"), "{said}");
}

#[test]
fn a_server_that_is_not_supported_or_not_found_is_refused() {
    let system = System::new();
    let said = system.setup(&["--server", "/bin/true"]).refused(1);
    assert!(said.contains(" does not support /bin/true: this is not a mongod or mongos"), "{said}");
    let said = system.setup(&["--server", "/nonexistent/mongod"]).refused(2);
    assert!(said.contains("cannot read /nonexistent/mongod: "), "{said}");
    for root in ["/nonexistent", "/dev/null"] {
        let said = run(&mut command(&["setup", "--root", root])).refused(2);
        assert!(said.contains("--root: ") && said.contains(root), "{said}");
    }
    let empty = tempfile::tempdir().unwrap();
    let said = run(&mut command(&["setup", "--root", empty.path().to_str().unwrap()])).refused(2);
    assert!(said.contains("there is no mongod or mongos in a systemd unit or in PATH: give --server"), "{said}");
}

/// The lines that are printed for the configuration file.
fn configuration(text: &str) -> &str {
    text.split_once("\n# 3. ").expect("the third part").1.split_once("\n\n").expect("its end").0
}

/// The mechanisms that the server reads from a configuration file, or its error.
fn mechanisms_in_server(file: &Path) -> Result<Option<String>, String> {
    let output = command_of(DEFAULT_VERSION).arg("--outputConfig").arg("-f").arg(file).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(text);
    }
    let list = text.lines().find_map(|line| line.trim().strip_prefix("authenticationMechanisms: "));
    Ok(list.map(|list| list.trim_matches('"').replace("\\n", "").replace(' ', "")))
}

#[test]
fn every_listed_mechanism_is_kept_however_the_configuration_is_written() {
    let system = System::with_unit(UNIT);
    let file = system.path("/etc/mongo/mongod.conf");
    let both = Some("SCRAM-SHA-1,SCRAM-SHA-256");
    for (text, listed) in [
        ("", None),
        ("# a comment\n", None),
        ("net: {port: 27017}\n", None),
        ("security:\n  authorization: enabled\n# authenticationMechanisms: PLAIN\n", None),
        ("setParameter:\n  authenticationMechanisms: SCRAM-SHA-1,SCRAM-SHA-256\n", both),
        ("setParameter: {authenticationMechanisms: \"SCRAM-SHA-1,SCRAM-SHA-256\"}\n", both),
        ("{setParameter: {authenticationMechanisms: 'SCRAM-SHA-1,SCRAM-SHA-256'}, net: {port: 1}}\n", both),
        ("{\"setParameter\": {\"authenticationMechanisms\": \"SCRAM-SHA-1,SCRAM-SHA-256\"}}", both),
        ("\"setParameter\":\n    'authenticationMechanisms' : \"SCRAM-SHA-1,SCRAM-SHA-256\"  # ours\n", both),
        ("setParameter:\n  authenticationMechanisms: \"SCRAM-SHA-1\\x2cSCRAM-SHA-256\"\n", both),
        ("setParameter:\n  authenticationMechanisms: SCRAM-SHA-1, SCRAM-SHA-256\n", both),
        ("setParameter:\n  authenticationMechanisms:\n    SCRAM-SHA-1,\n    SCRAM-SHA-256\n", both),
        ("setParameter:\n  authenticationMechanisms: >-\n    SCRAM-SHA-1,\n    SCRAM-SHA-256\n", both),
        ("setParameter:\n  authenticationMechanisms: |\n    SCRAM-SHA-1,SCRAM-SHA-256\n", both),
        ("setParameter:\n  authenticationMechanisms: !!str SCRAM-SHA-1,SCRAM-SHA-256\n", both),
        ("? setParameter\n: ? authenticationMechanisms\n  : SCRAM-SHA-1,SCRAM-SHA-256\n", both),
        (
            "processManagement: {pidFilePath: &m \"SCRAM-SHA-1,SCRAM-SHA-256\"}\n\
             setParameter: {authenticationMechanisms: *m}\n",
            both,
        ),
        ("\u{feff}setParameter:\r\n  authenticationMechanisms: SCRAM-SHA-1,SCRAM-SHA-256\r\n", both),
        (
            "%YAML 1.1\n---\nsetParameter: {authenticationMechanisms: SCRAM-SHA-1}\n\
             ---\nsetParameter: {authenticationMechanisms: PLAIN}\n",
            Some("SCRAM-SHA-1"),
        ),
        ("setParameter = authenticationMechanisms=SCRAM-SHA-1,SCRAM-SHA-256\n", both),
        (
            "# old\nport=27017\n\nsetParameter=ttlMonitorEnabled=false\n\
             setParameter=authenticationMechanisms=SCRAM-SHA-1,SCRAM-SHA-256 # ours\n",
            both,
        ),
    ] {
        fs::write(&file, text).unwrap();
        assert_eq!(mechanisms_in_server(&file).as_ref().map(Option::as_deref), Ok(listed), "the server, of {text:?}");
        let printed = system.printed(&["--region", "eu-west-1"]);
        let expected = format!("MONGODB-AWS,{}", listed.unwrap_or("SCRAM-SHA-256"));
        let line = if text.contains("setParameter=") || text.contains("setParameter =") {
            format!("\nsetParameter = authenticationMechanisms={expected}\nsetParameter = awsStsHost=sts.eu-west-1.")
        } else {
            format!("\n  authenticationMechanisms: {expected}\n  awsStsHost: sts.eu-west-1.")
        };
        assert!(configuration(&printed).contains(&line), "{text:?}\n{printed}");
        assert_eq!(printed.contains("replaces the server's default"), listed.is_none(), "{text:?}\n{printed}");
    }
}

#[test]
fn a_configuration_that_the_server_refuses_or_gets_from_elsewhere_prints_nothing() {
    let system = System::with_unit(UNIT);
    let file = system.path("/etc/mongo/mongod.conf");
    let deep = format!("setParameter: {}{}\n", "[".repeat(200), "]".repeat(200));
    for (text, why) in [
        ("setParameter: {authenticationMechanisms: \"SCRAM-SHA-1\"\n", "it is not valid YAML: "),
        ("setParameter:\n\tauthenticationMechanisms: SCRAM-SHA-1\n", "it is not valid YAML: "),
        ("setParameter:\n  authenticationMechanisms: *m\n", "it is not valid YAML: "),
        (
            "setParameter:\n  authenticationMechanisms: [SCRAM-SHA-1, SCRAM-SHA-256]\n",
            "must be one string of comma-separated names, not a YAML list",
        ),
        (
            "setParameter:\n  authenticationMechanisms:\n  - SCRAM-SHA-1\n",
            "must be one string of comma-separated names, not a YAML list",
        ),
        (
            "setParameter:\n  authenticationMechanisms: {a: b}\n",
            "must be one string of comma-separated names, not a map",
        ),
        (
            "setParameter:\n  <<: {authenticationMechanisms: SCRAM-SHA-1}\n",
            "setParameter: the value of << must not be a list or a map",
        ),
        (
            "setParameter:\n  authenticationMechanisms: SCRAM-SHA-1\n  authenticationMechanisms: PLAIN\n",
            "line 3 repeats the key authenticationMechanisms",
        ),
        (
            "setParameter: {authenticationMechanisms: SCRAM-SHA-1}\nsetParameter: {ttlMonitorEnabled: false}\n",
            "line 2 repeats the key setParameter",
        ),
        ("setParameter.authenticationMechanisms: SCRAM-SHA-1\n", "a dotted name that begins with setParameter"),
        ("setParameter:\n", "setParameter must be a map"),
        ("setParameter: authenticationMechanisms=SCRAM-SHA-1\n", "setParameter must be a map"),
        ("- setParameter\n", "it must be a YAML map, or lines of name = value"),
        ("[setParameter]\nauthenticationMechanisms=SCRAM-SHA-1\n", ""),
        (
            "setParameter=authenticationMechanisms=SCRAM-SHA-1\nsetParameter = authenticationMechanisms=PLAIN\n",
            "it sets authenticationMechanisms twice",
        ),
        (
            "setParameter:\n  authenticationMechanisms: {__exec: \"echo SCRAM-SHA-1\"}\n",
            "authenticationMechanisms has __exec",
        ),
        ("setParameter: {__rest: \"https://example.com/\", type: yaml}\n", "setParameter has __rest"),
        (
            "__exec: \"cat /etc/mongod.conf\"\ntype: yaml\n",
            "the file has __exec, so mongod gets the value, with its authenticationMechanisms, from elsewhere",
        ),
        (&deep, "is nested more than 50 levels deep"),
    ] {
        fs::write(&file, text).unwrap();
        assert!(mechanisms_in_server(&file).is_err(), "the server takes {text:?}");
        let said = system.setup(&[]).refused(2);
        assert!(said.contains("/etc/mongo/mongod.conf: ") && said.contains(why), "{text:?}\n{said}");
    }
    // The server starts with these, without a mechanism or with an unintended one.
    for (text, why) in [
        ("setParameter:\n  authenticationMechanisms: \"SCRAM-SHA-1\n", "it is not valid YAML: "),
        ("setParameter:\n  authenticationMechanisms:\n", "authenticationMechanisms is empty"),
        ("setParameter:\n  authenticationMechanisms: \"A\\nb: c\"\n", "which is not the name of a mechanism"),
    ] {
        fs::write(&file, text).unwrap();
        let said = system.setup(&[]).refused(2);
        assert!(said.contains(why), "{text:?}\n{said}");
    }
    // Unreadable files: a folder, since root can read a file without permission.
    for (path, why) in [
        ("/etc/mongo/mongod.conf", "/etc/mongo/mongod.conf: it is not a regular file"),
        ("/etc/systemd/system/mongod.service.d/10.conf", "/mongod.service.d/10.conf: it is not a regular file"),
        ("/usr/lib/systemd/system/mongod.service", "/mongod.service: it is not a regular file"),
    ] {
        let system = System::with_unit(UNIT);
        let path = system.path(path);
        let _ = fs::remove_file(&path);
        fs::create_dir(&path).unwrap();
        let said = system.setup(&[]).refused(2);
        assert!(said.contains("cannot read ") && said.contains(why), "{said}");
    }
    fs::remove_file(&file).unwrap();
    let said = system.setup(&[]).refused(2);
    assert!(said.contains("/etc/mongo/mongod.conf: it does not exist, and the server requires it"), "{said}");
}

#[test]
fn a_server_starts_with_what_is_printed_and_has_every_mechanism() {
    for text in [
        "setParameter: {authenticationMechanisms: \"SCRAM-SHA-1,SCRAM-SHA-256\"}\n",
        "\"setParameter\":\n  'authenticationMechanisms': 'SCRAM-SHA-1,SCRAM-SHA-256' # ours\n",
        "setParameter = authenticationMechanisms=SCRAM-SHA-1,SCRAM-SHA-256\n",
    ] {
        let system = System::with_unit(UNIT);
        system.file("/etc/mongo/mongod.conf", text);
        let printed = system.printed(&["--region", "eu-west-1"]);
        let lines = configuration(&printed).split_once('\n').unwrap().1;
        system.file("/etc/mongo/mongod.conf", &format!("{lines}\n"));
        let mongod = Mongod::builder().configuration(system.path("/etc/mongo/mongod.conf")).start();
        mongod.create_admin();
        let reply = mongod.run_as_admin("admin", doc! {"getParameter": 1, "authenticationMechanisms": 1});
        let mechanisms: Vec<_> =
            reply.get_array("authenticationMechanisms").unwrap().iter().map(|m| m.as_str().unwrap()).collect();
        assert_eq!(mechanisms, ["MONGODB-AWS", "SCRAM-SHA-1", "SCRAM-SHA-256"], "{text}");
        // The list needs no further change.
        let again = system.printed(&["--region", "eu-west-1"]);
        assert_eq!(configuration(&again), configuration(&printed));
    }
}

const JEMALLOC: &str = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2";

/// A unit with these lines.
fn unit(lines: &str) -> String {
    format!("[Service]\nUser=nobody\n{lines}\nExecStart=/usr/bin/mongod -f /etc/mongo/mongod.conf\n")
}

#[test]
fn the_drop_in_keeps_the_unit_s_preloaded_objects() {
    let drop_in = "/etc/systemd/system/mongod.service.d/";
    let one = format!("Environment=LD_PRELOAD={JEMALLOC}");
    for (name, lines, files, kept) in [
        ("nothing", "", vec![], ""),
        ("the unit", &*one, vec![], JEMALLOC),
        ("quotes", "Environment=\"A=b c\" 'LD_PRELOAD=/a.so /b.so' D=e", vec![], "/a.so:/b.so"),
        ("spaces and a line that goes on", "Environment = A=b \\\n# a comment\n  LD_PRELOAD=/a.so", vec![], "/a.so"),
        ("the later one", "Environment=LD_PRELOAD=/a.so\nEnvironment=LD_PRELOAD=/b.so", vec![], "/b.so"),
        ("one that is reset", "Environment=LD_PRELOAD=/a.so\nEnvironment=\nEnvironment=A=b", vec![], ""),
        ("another section", "[Unit]\nEnvironment=LD_PRELOAD=/a.so\n[Service]", vec![], ""),
        ("an older copy of the object", "Environment=LD_PRELOAD=/opt/libpsmdb_aws_iam.so:/a.so", vec![], "/a.so"),
        (
            "drop-ins by their names",
            "",
            vec![
                ("/etc/systemd/system/mongod.service.d/10.conf", "[Service]\nEnvironment=LD_PRELOAD=/10.so\n"),
                ("/usr/lib/systemd/system/mongod.service.d/20.conf", "[Service]\nEnvironment=LD_PRELOAD=/20.so\n"),
                ("/run/systemd/system/service.d/15.conf", "[Service]\nEnvironment=LD_PRELOAD=/15.so\n"),
            ],
            "/20.so",
        ),
        (
            "one that hides another of its name",
            "",
            vec![
                ("/etc/systemd/system/mongod.service.d/20.conf", "[Service]\nEnvironment=A=b\n"),
                ("/usr/lib/systemd/system/mongod.service.d/20.conf", "[Service]\nEnvironment=LD_PRELOAD=/20.so\n"),
                ("/etc/systemd/system/service.d/20.conf", "[Service]\nEnvironment=LD_PRELOAD=/all.so\n"),
                ("/etc/systemd/system/mongod.service.d/30.txt", "[Service]\nEnvironment=LD_PRELOAD=/30.so\n"),
            ],
            "",
        ),
        ("an environment file that is not there", "EnvironmentFile=-/etc/default/none", vec![], ""),
        (
            "environment files without it",
            "EnvironmentFile=/etc/default/mongod\nEnvironmentFile=\nEnvironmentFile=/etc/default/other",
            vec![
                ("/etc/default/mongod", "LD_PRELOAD=/a.so\n"),
                (
                    "/etc/default/other",
                    "# LD_PRELOAD=/b.so \\\nLD_PRELOAD=/c.so\nMY_LD_PRELOAD=/d.so\n; LD_PRELOAD=/e.so\n",
                ),
            ],
            "",
        ),
    ] {
        let system = System::with_unit(&unit(lines));
        for (path, text) in files {
            system.file(path, text);
        }
        let text = system.printed(&[]);
        let (path, value) = (
            format!("{drop_in}psmdb-aws-iam.conf"),
            if kept.is_empty() { OBJECT.to_owned() } else { format!("{kept}:{OBJECT}") },
        );
        let keeps = if kept.is_empty() { "" } else { ", which keeps the unit's preloaded objects" };
        let expected = format!("\n# 2. {path}{keeps}:\n[Service]\nEnvironment=LD_PRELOAD={value}\n\n");
        assert!(text.contains(&expected), "{name}: no {expected} in\n{text}");
        // After the change, nothing is left to do.
        system.file(&path, &format!("[Service]\nEnvironment=LD_PRELOAD={value}\n"));
        let text = system.printed(&[]);
        assert!(text.contains("\n# 2. The unit mongod preloads the object.\n"), "{name}: {text}");
    }
}

#[test]
fn a_line_that_overrides_the_drop_in_is_printed_with_its_change() {
    let je = format!("LD_PRELOAD={JEMALLOC}");
    let later = format!("[Service]\n# ours\nEnvironment=A=b {je}\n");
    let quoted = format!("# c\nOTHER='x\ny'\n\nLD_PRELOAD=\"{JEMALLOC}\"\n");
    let inline = format!("[Service]\nExecStart=/usr/bin/env {je} /usr/bin/mongod -f /etc/mongo/mongod.conf\n");
    let percona = "EnvironmentFile=-/etc/default/mongod";
    let dir = "/etc/systemd/system/mongod.service.d";
    let conf = format!("{dir}/zz-je.conf");
    let run = "/run/systemd/system/service.d/zz.conf";
    for (name, lines, path, text, place, old) in [
        ("a later drop-in", "", &*conf, &*later, format!("line 3 of {conf}"), JEMALLOC),
        ("one for all services", "", run, &later, format!("line 3 of {run}"), JEMALLOC),
        (
            "an environment file",
            percona,
            "/etc/default/mongod",
            &je,
            "line 1 of /etc/default/mongod".to_owned(),
            JEMALLOC,
        ),
        ("quoted in it", percona, "/etc/default/mongod", &quoted, "line 5 of /etc/default/mongod".to_owned(), JEMALLOC),
        (
            "the command line",
            "",
            "/usr/lib/systemd/system/mongod.service",
            &inline,
            "line 2 of /usr/lib/systemd/system/mongod.service".to_owned(),
            JEMALLOC,
        ),
        (
            "the later of two",
            "EnvironmentFile=/etc/default/one\nEnvironmentFile=/etc/default/two",
            "/etc/default/two",
            "LD_PRELOAD=\n",
            "line 1 of /etc/default/two".to_owned(),
            "",
        ),
    ] {
        let system = System::with_unit(&unit(lines));
        system.file("/etc/default/one", "LD_PRELOAD=/one.so\n");
        system.file(path, text);
        let value = if old.is_empty() { OBJECT.to_owned() } else { format!("{old}:{OBJECT}") };
        let expected = format!("\n# 2. Change {place}, from\nLD_PRELOAD={old}\nto\nLD_PRELOAD={value}\n\n");
        let mut before = None;
        // A drop-in does not change the advice.
        for _ in 0..2 {
            let ended = system.setup(&["--region", "eu-west-1"]);
            assert_eq!(ended.status, 1, "{name}: {}", ended.stdout);
            assert!(ended.stdout.contains(&expected), "{name}: no {expected} in\n{}", ended.stdout);
            assert!(
                ended.stderr.contains(&format!("{place} sets LD_PRELOAD and overrides the drop-in")),
                "{}",
                ended.stderr
            );
            assert!(before.replace(ended.stdout.clone()).is_none_or(|before| before == ended.stdout));
            system.file(
                &format!("{dir}/psmdb-aws-iam.conf"),
                &format!("[Service]\nEnvironment=LD_PRELOAD={JEMALLOC}:{OBJECT}\n"),
            );
        }
        // After the change, nothing is left to do.
        fs::remove_file(system.path(&format!("{dir}/psmdb-aws-iam.conf"))).unwrap();
        let changed = if old.is_empty() {
            text.replace("LD_PRELOAD=", &format!("LD_PRELOAD={value}"))
        } else {
            text.replace(old, &value)
        };
        system.file(path, &changed);
        let text = system.printed(&["--region", "eu-west-1"]);
        assert!(text.contains("\n# 2. The unit mongod preloads the object.\n"), "{name}: {text}");
    }
}

#[test]
fn an_environment_that_is_cleared_or_passed_is_reported() {
    for (lines, path, text, problem) in [
        (
            "UnsetEnvironment=A LD_PRELOAD",
            "/etc/x",
            "",
            "line 3 of /usr/lib/systemd/system/mongod.service removes LD_PRELOAD",
        ),
        (
            "",
            "/etc/systemd/system/mongod.service.d/zz.conf",
            "[Service]\nEnvironment=\nEnvironment=A=b\n",
            "line 2 of /etc/systemd/system/mongod.service.d/zz.conf has an empty Environment=, which discards",
        ),
        (
            "PassEnvironment=LD_PRELOAD",
            "/etc/x",
            "",
            "line 3 of /usr/lib/systemd/system/mongod.service passes systemd's own LD_PRELOAD",
        ),
    ] {
        let system = System::with_unit(&unit(lines));
        system.file(path, text);
        let ended = system.setup(&[]);
        assert_eq!(ended.status, 1, "{}", ended.stdout);
        assert!(ended.stderr.contains(problem), "{problem}: {}", ended.stderr);
        // After the change, nothing is left to do.
        let value = format!("Environment=LD_PRELOAD={OBJECT}\n");
        assert!(ended.stdout.contains(&value), "{}", ended.stdout);
        system.file("/usr/lib/systemd/system/mongod.service", &unit(&lines.replace(" LD_PRELOAD", "")));
        let drop_in = if text.is_empty() { "[Service]\n" } else { text };
        system.file("/etc/systemd/system/mongod.service.d/zz.conf", &format!("{drop_in}{value}"));
        let text = system.printed(&[]);
        assert!(text.contains("\n# 2. The unit mongod preloads the object.\n"), "{text}");
    }
    for (lines, why) in [
        ("Environment=\"LD_PRELOAD=/a.so", "line 3 of /usr/lib/systemd/system/mongod.service: a quote is not closed"),
        ("Environment", "line 3 of /usr/lib/systemd/system/mongod.service must be an assignment"),
        ("Environment=LD_PRELOAD=%h/a.so", "LD_PRELOAD has \"%h/a.so\", which contains unsupported characters"),
        (
            "EnvironmentFile=/etc/default/none",
            "EnvironmentFile=/etc/default/none: the file does not exist, so systemd cannot start",
        ),
        ("EnvironmentFile=-/etc/default/*.env", "patterns are not supported"),
    ] {
        let said = System::with_unit(&unit(lines)).setup(&[]).refused(2);
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn the_configuration_and_the_mechanisms_are_those_of_the_command_line() {
    let start = |line: &str| format!("[Service]\nEnvironmentFile=-/etc/default/mongod\nExecStart={line}\n");
    let percona = "/usr/bin/env bash -c \"${NUMACTL} /usr/bin/mongod ${OPTIONS} > ${STDOUT} 2> ${STDERR}\"";
    for line in [
        percona,
        "/usr/bin/mongod $OPTIONS",
        "-/usr/bin/numactl --interleave=all /usr/bin/mongod ${NONE} -f/etc/mongo/main.conf",
        "/usr/bin/mongod --config=/etc/mongo/main.conf --setParameter ttlMonitorEnabled=false",
        "@/usr/bin/mongod \"--config\" '/etc/mongo/main.conf'",
    ] {
        let system = System::with_unit(&start(line));
        system.file("/etc/default/mongod", "OPTIONS=\"-f /etc/mongo/main.conf\"\nSTDOUT=/dev/null\n");
        system.file("/etc/mongo/main.conf", "setParameter: {authenticationMechanisms: PLAIN}\n");
        let text = system.printed(&[]);
        assert!(text.contains("\n# 3. /etc/mongo/main.conf, in"), "{line}: {text}");
        assert!(text.contains("authenticationMechanisms: MONGODB-AWS,PLAIN\n"), "{line}: {text}");
    }
    for (line, options, place) in [
        (
            "/usr/bin/mongod -f /etc/mongo/mongod.conf --setParameter authenticationMechanisms=SCRAM-SHA-1,PLAIN",
            "",
            "line 3 of /usr/lib/systemd/system/mongod.service",
        ),
        (
            percona,
            "OPTIONS='-f /etc/mongo/mongod.conf --setParameter=authenticationMechanisms=SCRAM-SHA-1,PLAIN'\n",
            "line 1 of /etc/default/mongod",
        ),
    ] {
        let system = System::with_unit(&start(line));
        system.file("/etc/default/mongod", options);
        let ended = system.setup(&[]);
        assert_eq!(ended.status, 1, "{}", ended.stdout);
        let old = "authenticationMechanisms=SCRAM-SHA-1,PLAIN";
        let new = "authenticationMechanisms=MONGODB-AWS,SCRAM-SHA-1,PLAIN";
        assert!(ended.stdout.contains(&format!("\n# 3. Change {place}, from\n{old}\nto\n{new}\n")), "{}", ended.stdout);
        assert!(
            ended.stderr.contains(&format!("{place} sets authenticationMechanisms on the server's command line")),
            "{}",
            ended.stderr
        );
        assert!(!ended.stdout.contains("authenticationMechanisms: "), "{}", ended.stdout);
        system.file("/usr/lib/systemd/system/mongod.service", &start(&line.replace(old, new)));
        system.file("/etc/default/mongod", &options.replace(old, new));
        let text = system.printed(&[]);
        assert!(!text.contains("authenticationMechanisms"), "{text}");
    }

    let system = System::with_unit(&start("/usr/local/bin/start-database"));
    let named = system.root().join("usr/bin/mongod");
    let said = system.setup(&["--server", named.to_str().unwrap()]).refused(2);
    assert!(said.contains("the ExecStart of the unit mongod contains no mongod or mongos"), "{said}");
    let config = system.path("/etc/mongo/mongod.conf");
    let text = system.printed(&["--config", config.to_str().unwrap()]);
    assert!(text.contains(&format!("\n# 3. {}, in", config.display())), "{text}");

    let text = System::with_unit(&start("/usr/bin/mongod --auth")).printed(&[]);
    assert!(text.contains("add --config /etc/mongod.conf to the server's ExecStart. Content:"), "{text}");
    let said = System::with_unit(&start("/usr/bin/mongod -f mongod.conf")).setup(&[]).refused(2);
    assert!(
        said.contains(
            "the configuration file \"mongod.conf\" must be an absolute path without variables: give --config"
        ),
        "{said}"
    );
}

#[test]
fn a_unit_of_another_name_or_an_instance_of_a_template_can_be_given() {
    let system = System::new();
    system.object(OBJECT);
    let said = system.setup(&["--unit", "mongod@shop"]).refused(2);
    assert!(said.contains("mongod@shop.service does not exist, or is masked"), "{said}");
    system.file("/lib/systemd/system/mongod@.service", "[Service]\nExecStart=/usr/bin/mongod -f /etc/mongo/%i.conf\n");
    let said = system.setup(&[]).refused(2);
    assert!(said.contains("mongod@.service is a template: give the instance, as --unit mongod@NAME"), "{said}");
    system.file("/etc/mongo/shop.conf", "setParameter: {authenticationMechanisms: PLAIN}\n");
    system.file("/etc/systemd/system/mongod@.service.d/10.conf", "[Service]\nEnvironment=LD_PRELOAD=/a.so\n");
    let text = system.printed(&["--unit", "mongod@shop.service"]);
    for part in [
        &*format!(
            "\n# 2. /etc/systemd/system/mongod@shop.service.d/psmdb-aws-iam.conf, which keeps the unit's preloaded objects:\n\
             [Service]\nEnvironment=LD_PRELOAD=/a.so:{OBJECT}\n"
        ),
        "\n# 3. /etc/mongo/shop.conf, in its existing sections:\n",
        "authenticationMechanisms: MONGODB-AWS,PLAIN\n",
        "\nsudo systemctl restart mongod@shop\n",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    symlink("/dev/null", system.path("/etc/systemd/system/mongod@shop.service")).unwrap();
    let said = system.setup(&["--unit", "mongod@shop"]).refused(2);
    assert!(said.contains("mongod@shop.service does not exist, or is masked"), "{said}");
    let said = system.setup(&["--unit", "x\nreboot"]).refused(2);
    assert!(said.contains("must be a name such as mongod"), "{said}");
}

#[test]
fn a_file_other_than_the_complete_object_is_refused() {
    let system = System::new();
    let object = system.object(OBJECT);
    let said = system.setup(&["--object", "/bin/ls"]).refused(1);
    assert!(said.contains("/bin/ls is not libpsmdb_aws_iam.so: it does not export psmdb_aws_iam_loaded"), "{said}");
    let said = system.setup(&["--object", "/nonexistent/x.so"]).refused(2);
    assert!(said.contains("--object: /nonexistent/x.so does not exist"), "{said}");
    let said = system.setup(&["--object", "/etc"]).refused(2);
    assert!(said.contains("/etc is not a regular file"), "{said}");
    let whole = fs::read(&object).unwrap();
    for length in [0, 100, 100_000, whole.len() - 1] {
        fs::write(&object, &whole[..length]).unwrap();
        let said = system.setup(&[]).refused(1);
        let why = if length == 0 { "the file is empty" } else { "the file is truncated" };
        assert!(said.contains(&format!("libpsmdb_aws_iam.so: {why}")), "{length}: {said}");
    }
    // An object of another version is used, with a warning.
    let agent = format!("psmdb-aws-iam/{}", env!("CARGO_PKG_VERSION"));
    let at = whole.windows(agent.len()).position(|part| part == agent.as_bytes()).expect("the name in requests");
    let mut other = whole.clone();
    other[at + agent.len() - 1] = b'9';
    fs::write(&object, other).unwrap();
    let ended = system.setup(&[]);
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        ended.stderr.contains(&format!("warning: the object's version is not {version}, that of this command")),
        "{}",
        ended.stderr
    );
}

#[test]
fn an_object_that_others_can_write_or_the_server_cannot_read_must_be_changed_first() {
    let system = System::with_unit(&unit(""));
    let object = system.path(OBJECT);
    for (path, mode, problem, command) in [
        (OBJECT, 0o666, "is writable by users other than its owner (mode 0666)", "go-w"),
        ("/usr/lib/psmdb-aws-iam", 0o775, "is writable by users other than its owner (mode 0775)", "go-w"),
        ("/usr/lib", 0o1777, "is writable by users other than its owner (mode 1777)", "go-w"),
        (
            OBJECT,
            0o600,
            "the server's user nobody cannot read /usr/lib/psmdb-aws-iam/libpsmdb_aws_iam.so (mode 0600)",
            "a+r",
        ),
        ("/usr", 0o700, "the server's user nobody cannot enter /usr (mode 0700)", "a+x"),
    ] {
        set_mode(&system.path(path), mode);
        let ended = system.setup(&[]);
        assert_eq!(ended.status, 1, "{}", ended.stdout);
        assert!(ended.stderr.contains(problem), "{problem}: {}", ended.stderr);
        let command = format!("sudo chmod {command} {path}");
        assert!(
            ended.stdout.contains(&format!("\n# 1. The object is installed: {OBJECT}\n{command}\n")),
            "{}",
            ended.stdout
        );
        set_mode(&system.path(path), 0o755);
        assert_eq!(system.setup(&[]).stderr, "");
    }
    // The server's user by name, primary group and supplementary groups.
    let metadata = fs::metadata(&object).unwrap();
    let (other, group) = (metadata.uid() + 1, metadata.gid());
    let user = |group: u32| format!("db:x:{other}:{group}::/:/bin/false\n");
    for (lines, passwd, groups, mode, status) in [
        ("User=db\nGroup=data", user(group + 1), format!("data:x:{group}:\n"), 0o640, 0),
        ("User=db", user(group), String::new(), 0o640, 0),
        ("User=db", user(group + 1), format!("data:x:{group}:a,db\n"), 0o640, 0),
        ("User=db\nSupplementaryGroups=data", user(group + 1), format!("data:x:{group}:a\n"), 0o640, 0),
        ("User=db", user(group + 1), format!("data:x:{group}:a\n"), 0o640, 1),
        ("User=db\nGroup=data", user(group + 1), format!("data:x:{group}:\n"), 0o604, 1),
        ("", String::new(), String::new(), 0o600, 0),
        ("User=db\nUser=", user(group + 1), String::new(), 0o600, 0),
    ] {
        system.file("/usr/lib/systemd/system/mongod.service", &unit("").replace("User=nobody", lines));
        system.file("/etc/passwd", &passwd);
        system.file("/etc/group", &groups);
        set_mode(&object, mode);
        assert_eq!(system.setup(&[]).status, status, "{lines} {passwd} {groups}");
    }
    set_mode(&object, 0o755);
    // A copy that others can write causes a warning.
    let copy = system.object("/srv/copy.so");
    set_mode(&copy, 0o777);
    let ended = system.setup(&["--object", copy.to_str().unwrap()]);
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("copy.so is writable by users other than its owner: users who can write"),
        "{}",
        ended.stderr
    );
}
