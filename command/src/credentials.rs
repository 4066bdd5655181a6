//! The caller's AWS credentials and region, from AWS's crate `aws-config`: as AWS's CLI and SDKs
//! find them.
//!
//! Sources: AWS, "Standardized credential providers",
//! <https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html>; AWS,
//! "Configuration and credential file settings in the AWS CLI",
//! <https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-files.html>, which puts a
//! profile of the command line before keys in the environment.

use std::error::Error;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::{env, fmt, fs, io};

use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::profile::{self, ProfileFileCredentialsProvider, ProfileSet};
use aws_config::provider_config::ProviderConfig;
use aws_config::web_identity_token::WebIdentityTokenCredentialsProvider;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::{CredentialsError, TokenError};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::{SharedHttpClient, SharedHttpConnector, http_client_fn};
use aws_types::os_shim_internal::{Env, Fs};
use nix::unistd::{Uid, User};
use tokio::time::{Instant, timeout_at};

use crate::output::{quoted, shown};

/// Limit for all sources together. A `credential_process` may wait for a person.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// The region of the STS request that assumes a role, if none is configured.
const DEFAULT_REGION: &str = "us-east-1";

/// What --help says of the sources.
pub const SOURCES_HELP: &str = "\
Credentials come from the first of these sources, as in AWS's SDKs:
  1. --profile: this profile only
  2. AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN
  3. the profile AWS_PROFILE, or default
  4. AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN, as EKS sets them (IRSA)
  5. the container (ECS, EKS Pod Identity)
  6. the role of the EC2 instance
Profiles are read from ~/.aws/credentials and ~/.aws/config, or from the files
that AWS_SHARED_CREDENTIALS_FILE and AWS_CONFIG_FILE name. A profile may have
keys, a role to assume, SSO (after aws sso login), a credential_process or a web
identity. MFA codes and login sessions (aws login) are not supported; export
those credentials with the AWS CLI first:
  eval \"$(aws configure export-credentials --format env)\"";

/// What AWS gives a user, or a role's session, to sign with.
pub struct Credentials {
    /// The keys. They are zeroed when they are dropped.
    pub keys: aws_credential_types::Credentials,
    /// Where they were found, in words.
    pub source: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("access_key_id", &self.keys.access_key_id()).finish_non_exhaustive()
    }
}

/// Where to look for credentials and settings, besides the environment.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// A profile that was asked for.
    pub profile: Option<&'a str>,
}

/// A source of credentials.
struct Source {
    /// Its name in messages.
    name: String,
    /// Whether it is a profile, which fails if a profile that it refers to is missing.
    is_profile: bool,
    provider: Box<dyn ProvideCredentials>,
}

impl Source {
    fn new(name: &str, provider: impl ProvideCredentials + 'static) -> Self {
        Self { name: name.to_owned(), is_profile: false, provider: Box::new(provider) }
    }
}

