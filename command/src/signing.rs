//! The client's side of `MONGODB-AWS`: GetCallerIdentity signed for an STS host and a nonce, as
//! drivers do it.
//!
//! Source: MongoDB drivers' specification "Authentication", section MONGODB-AWS.

use std::time::SystemTime;

use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use psmdb_aws_iam::secret::Secret;
use psmdb_aws_iam::sigv4::{self, AmzDate, Authorization, Expected};
use psmdb_aws_iam::sts::endpoint::StsHost;
use psmdb_aws_iam::sts::request::{BODY, CONTENT_TYPE, GS2_CB_FLAG, IdentityRequest};

use crate::credentials::Credentials;

/// Signs a GetCallerIdentity request with these credentials and the current time.
///
/// `nonce` is the client's and the server's. What comes back has passed the checks that the plugin
/// makes.
///
/// # Errors
/// A sentence that says what is wrong with the credentials; it shows nothing of them.
pub fn sign_identity_request(
    credentials: &Credentials,
    host: &StsHost,
    nonce: &[u8],
) -> Result<IdentityRequest, String> {
    let wrong =
        |why: &dyn std::fmt::Display| format!("cannot sign with the credentials from {}: {why}", credentials.source);
    let token = credentials.keys.session_token();
    let identity = credentials.keys.clone().into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(host.region())
        .name("sts")
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| wrong(&error))?
        .into();
    let (length, nonce) = (BODY.len().to_string(), BASE64_STANDARD.encode(nonce));
    // The crate adds the date and the token.
    let headers = [
        ("content-length", length.as_str()),
        ("content-type", CONTENT_TYPE),
        ("host", host.as_str()),
        ("x-mongodb-gs2-cb-flag", GS2_CB_FLAG),
        ("x-mongodb-server-nonce", &nonce),
    ];
    let url = format!("https://{host}/");
    let request = SignableRequest::new("POST", url, headers.into_iter(), SignableBody::Bytes(BODY.as_bytes()))
        .map_err(|error| wrong(&error))?;
    let (instructions, _) = sign(request, &parameters).map_err(|error| wrong(&error))?.into_parts();
    let header = |wanted: &str| {
        instructions.headers().find(|(name, _)| *name == wanted).map(|(_, value)| value).unwrap_or_default()
    };

    let date = AmzDate::parse(header("x-amz-date")).map_err(|denial| wrong(&denial))?;
    if let Some(token) = token {
        sigv4::check_token(token).map_err(|denial| wrong(&denial))?;
    }
    let expected = Expected { date: &date, region: host.region(), with_token: token.is_some() };
    let authorization = Authorization::parse(header("authorization"), &expected).map_err(|denial| wrong(&denial))?;
    Ok(IdentityRequest { authorization, date, token: token.map(|token| Secret::new(token.to_owned())), nonce })
}
