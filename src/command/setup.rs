//! `setup`: what to write where, so that this machine's server has the plugin. It changes nothing.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use psmdb_aws_iam::aws::Partition;
use psmdb_aws_iam::sts::endpoint::StsHost;

use super::check_server::Verdict;
use super::credentials::{Sources, variable};
use super::{Failure, Outcome, print, quoted, warn};
use crate::server_file::Kind;

const HELP: &str = "\
Prints three things to do, each with the text to copy: where the object has to
be, the drop-in for the server's unit of systemd, and the lines for mongod.conf.
Nothing is changed. The server is the one of the unit, else the one in PATH; its
file is checked as check-server does. The region is that of --region,
AWS_REGION, AWS_DEFAULT_REGION, or the profile in AWS's files.

If the unit has an LD_PRELOAD, or mongod.conf a list of
authenticationMechanisms, what is printed keeps what is there. Other settings
are not looked at.

Exit status:
  0  printed
  1  the plugin does not work in this server; the reason is on standard error
  2  no server is found or it cannot be read, or wrong usage

Examples:
  psmdb-aws-iam setup --region eu-west-1
  psmdb-aws-iam setup --server /opt/bin/mongod --object ./libpsmdb_aws_iam.so
  psmdb-aws-iam setup --root /mnt/image --region eu-west-1";

/// Where packages, and the README, put the object.
const INSTALLED: &str = "/usr/lib/psmdb-aws-iam/libpsmdb_aws_iam.so";

/// Where systemd looks for units, the first first: systemd.unit(5).
const UNIT_FOLDERS: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];

/// What the servers' packages call their units.
const UNITS: [&str; 3] = ["mongod", "mongos", "mongodb"];

/// Print the drop-in for systemd and the lines for mongod.conf that this machine needs
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct Setup {
    /// The server's program file
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,

    /// The shared object [default: where packages put it, else the one beside this command]
    #[arg(long, value_name = "FILE")]
    object: Option<PathBuf>,

    /// The region whose STS is to be asked
    #[arg(long)]
    region: Option<String>,

    /// Take the region of this profile in AWS's files
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,

    /// Look at the system in this folder, such as an image
    #[arg(long, value_name = "FOLDER", default_value = "/")]
    root: PathBuf,
}

/// Prints what to do.
///
/// # Errors
/// A no when the plugin does not work in the server; otherwise when there is none, or a value is wrong.
pub fn run(arguments: &Setup) -> Outcome {
    let sources = Sources { profile: arguments.profile.as_deref(), environment: &variable };
    let region = arguments.region.clone().map_or_else(|| sources.region(), |region| Ok(Some(region)))?;
    let host = region.as_deref().map(sts_host).transpose()?;
    let root = Root(arguments.root.clone());
    let unit = Unit::find(&root, arguments.server.as_deref());
    let server = match (&arguments.server, &unit) {
        (Some(server), _) => server.clone(),
        (None, Some(Unit { server: Some(server), .. })) => root.of(server),
        (None, _) => root.in_path(&variable("PATH").unwrap_or_default()).ok_or_else(|| {
            "no mongod or mongos is found, neither in a unit of systemd nor in PATH: give --server".to_owned()
        })?,
    };
    let verdict = Verdict::of(&server)?;
    if let Some(reason) = verdict.reason() {
        return Err(Failure::No(format!(
            "the plugin does not work in {}: {reason}. See psmdb-aws-iam check-server {0}",
            server.display()
        )));
    }
    let is_mongos = verdict.kind() == Some(Kind::Mongos);
    let object = Object::find(&root, arguments.object.as_deref());
    if let Some(why) = object.is_writable() {
        warn(&format!("warning: {why}. Whoever can write the object can log in as anybody"));
    }
    let setup =
        Text { verdict: &verdict, is_mongos, root: &root, unit: unit.as_ref(), object: &object, host: host.as_ref() };
    print(&setup.text())?;
    Ok(true)
}

