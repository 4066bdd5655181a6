//! `setup`: prints the configuration with which this machine's server has the plugin.

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
use crate::output::{CommandError, CommandResult, print, quoted, warn};
use crate::route::sts_host;
use crate::server_file::ServerKind;

const HELP: &str = "\
Prints three steps, with the text to copy: the location of the object, the systemd
drop-in for the server's unit, and the lines for the server's configuration file.
It changes nothing. The server is that of the unit, else the one in PATH; its file
is checked as by check-server. The region is that of --region, AWS_REGION,
AWS_DEFAULT_REGION, or the profile in AWS's files.

The printed text keeps the unit's LD_PRELOAD and the configured
authenticationMechanisms. They are searched in the unit, its drop-ins and
environment files, on the command line and in the configuration file. If one of
these overrides a drop-in or the configuration file, the line to change is printed
instead. Other settings are not checked.

The object must be complete, owned by root with every folder above it, writable
only by root, and readable by the server's user. With --root, the owner of that
folder replaces root.

Exit status:
  0  printed
  1  the plugin does not support this server, the object is not usable, or
     something must be changed first; see standard error
  2  there is no server, a file cannot be read or parsed, or wrong usage; prints
     nothing

Examples:
  psmdb-aws-iam setup --region eu-west-1
  psmdb-aws-iam setup --server /opt/bin/mongod --object ./libpsmdb_aws_iam.so
  psmdb-aws-iam setup --unit mongod@shop --region eu-west-1
  psmdb-aws-iam setup --root /mnt/image --region eu-west-1";

/// Print the systemd drop-in and the lines for mongod.conf for this machine
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct Setup {
    /// The server's program file
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,

    /// The server's configuration file [default: the one in the unit]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The server's systemd unit [default: mongod, mongos or mongodb]
    #[arg(long, value_name = "NAME")]
    unit: Option<String>,

    /// The shared object [default: the one of the package, else the one beside this command]
    #[arg(long, value_name = "FILE")]
    object: Option<PathBuf>,

    /// The region of the STS host
    #[arg(long)]
    region: Option<String>,

    /// The profile in AWS's files that has the region
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,

    /// The folder of the system to check, such as an image
    #[arg(long, value_name = "FOLDER", default_value = "/")]
    root: PathBuf,
}

/// Prints the steps.
///
/// # Errors
/// A negative result when the plugin does not support the server or the object is not usable;
/// otherwise when a value is wrong, there is no server, or a file cannot be read or parsed.
pub fn run(arguments: &Setup) -> CommandResult {
    let (text, problems) = advice(arguments).map_err(|failure| match failure {
        CommandError::Negative(message) => CommandError::Negative(plain(&message)),
        CommandError::Failed(message) => CommandError::Failed(plain(&message)),
    })?;
    print(&plain(&text))?;
    for problem in &problems {
        warn(&plain(problem));
    }
    Ok(problems.is_empty())
}

/// The text to print, and the problems that must be fixed for it to have an effect.
fn advice(arguments: &Setup) -> Result<(String, Vec<String>), CommandError> {
    match fs::metadata(&arguments.root) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(format!("--root: {} must be a folder", arguments.root.display()).into()),
        Err(error) => return Err(format!("--root: cannot read {}: {error}", arguments.root.display()).into()),
    }
    let root = Root(arguments.root.clone());
    let sources = Sources { profile: arguments.profile.as_deref() };
    let region = sources.region(arguments.region.as_deref())?;
    let host = region.as_deref().map(sts_host).transpose()?;
    let unit = Unit::find(&root, arguments.unit.as_deref(), arguments.server.as_deref())?;
    let start = unit.as_ref().map_or_else(|| Ok(Start::default()), Unit::start)?;
    let server = match (&arguments.server, &start.server) {
        (Some(server), _) => server.clone(),
        (None, Some(server)) => root.resolve(server),
        (None, None) => root
            .in_path(&variable("PATH").unwrap_or_default())
            .ok_or_else(|| "there is no mongod or mongos in a systemd unit or in PATH: give --server".to_owned())?,
    };
    let verdict = Verdict::read(&server)?;
    if !verdict.supported() {
        let server = quoted(&server.display().to_string());
        return Err(CommandError::Negative(format!("{} See psmdb-aws-iam check-server {server}", verdict.summary())));
    }
    let object = Object::find(&root, arguments.object.as_deref())?;
    if let Some(why) = object.defect()? {
        return Err(CommandError::Negative(format!("{why}: give another one with --object")));
    }
    if object.has_another_version() {
        warn(&format!("warning: the object's version is not {}, that of this command", env!("CARGO_PKG_VERSION")));
    }
    if let Some(risk) = object.write_risk() {
        warn(&plain(&format!("warning: {risk}: users who can write the object can log in as any user")));
    }
    let setup = Advice {
        is_mongos: verdict.kind() == Some(ServerKind::Mongos),
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
    let _ = writeln!(text, "\n# Then restart the server, and check its log for id 88000001.");
    if let Some(unit) = &unit {
        let _ = writeln!(text, "sudo systemctl daemon-reload\nsudo systemctl restart {}", quoted(&unit.name));
    }
    Ok((text, problems))
}

