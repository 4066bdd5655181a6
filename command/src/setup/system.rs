//! The system to look at, in a folder that replaces `/`, and the reading of its text files.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The folder that replaces `/`.
#[derive(Clone)]
pub struct Root(pub PathBuf);

impl Root {
    /// Whether it is `/` itself.
    pub fn is_system(&self) -> bool {
        self.0.canonicalize().is_ok_and(|root| root == Path::new("/"))
    }

    /// The user id that replaces root's.
    pub fn owner(&self) -> u32 {
        if self.is_system() { 0 } else { fs::metadata(&self.0).map_or(0, |metadata| metadata.uid()) }
    }

    /// The location of a path of the system.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The server in the folders of PATH.
    pub fn in_path(&self, path: &str) -> Option<PathBuf> {
        let folders =
            || path.split(':').filter(|folder| !folder.is_empty()).map(|folder| self.resolve(Path::new(folder)));
        ["mongod", "mongos"]
            .iter()
            .find_map(|name| folders().map(|folder| folder.join(name)).find(|file| file.is_file()))
    }
}

/// Reads a text file of the system, which may be an image from anyone. Returns `None` when the file
/// does not exist.
///
/// # Errors
/// When it cannot be read, or is not a text file of at most 1 MiB.
pub fn read(path: &Path) -> Result<Option<String>, String> {
    const MAX_LENGTH: u64 = 1024 * 1024;
    let cannot = |why: &dyn std::fmt::Display| format!("cannot read {}: {why}", path.display());
    // Opening a FIFO could otherwise block without end.
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|error| cannot(&error))?,
    };
    if !file.metadata().map_err(|error| cannot(&error))?.is_file() {
        return Err(cannot(&"it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_LENGTH + 1).read_to_end(&mut bytes).map_err(|error| cannot(&error))?;
    if bytes.len() as u64 > MAX_LENGTH {
        return Err(cannot(&"it has more than 1 MiB"));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| cannot(&"it is not UTF-8"))
}

/// The text without characters that a terminal would act on.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_system_are_read_with_care() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("unit");
        fs::write(&file, "a\tb\n\x1b[2Jc").unwrap();
        assert_eq!(read(&file).unwrap().as_deref().map(plain).as_deref(), Some("a\tb\n?[2Jc"));
        assert_eq!(read(&folder.path().join("missing")), Ok(None));
        let why = |path: &Path| read(path).unwrap_err();
        fs::write(&file, vec![b'a'; 1024 * 1024 + 1]).unwrap();
        assert!(why(&file).ends_with("it has more than 1 MiB"), "{}", why(&file));
        fs::write(&file, b"\xff").unwrap();
        assert!(why(&file).ends_with("it is not UTF-8"), "{}", why(&file));
        assert!(why(folder.path()).ends_with("it is not a regular file"), "a folder");
        assert!(why(Path::new("/dev/zero")).ends_with("it is not a regular file"), "a device");
        let fifo = folder.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        assert!(why(&fifo).ends_with("it is not a regular file"), "a FIFO");
    }
}
