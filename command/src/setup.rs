//! `setup`: what to write where, so that this machine's server has the plugin. It changes nothing.

mod config;
mod object;
mod system;
mod unit;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use psmdb_aws_iam::sts::endpoint::StsHost;

use self::config::{Config, MECHANISMS, Style};
use self::object::{Access, FILE_NAME, INSTALLED, Object, User, faults};
use self::system::{Root, plain, read};
use self::unit::{LD_PRELOAD, Start, Unit};
use crate::check_server::Verdict;
use crate::credentials::{Sources, variable};
use crate::output::{Failure, Outcome, print, quoted, warn};
use crate::route::sts_host;
use crate::server_file::Kind;

const HELP: &str = "\
Prints three things to do, each with the text to copy: where the object has to
be, the drop-in for the server's unit of systemd, and the lines for its
configuration file. Nothing is changed. The server is the one of the unit, else
the one in PATH; its file is checked as check-server does. The region is that of
--region, AWS_REGION, AWS_DEFAULT_REGION, or the profile in AWS's files.

What is printed keeps the unit's LD_PRELOAD and the authenticationMechanisms that
are listed, wherever they are set: in the unit, its drop-ins and environment
files, on the command line, or in the configuration file. Where one of these
replaces what a drop-in or the configuration file sets, the line to change is
printed instead. Other settings are not looked at.

The object must be whole, must belong to root with every folder above it, must be
writable by nobody else, and must be readable by the server's user. With --root,
root is the owner of that folder.

Exit status:
  0  printed
  1  the plugin does not work in this server, the object is not usable, or
     something that is there must be changed first; said on standard error
  2  no server is found, a file cannot be read or understood, or wrong usage;
     nothing is printed then

Examples:
  psmdb-aws-iam setup --region eu-west-1
  psmdb-aws-iam setup --server /opt/bin/mongod --object ./libpsmdb_aws_iam.so
  psmdb-aws-iam setup --unit mongod@shop --region eu-west-1
  psmdb-aws-iam setup --root /mnt/image --region eu-west-1";