/// The facts that the text depends on.
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
            Some(_) if self.object.is_installed => format!("The object is installed: {INSTALLED}"),
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
                "The object was not found. Install the package, or build it (cargo build --release --locked) and copy \
                 it to {INSTALLED}"
            ),
        };
        let user = self.unit.map_or_else(|| Ok(User::default()), Unit::user)?;
        let mut accesses = Access::to_object(self.root)?;
        if !self.object.is_installed {
            // Copying replaces a file of the object's name.
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
                "There is no systemd unit for the server. Set this in the environment of the server only, or of its container:\n\
                 {LD_PRELOAD}={INSTALLED}"
            ));
        };
        let now = unit.preload(None)?;
        if let Some(place) = &now.removed {
            problems
                .push(format!("{place} removes {LD_PRELOAD} from the environment: remove it from UnsetEnvironment"));
        }
        let entries: Vec<String> =
            now.assigned.iter().flat_map(|now| now.value.split([':', ' '])).map(str::to_owned).collect();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._+@,=~-".contains(c);
        if let (Some(entry), Some(now)) = (entries.iter().find(|entry| !entry.chars().all(is_plain)), &now.assigned) {
            return Err(format!("{}: {LD_PRELOAD} has {entry:?}, which contains unsupported characters", now.place));
        }
        if entries.iter().any(|entry| entry == INSTALLED) {
            return Ok(format!("The unit {} preloads the object.", unit.name));
        }
        // A second copy of the object would be loaded too.
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
                        "{} sets {LD_PRELOAD} and overrides the drop-in: change it as in step 2",
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
                problems.push(format!("{place} has an empty Environment=, which discards the drop-in's"));
                Ok(format!("Add a line after {place}:\nEnvironment={LD_PRELOAD}={preload}"))
            }
            None => {
                if let Some(place) = &then.passed {
                    problems.push(format!(
                        "{place} passes systemd's own {LD_PRELOAD}, whose value is unknown: remove it from \
                         PassEnvironment, and add the objects that the server needs to an Environment= of the unit"
                    ));
                }
                let kept = if kept.is_empty() { "" } else { ", which keeps the unit's preloaded objects" };
                let added = if self.root.resolve(&path).exists() { ", after its existing lines" } else { "" };
                Ok(format!("{}{kept}{added}:\n{drop_in}", path.display()))
            }
        }
    }

    fn config_text(&self, named: Option<&Path>, problems: &mut Vec<String>) -> Result<String, String> {
        let kind = if self.is_mongos { "mongos" } else { "mongod" };
        let default = PathBuf::from(format!("/etc/{kind}.conf"));
        let (path, file) = match (named, self.unit, &self.start.config) {
            (Some(path), _, _) => (Some(path.to_owned()), Some(path.to_owned())),
            (None, _, Some(path)) => (Some(path.clone()), Some(self.root.resolve(path))),
            (None, Some(unit), None) if self.start.server.is_none() => {
                return Err(format!(
                    "the ExecStart of the unit {} contains no mongod or mongos, so its configuration file is unknown: \
                     give --config and --server",
                    unit.name
                ));
            }
            (None, Some(_), None) => (None, None),
            (None, None, None) => (Some(default.clone()), Some(self.root.resolve(&default))),
        };
        let text = match &file {
            Some(file) => match read(file)? {
                None if named.is_some() || self.unit.is_some() => {
                    return Err(format!(
                        "cannot read {}: it does not exist, and the server requires it",
                        file.display()
                    ));
                }
                text => text.unwrap_or_default(),
            },
            None => String::new(),
        };
        let in_file = |why| format!("{}: {why}", file.as_deref().unwrap_or(&default).display());
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
                        "{} sets {MECHANISMS} on the server's command line and overrides its configuration file: change \
                         it as in step 3",
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
                note = "\n# The list replaces the server's default: include the mechanisms of your users.";
                Some("MONGODB-AWS,SCRAM-SHA-256".to_owned())
            }
        };
        let host = self.host.map_or_else(
            || "sts.REGION.amazonaws.com    # replace REGION, or give --region".to_owned(),
            |host| host.as_str().to_owned(),
        );
        let parameters = mechanisms.into_iter().map(|list| (MECHANISMS, list)).chain([("awsStsHost", host)]);
        let lines: Vec<String> = match config.style {
            // A mongos has no such setting; its shards have it.
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
                "a new configuration file: add --config {} to the server's ExecStart. Content",
                default.display()
            ),
            (Some(path), Style::Yaml) => format!("{}, in its existing sections", path.display()),
            (Some(path), Style::Ini) => format!("{}, replacing its lines for the same parameters", path.display()),
        };
        Ok(format!("{change}{place}:{note}\n{}", lines.join("\n")))
    }
}
