//! The shared object: whether it is whole, and whether the server's user, and nobody else than root, can get at it.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::system::Root;
use crate::output::quoted;
use crate::server_file::{ServerFile, Trouble};

/// Where packages, and the README, put the object.
pub const INSTALLED: &str = "/usr/lib/psmdb-aws-iam/libpsmdb_aws_iam.so";

/// Its file name.
pub const FILE_NAME: &str = "libpsmdb_aws_iam.so";

/// Functions that every version of the object exports.
const EXPORTS: [&str; 3] = ["psmdb_aws_iam_loaded", "psmdb_aws_iam_conversation_new", "psmdb_aws_iam_version"];

/// The shared object.
pub struct Object {
    /// Where it is; `None` when it was not found.
    pub found: Option<PathBuf>,
    /// Whether that is where it belongs.
    pub is_installed: bool,
}

impl Object {
    /// The object that was named, else the installed one, else the one beside the command.
    ///
    /// # Errors
    /// When the one that was named is not there, or one cannot be looked at.
    pub fn find(root: &Root, named: Option<&Path>) -> Result<Self, String> {
        let there = |path: &Path| match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => Ok(true),
            Ok(_) => Err(format!("{} is not a regular file", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(format!("cannot read {}: {error}", path.display())),
        };
        let installed = root.of(Path::new(INSTALLED));
        let beside = || Some(std::env::current_exe().ok()?.parent()?.join(FILE_NAME)).filter(|path| path.is_file());
        let found = match named {
            Some(path) if there(path)? => Some(path.to_owned()),
            Some(path) => return Err(format!("--object: {} is not there", path.display())),
            None if there(&installed)? => Some(installed.clone()),
            None => beside(),
        };
        let same = |found: &PathBuf| found.canonicalize().ok() == installed.canonicalize().ok();
        Ok(Self { is_installed: found.as_ref().is_some_and(same), found })
    }

    /// Why the file cannot be the object; `None` when it is.
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
            Err(Trouble::Unfit(reason)) => {
                Ok(Some(format!("{} is not a usable {FILE_NAME}: {reason}", path.display())))
            }
            Err(Trouble::Unreadable(reason)) => Err(format!("cannot read {}: {reason}", path.display())),
        }
    }

    /// Whether it is of another version than this command.
    pub fn is_of_another_version(&self) -> bool {
        // What the object calls itself when it asks STS.
        const AGENT: &str = concat!("psmdb-aws-iam/", env!("CARGO_PKG_VERSION"));
        let bytes = self.found.as_ref().and_then(|path| fs::read(path).ok());
        bytes.is_some_and(|bytes| !String::from_utf8_lossy(&bytes).contains(AGENT))
    }

    /// Why others than its owner may write a file that is still to be copied.
    pub fn is_writable(&self) -> Option<String> {
        let found = self.found.as_ref().filter(|_| !self.is_installed)?;
        for path in [Some(found.as_path()), found.parent()].into_iter().flatten() {
            let Ok(metadata) = fs::metadata(path) else { continue };
            let mode = metadata.mode();
            // The sticky bit of a folder such as /tmp keeps others from replacing it.
            if mode & 0o022 != 0 && !(metadata.is_dir() && mode & 0o1000 != 0) {
                return Some(format!("{} is writable by others than its owner", path.display()));
            }
        }
        None
    }
}

/// Who owns a file or folder, and who may do what with it.
#[derive(Clone, Debug)]
pub struct Access {
    /// Where it is, as the system knows it.
    path: PathBuf,
    is_folder: bool,
    owner: u32,
    group: u32,
    mode: u32,
}

impl Access {
    /// The object where it belongs, and every folder above it, as far as they are there: those of the path, and those
    /// of the file that a symbolic link stands for.
    ///
    /// # Errors
    /// When one cannot be looked at.
    pub fn to_object(root: &Root) -> Result<Vec<Self>, String> {
        let named = root.of(Path::new(INSTALLED));
        let mut paths: Vec<PathBuf> = named.ancestors().map(Path::to_owned).collect();
        if let Ok(real) = named.canonicalize() {
            paths.extend(real.ancestors().map(Path::to_owned));
        }
        let tops = [root.0.clone(), root.0.canonicalize().unwrap_or_default()];
        // The root folder itself counts where it is the system's.
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
                Err(error) => return Err(format!("cannot look at {}: {error}", there.display())),
            }
        }
        Ok(found)
    }

    /// Whether it is a folder.
    pub fn is_folder(&self) -> bool {
        self.is_folder
    }

    /// Whether the server's user can read the file, or reach what is in the folder.
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
    /// What the unit calls it; empty when no unit says so.
    pub name: String,
    /// `None` when it is not known; then what everybody may do counts.
    pub id: Option<u32>,
    /// The groups that are known.
    pub groups: Vec<u32>,
}

/// What must be changed before the object is safe and readable: what is wrong, and the command that changes it.
pub fn faults(accesses: &[Access], trusted_owner: u32, user: &User) -> Vec<(String, String)> {
    let mut faults = Vec::new();
    for access in accesses {
        let (path, word) = (access.path.display(), quoted(&access.path.display().to_string()));
        if access.owner != trusted_owner {
            faults.push((
                format!(
                    "{path} belongs to the user id {}; it must belong to root, since whoever can replace the object can log \
                     in as anybody",
                    access.owner
                ),
                format!("sudo chown root:root {word}"),
            ));
        }
        if access.mode & 0o022 != 0 {
            faults.push((
                format!(
                    "{path} is writable by others than its owner (mode {:04o}). Whoever can write the object can log in \
                     as anybody",
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
                    "{who} cannot {cannot} {path} (mode {:04o}), and the loader ignores an object that it cannot read",
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
        // An image that an ordinary user unpacked.
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
