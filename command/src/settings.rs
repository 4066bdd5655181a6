//! Options that are parameters of the plugin, with its checks and its messages.

use std::path::{Path, PathBuf, absolute};
use std::sync::Arc;

use psmdb_aws_iam::parameters;
use psmdb_aws_iam::settings::{Settings, Store};

/// The settings with these options: each has its name here, the parameter's name, and its value if
/// it was given.
///
/// # Errors
/// The plugin's message about a value, after the option's name.
pub fn settings(options: &[(&str, &str, Option<String>)]) -> Result<Arc<Settings>, String> {
    let store = Store::default();
    for (option, name, value) in options {
        let Some(value) = value else { continue };
        let parameter = parameters::find(name).ok_or_else(|| format!("{option}: the plugin has no {name}"))?;
        store.set_text(parameter, value).map_err(|why| {
            let why = why.strip_prefix(name).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&why);
            format!("{option}: {why}")
        })?;
    }
    Ok(store.current())
}

/// The value for a parameter that is a path. The plugin requires an absolute one, since a server
/// may run in any folder.
///
/// # Errors
/// When it is not UTF-8.
pub fn path_value(option: &str, path: Option<&PathBuf>) -> Result<Option<String>, String> {
    let Some(path) = path else { return Ok(None) };
    let text = |path: &Path| path.to_str().map(str::to_owned);
    match absolute(path).ok().and_then(|path| text(&path)) {
        Some(text) => Ok(Some(text)),
        None => Err(format!("{option}: {} must be a path in UTF-8", path.display())),
    }
}
