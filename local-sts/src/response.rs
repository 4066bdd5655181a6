//! Responses: the documents of STS in XML and JSON, and responses that STS would never send.
//!
//! The documents follow the API reference of [GetCallerIdentity] and its [common errors].
//!
//! [GetCallerIdentity]: https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
//! [common errors]: https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html

use std::time::{Duration, SystemTime};

use serde_json::json;
use time::OffsetDateTime;
use time::macros::format_description;

use crate::error::StsError;
use crate::http::{Request, Response};
use crate::identity::{Identity, random_bytes};

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// How the server responds to an HTTP request; see
/// [`LocalSts::set_response`](crate::LocalSts::set_response).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StsResponse {
    /// Verifies the signature and responds as AWS would.
    Verified,
    /// Responds with 200 and this identity, whatever was signed: only the checks of the client can
    /// refuse it.
    AcceptAll(Identity),
    /// Responds with these bytes of HTTP. `Content-Length` is added unless the fields have it or
    /// `Transfer-Encoding`.
    Fixed {
        /// The status code.
        status: u16,
        /// All header fields, in this order.
        headers: Vec<(String, String)>,
        /// The body, as it is.
        body: Vec<u8>,
    },
    /// Writes these bytes, inside TLS but instead of HTTP, and closes the connection.
    Raw(Vec<u8>),
    /// Writes each of these as a TLS record of its own, all at once, instead of HTTP. The
    /// connection stays open, so that surplus bytes wait for the next request.
    RawRecords(Vec<Vec<u8>>),
    /// Verifies the first request of each connection. A further one is read, and then the
    /// connection is closed without a response, or stays silent: what a client sees of a connection
    /// that was lost while it was idle.
    OncePerConnection {
        /// Stay silent instead of closing.
        silent: bool,
    },
    /// Verifies requests whose session token is not long. It responds to others with 431 as a load
    /// balancer does, or closes the connection without a response.
    ShortTokensOnly {
        /// Close instead of responding.
        closes: bool,
    },
    /// Reads the request and never responds; the connection stays until the client or the server
    /// closes it.
    Silence,
    /// Writes `first` at once and each byte of `rest` after a pause, instead of HTTP, and closes
    /// the connection.
    Slow {
        /// What is written at once.
        first: Vec<u8>,
        /// What is written byte by byte.
        rest: Vec<u8>,
        /// The time before each byte of `rest`.
        pause: Duration,
    },
    /// Writes `first` and then `repeated` so many times, instead of HTTP, and closes the
    /// connection. Only these two are in memory.
    Flood {
        /// What is written first.
        first: Vec<u8>,
        /// What is written many times.
        repeated: Vec<u8>,
        /// How many times; `None`: until the client closes the connection or the server stops.
        times: Option<usize>,
    },
}

/// Returns the response that names `identity` as the signer of the request.
pub(crate) fn success(request: &Request, identity: &Identity, now: SystemTime) -> Response {
    let request_id = request_id();
    let body = if wants_json(request) {
        json!({"GetCallerIdentityResponse": {
            "GetCallerIdentityResult": {
                "Account": identity.account, "Arn": identity.arn, "UserId": identity.user_id,
            },
            "ResponseMetadata": {"RequestId": request_id},
        }})
        .to_string()
    } else {
        format!(
            "<GetCallerIdentityResponse xmlns=\"{NAMESPACE}\">\n  <GetCallerIdentityResult>\n    \
             <Arn>{}</Arn>\n    <UserId>{}</UserId>\n    <Account>{}</Account>\n  \
             </GetCallerIdentityResult>\n  <ResponseMetadata>\n    <RequestId>{request_id}</RequestId>\n  \
             </ResponseMetadata>\n</GetCallerIdentityResponse>\n",
            escape(&identity.arn),
            escape(&identity.user_id),
            escape(&identity.account),
        )
    };
    respond(200, wants_json(request), request_id, body, now)
}

