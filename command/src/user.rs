//! `user`: which user of `$external` an ARN logs in as.

use clap::Args;
use psmdb_aws_iam::mongosh;
use psmdb_aws_iam::principal::{self, Principal, RoleUserFormat};
use serde_json::{Value, json};

use crate::output::{Failure, Outcome, print, shown};
use crate::user_name::{Format, kind_name, session_of_role};

const HELP: &str = "\
The ARN may be any that AWS shows of a principal: an IAM user, a role with its
path, a session of a role (assumed-role), a role of Identity Center and its
sessions, a federated user, or the root user. Nothing is asked of AWS: whether
there is such a principal is not known. Roles lose their path, and all sessions
of a role are one user. The role in the printed line is an example: replace it.

Exit status:
  0  printed
  1  no login can have this ARN; the reason is on standard error
  2  wrong usage

JSON:
  {\"user\", \"db\", \"account\", \"partition\", \"kind\", \"createUser\"}
  kind is user, root, role, assumed-role or federated-user. createUser is the
  line for mongosh.

Examples:
  psmdb-aws-iam user arn:aws:iam::123456789012:user/team/alice
  psmdb-aws-iam user --json arn:aws:iam::123456789012:role/a/shop | jq -r .user
  psmdb-aws-iam user \"$(aws sts get-caller-identity --query Arn --output text)\"";

/// Say which user to create in $external for a user or role of AWS
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct User {
    /// Write one JSON document instead of text
    #[arg(long)]
    json: bool,

    /// How the server names the users that roles log in as: its awsIamRoleUserFormat
    #[arg(long, value_enum, default_value_t = Format::IamRole)]
    format: Format,

    /// The ARN
    arn: String,
}

/// Prints the user's name and how to create it.
///
/// # Errors
/// A no when no login can have the ARN; when nothing can be printed.
pub fn run(arguments: &User) -> Outcome {
    let user = ExternalUser::of(&arguments.arn, arguments.format.into()).map_err(Failure::No)?;
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
    /// Whom this ARN logs in as; an error says why nobody does.
    fn of(arn: &str, roles: RoleUserFormat) -> Result<Self, String> {
        if let Ok(principal) = Principal::parse(arn) {
            let name = principal.user_name(roles);
            let kind = kind_name(&principal.kind);
            return Ok(Self { name, account: principal.account, partition: principal.partition, kind });
        }
        if let Some(session) = session_of_role(arn) {
            let name = session.user_name(roles);
            return Ok(Self { name, account: session.account, partition: session.partition, kind: "role" });
        }
        Err(format!("{}: no login can have this ARN: {}", shown(arn), why_nobody(arn)))
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

/// Says what is wrong with an ARN that the grammars have refused. It decides nothing.
fn why_nobody(arn: &str) -> String {
    const WHO_CAN: &str = "users, roles and their sessions, federated users and the root user can log in";
    if arn.len() > principal::MAX_ARN_LENGTH {
        return format!("it has {} bytes, and at most {} are allowed", arn.len(), principal::MAX_ARN_LENGTH);
    }
    if !arn.bytes().all(|byte| byte.is_ascii_graphic()) {
        return "it holds a space, or a character that is not printable ASCII".to_owned();
    }
    let fields: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", partition, service, region, account, resource] = fields[..] else {
        return "it is not of the form arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE; aws sts get-caller-identity shows \
                the ARN of the credentials that you have"
            .to_owned();
    };
    if !matches!(service, "iam" | "sts") {
        return format!("it is of the service {service:?}; {WHO_CAN}, whose ARNs are of iam and sts");
    }
    if !region.is_empty() {
        return format!("ARNs of {service} have no region, and this one has {region:?}");
    }
    if !principal::is_account(account) {
        return format!("{account:?} is not an account id of 12 digits");
    }
    if Principal::parse(&format!("arn:{partition}:iam::{account}:root")).is_err() {
        return format!("{partition:?} is not a partition, such as aws, aws-cn or aws-us-gov");
    }
    if resource.contains('*') || resource.contains('?') {
        return "it holds a wildcard, which only policies understand: give the ARN of one principal".to_owned();
    }
    let (resource_type, name) = resource.split_once('/').unwrap_or((resource, ""));
    match (service, resource_type) {
        ("iam", "group") => "nobody logs in as a group: create a user for each of its members".to_owned(),
        ("iam", "policy") => format!("a policy is not somebody; {WHO_CAN}"),
        ("iam", "instance-profile") => {
            "an instance profile holds a role: give the role's ARN, which aws iam get-instance-profile shows".to_owned()
        }
        ("iam", "assumed-role" | "federated-user") => format!("the ARN of this has the service sts in place of {service}"),
        ("sts", "user" | "role" | "root") => format!("the ARN of this has the service iam in place of {service}"),
        ("iam", "root") => "the ARN of the root user ends with root".to_owned(),
        ("iam", "user" | "role") | ("sts", "federated-user") if name.is_empty() => {
            format!("there is no name after {resource_type}/")
        }
        ("iam", "user" | "role") => {
            "a path begins after the first slash and ends with a slash; a name has 1 to 64 letters, digits and _+=,.@-"
                .to_owned()
        }
        ("sts", "federated-user") => "a name has 1 to 64 letters, digits and _+=,.@-".to_owned(),
        ("sts", "assumed-role") => {
            "it is not of the form assumed-role/ROLE/SESSION, where names have 1 to 64 letters, digits and _+=,.@-; of a \
             role, give arn:...:iam::ACCOUNT:role/ROLE"
                .to_owned()
        }
        _ => format!("it is of the kind {resource_type:?}; {WHO_CAN}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_javascript_would_take_apart_is_quoted() {
        let user = ExternalUser::of(r#"arn:aws:iam::123456789012:user/a'b\c/d"#, RoleUserFormat::IamRole).unwrap();
        assert_eq!(user.name, r#"arn:aws:iam::123456789012:user/a'b\c/d"#);
        let line = r"db.getSiblingDB('$external').createUser({user: 'arn:aws:iam::123456789012:user/a\'b\\c/d', roles: [{role: 'readWrite', db: 'test'}]})";
        assert_eq!(user.json()["createUser"], line);
    }

    #[test]
    fn a_message_shows_no_control_characters() {
        let why = ExternalUser::of("arn:\x1b[31m\n", RoleUserFormat::IamRole).unwrap_err();
        assert!(why.starts_with("arn:?[31m?: no login can have this ARN: it holds a space"), "{why}");
    }
}
