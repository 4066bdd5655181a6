//! The client's side of MONGODB-AWS, step by step, so that tests can also do it wrong.
//!
//! There are two signers, written apart from each other: [`Signer::sign`] by the `aws-sigv4` crate,
//! as AWS's own clients do, and [`Signer::sign_by_hand`], which can leave out headers that the
//! crate always signs.

use std::collections::BTreeMap;
use std::time::SystemTime;

use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings};
use aws_sigv4::sign::v4;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bson::{Bson, Document, doc};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::wire::{WireClient, binary, is_ok};

/// The mechanism's name.
pub const MECHANISM: &str = "MONGODB-AWS";

const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";

/// Credentials that AWS gives a user, or a role's session.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub session_token: Option<String>,
}

impl Credentials {
    /// Long-term keys, as an IAM user has.
    pub fn new(access_key_id: &str, secret_access_key: &str) -> Self {
        Self {
            access_key_id: access_key_id.to_owned(),
            secret_access_key: secret_access_key.to_owned(),
            session_token: None,
        }
    }

    /// The same keys with a session token, as a role's session has.
    pub fn with_token(mut self, session_token: &str) -> Self {
        self.session_token = Some(session_token.to_owned());
        self
    }
}

/// The client's second message before it is encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedLogin {
    pub authorization: String,
    pub date: String,
    pub token: Option<String>,
}

/// A request to STS about to be signed. Without further calls it is what a driver signs.
#[derive(Clone, Debug)]
pub struct Signer {
    credentials: Credentials,
    host: String,
    nonce: Vec<u8>,
    region: Option<String>,
    service: String,
    time: SystemTime,
    left_out: Vec<String>,
    added: Vec<(String, String)>,
}

impl Signer {
    /// Takes the host and the 64 nonce bytes from the server's first message; the time is now.
    pub fn new(credentials: &Credentials, host: &str, nonce: &[u8]) -> Self {
        Self {
            credentials: credentials.clone(),
            host: host.to_owned(),
            nonce: nonce.to_vec(),
            region: None,
            service: "sts".to_owned(),
            time: SystemTime::now(),
            left_out: Vec::new(),
            added: Vec::new(),
        }
    }

    /// Signs for another host.
    pub fn host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    /// Signs another nonce.
    pub fn nonce(mut self, nonce: &[u8]) -> Self {
        self.nonce = nonce.to_vec();
        self
    }

    /// Signs for another region than the host's.
    pub fn region(mut self, region: &str) -> Self {
        self.region = Some(region.to_owned());
        self
    }

    /// Signs for another service than sts.
    pub fn service(mut self, service: &str) -> Self {
        service.clone_into(&mut self.service);
        self
    }

    /// Signs at another time.
    pub fn time(mut self, time: SystemTime) -> Self {
        self.time = time;
        self
    }

    /// Leaves a header, named in lower case, out of the signature.
    pub fn without_header(mut self, name: &str) -> Self {
        self.left_out.push(name.to_owned());
        self
    }

    /// Signs one header more, named in lower case.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.added.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Signs with the `aws-sigv4` crate; by hand where a header is left out.
    pub fn sign(&self) -> SignedLogin {
        if !self.left_out.is_empty() {
            return self.sign_by_hand();
        }
        let credentials = aws_credential_types::Credentials::new(
            &self.credentials.access_key_id,
            &self.credentials.secret_access_key,
            self.credentials.session_token.clone(),
            None,
            "tests",
        );
        let identity = credentials.into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.signed_region())
            .name(&self.service)
            .time(self.time)
            .settings(SigningSettings::default())
            .build()
            .expect("complete parameters")
            .into();

        // The crate puts in the date and the token.
        let mut headers = self.headers();
        headers.remove("x-amz-date");
        headers.remove("x-amz-security-token");
        let headers = headers.iter().map(|(name, value)| (&**name, &**value));
        let url = format!("https://{}/", self.host);
        let body = SignableBody::Bytes(BODY.as_bytes());
        let request = SignableRequest::new("POST", url, headers, body).expect("a valid request");
        let output = aws_sigv4::http_request::sign(request, &parameters).expect("a signature");
        let (instructions, _) = output.into_parts();
        let signed: BTreeMap<_, _> = instructions.headers().collect();
        let header = |name| signed.get(name).map(|value: &&str| (*value).to_owned());
        SignedLogin {
            authorization: header("authorization").expect("the signature"),
            date: header("x-amz-date").expect("the date"),
            token: header("x-amz-security-token"),
        }
    }

    /// Signs as AWS's description of Signature Version 4 says, step by step.
    pub fn sign_by_hand(&self) -> SignedLogin {
        let date = amz_date(self.time);
        let day = &date[..8];
        let headers = self.headers();
        let names = headers.keys().map(|name| &**name).collect::<Vec<_>>();
        let names = names.join(";");
        let mut request = "POST\n/\n\n".to_owned();
        for (name, value) in &headers {
            request.push_str(&format!("{name}:{value}\n"));
        }
        let body_hash = hex::encode(Sha256::digest(BODY));
        request.push_str(&format!("\n{names}\n{body_hash}"));

        let region = self.signed_region();
        let scope = format!("{day}/{region}/{}/aws4_request", self.service);
        let request_hash = hex::encode(Sha256::digest(&request));
        let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{request_hash}");

        let secret = format!("AWS4{}", self.credentials.secret_access_key);
        let key =
            [day, region, &self.service, "aws4_request"].iter().fold(secret.into_bytes(), |key, part| hmac(&key, part));
        let signature = hex::encode(hmac(&key, &to_sign));
        let key_id = &self.credentials.access_key_id;
        SignedLogin {
            authorization: format!(
                "AWS4-HMAC-SHA256 Credential={key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
            ),
            date,
            token: self.credentials.session_token.clone(),
        }
    }

    fn signed_region(&self) -> &str {
        self.region.as_deref().unwrap_or_else(|| region_of(&self.host))
    }

    fn headers(&self) -> BTreeMap<String, String> {
        let mut headers = BTreeMap::new();
        let mut add = |name: &str, value: String| headers.insert(name.to_owned(), value);
        add("content-length", BODY.len().to_string());
        add("content-type", "application/x-www-form-urlencoded".to_owned());
        add("host", self.host.clone());
        add("x-amz-date", amz_date(self.time));
        if let Some(token) = &self.credentials.session_token {
            add("x-amz-security-token", token.clone());
        }
        add("x-mongodb-gs2-cb-flag", "n".to_owned());
        add("x-mongodb-server-nonce", BASE64_STANDARD.encode(&self.nonce));
        headers.extend(self.added.iter().cloned());
        headers.retain(|name, _| !self.left_out.contains(name));
        headers
    }
}

