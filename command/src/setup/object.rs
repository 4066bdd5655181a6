//! The shared object: whether it is complete, readable by the server's user, and writable only by
//! root.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::system::Root;
use crate::output::quoted;
use crate::server_file::{Error, ServerFile};

/// The path of the object in packages and in the documents.
pub const INSTALLED: &str = "/usr/lib/psmdb-aws-iam/libpsmdb_aws_iam.so";

/// Its file name.
pub const FILE_NAME: &str = "libpsmdb_aws_iam.so";

/// Functions that every version of the object exports.
const EXPORTS: [&str; 3] = ["psmdb_aws_iam_loaded", "psmdb_aws_iam_conversation_new", "psmdb_aws_iam_version"];

/// The shared object.
pub struct Object {
    /// Its path; `None` if it was not found.
    pub found: Option<PathBuf>,
    /// Whether that is the path of packages.
    pub is_installed: bool,
}

impl Object {
    /// The object with the given path, else the installed one, else the one beside the command.
    ///
    /// # Errors
    /// When the given one does not exist, or a path cannot be read.
    pub fn find(root: &Root, named: Option<&Path>) -> Result<Self, String> {
        let exists = |path: &Path| match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => Ok(true),
            Ok(_) => Err(format!("{} is not a regular file", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(format!("cannot read {}: {error}", path.display())),
        };
        let installed = root.resolve(Path::new(INSTALLED));
        let beside = || Some(std::env::current_exe().ok()?.parent()?.join(FILE_NAME)).filter(|path| path.is_file());
        let found = match named {
            Some(path) if exists(path)? => Some(path.to_owned()),
            Some(path) => return Err(format!("--object: {} does not exist", path.display())),
            None if exists(&installed)? => Some(installed.clone()),
            None => beside(),
        };
        let same = |found: &PathBuf| found.canonicalize().ok() == installed.canonicalize().ok();
        Ok(Self { is_installed: found.as_ref().is_some_and(same), found })
    }

    /// Why the file is not a complete object; `None` if it is, or was not found.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn defect(&self) -> Result<Option<String>, String> {
        let Some(path) = &self.found else { return Ok(None) };
        match ServerFile::open_library(path) {
            Ok(file) => {
                let missing = EXPORTS.iter().find(|name| file.export(name.as_bytes()).is_none());
                Ok(missing.map(|name| format!("{} is not {FILE_NAME}: it does not export {name}", path.display())))
            }
            Err(Error::Unsupported(reason)) => {
                Ok(Some(format!("{} is not a usable {FILE_NAME}: {reason}", path.display())))
            }
            Err(Error::Unreadable(reason)) => Err(format!("cannot read {}: {reason}", path.display())),
        }
    }

    /// Whether its version differs from this command's.
    pub fn has_another_version(&self) -> bool {
        // The object's name in its requests to STS.
        const AGENT: &str = concat!("psmdb-aws-iam/", env!("CARGO_PKG_VERSION"));
        let bytes = self.found.as_ref().and_then(|path| fs::read(path).ok());
        bytes.is_some_and(|bytes| !String::from_utf8_lossy(&bytes).contains(AGENT))
    }

    /// Why users other than the owner can write an object that is not installed yet; `None` if they
    /// cannot.
    pub fn write_risk(&self) -> Option<String> {
        let found = self.found.as_ref().filter(|_| !self.is_installed)?;
        for path in [Some(found.as_path()), found.parent()].into_iter().flatten() {
            let Ok(metadata) = fs::metadata(path) else { continue };
            let mode = metadata.mode();
            // The sticky bit of a folder such as /tmp prevents others from replacing the file.
            if mode & 0o022 != 0 && !(metadata.is_dir() && mode & 0o1000 != 0) {
                return Some(format!("{} is writable by users other than its owner", path.display()));
            }
        }
        None
    }
}

/// The owner and the permissions of a file or folder.
#[derive(Clone, Debug)]
pub struct Access {
    /// Its path on the system.
    path: PathBuf,
    is_folder: bool,
    owner: u32,
    group: u32,
    mode: u32,
}

impl Access {
    /// The installed object and every folder above it, if they exist: those of its path, and those
    /// of the target of a symbolic link.
    ///
    /// # Errors
    /// When the permissions of one cannot be read.
    pub fn to_object(root: &Root) -> Result<Vec<Self>, String> {
        let named = root.resolve(Path::new(INSTALLED));
        let mut paths: Vec<PathBuf> = named.ancestors().map(Path::to_owned).collect();
        if let Ok(real) = named.canonicalize() {
            paths.extend(real.ancestors().map(Path::to_owned));
        }
        let tops = [root.0.clone(), root.0.canonicalize().unwrap_or_default()];
        // The root folder itself counts only on this system.
        paths.retain(|path| root.is_system() || tops.iter().any(|top| path.starts_with(top) && path != top));
        paths.retain(|path| !path.as_os_str().is_empty());
        paths.sort();
        paths.dedup();
        let mut found: Vec<Self> = Vec::new();
        for there in paths {
            let inside = tops.iter().find_map(|top| there.strip_prefix(top).ok());
            let path = inside.map_or_else(|| there.clone(), |inside| Path::new("/").join(inside));
            match fs::metadata(&there) {
                // A root folder may have two names.
                Ok(_) if found.iter().any(|known| known.path == path) => {}
                Ok(metadata) => found.push(Self {
                    path,
                    is_folder: metadata.is_dir(),
                    owner: metadata.uid(),
                    group: metadata.gid(),
                    mode: metadata.mode() & 0o7777,
                }),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(format!("cannot read the permissions of {}: {error}", there.display())),
            }
        }
        Ok(found)
    }

