//! The caller's AWS credentials: from the environment, from a profile's keys in AWS's files, or from where it runs.
//!
//! Source: AWS, "Configuration and credential file settings in the AWS CLI",
//! <https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-files.html>, and "Environment variables", beside it. As
//! there, a profile that is named on the command line comes before keys in the environment.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};
use psmdb_aws_iam::secret::Secret;
use zeroize::Zeroizing;

use crate::metadata;
use crate::output::{quoted, shown};

/// Largest file that is read, in bytes.
const MAX_FILE_LENGTH: u64 = 1024 * 1024;

/// What --help says of the sources.
pub const SOURCES_HELP: &str = "\
Credentials are looked for in this order:
  1. --profile: the keys of this profile
  2. AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN
  3. the keys of the profile AWS_PROFILE, or of default
  4. without AWS_PROFILE: those of the container (ECS, EKS Pod Identity), or of
     the role of the EC2 instance
Profiles are read from ~/.aws/credentials and ~/.aws/config, or from the files
that AWS_SHARED_CREDENTIALS_FILE and AWS_CONFIG_FILE name. Roles to assume, SSO,
login sessions, credential_process and web identities are not supported. Let the
AWS CLI do it:
  eval \"$(aws configure export-credentials --format env)\"";

/// What AWS gives a user, or a role's session, to sign with.
pub struct Credentials {
    /// Names the key. It is no secret.
    pub access_key_id: String,
    /// What signs.
    pub secret_access_key: Secret,
    /// Belongs to the keys of a session.
    pub session_token: Option<Secret>,
    /// Where they were found, in words.
    pub source: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// Where credentials and settings are looked for.
pub struct Sources<'a> {
    /// A profile that was asked for.
    pub profile: Option<&'a str>,
    /// The environment: the value of a variable.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
}

