//! `user`: the user in `$external` for an ARN.

use clap::Args;
use psmdb_aws_iam::mongosh;
use psmdb_aws_iam::principal::{self, Principal, RoleUserFormat};
use serde_json::{Value, json};

use crate::output::{CommandError, CommandResult, print, shown};
use crate::user_name::{Format, kind_name, session_of_role};

const HELP: &str = "\
Accepts the ARN of an IAM user, a role with its path, a session of a role
(assumed-role), a role of Identity Center and its sessions, a federated user, or
the root user. Works offline, so it does not check whether the principal exists.
The user name of a role has no path, and all sessions of a role are one user. The
MongoDB role in the printed command is an example: replace it.

Exit status:
  0  printed
  1  no login can have this ARN; see standard error
  2  wrong usage

JSON:
  {\"user\", \"db\", \"account\", \"partition\", \"kind\", \"createUser\"}
  kind is user, root, role, assumed-role or federated-user. createUser is the
  command for mongosh.

Examples:
  psmdb-aws-iam user arn:aws:iam::123456789012:user/team/alice
  psmdb-aws-iam user --json arn:aws:iam::123456789012:role/a/shop | jq -r .user
  psmdb-aws-iam user \"$(aws sts get-caller-identity --query Arn --output text)\"";

/// Show the user in $external for an ARN, and the command that creates it
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct User {
    /// Write one JSON document instead of text
    #[arg(long)]
    json: bool,

    /// The form of user names of roles: the server's awsIamRoleUserFormat
    #[arg(long, value_enum, default_value_t = Format::IamRole)]
    format: Format,

    /// The ARN
    arn: String,
}

/// Prints the user's name and the command that creates it.
///
/// # Errors
/// A negative result when no login can have the ARN; when standard output cannot be written.
pub fn run(arguments: &User) -> CommandResult {
    let user = ExternalUser::from_arn(&arguments.arn, arguments.format.into()).map_err(CommandError::Negative)?;
    print(&if arguments.json { format!("{:#}\n", user.json()) } else { user.text() })?;
    Ok(true)
}

/// A user of `$external`.
#[derive(Debug, PartialEq, Eq)]
struct ExternalUser {
    name: String,
    account: String,
    partition: String,
    kind: &'static str,
}

impl ExternalUser {
    /// The user for this ARN.
    ///
    /// # Errors
    /// Why no login can have it.
    fn from_arn(arn: &str, roles: RoleUserFormat) -> Result<Self, String> {
        if let Ok(principal) = Principal::parse(arn) {
            let name = principal.user_name(roles);
            let kind = kind_name(&principal.kind);
            return Ok(Self { name, account: principal.account, partition: principal.partition, kind });
        }
        if let Some(session) = session_of_role(arn) {
            let name = session.user_name(roles);
            return Ok(Self { name, account: session.account, partition: session.partition, kind: "role" });
        }
        Err(format!("{}: no login can have this ARN: {}", shown(arn), refusal(arn)))
    }

    fn text(&self) -> String {
        format!("{}\n\n{}\n", self.name, mongosh::create_user(&self.name))
    }

    fn json(&self) -> Value {
        json!({
            "user": self.name,
            "db": "$external",
            "account": self.account,
            "partition": self.partition,
            "kind": self.kind,
            "createUser": mongosh::create_user(&self.name),
        })
    }
}

/// What is wrong with an ARN that the parsers have refused.
fn refusal(arn: &str) -> String {
    const WHO_CAN: &str = "only users, roles and their sessions, federated users and the root user can log in";
    if arn.len() > principal::MAX_ARN_LENGTH {
        return format!("it must have at most {} bytes, and has {}", principal::MAX_ARN_LENGTH, arn.len());
    }
    if !arn.bytes().all(|byte| byte.is_ascii_graphic()) {
        return "it must consist of printable ASCII characters without spaces".to_owned();
    }
    let fields: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", partition, service, region, account, resource] = fields[..] else {
        return "it must have the form arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE; aws sts get-caller-identity shows \
                the ARN of your credentials"
            .to_owned();
    };
    if !matches!(service, "iam" | "sts") {
        return format!("the service must be iam or sts, not {service:?}: {WHO_CAN}");
    }
    if !region.is_empty() {
        return format!("the region must be empty, not {region:?}");
    }
    if !principal::is_account(account) {
        return format!("the account {account:?} must be an account id of 12 digits");
    }
    if Principal::parse(&format!("arn:{partition}:iam::{account}:root")).is_err() {
        return format!("the partition {partition:?} must be one such as aws, aws-cn or aws-us-gov");
    }
    if resource.contains('*') || resource.contains('?') {
        return "it contains a wildcard, which is valid only in policies: give the ARN of one principal".to_owned();
    }
    let (resource_type, name) = resource.split_once('/').unwrap_or((resource, ""));
    match (service, resource_type) {
        ("iam", "group") => "a group cannot log in: create a user for each of its members".to_owned(),
        ("iam", "policy") => format!("a policy is not a principal: {WHO_CAN}"),
        ("iam", "instance-profile") => {
            "an instance profile cannot log in: give the ARN of its role, which aws iam get-instance-profile shows".to_owned()
        }
        ("iam", "assumed-role" | "federated-user") => format!("the service of an ARN of {resource_type} must be sts, not {service}"),
        ("sts", "user" | "role" | "root") => format!("the service of an ARN of {resource_type} must be iam, not {service}"),
        ("iam", "root") => "the ARN of the root user must end with root".to_owned(),
        ("iam", "user" | "role") | ("sts", "federated-user") if name.is_empty() => {
            format!("a name must follow {resource_type}/")
        }
        ("iam", "user" | "role") => {
            "a path must not begin with a slash and must end with one; a name must have 1 to 64 letters, digits or _+=,.@-"
                .to_owned()
        }
        ("sts", "federated-user") => "a name must have 1 to 64 letters, digits or _+=,.@-".to_owned(),
        ("sts", "assumed-role") => {
            "a session must have the form assumed-role/ROLE/SESSION, with names of 1 to 64 letters, digits or _+=,.@-; for \
             a role, give arn:...:iam::ACCOUNT:role/ROLE"
                .to_owned()
        }
        _ => format!("{resource_type:?} cannot log in: {WHO_CAN}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_javascript_would_take_apart_is_quoted() {
        let user =
            ExternalUser::from_arn(r#"arn:aws:iam::123456789012:user/a'b\c/d"#, RoleUserFormat::IamRole).unwrap();
        assert_eq!(user.name, r#"arn:aws:iam::123456789012:user/a'b\c/d"#);
        let line = r"db.getSiblingDB('$external').createUser({user: 'arn:aws:iam::123456789012:user/a\'b\\c/d', roles: [{role: 'readWrite', db: 'test'}]})";
        assert_eq!(user.json()["createUser"], line);
    }

    #[test]
    fn a_message_shows_no_control_characters() {
        let why = ExternalUser::from_arn("arn:\x1b[31m\n", RoleUserFormat::IamRole).unwrap_err();
        assert!(why.starts_with("arn:?[31m?: no login can have this ARN: it must consist of printable ASCII"), "{why}");
    }
}
