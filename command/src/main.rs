//! The operator's command `psmdb-aws-iam`: the subcommands, one file each, and what they share: the command line, the
//! exit status, the two outputs.
//!
//! It shares with the shared object what both must decide alike: the grammars, the names of users and the words of the
//! parameters, which are the library's, and the C++ shim's table of what the plugin needs in a server. What the command
//! alone needs is here, and nothing of it is in the shared object.
#![deny(unsafe_code)]

mod check_server;
mod check_sts;
mod completions;
mod credentials;
mod login;
mod manual;
mod metadata;
mod route;
mod server_file;
mod settings;
mod setup;
mod signing;
mod steps;
mod user;
mod whoami;
mod wire;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use psmdb_aws_iam::principal::RoleUserFormat;

/// The command's name, as it is installed.
const NAME: &str = "psmdb-aws-iam";

/// The exit status when something cannot be done, as that of wrong usage.
const CANNOT: u8 = 2;

const HELP: &str = "\
Exit status of every command:
  0  yes, or done
  1  the answer is no
  2  it cannot be done, or wrong usage; said on standard error

psmdb-aws-iam COMMAND --help says more, with examples.";

/// Tools for operators of psmdb-aws-iam, the plugin for MONGODB-AWS logins
#[derive(Parser)]
#[command(name = NAME, version, arg_required_else_help = true, after_help = HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    CheckServer(check_server::CheckServer),
    CheckSts(check_sts::CheckSts),
    User(user::User),
    #[command(name = "whoami")]
    WhoAmI(whoami::WhoAmI),
    Login(login::Login),
    Setup(setup::Setup),
    Completions(completions::Completions),
    Manual(manual::Manual),
}

/// How a command ended: whether the answer was yes, in what it printed, or why there was no yes to print.
type Outcome = Result<bool, Failure>;

/// Why a command printed no answer. The text goes to standard error.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    /// The answer is no.
    No(String),
    /// It cannot be done.
    Cannot(String),
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::Cannot(message)
    }
}

/// The server's awsIamRoleUserFormat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// arn:...:iam::ACCOUNT:role/ROLE, the server's default
    #[value(name = "iamRole")]
    IamRole,
    /// arn:...:sts::ACCOUNT:assumed-role/ROLE/*
    #[value(name = "assumedRole")]
    AssumedRole,
}

impl Format {
    /// The value's name.
    fn name(self) -> &'static str {
        match self {
            Self::IamRole => "iamRole",
            Self::AssumedRole => "assumedRole",
        }
    }
}

impl From<Format> for RoleUserFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::IamRole => Self::IamRole,
            Format::AssumedRole => Self::AssumedRole,
        }
    }
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::CheckServer(arguments) => check_server::run(&arguments),
        Command::CheckSts(arguments) => check_sts::run(&arguments),
        Command::User(arguments) => user::run(&arguments),
        Command::WhoAmI(arguments) => whoami::run(&arguments),
        Command::Login(arguments) => login::run(&arguments),
        Command::Setup(arguments) => setup::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Manual(arguments) => manual::run(&arguments),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Failure::No(message)) => {
            warn(&message);
            ExitCode::FAILURE
        }
        Err(Failure::Cannot(message)) => {
            warn(&message);
            ExitCode::from(CANNOT)
        }
    }
}

/// A text from elsewhere for a message: short, and without what a terminal would take for a command.
fn shown(text: &str) -> String {
    const LONGEST: usize = 300;
    let plain = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    let shown: String = text.chars().take(LONGEST).map(plain).collect();
    if text.chars().nth(LONGEST).is_some() { format!("{shown}...") } else { shown }
}

/// A word that a shell takes as it is.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Writes to standard output. A reader that has seen enough is no failure.
fn print(text: &str) -> Result<(), String> {
    print_bytes(text.as_bytes())
}

fn print_bytes(bytes: &[u8]) -> Result<(), String> {
    match io::stdout().lock().write_all(bytes) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("cannot write to standard output: {error}"))
        }
        _ => Ok(()),
    }
}

/// Writes a line to standard error.
fn warn(message: &str) {
    // Nobody is left to tell when this fails, too.
    let _ = writeln!(io::stderr(), "{NAME}: {message}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn any_text_is_one_word_for_a_shell() {
        for (text, word) in [
            ("", "''"),
            ("/opt/a-b_c.d/x.so", "/opt/a-b_c.d/x.so"),
            ("/opt/a b", "'/opt/a b'"),
            ("/tmp/x;reboot", "'/tmp/x;reboot'"),
            ("/tmp/it's $(reboot)", "'/tmp/it'\\''s $(reboot)'"),
        ] {
            assert_eq!(quoted(text), word);
        }
    }
}
