//! The credentials that AWS gives a container or an EC2 instance, asked for by HTTP on the machine's own link.
//!
//! Sources: AWS, "Container credential provider",
//! <https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html>; AWS, "Retrieve security credentials
//! from instance metadata", <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html>,
//! of which only the second version of the service is used.

use std::fs;
use std::time::Duration;

use psmdb_aws_iam::secret::Secret;
use serde_json::Value;
use ureq::http::Uri;
use ureq::{Agent, Error};
use zeroize::Zeroizing;

use crate::credentials::Credentials;

/// Where the agent of ECS is, for a path that is given without a host.
const ECS: &str = "http://169.254.170.2";

/// Other hosts that may be asked without TLS, besides loopback: the agents of ECS and of EKS.
const AGENTS: [&str; 3] = ["169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"];

/// The metadata service of EC2.
const EC2: &str = "http://169.254.169.254";

/// Nobody else answers on these addresses, so that there is an answer soon or never.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longest answer that is read, in bytes.
const MAX_ANSWER_LENGTH: u64 = 64 * 1024;

/// The credentials of the container, if the environment says that it has some.
///
/// # Errors
/// A sentence that says why there are none, without anything secret.
pub fn of_container(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Credentials>, String> {
    let uri = match (variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"), variable("AWS_CONTAINER_CREDENTIALS_FULL_URI"))
    {
        (Some(path), _) => format!("{ECS}{path}"),
        (None, Some(uri)) => uri,
        (None, None) => return Ok(None),
    };
    const WHOSE: &str = "the container's credentials";
    let host = uri.parse::<Uri>().ok().filter(|uri| uri.scheme_str() == Some("http"));
    let host = host.as_ref().and_then(Uri::host).unwrap_or_default();
    if !AGENTS.contains(&host) && !matches!(host, "localhost" | "127.0.0.1" | "[::1]") {
        return Err(format!(
            "{WHOSE} are at an address that is not asked: http:// and loopback, or the agent of ECS or EKS, is allowed \
             (AWS_CONTAINER_CREDENTIALS_FULL_URI)"
        ));
    }
    let token = match variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
        Some(file) => Some(fs::read_to_string(&file).map_err(|error| format!("cannot read {file}: {error}"))?),
        None => variable("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
    };
    let token = token.map(Zeroizing::new);
    let headers: Vec<(&str, &str)> = token.iter().map(|token| ("Authorization", token.trim())).collect();
    let answer = get(&agent(), &uri, &headers).map_err(|error| format!("{WHOSE}: {}", why(&error)))?;
    read(&answer, "the container").map(Some).ok_or_else(|| format!("{WHOSE}: the answer holds no keys"))
}

/// The credentials of the EC2 instance; none if this is no instance, or if it has no role.
///
/// # Errors
/// When the instance's role has none.
pub fn of_instance(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Credentials>, String> {
    if variable("AWS_EC2_METADATA_DISABLED").is_some_and(|disabled| disabled.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    let base = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| EC2.to_owned());
    let base = base.trim_end_matches('/');
    let agent = agent();
    let token =
        agent.put(format!("{base}/latest/api/token")).header("X-aws-ec2-metadata-token-ttl-seconds", "60").send_empty();
    // Whoever does not answer is no instance.
    let Ok(token) =
        token.and_then(|mut answer| answer.body_mut().with_config().limit(MAX_ANSWER_LENGTH).read_to_string())
    else {
        return Ok(None);
    };
    let headers = [("X-aws-ec2-metadata-token", token.trim())];
    let roles = format!("{base}/latest/meta-data/iam/security-credentials/");
    let wrong = |why: &str| format!("the instance's credentials: {why}");
    let role = match get(&agent, &roles, &headers) {
        Err(Error::StatusCode(404)) => return Ok(None),
        role => role.map_err(|error| wrong(&why(&error)))?,
    };
    let role = role.lines().next().unwrap_or_default().trim();
    let answer = get(&agent, &format!("{roles}{role}"), &headers).map_err(|error| wrong(&why(&error)))?;
    read(&answer, "the instance").map(Some).ok_or_else(|| wrong("the answer holds no keys"))
}

/// Never by a proxy, which would see the keys, and nowhere else than where it was asked.
fn agent() -> Agent {
    Agent::config_builder().proxy(None).max_redirects(0).timeout_global(Some(PATIENCE)).build().into()
}

fn get(agent: &Agent, uri: &str, headers: &[(&str, &str)]) -> Result<Zeroizing<String>, Error> {
    let request = headers.iter().fold(agent.get(uri), |request, (name, value)| request.header(*name, *value));
    request.call()?.body_mut().with_config().limit(MAX_ANSWER_LENGTH).read_to_string().map(Zeroizing::new)
}

/// What may be said of a failure: nothing that was sent or received.
fn why(error: &Error) -> String {
    match error {
        Error::StatusCode(status) => format!("the answer has the status {status}"),
        Error::Timeout(_) => format!("no answer came within {} s", PATIENCE.as_secs()),
        Error::Io(error) => error.to_string(),
        _ => "there is no answer".to_owned(),
    }
}

fn read(answer: &str, whose: &str) -> Option<Credentials> {
    let mut answer: Value = serde_json::from_str(answer).ok()?;
    let mut text = |field: &str| match answer.get_mut(field).map(Value::take) {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        _ => None,
    };
    let (secret, token) = (text("SecretAccessKey").map(Secret::new), text("Token").map(Secret::new));
    Some(Credentials {
        access_key_id: text("AccessKeyId")?,
        secret_access_key: secret?,
        session_token: token,
        source: whose.to_owned(),
    })
}
