//! The GetCallerIdentity request, built from constants and the client's checked values.
//!
//! Source: MongoDB drivers' specification "Authentication", section MONGODB-AWS: the request that
//! the client signs. Method, path, query, body and header names are constants, so a client cannot
//! turn it into another request.

use crate::secret::Secret;
use crate::sigv4::{AmzDate, Authorization};

/// The body, as every driver signs it.
pub const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";

/// The body's content type, without a charset, as every driver signs it.
pub const CONTENT_TYPE: &str = "application/x-www-form-urlencoded";

/// The channel-binding flag, "the client does not support channel binding". Clients must send the
/// same.
pub const GS2_CB_FLAG: &str = "n";

/// One GetCallerIdentity request: it asks STS who signed it.
#[derive(Clone, Debug)]
pub struct IdentityRequest {
    /// The client's checked Authorization header.
    pub authorization: Authorization,
    /// The client's checked date.
    pub date: AmzDate,
    /// The client's checked session token, if it has one.
    pub token: Option<Secret>,
    /// The 64 bytes of the client's and the server's nonce, in base64.
    pub nonce: String,
}

impl IdentityRequest {
    /// The headers in the order in which they are sent. The HTTP client adds Host and
    /// Content-Length.
    pub fn headers(&self) -> Vec<(&'static str, Secret)> {
        let plain = |text: &str| Secret::new(text.to_owned());
        let mut headers = vec![
            ("Accept", plain("text/xml")),
            ("Content-Type", plain(CONTENT_TYPE)),
            ("X-Amz-Date", plain(self.date.as_str())),
        ];
        headers.extend(self.token.iter().map(|token| ("X-Amz-Security-Token", token.clone())));
        headers.extend([
            ("X-MongoDB-Server-Nonce", plain(&self.nonce)),
            ("X-MongoDB-GS2-CB-Flag", plain(GS2_CB_FLAG)),
            ("Authorization", self.authorization.to_header()),
        ]);
        headers
    }
}
