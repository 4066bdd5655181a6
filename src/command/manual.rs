//! `manual`: the pages for man(1), for packages.

use std::fs;
use std::path::PathBuf;

use clap::{Args, CommandFactory};

use super::{Arguments, Outcome};

/// Write the manual pages into a folder, for packages: psmdb-aws-iam.1 and one for each command
#[derive(Args)]
#[command(hide = true)]
pub struct Manual {
    /// The folder; it is made if it is not there
    folder: PathBuf,
}

/// Writes the pages.
///
/// # Errors
/// When a file cannot be written.
pub fn run(arguments: &Manual) -> Outcome {
    let folder = &arguments.folder;
    let cannot = |error| format!("cannot write to {}: {error}", folder.display());
    fs::create_dir_all(folder).map_err(cannot)?;
    clap_mangen::generate_to(Arguments::command(), folder).map_err(cannot)?;
    Ok(true)
}