/// Print the drop-in for systemd and the lines for mongod.conf that this machine needs
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct Setup {
    /// The server's program file
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,

    /// The server's configuration file [default: the one that the unit gives it]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The server's unit of systemd [default: mongod, mongos or mongodb]
    #[arg(long, value_name = "NAME")]
    unit: Option<String>,

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
/// A no when the plugin does not work in the server or the object is not usable; otherwise when a value is wrong, there
/// is no server, or a file cannot be read or understood.
pub fn run(arguments: &Setup) -> Outcome {
    let (text, problems) = advice(arguments).map_err(|failure| match failure {
        Failure::No(message) => Failure::No(plain(&message)),
        Failure::Cannot(message) => Failure::Cannot(plain(&message)),
    })?;
    print(&plain(&text))?;
    for problem in &problems {
        warn(&plain(problem));
    }
    Ok(problems.is_empty())
}

/// The text to print, and what must be changed before it has an effect.
fn advice(arguments: &Setup) -> Result<(String, Vec<String>), Failure> {
    match fs::metadata(&arguments.root) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(format!("--root: {} is not a folder", arguments.root.display()).into()),
        Err(error) => return Err(format!("--root: cannot read {}: {error}", arguments.root.display()).into()),
    }
    let root = Root(arguments.root.clone());
    let sources = Sources { profile: arguments.profile.as_deref(), environment: &variable };
    let region = sources.region(arguments.region.as_deref())?;
    let host = region.as_deref().map(sts_host).transpose()?;
    let unit = Unit::find(&root, arguments.unit.as_deref(), arguments.server.as_deref())?;
    let start = unit.as_ref().map_or_else(|| Ok(Start::default()), Unit::start)?;
    let server = match (&arguments.server, &start.server) {
        (Some(server), _) => server.clone(),
        (None, Some(server)) => root.of(server),
        (None, None) => root.in_path(&variable("PATH").unwrap_or_default()).ok_or_else(|| {
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
    let object = Object::find(&root, arguments.object.as_deref())?;
    if let Some(why) = object.defect()? {
        return Err(Failure::No(format!("{why}. See --object")));
    }
    if object.is_of_another_version() {
        warn(&format!("warning: the object is not of version {}, as this command is", env!("CARGO_PKG_VERSION")));
    }
    if let Some(why) = object.is_writable() {
        warn(&plain(&format!("warning: {why}. Whoever can write the object can log in as anybody")));
    }
    let setup = Advice {
        is_mongos: verdict.kind() == Some(Kind::Mongos),
        root: &root,
        unit: unit.as_ref(),
        start: &start,
        object: &object,
        host: host.as_ref(),
    };
    let mut problems = Vec::new();
    let mut text = format!("# {}\n", verdict.summary());
    // Writing to a String cannot fail.
    let _ = writeln!(text, "\n# 1. {}", setup.object_text(&mut problems)?);
    let _ = writeln!(text, "\n# 2. {}", setup.unit_text(&mut problems)?);
    let _ = writeln!(text, "\n# 3. {}", setup.config_text(arguments.config.as_deref(), &mut problems)?);
    let _ = writeln!(text, "\n# Then restart the server and look for id 88000001 in its log.");
    if let Some(unit) = &unit {
        let _ = writeln!(text, "sudo systemctl daemon-reload\nsudo systemctl restart {}", quoted(&unit.name));
    }
    Ok((text, problems))
}

/// What the text is made of.
struct Advice<'a> {
    is_mongos: bool,
    root: &'a Root,
    unit: Option<&'a Unit>,
    start: &'a Start,
    object: &'a Object,
    host: Option<&'a StsHost>,
}

impl Advice<'_> {
    fn object_text(&self, problems: &mut Vec<String>) -> Result<String, String> {
        let mut text = match &self.object.found {
            Some(_) if self.object.is_installed => format!("The object is where it belongs: {INSTALLED}"),
            Some(found) => {
                let label = if self.root.0.join("etc/selinux/config").is_file() {
                    "\nsudo restorecon -Rv /usr/lib/psmdb-aws-iam"
                } else {
                    ""
                };
                let found = quoted(&found.display().to_string());
                format!("Copy the object:\nsudo install -D -o root -g root -m 0755 {found} {INSTALLED}{label}")
            }
            None => format!(
                "The object is not found. Install the package, or build it (cargo build --release --locked) and copy it \
                 to {INSTALLED}"
            ),
        };
        let user = self.unit.map_or_else(|| Ok(User::default()), Unit::user)?;
        let mut accesses = Access::to_object(self.root)?;
        if !self.object.is_installed {
            // What is there instead of the object is replaced.
            accesses.retain(Access::is_folder);
        }
        for (why, command) in faults(&accesses, self.root.owner(), &user) {
            text.push('\n');
            text.push_str(&command);
            problems.push(format!("{why}: {command}"));
        }
        Ok(text)
    }

    fn unit_text(&self, problems: &mut Vec<String>) -> Result<String, String> {
        let Some(unit) = self.unit else {
            return Ok(format!(
                "No unit of systemd is found. Set this in the environment of the server alone, in a container that of \
                 the container:\n{LD_PRELOAD}={INSTALLED}"
            ));
        };
        let now = unit.preload(None)?;
        if let Some(place) = &now.removed {
            problems
                .push(format!("{place} removes {LD_PRELOAD} from the environment: take it out of UnsetEnvironment"));
        }
        let entries: Vec<String> =
            now.assigned.iter().flat_map(|now| now.value.split([':', ' '])).map(str::to_owned).collect();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._+@,=~-".contains(c);
        if let (Some(entry), Some(now)) = (entries.iter().find(|entry| !entry.chars().all(is_plain)), &now.assigned) {
            return Err(format!("{}: {LD_PRELOAD} has {entry:?}, whose characters are not supported here", now.place));
        }
        if entries.iter().any(|entry| entry == INSTALLED) {
            return Ok(format!("The unit {} preloads the object.", unit.name));
        }
        // Another copy of the object would be loaded twice.
        let is_other =
            |entry: &&str| !entry.is_empty() && Path::new(entry).file_name().is_none_or(|name| name != FILE_NAME);
        let kept: Vec<&str> = entries.iter().map(String::as_str).filter(is_other).collect();
        let preload = [kept.as_slice(), &[INSTALLED]].concat().join(":");
        let drop_in = format!("[Service]\nEnvironment={LD_PRELOAD}={preload}");
        let then = unit.preload(Some(&drop_in))?;
        let path = unit.drop_in();
        let is_ours = |place: &unit::Place| place.file == path;
        let replaced = now.assigned.as_ref().filter(|now| is_ours(&now.place));
        match then.assigned.as_ref().filter(|then| !is_ours(&then.place)).or(replaced) {
            Some(variable) => {
                if !is_ours(&variable.place) {
                    problems.push(format!(
                        "{} sets {LD_PRELOAD}, and replaces what a drop-in sets: change it as step 2 says",
                        variable.place
                    ));
                }
                Ok(format!(
                    "Change {}, from\n{LD_PRELOAD}={}\nto\n{LD_PRELOAD}={preload}",
                    variable.place, variable.value
                ))
            }
            None if then.assigned.is_none() => {
                let place = then.reset.as_ref().map(ToString::to_string).unwrap_or_default();
                problems.push(format!("{place} has an empty Environment=, which discards what a drop-in sets"));
                Ok(format!("Add a line after {place}:\nEnvironment={LD_PRELOAD}={preload}"))
            }
            None => {
                if let Some(place) = &then.passed {
                    problems.push(format!(
                        "{place} passes the {LD_PRELOAD} of systemd itself on, which is not known here: take it out of \
                         PassEnvironment, and set what is needed of it in an Environment= of the unit"
                    ));
                }
                let kept = if kept.is_empty() { "" } else { ", which keeps what the unit preloads" };
                let added = if self.root.of(&path).exists() { ", after the lines that it has" } else { "" };
                Ok(format!("{}{kept}{added}:\n{drop_in}", path.display()))
            }
        }
    }

    fn config_text(&self, named: Option<&Path>, problems: &mut Vec<String>) -> Result<String, String> {
        let kind = if self.is_mongos { "mongos" } else { "mongod" };
        let default = PathBuf::from(format!("/etc/{kind}.conf"));
        let (path, there) = match (named, self.unit, &self.start.config) {
            (Some(path), _, _) => (Some(path.to_owned()), Some(path.to_owned())),
            (None, _, Some(path)) => (Some(path.clone()), Some(self.root.of(path))),
            (None, Some(unit), None) if self.start.server.is_none() => {
                return Err(format!(
                    "the ExecStart of the unit {} shows no mongod or mongos, so that its configuration file is not \
                     known: give --config, and --server",
                    unit.name
                ));
            }
            (None, Some(_), None) => (None, None),
            (None, None, None) => (Some(default.clone()), Some(self.root.of(&default))),
        };
        let text = match &there {
            Some(there) => match read(there)? {
                None if named.is_some() || self.unit.is_some() => {
                    return Err(format!("cannot read {}: it is not there, and the server needs it", there.display()));
                }
                text => text.unwrap_or_default(),
            },
            None => String::new(),
        };
        let in_file = |why| format!("{}: {why}", there.as_deref().unwrap_or(&default).display());
        let config = Config::parse(&text).map_err(in_file)?;
        let mut note = "";
        let mut change = String::new();
        let with_ours = |mut list: Vec<String>| {
            if list.iter().all(|mechanism| mechanism != "MONGODB-AWS") {
                list.insert(0, "MONGODB-AWS".to_owned());
            }
            list.join(",")
        };
        let mechanisms = match (&self.start.mechanisms, config.mechanisms) {
            (Some(listed), _) => {
                let list = config::mechanisms(&listed.value).map_err(|why| format!("{}: {why}", listed.place))?;
                if list.iter().all(|mechanism| mechanism != "MONGODB-AWS") {
                    problems.push(format!(
                        "{} lists {MECHANISMS} on the server's command line, and replaces what its configuration file \
                         lists: change it as step 3 says",
                        listed.place
                    ));
                    let (place, value) = (&listed.place, &listed.value);
                    change = format!(
                        "Change {place}, from\n{MECHANISMS}={value}\nto\n{MECHANISMS}={}\n# and ",
                        with_ours(list)
                    );
                }
                None
            }
            (None, Some(list)) => Some(with_ours(list)),
            (None, None) => {
                note = "\n# The list replaces the server's default: name what your users log in by.";
                Some("MONGODB-AWS,SCRAM-SHA-256".to_owned())
            }
        };
        let host = self.host.map_or_else(
            || "sts.REGION.amazonaws.com    # REGION is yours; or give --region".to_owned(),
            |host| host.as_str().to_owned(),
        );
        let parameters = mechanisms.into_iter().map(|list| (MECHANISMS, list)).chain([("awsStsHost", host)]);
        let lines: Vec<String> = match config.style {
            // A mongos has no such setting; its shards decide.
            Style::Yaml => {
                let authorization = ["security:\n  authorization: enabled", "setParameter:"];
                let sections = authorization[usize::from(self.is_mongos)..].iter().map(|line| (*line).to_owned());
                sections.chain(parameters.map(|(name, value)| format!("  {name}: {value}"))).collect()
            }
            Style::Ini => {
                let authorization = (!self.is_mongos).then(|| "auth = true".to_owned());
                authorization
                    .into_iter()
                    .chain(parameters.map(|(name, value)| format!("setParameter = {name}={value}")))
                    .collect()
            }
        };
        let place = match (&path, config.style) {
            (None, _) => format!(
                "a configuration file, which the server must be given: add --config {} to its ExecStart. In it",
                default.display()
            ),
            (Some(path), Style::Yaml) => format!("{}, into the sections that are there", path.display()),
            (Some(path), Style::Ini) => format!("{}, instead of its lines for the same parameters", path.display()),
        };
        Ok(format!("{change}{place}:{note}\n{}", lines.join("\n")))
    }
}