/// A variable of this process.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl Sources<'_> {
    /// The credentials.
    ///
    /// # Errors
    /// A sentence that says what is missing or not supported, and what to do. It shows no value but names of profiles
    /// and files.
    pub fn credentials(&self) -> Result<Credentials, String> {
        if self.profile.is_none()
            && let Some(found) = self.in_environment()?
        {
            return Ok(found);
        }
        let profile = self.profile_name();
        let [keys, config] = self.files()?;
        let both = [keys.profile(&profile), config.profile(&profile)];
        // AWS's own order: what has to be asked for comes before keys that are written down.
        for (setting, what) in ASKED_FOR {
            if both.iter().any(|values| values.get(setting).is_some()) {
                return Err(format!(
                    "the profile {profile} gets its credentials by {what} ({setting}), which is not supported. Let the \
                     AWS CLI get them: {}",
                    export_line(&profile)
                ));
            }
        }
        for (values, file) in both.iter().zip([&keys, &config]) {
            let Some(access_key_id) = values.get("aws_access_key_id") else { continue };
            let Some(secret) = values.get("aws_secret_access_key") else {
                return Err(format!(
                    "the profile {profile} in {} has aws_access_key_id, but no aws_secret_access_key",
                    file.path.display()
                ));
            };
            return Ok(Credentials {
                access_key_id: access_key_id.to_owned(),
                secret_access_key: Secret::new(secret.to_owned()),
                session_token: values.get("aws_session_token").map(|token| Secret::new(token.to_owned())),
                source: format!("the profile {profile} in {}", file.path.display()),
            });
        }
        if both.iter().any(|values| values.get("credential_process").is_some()) {
            return Err(format!(
                "the profile {profile} gets its credentials by a program (credential_process), which is not supported. \
                 Let the AWS CLI run it: {}",
                export_line(&profile)
            ));
        }
        if self.profile.is_none()
            && self.variable("AWS_PROFILE").is_none()
            && let Some(found) = self.where_it_runs()?
        {
            return Ok(found);
        }
        Err(self.nothing_found(&profile, both.iter().any(|values| values.there), [&keys.path, &config.path]))
    }

    /// The region: the given one, AWS_REGION, AWS_DEFAULT_REGION, or the profile's.
    ///
    /// # Errors
    /// When a file is there and cannot be read, or a profile is named that neither has.
    pub fn region(&self, given: Option<&str>) -> Result<Option<String>, String> {
        let in_environment = || ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().find_map(|name| self.variable(name));
        let is_named = self.profile.is_some() || self.variable("AWS_PROFILE").is_some();
        let known = given.map(str::to_owned).or_else(in_environment);
        if known.is_some() && !is_named {
            return Ok(known);
        }
        let [keys, config] = self.files()?;
        let profile = self.profile_name();
        if is_named && !keys.profile(&profile).there && !config.profile(&profile).there {
            return Err(format!(
                "there is no profile {} in {} or {} (--profile, AWS_PROFILE)",
                shown(&profile),
                keys.path.display(),
                config.path.display()
            ));
        }
        let of_profile =
            || [config, keys].iter().find_map(|file| file.profile(&profile).get("region").map(str::to_owned));
        Ok(known.or_else(of_profile))
    }

    fn in_environment(&self) -> Result<Option<Credentials>, String> {
        const NAMES: [&str; 2] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
        let secret = self.variable(NAMES[1]).map(Secret::new);
        match (self.variable(NAMES[0]), secret) {
            (None, None) => Ok(None),
            (Some(access_key_id), Some(secret_access_key)) => Ok(Some(Credentials {
                access_key_id,
                secret_access_key,
                session_token: self.variable("AWS_SESSION_TOKEN").map(Secret::new),
                source: "the environment".to_owned(),
            })),
            (there, _) => {
                let (there, missing) = if there.is_some() { (NAMES[0], NAMES[1]) } else { (NAMES[1], NAMES[0]) };
                Err(format!("{there} is set, but {missing} is not: set both, or neither"))
            }
        }
    }

    fn where_it_runs(&self) -> Result<Option<Credentials>, String> {
        // Asking whether this is an instance takes a while where it is none.
        if self.variable(WEB_IDENTITY).is_some() {
            return Ok(None);
        }
        match metadata::of_container(|name| self.variable(name))? {
            Some(found) => Ok(Some(found)),
            None => metadata::of_instance(|name| self.variable(name)),
        }
    }

    /// A variable that is set to something.
    fn variable(&self, name: &str) -> Option<String> {
        (self.environment)(name).filter(|value| !value.is_empty())
    }

    fn profile_name(&self) -> String {
        let named = self.profile.map(str::to_owned).or_else(|| self.variable("AWS_PROFILE"));
        named.unwrap_or_else(|| "default".to_owned())
    }

    /// The file of credentials, which comes first, and the file of everything else.
    fn files(&self) -> Result<[File; 2], String> {
        let path = |variable: &str, name: &str| match self.variable(variable) {
            Some(path) => PathBuf::from(path),
            None => self.home().join(".aws").join(name),
        };
        Ok([
            File::read(path("AWS_SHARED_CREDENTIALS_FILE", "credentials"), false)?,
            File::read(path("AWS_CONFIG_FILE", "config"), true)?,
        ])
    }

    /// The user's home folder: that of HOME, or without it that of the password database, as the AWS CLI has it. Where
    /// there is none, a folder without files: never the current one, whose keys may be somebody else's.
    fn home(&self) -> PathBuf {
        let in_database = || User::from_uid(Uid::current()).ok().flatten().map(|user| user.dir);
        let home = self.variable("HOME").map(PathBuf::from).or_else(in_database);
        home.filter(|home| !home.as_os_str().is_empty()).unwrap_or_else(|| PathBuf::from("/nonexistent"))
    }

    fn nothing_found(&self, profile: &str, there: bool, [keys, config]: [&Path; 2]) -> String {
        if self.profile.is_none() && self.variable(WEB_IDENTITY).is_some() {
            return format!(
                "this process gets its credentials by a web identity ({WEB_IDENTITY}), which is not supported. Let the AWS \
                 CLI get them: {}",
                export_line(profile)
            );
        }
        let (keys, config) = (keys.display(), config.display());
        let profiles = if there {
            format!("the profile {profile} in {keys} and {config} has no keys")
        } else {
            format!("there is no profile {profile} in {keys} or {config}")
        };
        let environment =
            if self.profile.is_some() { "" } else { "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set, and " };
        format!(
            "no credentials of AWS: {environment}{profiles}. Where the AWS CLI has some, take them over: {}",
            export_line(profile)
        )
    }
}

/// What EKS sets for a role of a service account.
const WEB_IDENTITY: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";

/// What makes a profile one whose credentials somebody else has to be asked for.
const ASKED_FOR: [(&str, &str); 5] = [
    ("role_arn", "assuming a role"),
    ("web_identity_token_file", "a web identity"),
    ("sso_session", "SSO"),
    ("sso_start_url", "SSO"),
    ("login_session", "a login session"),
];

/// The command that puts a profile's credentials into the environment of a shell.
fn export_line(profile: &str) -> String {
    let profile = match profile {
        "default" => String::new(),
        _ => format!(" --profile {}", quoted(profile)),
    };
    format!("eval \"$(aws configure export-credentials{profile} --format env)\"")
}

/// One of AWS's two files. It is zeroed when it is dropped.
struct File {
    path: PathBuf,
    text: Zeroizing<String>,
    /// Whether profiles other than default are called `profile NAME` in it.
    has_prefix: bool,
}

/// The settings of one profile in one file.
struct Profile<'a> {
    /// Whether the file has it.
    there: bool,
    values: Vec<(&'a str, &'a str)>,
}

