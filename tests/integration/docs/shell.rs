//! Commands of a terminal, and statements of the database's shell.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use bson::{Bson, Document, doc};
use serde_json::Value;

use super::{examples, quoted, read, root, rows, section};
use crate::support::mongod::{DEFAULT_VERSION, binary_of};
use crate::support::plugin;

/// How a command is kept true.
enum How {
    /// A target of the Makefile, which CI runs or which is checked to be there.
    Make,
    /// The project's own command: run where it needs no AWS, else its options are compared with its
    /// help.
    Own,
    /// Run in an empty folder in place of the root of the file system, without sudo and without
    /// changes of owner.
    InFolder,
    /// Not run, for this reason.
    Not(&'static str),
}

/// Commands by their beginning; the first that fits counts.
const SHELL: [(&str, How); 30] = [
    ("make ", How::Make),
    ("psmdb-aws-iam ", How::Own),
    ("target/release/psmdb-aws-iam ", How::Own),
    ("sudo install -D -o root -g root -m 0644 /usr/share/", How::Not("it takes what the package has installed")),
    ("sudo install -D ", How::InFolder),
    ("sudo restorecon ", How::Not("it needs SELinux")),
    ("sudo systemctl ", How::Not("it needs systemd and root")),
    ("sudo journalctl ", How::Not("it needs systemd")),
    ("sudo sed -i", How::Not("recovery runs it on files of its own")),
    ("sudo grep -rnsE ", How::Not("recovery runs it on files of its own")),
    ("sudo grep ", How::Not("it reads the log of an installed server; log_lines has its line")),
    ("sudo rm ", How::Not("it needs root")),
    ("sudo apt install ./", How::Not("the packages' own tests install them")),
    ("sudo dnf install ./", How::Not("the packages' own tests install them")),
    ("sudo apt remove ", How::Not("the packages' own tests remove them")),
    ("sudo dnf remove ", How::Not("the packages' own tests remove them")),
    ("docker ", How::Not("it needs Docker; servers runs the command of the image")),
    ("curl ", How::Not("it reads an exporter's page")),
    ("aws iam ", How::Not("it needs AWS")),
    ("eval \"$(aws ", How::Not("it needs AWS")),
    ("mongosh ", How::Not("it needs the database's own shell; logins by drivers are tested elsewhere")),
    ("getent hosts ", How::Not("it needs DNS")),
    ("timedatectl", How::Not("it needs systemd")),
    ("for pid in $(pidof mongod); do sudo grep -c ", How::Not("it reads those of installed servers")),
    ("namei -l /usr/lib/", How::Not("it shows what is installed")),
    ("getcap /usr/bin/mongod", How::Not("it shows what is installed")),
    ("dpkg --verify ", How::Not("it compares what is installed")),
    ("dpkg-deb -x ", How::Not("the_new_server_is_checked_in_its_unpacked_package runs it")),
    ("mkdir new && rpm2cpio ", How::Not("not every machine of the tests has rpm2cpio")),
    ("mongodb_exporter ", How::Not("it is not in the registries of the test environment")),
];

/// Statements that are not sent to a server, and why.
pub const NOT_RUN: [(&str, &str); 1] = [("rs.stepDown()", "it needs a set with a member that can follow")];

/// The commands of an example: lines that end in a backslash go on, comments are cut off.
pub fn commands(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(|line| {
        let line = if line.starts_with('#') { "" } else { line.split("    #").next().unwrap() };
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    });
    lines.filter(|line| !line.is_empty()).collect()
}

#[test]
fn every_command_is_run_or_has_a_reason_why_not() {
    let mut used = [false; SHELL.len()];
    let mut done = BTreeSet::new();
    for block in examples("sh", "") {
        for command in commands(&block.text) {
            // What "make demo  # says" is in README.md.
            let command = command.split(" # ").next().unwrap();
            let row = SHELL.iter().position(|(start, _)| command.starts_with(start));
            let row = row.unwrap_or_else(|| panic!("{block}: no row of SHELL says how this is kept true: {command}"));
            used[row] = true;
            if !done.insert(command.to_owned()) {
                continue;
            }
            match &SHELL[row].1 {
                How::Make => assert_is_target(command),
                How::Own => run_own(&block.to_string(), command),
                How::InFolder => run_in_folder(&block.to_string(), command),
                How::Not(reason) => assert!(!reason.is_empty()),
            }
        }
    }
    for ((start, _), used) in SHELL.iter().zip(used) {
        assert!(used, "no page has a command that begins with {start:?}");
    }
}

fn assert_is_target(command: &str) {
    let makefile = read("Makefile");
    for word in command.split_whitespace().skip(1) {
        let there = match word.split_once('=') {
            Some((name, _)) => makefile.lines().any(|line| line.starts_with(&format!("{name} "))),
            None => makefile.lines().any(|line| line.starts_with(&format!("{word}:"))),
        };
        assert!(there, "{command}: the Makefile knows no {word}");
    }
}

fn run_own(place: &str, command: &str) {
    let mut words: Vec<String> =
        command.split_whitespace().skip(1).map(|word| word.trim_matches('\'').to_owned()).collect();
    let run = |words: &[String]| Command::new(crate::support::command()).args(words).output().unwrap();
    // command/tests runs these, against an STS and a server of its own.
    let needs_the_world = ["whoami", "check-sts", "login"];
    if words.first().is_some_and(|word| needs_the_world.contains(&word.as_str())) {
        let help = run(&[words[0].clone(), "--help".to_owned()]);
        let help = String::from_utf8_lossy(&help.stdout).into_owned() + &String::from_utf8_lossy(&help.stderr);
        assert!(help.contains("Usage: "), "{place}: {command}: {help}");
        let known: Vec<_> = help.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').collect();
        for option in words[1..].iter().filter(|word| word.starts_with("--")) {
            let option = option.split('=').next().unwrap();
            assert!(known.contains(&option), "{place}: {command}: {option} is not in its help:\n{help}");
        }
        return;
    }
    for word in &mut words {
        if matches!(word.as_str(), "/usr/bin/mongod" | "/usr/bin/mongos" | "new/usr/bin/mongod") {
            *word = binary_of(DEFAULT_VERSION).to_str().unwrap().to_owned();
        }
    }
    if words[0] == "setup" {
        words.extend(["--server".to_owned(), binary_of(DEFAULT_VERSION).to_str().unwrap().to_owned()]);
        words.extend(["--object".to_owned(), plugin().to_str().unwrap().to_owned()]);
    }
    let output = run(&words);
    assert!(output.status.success(), "{place}: {command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What upgrade-and-rollback.md says to do with a package of the next server.
#[test]
fn the_new_server_is_checked_in_its_unpacked_package() {
    let below = section("docs/upgrade-and-rollback.md", "Upgrade the server");
    let block = examples("sh", "").into_iter().find(|block| below(block) && block.text.contains("dpkg-deb")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let package = folder.path().join("package");
    fs::create_dir_all(package.join("DEBIAN")).unwrap();
    fs::create_dir_all(package.join("usr/bin")).unwrap();
    let about =
        "Package: mongodb-org-server\nVersion: 1\nArchitecture: amd64\nMaintainer: tests\nDescription: a link\n";
    fs::write(package.join("DEBIAN/control"), about).unwrap();
    symlink(binary_of(DEFAULT_VERSION), package.join("usr/bin/mongod")).unwrap();
    let name = folder.path().join("mongodb-org-server_1_amd64.deb");
    let built = Command::new("dpkg-deb").arg("--build").args([&package, &name]).output();
    let Ok(built) = built else { return crate::support::skipped("a package of a server", "dpkg-deb is not installed") };
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let text = block.text.replace("psmdb-aws-iam ", &format!("{} ", crate::support::command().display()));
    let output = Command::new("sh").args(["-euc", &text]).current_dir(&folder).output().unwrap();
    assert!(output.status.success(), "{block}: {}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["file"], &report["version"]), (&"new/usr/bin/mongod".into(), &DEFAULT_VERSION.into()));
}

#[test]
fn the_table_of_subcommands_has_every_one() {
    let help = Command::new(crate::support::command()).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let list = help.split_once("Commands:\n").unwrap().1.split("\n\n").next().unwrap();
    let names = list.lines().map(|line| line.split_whitespace().next().unwrap().to_owned());
    let mut known: Vec<_> = names.filter(|name| name != "help").collect();
    let rows = rows("docs/command.md");
    let mut listed: Vec<_> = rows.iter().map(|row| quoted(&row[0])[0].to_owned()).collect();
    known.sort();
    listed.sort();
    assert_eq!(listed, known);
}

fn run_in_folder(place: &str, command: &str) {
    let folder = tempfile::tempdir().unwrap();
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| root().join("target").display().to_string());
    let command =
        command.replacen("sudo ", "", 1).replace(" -o root -g root", "").replace(" target/", &format!(" {target}/"));
    let command = command.replace(" /usr/", &format!(" {}/usr/", folder.path().display()));
    let status = Command::new("sh").args(["-euc", &command]).status().unwrap();
    assert!(status.success(), "{place}: {command}");
    let made = command.split_whitespace().last().unwrap();
    assert!(Path::new(made).is_file(), "{place}: {command} made no {made}");
}

/// A statement of the database's shell, with what a comment after it says of its reply.
pub struct Statement {
    pub code: String,
    pub reply: Option<Document>,
}

/// Statements begin at the start of a line; a comment `// {...}` at the end says what the reply
/// shows.
pub fn statements(text: &str) -> Vec<Statement> {
    let mut found: Vec<Statement> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with("//")) {
        let (code, comment) = line.split_once("    // ").map_or((line, None), |(code, comment)| (code, Some(comment)));
        let reply = comment.filter(|comment| comment.starts_with('{')).map(|comment| {
            let (value, rest) = value(comment).unwrap_or_else(|| panic!("{comment}"));
            assert!(rest.trim().is_empty(), "{comment}");
            value.as_document().expect("an object").clone()
        });
        match found.last_mut() {
            // A line that is indented, or closes what is open, goes on with the statement.
            Some(last) if code.starts_with([' ', '}', ']', ')']) => last.code.push_str(code.trim()),
            _ => found.push(Statement { code: code.trim().to_owned(), reply: None }),
        }
        if let Some(last) = found.last_mut() {
            last.reply = reply.or(last.reply.take());
        }
    }
    found
}

/// The command that the shell sends for a statement, and the database; nothing for one that is not
/// known.
pub fn command(code: &str) -> Option<(String, Document)> {
    let code = code.trim_end_matches(';');
    if let Some(argument) = code.strip_prefix("db.adminCommand(") {
        let (value, rest) = value(argument)?;
        return (rest == ")").then(|| Some(("admin".to_owned(), value.as_document()?.clone())))?;
    }
    if code.strip_prefix("db.serverStatus()").is_some() {
        return Some(("admin".to_owned(), doc! { "serverStatus": 1 }));
    }
    let (database, rest) = value(code.strip_prefix("db.getSiblingDB(")?)?;
    let (method, arguments) = rest.strip_prefix(").")?.split_once('(')?;
    let (first, rest) = if arguments == ")" { (Bson::Null, ")") } else { value(arguments)? };
    let (second, rest) = match rest.strip_prefix(',') {
        Some(more) => value(more)?,
        None => (Bson::Null, rest),
    };
    if rest != ")" {
        return None;
    }
    let command = match (method, first, second) {
        ("createUser", Bson::Document(user), Bson::Null) => {
            let mut command = doc! { "createUser": user.get("user")?.clone() };
            command.extend(user.into_iter().filter(|(name, _)| name != "user"));
            command
        }
        ("dropUser", Bson::String(name), Bson::Null) => doc! { "dropUser": name },
        ("getUsers", Bson::Null, Bson::Null) => doc! { "usersInfo": 1 },
        ("grantRolesToUser", Bson::String(name), Bson::Array(roles)) => {
            doc! { "grantRolesToUser": name, "roles": roles }
        }
        ("updateUser", Bson::String(name), Bson::Document(update)) => {
            let mut command = doc! { "updateUser": name };
            command.extend(update);
            command
        }
        ("revokeRolesFromUser", Bson::String(name), Bson::Array(roles)) => {
            doc! { "revokeRolesFromUser": name, "roles": roles }
        }
        _ => return None,
    };
    Some((database.as_str()?.to_owned(), command))
}

/// What a statement shows of the reply: of `db.serverStatus().a.b`, the document b, or a document
/// with b.
pub fn part_of_reply(code: &str, reply: Document) -> Option<Document> {
    let Some(path) = code.strip_prefix("db.serverStatus().") else { return Some(reply) };
    let mut shown = reply;
    for name in path.split('.') {
        shown = match shown.remove(name)? {
            Bson::Document(inner) => inner,
            other => doc! { name: other },
        };
    }
    Some(shown)
}

/// Reads one value of JavaScript: objects, arrays, texts in double quotes, whole numbers, true and
/// false.
fn value(text: &str) -> Option<(Bson, &str)> {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        let mut document = Document::new();
        loop {
            rest = rest.trim_start();
            if let Some(after) = rest.strip_prefix('}') {
                return Some((document.into(), after));
            }
            let (name, after) = rest.split_once(':')?;
            let (inner, after) = value(after)?;
            document.insert(name.trim().trim_matches('"'), inner);
            rest = after.trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
    }
    if let Some(mut rest) = text.strip_prefix('[') {
        let mut items = Vec::new();
        loop {
            rest = rest.trim_start();
            if let Some(after) = rest.strip_prefix(']') {
                return Some((items.into(), after));
            }
            let (inner, after) = value(rest)?;
            items.push(inner);
            rest = after.trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
    }
    if let Some(rest) = text.strip_prefix('"') {
        let (inner, rest) = rest.split_once('"')?;
        return (!inner.contains('\\')).then(|| (inner.into(), rest));
    }
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    match word {
        "true" => Some((true.into(), rest)),
        "false" => Some((false.into(), rest)),
        _ => word.parse::<i32>().ok().map(|number| (number.into(), rest)),
    }
}

#[test]
fn statements_become_the_commands_that_the_shell_sends() {
    let text = "// a\ndb.getSiblingDB(\"x\").createUser({\n  user: \"u\",\n  roles: [{role: \"r\", db: \"d\"}]\n})\n\
                db.adminCommand({setParameter: 1, a: true})    // {ok: 1}\n";
    let all = statements(text);
    assert_eq!(all.len(), 2);
    let create = doc! { "createUser": "u", "roles": [{ "role": "r", "db": "d" }] };
    assert_eq!(command(&all[0].code), Some(("x".to_owned(), create)));
    assert_eq!(command(&all[1].code), Some(("admin".to_owned(), doc! { "setParameter": 1, "a": true })));
    assert_eq!(all[1].reply, Some(doc! { "ok": 1 }));
    for unknown in ["db.foo()", "db.adminCommand({a: 1}).b", "db.getSiblingDB(\"x\").foo(\"y\")", "show dbs"] {
        assert_eq!(command(unknown), None, "{unknown}");
    }
}
