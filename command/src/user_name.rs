//! User names in `$external`: their formats, and the ARNs of roles.

use clap::ValueEnum;
use psmdb_aws_iam::principal::{Kind, Principal, RoleUserFormat};

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

/// A session of the role with this ARN. IAM shows a role with its path, STS returns its sessions
/// without it, so no login has such an ARN.
///
/// ```text
/// role = %s"arn:" partition %s":iam::" account %s":role/" [path "/"] name  ; at most 2048 bytes
/// ```
///
/// The other rules are those of [`Principal::parse`]. Returns `None` for every other text.
/// Source: AWS, "CreateRole",
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateRole.html>.
pub fn session_of_role(arn: &str) -> Option<Principal> {
    let fields: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", partition, "iam", "", account, resource] = fields[..] else { return None };
    let path_and_name = resource.strip_prefix("role/")?;
    // The rules for a role's path and name are those for a user's.
    let user = Principal::parse(&format!("arn:{partition}:iam::{account}:user/{path_and_name}")).ok()?;
    let role = path_and_name.rsplit('/').next()?.to_owned();
    Some(Principal { kind: Kind::AssumedRole { role, session: "any".to_owned() }, ..user })
}

#[cfg(test)]
mod tests {
    use psmdb_aws_iam::principal::MAX_ARN_LENGTH;

    use super::*;

    #[test]
    fn a_role_is_the_user_that_its_sessions_log_in_as() {
        for (arn, session) in [
            ("arn:aws:iam::123456789012:role/app", "arn:aws:sts::123456789012:assumed-role/app/s"),
            ("arn:aws:iam::123456789012:role/a/b:c*/app", "arn:aws:sts::123456789012:assumed-role/app/s"),
            ("arn:aws:iam::123456789012:role/a:role/app", "arn:aws:sts::123456789012:assumed-role/app/s"),
            (
                "arn:aws-cn:iam::123456789012:role/aws-reserved/sso.amazonaws.com/AWSReservedSSO_Admin_0123456789abcdef",
                "arn:aws-cn:sts::123456789012:assumed-role/AWSReservedSSO_Admin_0123456789abcdef/s",
            ),
        ] {
            assert!(Principal::parse(arn).is_err(), "STS never returns {arn}");
            let role = session_of_role(arn).unwrap();
            let session = Principal::parse(session).unwrap();
            for roles in [RoleUserFormat::IamRole, RoleUserFormat::AssumedRole] {
                assert_eq!(role.user_name(roles), session.user_name(roles));
            }
        }
        for arn in [
            "arn:aws:iam::123456789012:role",
            "arn:aws:iam::123456789012:role/",
            "arn:aws:iam::123456789012:role//app",
            "arn:aws:iam::123456789012:role/path/",
            "arn:aws:iam::123456789012:role/*",
            "arn:aws:iam::123456789012:user/app",
            "arn:aws:iam::123456789012:user/x:role/app",
            "arn:aws:iam:eu-west-1:123456789012:role/app",
            "arn:aws:sts::123456789012:role/app",
            "arn:aws:iam::12345678901:role/app",
            "arn:awsx:iam::123456789012:role/app",
            "arn:aws:iam::123456789012:role/a pp",
            "arn:aws:iam::123456789012:role/app\n",
        ] {
            assert_eq!(session_of_role(arn), None, "{arn:?}");
        }
    }

    #[test]
    fn the_limits_of_a_role_s_arn_are_exact() {
        let named = |length: usize| session_of_role(&format!("arn:aws:iam::123456789012:role/{}", "n".repeat(length)));
        assert!(named(64).is_some() && named(65).is_none());
        let long = |length: usize| {
            let arn = format!("arn:aws:iam::123456789012:role/{}/n", "p".repeat(length - 33));
            assert_eq!(arn.len(), length);
            session_of_role(&arn)
        };
        assert!(long(MAX_ARN_LENGTH).is_some() && long(MAX_ARN_LENGTH + 1).is_none());
    }
}