    /// Whether it is a folder.
    pub fn is_folder(&self) -> bool {
        self.is_folder
    }

    /// Whether the server's user can read the file, or enter the folder.
    fn admits(&self, user: &User) -> bool {
        if user.id == Some(0) {
            return true;
        }
        let shift = if user.id == Some(self.owner) {
            6
        } else if user.groups.contains(&self.group) {
            3
        } else {
            0
        };
        let wanted = if self.is_folder { 0o1 } else { 0o4 };
        self.mode >> shift & wanted != 0
    }
}

/// The user that runs the server.
#[derive(Debug, Default)]
pub struct User {
    /// Its name in the unit; empty without a unit.
    pub name: String,
    /// `None` if unknown; then only the permissions of all users count.
    pub id: Option<u32>,
    /// Its known groups.
    pub groups: Vec<u32>,
}

/// What makes the object unsafe or unreadable: each problem, with the command that fixes it.
pub fn faults(accesses: &[Access], trusted_owner: u32, user: &User) -> Vec<(String, String)> {
    let mut faults = Vec::new();
    for access in accesses {
        let (path, word) = (access.path.display(), quoted(&access.path.display().to_string()));
        if access.owner != trusted_owner {
            faults.push((
                format!(
                    "{path} is owned by the user id {} and must be owned by root: users who can replace the object can log \
                     in as any user",
                    access.owner
                ),
                format!("sudo chown root:root {word}"),
            ));
        }
        if access.mode & 0o022 != 0 {
            faults.push((
                format!(
                    "{path} is writable by users other than its owner (mode {:04o}): users who can write the object can \
                     log in as any user",
                    access.mode
                ),
                format!("sudo chmod go-w {word}"),
            ));
        }
        if !access.admits(user) {
            let who = if user.name.is_empty() {
                "the server's user".to_owned()
            } else {
                format!("the server's user {}", user.name)
            };
            let (cannot, allow) = if access.is_folder { ("enter", "a+x") } else { ("read", "a+r") };
            faults.push((
                format!(
                    "{who} cannot {cannot} {path} (mode {:04o}), and the loader ignores an unreadable object",
                    access.mode
                ),
                format!("sudo chmod {allow} {word}"),
            ));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(path: &str, owner: u32, group: u32, mode: u32) -> Access {
        Access { path: path.into(), is_folder: !path.ends_with(".so"), owner, group, mode }
    }

    #[test]
    fn owners_and_modes_are_judged_for_the_server_s_user() {
        let user = |id, groups: &[u32]| User { name: "mongod".to_owned(), id, groups: groups.to_vec() };
        let mongod = user(Some(999), &[998]);
        let commands = |accesses: &[Access], owner, user: &User| -> Vec<String> {
            faults(accesses, owner, user).into_iter().map(|(_, command)| command).collect()
        };
        let good = [access("/usr", 0, 0, 0o755), access("/usr/x.so", 0, 0, 0o755)];
        assert!(commands(&good, 0, &mongod).is_empty());
        // An image unpacked by an ordinary user.
        assert_eq!(commands(&good, 1000, &mongod), ["sudo chown root:root /usr", "sudo chown root:root /usr/x.so"]);
        for (name, access, user, expected) in [
            ("another owner", access("/x.so", 1000, 0, 0o755), &mongod, &["sudo chown root:root /x.so"][..]),
            ("the server's own", access("/x.so", 999, 0, 0o700), &mongod, &["sudo chown root:root /x.so"]),
            ("writable by the group", access("/x.so", 0, 0, 0o775), &mongod, &["sudo chmod go-w /x.so"]),
            ("writable by all", access("/a b", 0, 0, 0o757), &mongod, &["sudo chmod go-w '/a b'"]),
            ("sticky", access("/tmp", 0, 0, 0o1777), &mongod, &["sudo chmod go-w /tmp"]),
            ("private", access("/x.so", 0, 0, 0o600), &mongod, &["sudo chmod a+r /x.so"]),
            ("a private folder", access("/x", 0, 0, 0o700), &mongod, &["sudo chmod a+x /x"]),
            ("listed, not entered", access("/x", 0, 0, 0o744), &mongod, &["sudo chmod a+x /x"]),
            ("of its group", access("/x.so", 0, 998, 0o640), &mongod, &[]),
            ("not for its group", access("/x.so", 0, 998, 0o604), &mongod, &["sudo chmod a+r /x.so"]),
            ("a user of unknown id", access("/x.so", 0, 998, 0o640), &user(None, &[]), &["sudo chmod a+r /x.so"]),
            ("root", access("/x.so", 0, 0, 0o600), &user(Some(0), &[]), &[]),
        ] {
            assert_eq!(commands(&[access], 0, user), expected, "{name}");
        }
    }
}
