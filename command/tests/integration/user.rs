//! `user`, compared with the plugin.

use psmdb_aws_iam::principal::{Principal, RoleUserFormat};
use serde_json::{Value, json};

use super::{command, run};

/// An ARN, its kind, and the user's name with each value of awsIamRoleUserFormat.
struct Row {
    arn: &'static str,
    kind: &'static str,
    iam_role: &'static str,
    assumed_role: &'static str,
}

/// An ARN that is its own user, whatever the format.
const fn same(arn: &'static str, kind: &'static str) -> Row {
    Row { arn, kind, iam_role: arn, assumed_role: arn }
}

const fn role(arn: &'static str, kind: &'static str, iam_role: &'static str, assumed_role: &'static str) -> Row {
    Row { arn, kind, iam_role, assumed_role }
}

const LOGINS: [Row; 16] = [
    same("arn:aws:iam::123456789012:user/alice", "user"),
    same("arn:aws:iam::123456789012:user/team/db/alice", "user"),
    same("arn:aws:iam::123456789012:user/a:b*<&\"\\/alice", "user"),
    same("arn:aws:iam::123456789012:user/a.b+c=d,e@f_g-h", "user"),
    same("arn:aws-cn:iam::123456789012:user/alice", "user"),
    same("arn:aws-us-gov:iam::123456789012:user/alice", "user"),
    same("arn:aws:iam::123456789012:root", "root"),
    same("arn:aws-iso-b:iam::123456789012:root", "root"),
    same("arn:aws:sts::123456789012:federated-user/fred", "federated-user"),
    role(
        "arn:aws:iam::123456789012:role/app",
        "role",
        "arn:aws:iam::123456789012:role/app",
        "arn:aws:sts::123456789012:assumed-role/app/*",
    ),
    role(
        "arn:aws:iam::123456789012:role/apps/eu/app",
        "role",
        "arn:aws:iam::123456789012:role/app",
        "arn:aws:sts::123456789012:assumed-role/app/*",
    ),
    role(
        "arn:aws-cn:iam::123456789012:role/app",
        "role",
        "arn:aws-cn:iam::123456789012:role/app",
        "arn:aws-cn:sts::123456789012:assumed-role/app/*",
    ),
    role(
        "arn:aws:iam::123456789012:role/aws-reserved/sso.amazonaws.com/eu-west-1/AWSReservedSSO_Admin_0123456789abcdef",
        "role",
        "arn:aws:iam::123456789012:role/AWSReservedSSO_Admin_0123456789abcdef",
        "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_Admin_0123456789abcdef/*",
    ),
    role(
        "arn:aws:sts::123456789012:assumed-role/app/i-0abc",
        "assumed-role",
        "arn:aws:iam::123456789012:role/app",
        "arn:aws:sts::123456789012:assumed-role/app/*",
    ),
    role(
        "arn:aws-us-gov:sts::123456789012:assumed-role/app/botocore-session-1",
        "assumed-role",
        "arn:aws-us-gov:iam::123456789012:role/app",
        "arn:aws-us-gov:sts::123456789012:assumed-role/app/*",
    ),
    role(
        "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_Admin_0123456789abcdef/ann@example.com",
        "assumed-role",
        "arn:aws:iam::123456789012:role/AWSReservedSSO_Admin_0123456789abcdef",
        "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_Admin_0123456789abcdef/*",
    ),
];

fn user(arn: &str, format: &str) -> Value {
    let printed = run(&mut command(&["user", "--json", "--format", format, arn])).printed();
    serde_json::from_str(&printed).expect("one JSON document")
}

#[test]
fn every_principal_that_can_log_in_has_the_user_that_the_plugin_gives_it() {
    for Row { arn, kind, iam_role, assumed_role } in LOGINS {
        for (format, name) in [("iamRole", iam_role), ("assumedRole", assumed_role)] {
            let quoted = name.replace('\\', r"\\").replace('\'', r"\'");
            let line = format!(
                "db.getSiblingDB('$external').createUser({{user: '{quoted}', roles: [{{role: 'readWrite', db: 'test'}}]}})"
            );
            let mut fields = arn.split(':');
            let expected = json!({
                "user": name, "db": "$external", "kind": kind, "createUser": line,
                "partition": fields.nth(1), "account": fields.nth(2),
            });
            assert_eq!(user(arn, format), expected, "{arn}");

            let text = run(&mut command(&["user", "--format", format, arn])).printed();
            assert_eq!(text, format!("{name}\n\n{line}\n"), "{arn}");

            // STS never returns a role's ARN, but that of a session.
            let session = || iam_role.replace(":iam:", ":sts:").replace(":role/", ":assumed-role/") + "/any-session";
            let returned = if kind == "role" { session() } else { arn.to_owned() };
            let roles = if format == "iamRole" { RoleUserFormat::IamRole } else { RoleUserFormat::AssumedRole };
            assert_eq!(Principal::parse(&returned).unwrap().user_name(roles), name, "{arn} by the plugin");
        }
        // The default of the server is the default here.
        assert_eq!(run(&mut command(&["user", arn])).printed().lines().next(), Some(iam_role));
    }
}

