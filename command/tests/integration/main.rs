//! The operator's command: its output and its exit status.

// Servers with the plugin, an STS and clients, shared with the tests of the shared object.
#[path = "../../../tests/support/mod.rs"]
mod support;

mod check_server;
mod check_sts;
mod credentials;
mod generated;
mod login;
mod setup;
mod user;
mod whoami;

use std::process::{Command, Output};

use local_sts::Identity;

/// The command with these arguments, and without credentials of the environment.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_psmdb-aws-iam"));
    command.args(arguments).env_clear().env("HOME", "/nonexistent").env("PATH", "/usr/bin:/bin");
    // The tests may run on an instance with a role.
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    command
}

/// The result of a run.
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
    /// The standard output of a run that must succeed without a message.
    fn printed(self) -> String {
        assert_eq!((self.status, &*self.stderr), (0, ""), "{}", self.stdout);
        self.stdout
    }

    /// The message of a run that must end with this status and print nothing.
    fn refused(self, status: i32) -> String {
        assert_eq!((self.status, &*self.stdout), (status, ""), "{}", self.stderr);
        assert!(self.stderr.starts_with("psmdb-aws-iam: ") && self.stderr.ends_with('\n'), "{}", self.stderr);
        self.stderr
    }
}

/// Sets these credentials in the environment of a run.
fn with_credentials(command: &mut Command, identity: &Identity) {
    command.env("AWS_ACCESS_KEY_ID", &identity.access_key_id);
    command.env("AWS_SECRET_ACCESS_KEY", &identity.secret_access_key);
    if let Some(token) = &identity.session_token {
        command.env("AWS_SESSION_TOKEN", token);
    }
}

/// Asserts that the text contains no secret.
fn assert_hides(text: &str, identity: &Identity) {
    assert!(!text.contains(&identity.secret_access_key), "{text}");
    assert!(identity.session_token.as_ref().is_none_or(|token| !text.contains(token)), "{text}");
}
