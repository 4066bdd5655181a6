//! An STS, two principals whose keys it knows, and a file with its CA.

use std::fs;
use std::path::PathBuf;

use local_sts::{Identity, LocalSts};
use tempfile::TempDir;

/// The account of both principals.
pub const ACCOUNT: &str = "123456789012";

/// The name in `$external` of the role that [`TestSts::role`] is a session of.
pub const ROLE_USER_NAME: &str = "arn:aws:iam::123456789012:role/reporting";

pub struct TestSts {
    pub sts: LocalSts,
    /// An IAM user with a path.
    pub user: Identity,
    /// A session of the role `reporting`.
    pub role: Identity,
    /// A folder for the files of the test.
    pub folder: TempDir,
}

impl TestSts {
    /// Starts the STS and writes the file.
    pub fn new() -> Self {
        let user = Identity::iam_user(ACCOUNT, "team/alice");
        let role = Identity::assumed_role(ACCOUNT, "reporting", "i-0123456789abcdef0");
        let sts = LocalSts::builder().identity(user.clone()).identity(role.clone()).start().expect("an STS");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let test = Self { sts, user, role, folder };
        fs::write(test.ca_file(), test.sts.ca_pem()).expect("a file for the CA");
        test
    }

    /// Returns the path of the file with the CA.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }
}