impl Profile<'_> {
    /// A setting that is not empty. Of two, the later one counts.
    fn get(&self, wanted: &str) -> Option<&str> {
        let found = self.values.iter().rev().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
        found.filter(|value| !value.is_empty())
    }
}

impl File {
    /// Reads a file; one that is not there is an empty one.
    fn read(path: PathBuf, has_prefix: bool) -> Result<Self, String> {
        let cannot = |why: &dyn fmt::Display| format!("cannot read {}: {why}", path.display());
        let mut text = Zeroizing::new(String::new());
        match fs::File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(cannot(&error)),
            Ok(file) => {
                let length = file.metadata().map_err(|error| cannot(&error))?.len();
                if length > MAX_FILE_LENGTH {
                    return Err(cannot(&"it has more than 1 MiB"));
                }
                // Never grown, since that would leave a copy behind.
                text.reserve_exact(usize::try_from(length).unwrap_or_default() + 1);
                file.take(MAX_FILE_LENGTH).read_to_string(&mut text).map_err(|error| cannot(&error))?;
            }
        }
        Ok(Self { path, text, has_prefix })
    }

    /// The settings of a profile.
    ///
    /// ```text
    /// file    = *((section / setting / nested / comment / "") LF)
    /// section = "[" name "]"                                 ; in the file config "profile " name, except for default
    /// setting = name "=" value [(SP / HTAB) ("#" / ";") text]
    /// nested  = (SP / HTAB) text                             ; settings of a setting: none that is needed here
    /// comment = ("#" / ";") text
    /// ```
    fn profile(&self, wanted: &str) -> Profile<'_> {
        let mut found = Profile { there: false, values: Vec::new() };
        let mut in_it = false;
        for line in self.text.lines() {
            if line.starts_with(['#', ';', ' ', '\t']) {
                continue;
            }
            if let Some(section) = line.strip_prefix('[') {
                let name = section.split(']').next().unwrap_or_default().trim();
                let of_profile = name.strip_prefix("profile").filter(|rest| rest.starts_with([' ', '\t']));
                let name = match of_profile {
                    Some(name) if self.has_prefix => Some(name.trim().trim_matches('"')),
                    _ if self.has_prefix => (name == "default").then_some(name),
                    _ => Some(name),
                };
                in_it = name == Some(wanted);
                found.there |= in_it;
            } else if in_it && let Some((name, value)) = line.split_once('=') {
                let comment = [" #", " ;", "\t#", "\t;"].iter().filter_map(|mark| value.find(mark)).min();
                found.values.push((name.trim(), value[..comment.unwrap_or(value.len())].trim()));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &str = "\
# a comment
[default]
aws_access_key_id = AKIADEFAULT
aws_secret_access_key=secret/of+default=   # not this

[ session ]
aws_access_key_id=ASIASESSION
aws_secret_access_key=s
aws_session_token=the-token
[half]
aws_access_key_id=AKIAHALF
[it's]
role_arn = arn:aws:iam::123456789012:role/x
[process]
aws_access_key_id=
";
    const CONFIG: &str = "\
[default]
region = eu-west-1
s3 =
  aws_access_key_id = NESTED
[profile in-config]
aws_access_key_id = AKIACONFIG
aws_secret_access_key = c
region=eu-north-1
[in-config-without-prefix]
aws_access_key_id = AKIANOT
aws_secret_access_key = c
[profile role]
role_arn = arn:aws:iam::123456789012:role/x
source_profile = default
aws_access_key_id = AKIANOT
aws_secret_access_key = c
[profile sso]
sso_session = corp
[profile web]
web_identity_token_file = /var/token
[profile process]
credential_process = /bin/keys
";

    struct Fixture {
        folder: tempfile::TempDir,
        variables: Vec<(&'static str, String)>,
    }

    impl Fixture {
        fn new(variables: &[(&'static str, &str)]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let aws = folder.path().join(".aws");
            fs::create_dir(&aws).unwrap();
            fs::write(aws.join("credentials"), KEYS).unwrap();
            fs::write(aws.join("config"), CONFIG).unwrap();
            let mut all = vec![("HOME", folder.path().to_str().unwrap().to_owned())];
            all.push(("AWS_EC2_METADATA_DISABLED", "true".to_owned()));
            all.extend(variables.iter().map(|(name, value)| (*name, (*value).to_owned())));
            Self { folder, variables: all }
        }

        fn ask<T>(&self, profile: Option<&str>, question: impl FnOnce(&Sources<'_>) -> T) -> T {
            let environment = |wanted: &str| {
                self.variables.iter().rev().find(|(name, _)| *name == wanted).map(|(_, value)| value.clone())
            };
            question(&Sources { profile, environment: &environment })
        }

        fn credentials(&self, profile: Option<&str>) -> Result<Credentials, String> {
            self.ask(profile, |sources| sources.credentials())
        }
    }

    #[test]
    fn the_first_source_that_has_keys_counts() {
        let environment = [("AWS_ACCESS_KEY_ID", "AKIAENV"), ("AWS_SECRET_ACCESS_KEY", "e")];
        let with_token = [environment[0], environment[1], ("AWS_SESSION_TOKEN", "t"), ("AWS_PROFILE", "session")];
        for (name, variables, profile, key, token, source) in [
            ("nothing but files", &[][..], None, "AKIADEFAULT", None, "the profile default in "),
            ("the environment", &environment, None, "AKIAENV", None, "the environment"),
            ("a token there", &with_token, None, "AKIAENV", Some("t"), "the environment"),
            ("an option before that", &with_token, Some("default"), "AKIADEFAULT", None, "the profile default in "),
            (
                "AWS_PROFILE",
                &[("AWS_PROFILE", "session")],
                None,
                "ASIASESSION",
                Some("the-token"),
                "the profile session",
            ),
            ("empty variables", &[("AWS_ACCESS_KEY_ID", "")], None, "AKIADEFAULT", None, "the profile default in "),
            ("the other file", &[], Some("in-config"), "AKIACONFIG", None, "the profile in-config in "),
        ] {
            let found = Fixture::new(variables).credentials(profile).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(found.access_key_id, key, "{name}");
            assert_eq!(found.session_token.as_ref().map(Secret::expose), token, "{name}");
            assert!(found.source.starts_with(source), "{name}: {}", found.source);
            assert!(!format!("{found:?}").contains("secret/of"), "{name}");
        }
        let found = Fixture::new(&[]).credentials(None).unwrap();
        assert_eq!(found.secret_access_key.expose(), "secret/of+default=");
    }

    #[test]
    fn what_is_missing_or_not_supported_is_said_and_what_to_do() {
        for (name, variables, profile, why) in [
            ("half of the keys", &[("AWS_ACCESS_KEY_ID", "AKIA")][..], None, "AWS_SECRET_ACCESS_KEY is not: set both"),
            ("the other half", &[("AWS_SECRET_ACCESS_KEY", "s")], None, "AWS_ACCESS_KEY_ID is not: set both"),
            ("half a profile", &[], Some("half"), "has aws_access_key_id, but no aws_secret_access_key"),
            ("a role, even with keys", &[], Some("role"), "by assuming a role (role_arn), which is not supported"),
            ("SSO", &[], Some("sso"), "export-credentials --profile sso --format env)\""),
            ("a web identity", &[], Some("web"), "by a web identity (web_identity_token_file)"),
            ("a program", &[], Some("process"), "by a program (credential_process)"),
            ("a quote in a name", &[], Some("it's"), r"--profile 'it'\''s' --format env"),
            ("no such profile", &[], Some("nope"), "no credentials of AWS: there is no profile nope in "),
            ("another's section", &[], Some("in-config-without-prefix"), "there is no profile"),
            ("no keys", &[("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")], None, "the profile default in /nowhere and "),
            (
                "a service account",
                &[("AWS_SHARED_CREDENTIALS_FILE", "/nowhere"), (WEB_IDENTITY, "/token")],
                None,
                "by a web identity (AWS_WEB_IDENTITY_TOKEN_FILE)",
            ),
            (
                "a container whose keys are elsewhere",
                &[
                    ("AWS_SHARED_CREDENTIALS_FILE", "/nowhere"),
                    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.2.example.com/"),
                ],
                None,
                "are at an address that is not asked",
            ),
            ("a folder", &[("AWS_CONFIG_FILE", "/tmp")], None, "cannot read /tmp: "),
        ] {
            let said = Fixture::new(variables).credentials(profile).unwrap_err();
            assert!(said.contains(why), "{name}: {said}");
            assert!(!said.contains("NESTED"), "{name}: {said}");
        }
    }

    #[test]
    fn a_region_is_found_where_the_aws_cli_looks() {
        for (name, variables, profile, region) in [
            ("the profile", &[][..], None, Some("eu-west-1")),
            ("another", &[], Some("in-config"), Some("eu-north-1")),
            ("AWS_DEFAULT_REGION", &[("AWS_DEFAULT_REGION", "us-east-2")], None, Some("us-east-2")),
            (
                "AWS_REGION",
                &[("AWS_REGION", "us-west-1"), ("AWS_DEFAULT_REGION", "us-east-2")],
                None,
                Some("us-west-1"),
            ),
            ("none", &[], Some("sso"), None),
        ] {
            let found = Fixture::new(variables).ask(profile, |sources| sources.region(None)).unwrap();
            assert_eq!(found.as_deref(), region, "{name}");
        }
        let fixture = Fixture::new(&[]);
        fs::remove_dir_all(fixture.folder.path()).unwrap();
        assert_eq!(fixture.ask(None, |sources| sources.region(None)), Ok(None));
    }
}