impl Sources<'_> {
    /// The credentials.
    ///
    /// # Errors
    /// A sentence that says what is missing or failed, and what to do. It shows nothing secret.
    pub fn credentials(&self) -> Result<Credentials, String> {
        ensure_home()?;
        if self.profile.is_none() {
            refuse_half_a_pair()?;
        }
        let files = Files::read()?;
        let settings = self.settings(&files)?;
        if settings.get("login_session").is_some() {
            return Err(format!(
                "the profile {} has a login session (login_session), which is not supported. Export its credentials \
                 with the AWS CLI: {}",
                shown(settings.selected_profile()),
                self.export_line()
            ));
        }
        let found = run(first_of(self.chain(&files, &settings)?, TIME_LIMIT))?;
        let why = match found {
            Ok(Some(credentials)) => return Ok(credentials),
            Ok(None) => self.nothing_found(&settings, &files),
            Err(why) => why,
        };
        let advice = if profile_source(&settings).ends_with("(SSO)") {
            format!("Log in first: aws sso login{}", self.profile_option())
        } else {
            let mfa = settings.get("mfa_serial").map_or("", |_| "MFA codes (mfa_serial) are not supported. ");
            format!("{mfa}If the AWS CLI has credentials, export them: {}", self.export_line())
        };
        Err(format!("{why}. {advice}"))
    }

    /// The region: the given one, AWS_REGION, AWS_DEFAULT_REGION, or the profile's.
    ///
    /// # Errors
    /// When a file is there and cannot be read, or a profile is named that neither has.
    pub fn region(&self, given: Option<&str>) -> Result<Option<String>, String> {
        let known = given.map(str::to_owned).or_else(region_in_environment);
        if known.is_some() && !self.names_a_profile() {
            return Ok(known);
        }
        let settings = self.settings(&Files::read()?)?;
        Ok(known.or_else(|| settings.get("region").map(str::to_owned)))
    }

    /// The sources in the order of aws-config; a profile of the command line is the only one.
    fn chain(&self, files: &Files, settings: &ProfileSet) -> Result<Vec<Source>, String> {
        let region = region_in_environment().or_else(|| settings.get("region").map(str::to_owned));
        let config = ProviderConfig::without_region()
            .with_behavior_version(Some(BehaviorVersion::v2026_01_12()))
            .with_http_client(http_client()?)
            .with_region(Some(Region::new(region.unwrap_or_else(|| DEFAULT_REGION.to_owned()))));
        let profile = ProfileFileCredentialsProvider::builder()
            .configure(&config)
            .profile_files(files.contents.clone())
            .profile_name(settings.selected_profile())
            .build();
        let profile = Source { is_profile: true, ..Source::new(&profile_source(settings), profile) };
        if self.profile.is_some() {
            return Ok(vec![profile]);
        }
        let web_identity = WebIdentityTokenCredentialsProvider::builder().configure(&config).build();
        Ok(vec![
            Source::new("the environment", EnvironmentVariableCredentialsProvider::new()),
            profile,
            Source::new("the web identity of AWS_WEB_IDENTITY_TOKEN_FILE", web_identity),
            Source::new("the container", EcsCredentialsProvider::builder().configure(&config).build()),
            Source::new("the instance", ImdsCredentialsProvider::builder().configure(&config).build()),
        ])
    }

    /// The settings of the profile, those of both files together.
    fn settings(&self, files: &Files) -> Result<ProfileSet, String> {
        let name = self.profile_name();
        let (fs, env) = (Fs::real(), Env::real());
        let load = profile::load(&fs, &env, &files.contents, Some(name.clone().into()));
        let settings = run(load)?.map_err(|error| why(&error))?;
        if self.names_a_profile() && settings.get_profile(&name).is_none() {
            return Err(format!("there is no profile {} in {files} (--profile, AWS_PROFILE)", shown(&name)));
        }
        Ok(settings)
    }

    fn names_a_profile(&self) -> bool {
        self.profile.is_some() || variable("AWS_PROFILE").is_some()
    }

    fn profile_name(&self) -> String {
        let named = self.profile.map(str::to_owned).or_else(|| variable("AWS_PROFILE"));
        named.unwrap_or_else(|| "default".to_owned())
    }

    fn nothing_found(&self, settings: &ProfileSet, files: &Files) -> String {
        let name = shown(settings.selected_profile());
        let profile = match settings.get_profile(settings.selected_profile()) {
            Some(_) => format!("the profile {name} in {files} has no credentials"),
            None => format!("there is no profile {name} in {files}"),
        };
        if self.profile.is_some() {
            return format!("no AWS credentials: {profile}");
        }
        format!(
            "no AWS credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set, {profile}, and there is no \
             web identity, container or EC2 instance with a role"
        )
    }

    /// The command that puts the profile's credentials into the environment of a shell.
    fn export_line(&self) -> String {
        format!("eval \"$(aws configure export-credentials{} --format env)\"", self.profile_option())
    }

    fn profile_option(&self) -> String {
        match &*self.profile_name() {
            "default" => String::new(),
            name => format!(" --profile {}", quoted(name)),
        }
    }
}

/// A variable that is set to something.
pub fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.trim().is_empty())
}

fn region_in_environment() -> Option<String> {
    ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().find_map(|name| variable(name))
}

/// Refuses half a pair, for which aws-config would silently use another source.
fn refuse_half_a_pair() -> Result<(), String> {
    const NAMES: [&str; 2] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
    let (there, missing) = match NAMES.map(|name| variable(name).is_some()) {
        [true, false] => (NAMES[0], NAMES[1]),
        [false, true] => (NAMES[1], NAMES[0]),
        _ => return Ok(()),
    };
    Err(format!("{there} is set, but {missing} is not: set both, or neither"))
}

/// The user's home folder: from HOME, or else from the password database, as in the AWS CLI. If
/// there is none, a folder without files: keys in the current folder may be somebody else's.
fn home() -> PathBuf {
    let in_database = || User::from_uid(Uid::current()).ok().flatten().map(|user| user.dir);
    let home = env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from).or_else(in_database);
    home.filter(|home| !home.as_os_str().is_empty()).unwrap_or_else(|| PathBuf::from("/nonexistent"))
}

/// Re-executes the command with HOME if it has none. With an empty HOME, aws-config reads SSO's
/// tokens from the current folder, and setting a variable of this process would be unsafe code.
fn ensure_home() -> Result<(), String> {
    if env::var_os("HOME").is_some_and(|home| !home.is_empty()) {
        return Ok(());
    }
    let mut arguments = env::args_os();
    let mut again = Command::new("/proc/self/exe");
    again.arg0(arguments.next().unwrap_or_default()).args(arguments).env("HOME", home());
    Err(format!("HOME is not set, and the command cannot be restarted with it: {}", again.exec()))
}

/// AWS's two files.
struct Files {
    paths: [PathBuf; 2],
    contents: EnvConfigFiles,
}