#[test]
fn an_arn_that_no_login_can_have_is_refused_with_the_reason() {
    let long_name = format!("arn:aws:iam::123456789012:role/{}", "n".repeat(65));
    let long = format!("arn:aws:iam::123456789012:user/{}/alice", "p".repeat(2048));
    for (arn, why) in [
        ("", "it must have the form arn:PARTITION"),
        ("alice", "it must have the form arn:PARTITION"),
        ("AKIAIOSFODNN7EXAMPLE", "it must have the form arn:PARTITION"),
        ("ARN:aws:iam::123456789012:root", "it must have the form arn:PARTITION"),
        ("arn:aws:iam::123456789012:group/admins", "a group cannot log in"),
        ("arn:aws:iam::123456789012:policy/p", "a policy is not a principal"),
        ("arn:aws:iam::aws:policy/AdministratorAccess", "the account \"aws\" must be an account id of 12 digits"),
        ("arn:aws:iam::123456789012:instance-profile/web", "an instance profile cannot log in"),
        ("arn:aws:iam::123456789012:saml-provider/corp", "\"saml-provider\" cannot log in"),
        ("arn:aws:iam::123456789012:mfa/alice", "\"mfa\" cannot log in"),
        ("arn:aws:iam::123456789012:rolex/app", "\"rolex\" cannot log in"),
        ("arn:aws:iam::123456789012:assumed-role/app/s", "the service of an ARN of assumed-role must be sts, not iam"),
        ("arn:aws:sts::123456789012:role/app", "the service of an ARN of role must be iam, not sts"),
        ("arn:aws:sts::123456789012:user/alice", "the service of an ARN of user must be iam, not sts"),
        ("arn:aws:s3:::bucket", "the service must be iam or sts, not \"s3\""),
        ("arn:aws:ec2:eu-west-1:123456789012:instance/i-0abc", "the service must be iam or sts, not \"ec2\""),
        ("arn:aws:iam:us-east-1:123456789012:user/alice", "the region must be empty"),
        ("arn:aws:iam::12345678901:user/alice", "must be an account id of 12 digits"),
        ("arn:aws:iam::1234-5678-9012:user/alice", "must be an account id of 12 digits"),
        ("arn:aws:iam::*:role/app", "must be an account id of 12 digits"),
        ("arn:awsx:iam::123456789012:root", "the partition \"awsx\" must be"),
        ("arn::iam::123456789012:role/app", "the partition \"\" must be"),
        ("arn:aws:iam::123456789012:role", "a name must follow role/"),
        ("arn:aws:iam::123456789012:role/", "a name must follow role/"),
        ("arn:aws:iam::123456789012:user/", "a name must follow user/"),
        ("arn:aws:iam::123456789012:role/apps/", "a path must not begin with a slash and must end with one"),
        ("arn:aws:iam::123456789012:role//app", "a path must not begin with a slash"),
        ("arn:aws:iam::123456789012:user//alice", "a path must not begin with a slash"),
        ("arn:aws:iam::123456789012:role/*", "a wildcard"),
        ("arn:aws:sts::123456789012:assumed-role/app/*", "a wildcard"),
        ("arn:aws:sts::123456789012:assumed-role/app", "a session must have the form assumed-role/ROLE/SESSION"),
        (
            "arn:aws:sts::123456789012:assumed-role/apps/app/session",
            "a session must have the form assumed-role/ROLE/SESSION",
        ),
        ("arn:aws:sts::123456789012:federated-user/", "a name must follow federated-user/"),
        ("arn:aws:sts::123456789012:federated-user/a/b", "a name must have 1 to 64 letters"),
        ("arn:aws:iam::123456789012:root/x", "must end with root"),
        ("arn:aws:iam::123456789012:role/a b", "it must consist of printable ASCII"),
        (" arn:aws:iam::123456789012:root", "it must consist of printable ASCII"),
        ("arn:aws:iam::123456789012:role/appl\u{e9}", "it must consist of printable ASCII"),
        ("arn:aws:iam::123456789012:role/a:b", "1 to 64 letters"),
        (&long_name, "1 to 64 letters"),
        (&long, "it must have at most 2048 bytes"),
    ] {
        for arguments in [&["user", "--", arn][..], &["user", "--json", "--", arn]] {
            let said = run(&mut command(arguments)).refused(1);
            assert!(said.contains(": no login can have this ARN: "), "{arn:?}: {said}");
            assert!(said.contains(why), "{arn:?}: {said}");
        }
        // The plugin refuses it too.
        assert!(Principal::parse(arn).is_err(), "{arn:?}");
    }
}

#[test]
fn wrong_usage_ends_with_2() {
    for arguments in
        [&["user"][..], &["user", "a", "b"], &["user", "--format", "role", "arn:aws:iam::123456789012:root"]]
    {
        assert_eq!(run(&mut command(arguments)).status, 2, "{arguments:?}");
    }
}
