//! `completions`: prints completion scripts for shells.

use clap::{Args, Command, ValueEnum};
use clap_complete::Shell as Completer;

use crate::output::{CommandResult, NAME, print_bytes};

const HELP: &str = "\
Prints the script to standard output and installs nothing. Packages install it.

Exit status:
  0  printed
  2  wrong usage

Examples:
  psmdb-aws-iam completions bash > /etc/bash_completion.d/psmdb-aws-iam
  psmdb-aws-iam completions zsh > ~/.zfunc/_psmdb-aws-iam
  psmdb-aws-iam completions fish > ~/.config/fish/completions/psmdb-aws-iam.fish";

/// Print a completion script for your shell
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script for this command line.
///
/// # Errors
/// When standard output cannot be written.
pub fn run(arguments: &Completions, mut command: Command) -> CommandResult {
    let shell = match arguments.shell {
        Shell::Bash => Completer::Bash,
        Shell::Zsh => Completer::Zsh,
        Shell::Fish => Completer::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, NAME, &mut script);
    print_bytes(&script)?;
    Ok(true)
}