/// Returns the response that refuses a request. `request` is `None` if it was not HTTP.
pub(crate) fn error(request: Option<&Request>, error: &StsError, now: SystemTime) -> Response {
    let json = request.is_some_and(wants_json);
    let request_id = request_id();
    let (code, message) = (error.code, &error.message);
    let kind = if error.status < 500 { "Sender" } else { "Receiver" };
    let body = if json {
        json!({"Error": {"Code": code, "Message": message, "Type": kind}, "RequestId": request_id}).to_string()
    } else {
        format!(
            "<ErrorResponse xmlns=\"{NAMESPACE}\">\n  <Error>\n    <Type>{kind}</Type>\n    <Code>{code}</Code>\n    \
             <Message>{}</Message>\n  </Error>\n  <RequestId>{request_id}</RequestId>\n</ErrorResponse>\n",
            escape(message),
        )
    };
    respond(error.status, json, request_id, body, now)
}

fn respond(status: u16, json: bool, request_id: String, body: String, now: SystemTime) -> Response {
    let content_type = if json { "application/json" } else { "text/xml" };
    Response {
        status,
        headers: vec![
            ("x-amzn-RequestId".to_owned(), request_id),
            ("Content-Type".to_owned(), content_type.to_owned()),
            ("Date".to_owned(), http_date(now)),
        ],
        body: body.into_bytes(),
    }
}

/// Returns whether the client asks for JSON by its media type, which STS supports.
fn wants_json(request: &Request) -> bool {
    request
        .values("accept")
        .flat_map(|value| value.split(','))
        .any(|range| range.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json"))
}

/// Returns a random UUID, RFC 9562 version 4.
fn request_id() -> String {
    let mut bytes: [u8; 16] = random_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// Returns `time` as RFC 9110 section 5.6.7 writes dates.
fn http_date(time: SystemTime) -> String {
    OffsetDateTime::from(time)
        .format(format_description!(
            "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
        ))
        .expect("a date of four-digit years can be written")
}

/// Returns `text` as XML character data; what XML 1.0 cannot carry becomes U+FFFD.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\r' => escaped.push_str("&#13;"),
            '\t' | '\n' => escaped.push(character),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(accept: &[&str]) -> Request {
        Request {
            method: "POST".to_owned(),
            target: "/".to_owned(),
            headers: accept.iter().map(|value| ("Accept".to_owned(), (*value).to_owned())).collect(),
            body: Vec::new(),
            raw_head: Vec::new(),
            keep_alive: true,
        }
    }

    fn text(response: &Response) -> &str {
        std::str::from_utf8(&response.body).unwrap()
    }

    #[test]
    fn json_is_sent_if_the_client_accepts_it() {
        for (accept, json) in [
            (&[][..], false),
            (&["*/*"], false),
            (&["application/json"], true),
            (&["text/xml, Application/JSON;q=0.5"], true),
            (&["application/json-seq"], false),
        ] {
            assert_eq!(wants_json(&request(accept)), json, "{accept:?}");
        }
    }

    #[test]
    fn names_are_escaped_in_xml_and_json() {
        let identity = Identity::iam_user("123456789012", "a&b<c>\"d/e");
        let xml = success(&request(&[]), &identity, SystemTime::UNIX_EPOCH);
        assert!(text(&xml).contains("user/a&amp;b&lt;c&gt;&quot;d/e</Arn>"), "{}", text(&xml));
        let json = success(&request(&["application/json"]), &identity, SystemTime::UNIX_EPOCH);
        let json: serde_json::Value = serde_json::from_slice(&json.body).unwrap();
        assert_eq!(json["GetCallerIdentityResponse"]["GetCallerIdentityResult"]["Arn"], identity.arn);
    }

    #[test]
    fn an_error_names_its_code_and_a_request_id() {
        let token = StsError::new(403, "InvalidClientTokenId", "The <token>");
        let xml = error(None, &token, SystemTime::UNIX_EPOCH);
        let id = &xml.headers[0].1;
        assert_eq!(xml.headers[0].0, "x-amzn-RequestId");
        assert!(text(&xml).contains("<Code>InvalidClientTokenId</Code>\n    <Message>The &lt;token&gt;</Message>"));
        assert!(text(&xml).contains(&format!("<RequestId>{id}</RequestId>")));
        assert!(id.len() == 36 && id.as_bytes()[14] == b'4', "{id}");
        assert_eq!(xml.headers[2].1, "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
