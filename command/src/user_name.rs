//! User names of `$external`, in both formats, and the roles that they are made of.

use clap::ValueEnum;
use psmdb_aws_iam::principal::{Kind, RoleUserFormat};

/// The server's awsIamRoleUserFormat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// arn:...:iam::ACCOUNT:role/ROLE, the server's default
    #[value(name = "iamRole")]
    IamRole,
    /// arn:...:sts::ACCOUNT:assumed-role/ROLE/*
    #[value(name = "assumedRole")]
    AssumedRole,
}

impl Format {
    /// The value's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::IamRole => "iamRole",
            Self::AssumedRole => "assumedRole",
        }
    }
}

impl From<Format> for RoleUserFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::IamRole => Self::IamRole,
            Format::AssumedRole => Self::AssumedRole,
        }
    }
}

/// The name of a kind of principal in JSON, as in its ARN.
pub fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::User { .. } => "user",
        Kind::Root => "root",
        Kind::AssumedRole { .. } => "assumed-role",
        Kind::FederatedUser { .. } => "federated-user",
    }
}
