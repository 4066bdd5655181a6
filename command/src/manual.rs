//! `manual`: writes the manual pages of packages.

use std::fs;
use std::io;
use std::path::PathBuf;

use clap::{Args, Command};
use clap_mangen::Man;

use crate::output::CommandResult;

/// Write the manual pages into a folder: psmdb-aws-iam.1 and one for each command
#[derive(Args)]
#[command(hide = true)]
pub struct Manual {
    /// The folder; created if it does not exist
    folder: PathBuf,
}

/// Writes the pages of this command line.
///
/// # Errors
/// When a file cannot be written.
pub fn run(arguments: &Manual, command: Command) -> CommandResult {
    let folder = &arguments.folder;
    let cannot = |error| format!("cannot write to {}: {error}", folder.display());
    fs::create_dir_all(folder).map_err(cannot)?;
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let subcommands = command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set());
    for command in std::iter::once(&command).chain(subcommands) {
        let page = Man::new(command.clone());
        fs::write(folder.join(page.get_filename()), text(&page).map_err(cannot)?).map_err(cannot)?;
    }
    Ok(true)
}

/// The page, with the text that --help has after the options as preformatted notes.
fn text(page: &Man) -> io::Result<String> {
    let mut text = Vec::new();
    page.render(&mut text)?;
    let text = String::from_utf8(text).map_err(io::Error::other)?;
    let Some((before, notes)) = text.split_once(".SH EXTRA\n") else { return Ok(text) };
    let (notes, after) = notes.split_at(notes.find(".SH ").unwrap_or(notes.len()));
    Ok(format!("{before}.SH NOTES\n.nf\n{}\n.fi\n{after}", notes.trim_end()))
}
