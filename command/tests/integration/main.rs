//! The operator's command: what it prints, and with which exit status it ends.

// A server with the plugin, an STS and their clients, as the tests of the shared object have them.
#[path = "../../../tests/support/mod.rs"]
mod support;

mod check_server;
mod check_sts;
mod generated;
mod login;
mod setup;
mod user;
mod whoami;

use std::process::{Command, Output};

use local_sts::Identity;

/// The command with these arguments, and none of the environment's credentials.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_psmdb-aws-iam"));
    command.args(arguments).env_clear().env("HOME", "/nonexistent").env("PATH", "/usr/bin:/bin");
    // The machine of the tests may be an instance with a role.
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    command
}

/// How a run ended, and what it wrote.
struct Ended {
    status: i32,
    stdout: String,
    stderr: String,
}

fn run(command: &mut Command) -> Ended {
    let Output { status, stdout, stderr } = command.output().expect("the command runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ended { status: status.code().expect("an end by itself"), stdout: text(stdout), stderr: text(stderr) }
}

impl Ended {
    /// What it printed, of a run that must have nothing to complain of.
    fn printed(self) -> String {
        assert_eq!((self.status, &*self.stderr), (0, ""), "{}", self.stdout);
        self.stdout
    }

    /// The message on standard error, of a run that ended with this status and printed nothing.
    fn refused(self, status: i32) -> String {
        assert_eq!((self.status, &*self.stdout), (status, ""), "{}", self.stderr);
        assert!(self.stderr.starts_with("psmdb-aws-iam: ") && self.stderr.ends_with('\n'), "{}", self.stderr);
        self.stderr
    }
}

/// Gives a run these credentials in its environment.
fn with_credentials(command: &mut Command, identity: &Identity) {
    command.env("AWS_ACCESS_KEY_ID", &identity.access_key_id);
    command.env("AWS_SECRET_ACCESS_KEY", &identity.secret_access_key);
    if let Some(token) = &identity.session_token {
        command.env("AWS_SESSION_TOKEN", token);
    }
}

/// Asserts that nothing in the text is secret.
fn assert_hides(text: &str, identity: &Identity) {
    assert!(!text.contains(&identity.secret_access_key), "{text}");
    assert!(identity.session_token.as_ref().is_none_or(|token| !text.contains(token)), "{text}");
}
