//! The command's two outputs, its exit status, and texts that are safe to print.

use std::io::{self, Write as _};
use std::process::ExitCode;

/// The command's name, as it is installed.
pub const NAME: &str = "psmdb-aws-iam";

/// The exit status of a command that could not do its task. Wrong usage has the same.
const FAILED: u8 = 2;

/// The end of a command: whether the printed result is positive, or why nothing was printed.
pub type CommandResult = Result<bool, CommandError>;

/// Why a command printed no result. The text goes to standard error.
#[derive(Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The result is negative.
    Negative(String),
    /// The command could not do its task.
    Failed(String),
}

impl From<String> for CommandError {
    fn from(message: String) -> Self {
        Self::Failed(message)
    }
}

/// The exit status of a command, after its message, if any, is written to standard error.
pub fn exit_code(result: CommandResult) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(CommandError::Negative(message)) => {
            warn(&message);
            ExitCode::FAILURE
        }
        Err(CommandError::Failed(message)) => {
            warn(&message);
            ExitCode::from(FAILED)
        }
    }
}

/// Writes to standard output. A reader that closes the pipe early is not a failure.
pub fn print(text: &str) -> Result<(), String> {
    print_bytes(text.as_bytes())
}

/// Writes to standard output what need not be text.
pub fn print_bytes(bytes: &[u8]) -> Result<(), String> {
    match io::stdout().lock().write_all(bytes) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("cannot write to standard output: {error}"))
        }
        _ => Ok(()),
    }
}

/// Writes a line to standard error.
pub fn warn(message: &str) {
    // A failure here cannot be reported anywhere.
    let _ = writeln!(io::stderr(), "{NAME}: {message}");
}

/// Text from an untrusted source, for a message: shortened, without control characters, which a
/// terminal would act on.
pub fn shown(text: &str) -> String {
    const MAX_LENGTH: usize = 300;
    let plain = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    let shown: String = text.chars().take(MAX_LENGTH).map(plain).collect();
    if text.chars().nth(MAX_LENGTH).is_some() { format!("{shown}...") } else { shown }
}

/// The text as one word for a shell.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
