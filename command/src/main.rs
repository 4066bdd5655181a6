//! The operator's command `psmdb-aws-iam`: one file per subcommand.
//!
//! It shares with the shared object the parsers, user names and parameter messages, which are the
//! library's, and the C++ shim's table of what the plugin needs in a server. Everything else is
//! here, and not in the shared object.
#![deny(unsafe_code)]

mod check_server;
mod check_sts;
mod completions;
mod credentials;
mod login;
mod manual;
mod output;
mod route;
mod server_file;
mod settings;
mod setup;
mod signing;
mod steps;
mod user;
mod user_name;
mod whoami;
mod wire;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use self::output::NAME;

const HELP: &str = "\
Exit status of every command:
  0  yes, or done
  1  no
  2  the command could not do its task, or wrong usage; see standard error

psmdb-aws-iam COMMAND --help has details and examples.";

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

fn main() -> ExitCode {
    output::exit_code(match Arguments::parse().command {
        Command::CheckServer(arguments) => check_server::run(&arguments),
        Command::CheckSts(arguments) => check_sts::run(&arguments),
        Command::User(arguments) => user::run(&arguments),
        Command::WhoAmI(arguments) => whoami::run(&arguments),
        Command::Login(arguments) => login::run(&arguments),
        Command::Setup(arguments) => setup::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments, Arguments::command()),
        Command::Manual(arguments) => manual::run(&arguments, Arguments::command()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
