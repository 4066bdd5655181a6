//! `check-server`: checks whether the plugin supports a server, from its file.

#[allow(unsafe_code, reason = "the bridge to the C++ shim handles raw pointers")]
mod ffi;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use self::ffi::{Check, Report, check};
use crate::output::{CommandResult, print};
use crate::server_file::{self, ServerFile, ServerKind};

const HELP: &str = "\
The file is only read, not run. The checks are those that the plugin makes when it
is loaded: each function and table of the server that it uses must exist, in a
known form. If one fails, the plugin does not register, and a server whose
authenticationMechanisms lists MONGODB-AWS does not start.

Not checked: the registers in which the server passes strings, which only a
running server shows, and the requirements on the machine (see docs/install.md).

Exit status:
  0  the plugin supports this server
  1  it does not; the first line, or \"reason\", says why
  2  the file cannot be read, or wrong usage; see standard error

JSON:
  {\"file\", \"version\", \"kind\", \"supported\", \"reason\",
   \"checks\": [{\"what\", \"ok\", \"found\"}]}
  version, kind (mongod or mongos) and reason may be null. found is the symbol
  that the check found.

Examples:
  psmdb-aws-iam check-server /usr/bin/mongod
  psmdb-aws-iam check-server --json /usr/bin/mongos | jq -r .reason";

/// Check whether the plugin supports a mongod or mongos, without running it
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct CheckServer {
    /// Write one JSON document instead of text
    #[arg(long)]
    json: bool,

    /// List every check, even if none fails
    #[arg(long)]
    verbose: bool,

    /// The server's program file
    path: PathBuf,
}

/// Checks the file and prints the verdict.
///
/// # Errors
/// When the file cannot be read, or standard output cannot be written.
pub fn run(arguments: &CheckServer) -> CommandResult {
    let verdict = Verdict::read(&arguments.path)?;
    print(&if arguments.json { format!("{:#}\n", verdict.json()) } else { verdict.text(arguments.verbose) })?;
    Ok(verdict.supported())
}

/// The result for a file.
pub struct Verdict {
    file: String,
    kind: Option<ServerKind>,
    version: Option<String>,
    checks: Vec<Check>,
    /// Why the plugin would not register; `None` when it would.
    reason: Option<String>,
}

impl Verdict {
    /// Checks a file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(path: &Path) -> Result<Self, String> {
        let file = path.display().to_string();
        match ServerFile::open(path) {
            Ok(server) => Ok(Self::from_report(file, check(&server), &server)),
            Err(server_file::Error::Unsupported(reason)) => {
                Ok(Self { file, kind: None, version: None, checks: Vec::new(), reason: Some(reason) })
            }
            Err(server_file::Error::Unreadable(reason)) => Err(format!("cannot read {file}: {reason}")),
        }
    }

    fn from_report(file: String, report: Report, server: &ServerFile) -> Self {
        let reason = reason_of(&report);
        // Other programs may also contain text that looks like a version.
        let (kind, version) = if report.is_server { (server.kind(), server.server_version()) } else { (None, None) };
        Self { file, kind, version, checks: report.checks, reason }
    }

    /// Whether the plugin would register.
    pub fn supported(&self) -> bool {
        self.reason.is_none()
    }

    /// Which server it is, if that is known.
    pub fn kind(&self) -> Option<ServerKind> {
        self.kind
    }

    /// The verdict as a sentence.
    pub fn summary(&self) -> String {
        let plugin = concat!("psmdb-aws-iam ", env!("CARGO_PKG_VERSION"));
        let mut server = self.file.clone();
        if !self.checks.is_empty() {
            let kind = self.kind.map_or("mongod or mongos", ServerKind::name);
            let version = self.version.as_deref().unwrap_or("of unknown version");
            server = format!("{server} ({kind} {version})");
        }
        match &self.reason {
            None => format!("{plugin} supports {server}."),
            Some(reason) => format!("{plugin} does not support {server}: {reason}."),
        }
    }

    /// The verdict; and the checks, if one has failed or if they are wanted.
    fn text(&self, verbose: bool) -> String {
        let mut text = format!("{}\n", self.summary());
        if verbose || self.checks.iter().any(|check| !check.ok) {
            for (index, check) in self.checks.iter().enumerate() {
                let gap = if index == 0 { "\n" } else { "" };
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{gap}  {}  {}", if check.ok { "ok    " } else { "FAILED" }, check.what);
            }
        }
        text
    }

    fn json(&self) -> Value {
        let checks = self.checks.iter().map(|check| json!({"what": check.what, "ok": check.ok, "found": check.found}));
        json!({
            "file": self.file,
            "version": self.version,
            "kind": self.kind.map(ServerKind::name),
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
    // The shim reports at least one failed check; if it did not, the verdict would be the same.
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
        Verdict { file: "/a/mongod".to_owned(), kind: Some(ServerKind::Mongod), version, checks: report.checks, reason }
    }

    fn check(what: &str, ok: bool) -> Check {
        Check { what: what.to_owned(), ok, found: if ok { "_Z".to_owned() } else { String::new() } }
    }

    #[test]
    fn the_checks_of_a_supported_server_are_listed_on_request() {
        let verdict = verdict(vec![check("one", true), check("two", true)], true);
        let summary = format!("psmdb-aws-iam {} supports /a/mongod (mongod 6.0.5).\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(verdict.text(false), summary);
        assert_eq!(verdict.text(true), format!("{summary}\n  ok      one\n  ok      two\n"));
    }

    #[test]
    fn every_difference_is_named_once() {
        let verdict =
            verdict(vec![check("one", false), check("two", true), check("one", false), check("six", false)], false);
        let expected = format!(
            "psmdb-aws-iam {} does not support /a/mongod (mongod 6.0.5): it differs in: one; six.\n\n  FAILED  one\n  \
             ok      two\n  FAILED  one\n  FAILED  six\n",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(verdict.text(false), expected);
        assert_eq!(verdict.text(true), expected);
        assert_eq!(verdict.json()["reason"], "it differs in: one; six");
        assert_eq!(verdict.json()["checks"][1], json!({"what": "two", "ok": true, "found": "_Z"}));
    }

    #[test]
    fn a_negative_result_of_the_shim_counts_whatever_the_checks_say() {
        assert!(!verdict(vec![check("one", true)], false).supported());
        assert!(!verdict(Vec::new(), false).supported());
    }
}