impl Files {
    /// Reads both; a missing file is empty. aws-config ignores an unreadable file; here it is an
    /// error.
    fn read() -> Result<Self, String> {
        let path = |name: &str, file: &str| match variable(name) {
            Some(path) => path.strip_prefix("~/").map_or_else(|| PathBuf::from(&path), |path| home().join(path)),
            None => home().join(".aws").join(file),
        };
        let paths = [path("AWS_SHARED_CREDENTIALS_FILE", "credentials"), path("AWS_CONFIG_FILE", "config")];
        let mut contents = EnvConfigFiles::builder();
        // If both files have a setting, aws-config uses that of the later one.
        for (path, kind) in paths.iter().zip([EnvConfigFileKind::Credentials, EnvConfigFileKind::Config]).rev() {
            contents = match fs::read_to_string(path) {
                Ok(_) => contents.with_file(kind, path),
                Err(error) if error.kind() == io::ErrorKind::NotFound => contents.with_contents(kind, ""),
                Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
            };
        }
        Ok(Self { paths, contents: contents.build() })
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} or {}", self.paths[0].display(), self.paths[1].display())
    }
}

/// The profile, and how it gets credentials: by the first of these settings, as in aws-config.
fn profile_source(settings: &ProfileSet) -> String {
    const WAYS: [(&str, &str); 5] = [
        ("web_identity_token_file", " (web identity)"),
        ("role_arn", " (assumed role)"),
        ("sso_session", " (SSO)"),
        ("sso_start_url", " (SSO)"),
        ("credential_process", " (credential_process)"),
    ];
    let way = WAYS.iter().find(|(setting, _)| settings.get(setting).is_some()).map_or("", |(_, way)| way);
    format!("the profile {}{way}", settings.selected_profile())
}

/// The HTTP client for AWS. Only HTTPS goes through the environment's proxy: plain HTTP is for the
/// metadata services, and a proxy would see the keys.
fn http_client() -> Result<SharedHttpClient, String> {
    let first = |names: [&'static str; 2]| names.into_iter().find_map(|name| Some((name, variable(name)?)));
    let proxy = match first(["HTTPS_PROXY", "https_proxy"]) {
        None => ProxyConfig::disabled(),
        Some((name, url)) => {
            let proxy = ProxyConfig::https(url).map_err(|_| format!("{name} is not the URL of a proxy"))?;
            first(["NO_PROXY", "no_proxy"]).map_or(proxy.clone(), |(_, hosts)| proxy.no_proxy(hosts))
        }
    };
    Ok(http_client_fn(move |settings, components| {
        let mut connector = Connector::builder().connector_settings(settings.clone()).proxy_config(proxy.clone());
        connector.set_sleep_impl(components.sleep_impl());
        SharedHttpConnector::new(connector.tls_provider(Provider::Rustls(CryptoMode::Ring)).build())
    }))
}

/// Runs a future to its end on this thread.
fn run<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot request AWS credentials: {error}"))?;
    let result = runtime.block_on(work);
    // An abandoned name resolution may still run in a thread.
    runtime.shutdown_background();
    Ok(result)
}

/// The credentials of the first source that has any.
///
/// # Errors
/// When a source is configured and fails, or does not answer in time.
async fn first_of(chain: Vec<Source>, limit: Duration) -> Result<Option<Credentials>, String> {
    let deadline = Instant::now() + limit;
    for Source { name, is_profile, provider } in chain {
        let why = match timeout_at(deadline, provider.provide_credentials()).await {
            Ok(Ok(keys)) => return Ok(Some(Credentials { keys, source: name })),
            Ok(Err(error @ CredentialsError::CredentialsNotLoaded(_))) if !is_profile || error.source().is_none() => {
                continue;
            }
            Ok(Err(error)) => why(&error),
            Err(_) => format!("no answer within {} ms", limit.as_millis()),
        };
        return Err(format!("cannot get AWS credentials from {}: {why}", shown(&name)));
    }
    Ok(None)
}

/// The causes of an error. Its Debug text may contain requests and responses, and is not used.
fn why(error: &(dyn Error + 'static)) -> String {
    let mut reasons: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(error) = next {
        // These only say that there is an error.
        let says_nothing = error.is::<CredentialsError>() || error.is::<TokenError>();
        let reason = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if !says_nothing && !reasons.iter().any(|said| said.contains(&reason)) {
            reasons.push(reason);
        }
        next = error.source();
    }
    shown(reasons.join(": ").trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use aws_credential_types::provider::future;

    use super::*;

    /// A source that never answers, as a program that waits for somebody.
    #[derive(Debug)]
    struct Silent;

    impl ProvideCredentials for Silent {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::new(std::future::pending())
        }
    }

    fn chain(provider: impl ProvideCredentials + 'static) -> Vec<Source> {
        vec![Source::new("the test", provider)]
    }

    #[test]
    fn a_source_that_does_not_answer_is_given_up() {
        let said = run(first_of(chain(Silent), Duration::from_millis(20))).unwrap().unwrap_err();
        assert_eq!(said, "cannot get AWS credentials from the test: no answer within 20 ms");
    }

    #[test]
    fn nothing_secret_is_in_a_debug_text() {
        let keys = aws_credential_types::Credentials::new("AKIATEST", "planted", Some("planted".to_owned()), None, "");
        let found = run(first_of(chain(keys), TIME_LIMIT)).unwrap().unwrap().unwrap();
        let text = format!("{found:?} {:?}", found.keys);
        assert!(text.contains("AKIATEST") && !text.contains("planted"), "{text}");
    }
}