/// The STS of a region.
pub fn sts_host(region: &str) -> Result<StsHost, String> {
    let host = Partition::of_region(region).map(|partition| partition.sts_host(region));
    host.and_then(|host| StsHost::parse(&host).ok()).ok_or_else(|| {
        format!("{region:?} is not a region; it must be a name such as eu-west-1 (--region, AWS_REGION)")
    })
}

/// The folder that stands for `/`.
struct Root(PathBuf);

impl Root {
    /// Where a path of the system is.
    fn of(&self, path: &Path) -> PathBuf {
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The path as the system knows it.
    fn inside<'a>(&self, path: &'a Path) -> PathBuf {
        path.strip_prefix(&self.0).map_or_else(|_| path.to_owned(), |rest: &'a Path| Path::new("/").join(rest))
    }

    /// The server in the folders of PATH.
    fn in_path(&self, path: &str) -> Option<PathBuf> {
        let folders = || path.split(':').filter(|folder| !folder.is_empty()).map(|folder| self.of(Path::new(folder)));
        ["mongod", "mongos"]
            .iter()
            .find_map(|name| folders().map(|folder| folder.join(name)).find(|file| file.is_file()))
    }
}

/// Reads a text file of the system, which may be anybody's image: `None` for what is no file or is too long, and without
/// characters that a terminal would act on.
fn read(path: &Path) -> Option<String> {
    const MAX_LENGTH: u64 = 1024 * 1024;
    // A FIFO could be waited for without end.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    file.take(MAX_LENGTH + 1).read_to_string(&mut text).ok()?;
    let plain = |c: char| if c.is_control() && !matches!(c, '\n' | '\t') { '?' } else { c };
    (text.len() as u64 <= MAX_LENGTH).then(|| text.chars().map(plain).collect())
}

/// A server's unit of systemd, as far as it matters here.
struct Unit {
    /// Without `.service`.
    name: &'static str,
    /// The server that it runs, as the system knows it.
    server: Option<PathBuf>,
    /// The configuration that it gives the server.
    config: Option<PathBuf>,
    /// What it preloads.
    preload: Option<String>,
}

impl Unit {
    /// The unit of this server, else the first one.
    fn find(root: &Root, server: Option<&Path>) -> Option<Self> {
        let wanted = server.and_then(Path::file_name).and_then(|name| name.to_str());
        let mut names = UNITS;
        names.sort_by_key(|name| wanted != Some(name));
        names.into_iter().find_map(|name| Self::read(root, name))
    }

    fn read(root: &Root, name: &'static str) -> Option<Self> {
        let folders = || UNIT_FOLDERS.iter().map(|folder| root.0.join(folder));
        let mut text = folders().find_map(|folder| read(&folder.join(format!("{name}.service"))))?;
        // Drop-ins come after the unit; what is written last counts.
        for folder in folders() {
            let mut drop_ins: Vec<_> = fs::read_dir(folder.join(format!("{name}.service.d")))
                .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
                .unwrap_or_default();
            drop_ins.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
            drop_ins.sort();
            for path in drop_ins {
                text.push('\n');
                text.push_str(&read(&path).unwrap_or_default());
            }
        }
        let text = text.replace("\\\n", " ");
        let lines = || text.lines().map(str::trim_start).filter(|line| !line.starts_with(['#', ';']));
        // What the server is given; other programs that the unit runs have options of their own.
        let given = || lines().filter(|line| line.starts_with("Environment=") || line.starts_with("ExecStart="));
        let words = || given().flat_map(str::split_whitespace).map(|word| word.trim_matches(['"', '\'']));
        // ExecStart=@-:+! may stand before the path, and numactl or another program before the server.
        let is_server =
            |word: &str| word.starts_with('/') && matches!(word.rsplit('/').next(), Some("mongod" | "mongos"));
        let start = lines().filter_map(|line| line.strip_prefix("ExecStart=")).rfind(|start| !start.trim().is_empty());
        let mut program =
            start.unwrap_or_default().split_whitespace().map(|word| word.trim_matches(['@', '-', ':', '+', '!', '"']));
        let server = program.find(|word| is_server(word)).map(PathBuf::from);
        let after = |option: &str| {
            let mut words = words().skip_while(|word| *word != option && !word.ends_with(&format!("={option}")));
            words.nth(1).filter(|value| value.starts_with('/')).map(PathBuf::from)
        };
        let inline = words().find_map(|word| word.split_once("--config=").map(|(_, path)| PathBuf::from(path)));
        let preload = words().filter_map(|word| word.split_once("LD_PRELOAD=")).next_back();
        let preload =
            preload.map(|(_, value)| value.trim_matches(['"', '\'']).to_owned()).filter(|value| !value.is_empty());
        Some(Self { name, server, config: after("-f").or_else(|| after("--config")).or(inline), preload })
    }
}

/// The shared object.
struct Object {
    /// Where it has to be in the end, as the system knows it.
    path: PathBuf,
    /// Where it is; `None` when it was not found.
    found: Option<PathBuf>,
}

impl Object {
    fn find(root: &Root, asked: Option<&Path>) -> Self {
        let installed = root.of(Path::new(INSTALLED));
        let beside = || {
            let command = std::env::current_exe().ok()?;
            let object = command.parent()?.join("libpsmdb_aws_iam.so");
            object.is_file().then_some(object)
        };
        let found = match asked {
            Some(path) => path.is_file().then(|| path.to_owned()),
            None if installed.is_file() => Some(installed),
            None => beside(),
        };
        Self { path: PathBuf::from(INSTALLED), found }
    }