/// Returns the region that every driver derives from a host: the second label, us-east-1 for the
/// global host.
pub fn region_of(host: &str) -> &str {
    if host == "sts.amazonaws.com" {
        return "us-east-1";
    }
    host.split('.').nth(1).unwrap_or("us-east-1")
}

/// Formats a time as in X-Amz-Date: `20260131T235959Z`.
pub fn amz_date(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

/// Returns the client's first message.
pub fn client_first(nonce: &[u8; 32]) -> Vec<u8> {
    let message = doc! { "r": binary(nonce), "p": i32::from(b'n') };
    message.to_vec().expect("BSON")
}

/// Returns the client's second message.
pub fn client_second(signed: &SignedLogin) -> Vec<u8> {
    let mut message = doc! { "a": &signed.authorization, "d": &signed.date };
    if let Some(token) = &signed.token {
        message.insert("t", token);
    }
    message.to_vec().expect("BSON")
}

/// A conversation after the server's first message.
pub struct Conversation {
    /// The connection, on which nothing else has been sent.
    pub client: WireClient,
    pub conversation_id: Bson,
    /// All 64 bytes.
    pub nonce: Vec<u8>,
    /// The host that the server wants signed.
    pub host: String,
}

/// The server's reply to a login that it accepted.
pub struct LoginReply {
    /// The connection, now logged in.
    pub client: WireClient,
    /// The host that the server named.
    pub host: String,
    pub reply: Document,
}

impl Conversation {
    /// Connects and exchanges the first messages; Err is the server's refusal.
    ///
    /// # Panics
    ///
    /// When the server's message is not what drivers accept, or the connection breaks.
    pub fn start(port: u16) -> Result<Self, Document> {
        let mut client = WireClient::connect(port).expect("a connection");
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce).expect("random bytes");
        let reply = client.sasl_start(MECHANISM, &client_first(&nonce)).expect("a reply to saslStart");
        if !is_ok(&reply) {
            return Err(reply);
        }
        assert_eq!(reply.get_bool("done").ok(), Some(false), "{reply}");

        let payload = reply.get_binary_generic("payload").expect("a payload");
        let message = Document::from_reader(&payload[..]).expect("a BSON document");
        // Some drivers refuse any further field.
        let mut fields: Vec<_> = message.keys().map(String::as_str).collect();
        fields.sort_unstable();
        assert_eq!(fields, ["h", "s"], "{message}");
        let server_nonce = message.get_binary_generic("s").expect("binary, subtype 0");
        assert_eq!(server_nonce.len(), 64);
        assert_eq!(server_nonce[..32], nonce, "the client's part comes first");
        Ok(Self {
            client,
            conversation_id: reply.get("conversationId").expect("an id").clone(),
            nonce: server_nonce.clone(),
            host: message.get_str("h").expect("a string").to_owned(),
        })
    }

    /// Returns a signer for this conversation.
    pub fn signer(&self, credentials: &Credentials) -> Signer {
        Signer::new(credentials, &self.host, &self.nonce)
    }

    /// Sends the second message, whatever it is; Err is the server's refusal.
    ///
    /// # Panics
    ///
    /// When the server accepts it but does not end the conversation, or the connection breaks.
    pub fn finish(mut self, payload: &[u8]) -> Result<LoginReply, Document> {
        let reply = self.client.sasl_continue(&self.conversation_id, payload).expect("a reply to saslContinue");
        if !is_ok(&reply) {
            return Err(reply);
        }
        assert_eq!(reply.get_bool("done").ok(), Some(true), "{reply}");
        assert_eq!(reply.get("conversationId"), Some(&self.conversation_id));
        Ok(LoginReply { client: self.client, host: self.host, reply })
    }
}

/// Logs in as a driver does; Err is the server's refusal.
///
/// # Panics
///
/// When the server names another host than `expected_host`, or breaks the protocol.
pub fn login(port: u16, credentials: &Credentials, expected_host: &str) -> Result<LoginReply, Document> {
    let conversation = Conversation::start(port)?;
    assert_eq!(conversation.host, expected_host);
    let signed = conversation.signer(credentials).sign();
    conversation.finish(&client_second(&signed))
}

/// Logs in with a signer that `change` has modified; Err is the server's refusal.
pub fn login_with(
    port: u16,
    credentials: &Credentials,
    change: impl FnOnce(Signer) -> Signer,
) -> Result<LoginReply, Document> {
    let conversation = Conversation::start(port)?;
    let signed = change(conversation.signer(credentials)).sign();
    conversation.finish(&client_second(&signed))
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length will do");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}
