//! `check-server`: whether the plugin works in a server, read from its file.

#[allow(unsafe_code, reason = "the bridge to the C++ shim handles raw pointers")]
mod ffi;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use self::ffi::{Check, Report, check};
use crate::output::{Outcome, print};
use crate::server_file::{Kind, ServerFile, Trouble};

const HELP: &str = "\
The file is only read, never run. The checks are the ones that the plugin makes
when it is loaded: each function and table of the server that it uses must be
there, in the form that it knows. If one fails, the plugin does not register, and
a server whose authenticationMechanisms has MONGODB-AWS does not start.

Not checked: the order in which the server passes the parts of a text, which shows
only when it runs, and what the server's machine must have (see README.md).

Exit status:
  0  the plugin works in this server
  1  it does not; the last line, or \"reason\", says why
  2  the file cannot be read, or wrong usage; said on standard error only

JSON:
  {\"file\", \"version\", \"kind\", \"supported\", \"reason\",
   \"checks\": [{\"what\", \"ok\", \"found\"}]}
  version, kind (mongod or mongos) and reason may be null. found is the symbol
  that the server has it by.

Examples:
  psmdb-aws-iam check-server /usr/bin/mongod
  psmdb-aws-iam check-server --json /usr/bin/mongos | jq -r .reason";

/// Say whether the plugin works in a mongod or mongos, without running it
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct CheckServer {
    /// Write one JSON document instead of text
    #[arg(long)]
    json: bool,

    /// The server's program file
    path: PathBuf,
}

/// Checks the file and prints the verdict.
///
/// # Errors
/// When the file cannot be read, or nothing can be printed.
pub fn run(arguments: &CheckServer) -> Outcome {
    let verdict = Verdict::of(&arguments.path)?;
    print(&if arguments.json { format!("{:#}\n", verdict.json()) } else { verdict.text() })?;
    Ok(verdict.supported())
}

/// What is said about a file.
pub struct Verdict {
    file: String,
    kind: Option<Kind>,
    version: Option<String>,
    checks: Vec<Check>,
    /// Why the plugin would not register; `None` when it would.
    reason: Option<String>,
}

impl Verdict {
    /// Checks a file; an error when it cannot be read.
    pub fn of(path: &Path) -> Result<Self, String> {
        let file = path.display().to_string();
        match ServerFile::open(path) {
            Ok(server) => Ok(Self::of_report(file, check(&server), &server)),
            Err(Trouble::Unfit(reason)) => {
                Ok(Self { file, kind: None, version: None, checks: Vec::new(), reason: Some(reason) })
            }
            Err(Trouble::Unreadable(reason)) => Err(format!("cannot read {file}: {reason}")),
        }
    }

    fn of_report(file: String, report: Report, server: &ServerFile) -> Self {
        let reason = reason_of(&report);
        // Other programs, too, have texts that look like a version.
        let (kind, version) = if report.is_server { (server.kind(), server.server_version()) } else { (None, None) };
        Self { file, kind, version, checks: report.checks, reason }
    }

    fn supported(&self) -> bool {
        self.reason.is_none()
    }

    /// Why the plugin would not register; `None` when it would.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Which server it is, as far as that is known.
    pub fn kind(&self) -> Option<Kind> {
        self.kind
    }

    /// The verdict in a line, of a server that is supported.
    pub fn summary(&self) -> String {
        let kind = self.kind.map_or("mongod or mongos", Kind::name);
        let version = self.version.as_deref().unwrap_or("of an unknown version");
        format!("{}, {kind} {version}: psmdb-aws-iam {} works in it.", self.file, env!("CARGO_PKG_VERSION"))
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n", self.file);
        if !self.checks.is_empty() {
            let kind = self.kind.map_or("mongod or mongos", Kind::name);
            let version = self.version.as_deref().unwrap_or("of an unknown version");
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{kind} {version}\n");
            for check in &self.checks {
                let _ = writeln!(text, "  {}  {}", if check.ok { "ok    " } else { "FAILED" }, check.what);
            }
        }
        let plugin = concat!("psmdb-aws-iam ", env!("CARGO_PKG_VERSION"));
        let _ = match &self.reason {
            None => writeln!(text, "\n{plugin} works in this server."),
            Some(reason) if self.checks.is_empty() => {
                writeln!(text, "\n{plugin} does not work in this file: {reason}.")
            }
            Some(reason) => writeln!(text, "\n{plugin} would not register in this server: {reason}."),
        };
        text
    }

    fn json(&self) -> Value {
        let checks = self.checks.iter().map(|check| json!({"what": check.what, "ok": check.ok, "found": check.found}));
        json!({
            "file": self.file,
            "version": self.version,
            "kind": self.kind.map(Kind::name),
            "supported": self.supported(),
            "reason": self.reason,
            "checks": checks.collect::<Vec<_>>(),
        })
    }
}

/// Why the plugin would not register.
fn reason_of(report: &Report) -> Option<String> {
    if report.supported {
        return None;
    }
    if !report.is_server {
        return Some(
            "this is not a mongod or mongos, or it is stripped of its symbols. If it is a server, use the file from \
             its vendor's package"
                .to_owned(),
        );
    }
    let mut different: Vec<&str> = Vec::new();
    for check in report.checks.iter().filter(|check| !check.ok) {
        if !different.contains(&check.what.as_str()) {
            different.push(&check.what);
        }
    }
    // There is always one, unless the shim breaks its promise; then the answer is no all the same.
    let different =
        if different.is_empty() { "something that no check names".to_owned() } else { different.join("; ") };
    Some(format!("it differs in: {different}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(checks: Vec<Check>, supported: bool) -> Verdict {
        let report = Report { is_server: true, supported, checks };
        let reason = reason_of(&report);
        let version = Some("6.0.5".to_owned());
        Verdict { file: "/a/mongod".to_owned(), kind: Some(Kind::Mongod), version, checks: report.checks, reason }
    }

    fn check(what: &str, ok: bool) -> Check {
        Check { what: what.to_owned(), ok, found: if ok { "_Z".to_owned() } else { String::new() } }
    }

    #[test]
    fn the_text_of_a_server_that_fits() {
        let expected = format!(
            "/a/mongod\nmongod 6.0.5\n\n  ok      one\n  ok      two\n\npsmdb-aws-iam {} works in this server.\n",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(verdict(vec![check("one", true), check("two", true)], true).text(), expected);
    }

    #[test]
    fn every_difference_is_named_once() {
        let verdict =
            verdict(vec![check("one", false), check("two", true), check("one", false), check("six", false)], false);
        let text = verdict.text();
        assert!(text.contains("\n  FAILED  one\n  ok      two\n"), "{text}");
        assert!(text.ends_with(" would not register in this server: it differs in: one; six.\n"), "{text}");
        assert_eq!(verdict.json()["reason"], "it differs in: one; six");
        assert_eq!(verdict.json()["checks"][1], json!({"what": "two", "ok": true, "found": "_Z"}));
    }

    #[test]
    fn no_from_the_shim_is_no_whatever_the_checks_say() {
        assert!(!verdict(vec![check("one", true)], false).supported());
        assert!(!verdict(Vec::new(), false).supported());
    }
}