    fn is_installed(&self, root: &Root) -> bool {
        self.found.as_ref().is_some_and(|found| root.inside(found) == self.path)
    }

    /// Why others than its owner may write it.
    fn is_writable(&self) -> Option<String> {
        let found = self.found.as_ref()?;
        for path in [Some(found.as_path()), found.parent()].into_iter().flatten() {
            let Ok(metadata) = fs::metadata(path) else { continue };
            let mode = metadata.mode();
            // The sticky bit of a folder such as /tmp keeps others from replacing it.
            if mode & 0o022 != 0 && !(metadata.is_dir() && mode & 0o1000 != 0) {
                return Some(format!("{} is writable by others than its owner", path.display()));
            }
        }
        None
    }
}

/// What is printed.
struct Text<'a> {
    verdict: &'a Verdict,
    is_mongos: bool,
    root: &'a Root,
    unit: Option<&'a Unit>,
    object: &'a Object,
    host: Option<&'a StsHost>,
}

impl Text<'_> {
    fn text(&self) -> String {
        let mut text = format!("# {}\n", self.verdict.summary());
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n# 1. {}", self.object_text());
        let _ = writeln!(text, "\n# 2. {}", self.unit_text());
        let _ = writeln!(text, "\n# 3. {}", self.config_text());
        let _ = writeln!(text, "\n# Then restart the server and look for id 88000001 in its log.");
        if let Some(unit) = self.unit {
            let _ = writeln!(text, "sudo systemctl daemon-reload\nsudo systemctl restart {}", unit.name);
        }
        text
    }

    fn object_text(&self) -> String {
        let path = self.object.path.display();
        match &self.object.found {
            Some(_) if self.object.is_installed(self.root) => format!("The object is where it belongs: {path}"),
            Some(found) => {
                let label = if self.root.0.join("etc/selinux/config").is_file() {
                    "\nsudo restorecon -Rv /usr/lib/psmdb-aws-iam"
                } else {
                    ""
                };
                let found = quoted(&found.display().to_string());
                format!("Copy the object:\nsudo install -D -o root -g root -m 0755 {found} {path}{label}")
            }
            None => format!(
                "The object is not found. Install the package, or build it (cargo build --release --locked) and copy it to \
                 {path}"
            ),
        }
    }

    fn unit_text(&self) -> String {
        let path = self.object.path.display().to_string();
        let Some(unit) = self.unit else {
            return format!(
                "No unit of systemd is found. Set this in the environment of the server alone, in a container that of the \
                 container:\nLD_PRELOAD={path}"
            );
        };
        let name = unit.name;
        let mut preload: Vec<&str> =
            unit.preload.iter().flat_map(|preload| preload.split(':')).filter(|entry| !entry.is_empty()).collect();
        if preload.contains(&&*path) {
            return format!("The unit {name} preloads the object.");
        }
        preload.push(&path);
        let kept = if preload.len() > 1 { ", which keeps what the unit preloads" } else { "" };
        format!(
            "/etc/systemd/system/{name}.service.d/psmdb-aws-iam.conf{kept}:\n[Service]\nEnvironment=LD_PRELOAD={}",
            preload.join(":")
        )
    }

    fn config_text(&self) -> String {
        let kind = if self.is_mongos { "mongos" } else { "mongod" };
        let config =
            self.unit.and_then(|unit| unit.config.clone()).unwrap_or_else(|| format!("/etc/{kind}.conf").into());
        let there = read(&self.root.of(&config)).unwrap_or_default();
        let listed = there.lines().find_map(|line| line.trim_start().strip_prefix("authenticationMechanisms:"));
        let listed = listed.map(|value| value.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'']));
        let (mechanisms, note) = match listed.filter(|list| !list.is_empty()) {
            Some(list) if list.split(',').any(|mechanism| mechanism.trim() == "MONGODB-AWS") => (list.to_owned(), ""),
            Some(list) => (format!("MONGODB-AWS,{list}"), ""),
            None => (
                "MONGODB-AWS,SCRAM-SHA-256".to_owned(),
                "\n# The list replaces the server's default: name what your users and the other members log in by.",
            ),
        };
        let host = self.host.map_or_else(
            || "sts.REGION.amazonaws.com    # REGION is yours; or give --region".to_owned(),
            |host| host.as_str().to_owned(),
        );
        // A mongos has no such setting; its shards decide.
        let authorization = if self.is_mongos { "" } else { "security:\n  authorization: enabled\n" };
        format!(
            "{}, into the sections that are there:{note}\n{authorization}setParameter:\n  authenticationMechanisms: \
             {mechanisms}\n  awsStsHost: {host}",
            config.display()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_system_are_read_with_care() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("unit");
        fs::write(&file, "a\tb\n\x1b[2Jc").unwrap();
        assert_eq!(read(&file).as_deref(), Some("a\tb\n?[2Jc"));
        fs::write(&file, vec![b'a'; 1024 * 1024 + 1]).unwrap();
        assert_eq!(read(&file), None, "too long");
        assert_eq!(read(folder.path()), None, "a folder");
        assert_eq!(read(Path::new("/dev/zero")), None, "a device");
        let fifo = folder.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        assert_eq!(read(&fifo), None, "a FIFO");
    }

    #[test]
    fn a_region_has_one_sts() {
        for (region, host) in [
            ("eu-west-1", "sts.eu-west-1.amazonaws.com"),
            ("us-gov-west-1", "sts.us-gov-west-1.amazonaws.com"),
            ("cn-north-1", "sts.cn-north-1.amazonaws.com.cn"),
            ("us-iso-east-1", "sts.us-iso-east-1.c2s.ic.gov"),
            ("us-isob-east-1", "sts.us-isob-east-1.sc2s.sgov.gov"),
            ("eu-isoe-west-1", "sts.eu-isoe-west-1.cloud.adc-e.uk"),
            ("us-isof-south-1", "sts.us-isof-south-1.csp.hci.ic.gov"),
            ("eusc-de-east-1", "sts.eusc-de-east-1.amazonaws.eu"),
        ] {
            assert_eq!(sts_host(region).unwrap().as_str(), host);
            assert_eq!(sts_host(region).unwrap().region(), region);
        }
        for wrong in ["", "eu", "EU-WEST-1", "eu-west-1a", "eu-west-1.example.com", "eu west-1", "aws-global", "sts"] {
            assert!(sts_host(wrong).is_err(), "{wrong:?} was accepted");
        }
    }
}
