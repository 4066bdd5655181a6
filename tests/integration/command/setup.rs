//! `setup` on systems that are made up in a folder.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use psmdb_aws_iam::aws::PARTITIONS;
use tempfile::TempDir;

use super::{Ended, command, run};
use crate::support::mongod::{DEFAULT_VERSION, binary_of};

const OBJECT: &str = "/usr/lib/psmdb-aws-iam/libpsmdb_aws_iam.so";

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

    /// A file of the system.
    fn file(&self, path: &str, text: &str) {
        let path = self.root().join(&path[1..]);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A real server at this path.
    fn server(&self, path: &str) {
        let path = self.root().join(&path[1..]);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(binary_of(DEFAULT_VERSION), path).unwrap();
    }

    fn setup(&self, arguments: &[&str]) -> Ended {
        let mut command = command(&["setup", "--root", self.root().to_str().unwrap()]);
        run(command.args(arguments))
    }

    fn printed(&self, arguments: &[&str]) -> String {
        self.setup(arguments).printed()
    }
}

const UNIT: &str = "\
[Unit]
# ExecStart=/opt/not/mongod -f /etc/not.conf
[Service]
User=mongod
Environment=\"OPTIONS=-f /etc/mongo/mongod.conf\"
ExecStart=/usr/bin/mongod $OPTIONS
";

#[test]
fn what_is_printed_is_for_the_machine_s_unit_and_server() {
    let system = System::new();
    system.file("/usr/lib/systemd/system/mongod.service", UNIT);
    system.file(OBJECT, "");
    let expected = format!(
        "# {}/usr/bin/mongod, mongod {DEFAULT_VERSION}: psmdb-aws-iam {} works in it.\n\
         \n# 1. The object is where it belongs: {OBJECT}\n\
         \n# 2. /etc/systemd/system/mongod.service.d/psmdb-aws-iam.conf:\n[Service]\nEnvironment=LD_PRELOAD={OBJECT}\n\
         \n# 3. /etc/mongo/mongod.conf, into the sections that are there:\n\
         # The list replaces the server's default: name what your users and the other members log in by.\n\
         security:\n  authorization: enabled\nsetParameter:\n  authenticationMechanisms: MONGODB-AWS,SCRAM-SHA-256\n  \
         awsStsHost: sts.eu-west-1.amazonaws.com\n\
         \n# Then restart the server and look for id 88000001 in its log.\n\
         sudo systemctl daemon-reload\nsudo systemctl restart mongod\n",
        system.root().display(),
        env!("CARGO_PKG_VERSION"),
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
fn an_object_that_is_nowhere_is_to_be_installed() {
    let system = System::new();
    // A build may have left an object beside the command; there is none beside this copy.
    let copy = system.root().join("psmdb-aws-iam");
    fs::copy(env!("CARGO_BIN_EXE_psmdb-aws-iam"), &copy).unwrap();
    let mut command = Command::new(copy);
    let text =
        run(command.args(["setup", "--root", system.root().to_str().unwrap(), "--region", "eu-west-1"])).printed();
    assert!(text.contains("\n# 1. The object is not found. Install the package"), "{text}");
}

#[test]
fn what_is_there_is_kept() {
    let system = System::new();
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
            "psmdb-aws-iam.conf, which keeps what the unit preloads:\n[Service]\nEnvironment=LD_PRELOAD=/usr/lib/libjemalloc.so.2:{OBJECT}\n"
        ),
        "\n  authenticationMechanisms: MONGODB-AWS,SCRAM-SHA-256,MONGODB-X509\n",
        "\n  awsStsHost: sts.cn-north-1.amazonaws.com.cn\n",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert!(!text.contains("replaces the server's default"), "{text}");

    // A second time there is less to do.
    system
        .file("/etc/systemd/system/mongod.service.d/20.conf", &format!("[Service]\nEnvironment=LD_PRELOAD={OBJECT}\n"));
    system.file("/etc/mongo/mongod.conf", "setParameter:\n  authenticationMechanisms: MONGODB-AWS,SCRAM-SHA-1\n");
    let text = system.printed(&[]);
    for part in [
        "\n# 2. The unit mongod preloads the object.\n",
        "\n  authenticationMechanisms: MONGODB-AWS,SCRAM-SHA-1\n",
        "\n  awsStsHost: sts.REGION.amazonaws.com    # REGION is yours; or give --region\n",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn the_server_is_that_of_the_unit_or_of_path_or_the_one_that_is_named() {
    let system = System::new();
    let shown = |path: &str| format!("# {}{path}, mongod {DEFAULT_VERSION}: ", system.root().display());
    // PATH is /usr/bin:/bin.
    let text = system.printed(&[]);
    assert!(text.starts_with(&shown("/usr/bin/mongod")), "{text}");
    assert!(text.contains("\n# 2. No unit of systemd is found."), "{text}");
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
    let text = system.printed(&["--server", named.to_str().unwrap(), "--object", "/bin/true"]);
    assert!(text.starts_with(&shown("/srv/mongod")), "{text}");
    assert!(text.contains(&format!("\nsudo install -D -o root -g root -m 0755 /bin/true {OBJECT}\n")), "{text}");
    assert!(!text.contains("restorecon"), "{text}");
    system.file("/etc/selinux/config", "");
    let text = system.printed(&["--object", "/bin/true"]);
    assert!(text.contains("\nsudo restorecon -Rv /usr/lib/psmdb-aws-iam\n"), "{text}");
}

#[test]
fn the_region_is_looked_for_where_the_aws_cli_does() {
    let system = System::new();
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
    for partition in &PARTITIONS {
        let region = partition.example_region;
        let expected = format!("sts.{region}.{}", partition.suffix);
        assert_eq!(host(&["--region", region], &[]), expected, "{region}");
    }
    let said = system.setup(&["--region", "Europe"]).refused(2);
    assert!(said.contains("\"Europe\" is not a region; it must be a name such as eu-west-1"), "{said}");
}

#[test]
fn a_server_that_does_not_fit_or_is_not_there_is_a_no() {
    let system = System::new();
    let said = system.setup(&["--server", "/bin/true"]).refused(1);
    assert!(said.contains("the plugin does not work in /bin/true: this is not a mongod or mongos"), "{said}");
    let said = system.setup(&["--server", "/nonexistent/mongod"]).refused(2);
    assert!(said.contains("cannot read /nonexistent/mongod: "), "{said}");
    let empty = tempfile::tempdir().unwrap();
    let said = run(&mut command(&["setup", "--root", empty.path().to_str().unwrap()])).refused(2);
    assert!(
        said.contains("no mongod or mongos is found, neither in a unit of systemd nor in PATH: give --server"),
        "{said}"
    );
}

#[test]
fn an_object_that_others_can_write_is_warned_of() {
    let system = System::new();
    system.file(OBJECT, "");
    let object = system.root().join(&OBJECT[1..]);
    for (path, mode) in [(object.as_path(), 0o666), (object.parent().unwrap(), 0o775)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let ended = system.setup(&[]);
        assert_eq!(ended.status, 0);
        assert!(
            ended.stderr.contains("is writable by others than its owner. Whoever can write the object"),
            "{}",
            ended.stderr
        );
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    assert_eq!(system.setup(&[]).stderr, "");
}
