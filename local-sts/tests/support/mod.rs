//! A client for the tests: a real TLS connection, and requests signed exactly as MongoDB's drivers
//! sign them.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use local_sts::{Identity, LocalSts};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

pub const ACCOUNT: &str = "123456789012";
pub const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
pub const NONCE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==";

/// A connection for requests in sequence.
pub struct Client {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

impl Client {
    /// Connects as to `sts.amazonaws.com`.
    pub fn connect(sts: &LocalSts) -> Self {
        Self::dial(sts.address(), sts.ca_pem(), "sts.amazonaws.com").unwrap()
    }

    /// Connects to `address` and completes the handshake, trusting `ca_pem` only and expecting a
    /// certificate for `name`.
    pub fn dial(address: SocketAddr, ca_pem: &str, name: &str) -> io::Result<Self> {
        Self::dial_with(&Self::trusting(ca_pem), address, name)
    }

    /// Returns the TLS settings of a client that trusts `ca_pem` only; connections with the same
    /// settings share sessions.
    pub fn trusting(ca_pem: &str) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }

    /// As [`dial`](Self::dial), with these settings.
    pub fn dial_with(config: &Arc<ClientConfig>, address: SocketAddr, name: &str) -> io::Result<Self> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut connection = ClientConnection::new(Arc::clone(config), name).unwrap();
        let mut socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(Self { stream: StreamOwned::new(connection, socket) })
    }

    /// Returns whether the TLS session of an earlier connection was resumed.
    pub fn is_resumed(&self) -> bool {
        self.stream.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    pub fn set_read_timeout(&self, timeout: Duration) {
        self.stream.sock.set_read_timeout(Some(timeout)).unwrap();
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.stream.flush().unwrap();
    }

    /// Reads until the server closes. Fails if it closes without TLS's `close_notify`.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Sends `request` and reads its response, which must have a `Content-Length`.
    pub fn send(&mut self, request: &Request) -> Response {
        self.try_send(request).unwrap()
    }

    /// As [`send`](Self::send); fails if the connection does.
    pub fn try_send(&mut self, request: &Request) -> io::Result<Response> {
        self.stream.write_all(&request.to_bytes())?;
        self.stream.flush()?;
        self.try_read_response()
    }

    pub fn read_response(&mut self) -> Response {
        self.try_read_response().unwrap()
    }

    fn try_read_response(&mut self) -> io::Result<Response> {
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            if let Some(response) = Response::parse(&bytes) {
                return Ok(response);
            }
            let count = self.stream.read(&mut chunk)?;
            if count == 0 {
                let message = format!("the connection ended after {:?}", String::from_utf8_lossy(&bytes));
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
            }
            bytes.extend_from_slice(&chunk[..count]);
        }
    }
}

/// A request that can be changed before it is sent.
#[derive(Clone)]
pub struct Request {
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// Signs as a driver does, now, for `sts.amazonaws.com`.
    pub fn signed_by(identity: &Identity) -> Self {
        Self::signed(identity, "sts.amazonaws.com", "us-east-1", SystemTime::now())
    }

    /// Signs as a driver does: the header fields of the drivers' authentication specification and
    /// no others.
    pub fn signed(identity: &Identity, host: &str, region: &str, time: SystemTime) -> Self {
        let mut headers = vec![
            ("Content-Type".to_owned(), "application/x-www-form-urlencoded".to_owned()),
            ("Content-Length".to_owned(), BODY.len().to_string()),
            ("Host".to_owned(), host.to_owned()),
            ("X-MongoDB-Server-Nonce".to_owned(), NONCE.to_owned()),
            ("X-MongoDB-GS2-CB-Flag".to_owned(), "n".to_owned()),
        ];
        let credentials = Credentials::new(
            &identity.access_key_id,
            &identity.secret_access_key,
            identity.session_token.clone(),
            None,
            "test",
        )
        .into();
        let parameters = v4::SigningParams::builder()
            .identity(&credentials)
            .region(region)
            .name("sts")
            .time(time)
            .settings(SigningSettings::default())
            .build()
            .unwrap()
            .into();
        let signable = SignableRequest::new(
            "POST",
            format!("https://{host}/"),
            headers.iter().map(|(name, value)| (name.as_str(), value.as_str())),
            SignableBody::Bytes(BODY.as_bytes()),
        )
        .unwrap();
        let (instructions, _) = sign(signable, &parameters).unwrap().into_parts();
        let signing: Vec<(String, String)> =
            instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        headers.extend(signing);
        Self { headers, body: BODY.into() }
    }

    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
        &found.unwrap_or_else(|| panic!("no {name}")).1
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self = self.without(name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(field, _)| !field.eq_ignore_ascii_case(name));
        self
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = b"POST / HTTP/1.1\r\n".to_vec();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut parsed = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(head) = parsed.parse(bytes).unwrap() else { return None };
        let headers: Vec<(String, String)> = parsed
            .headers
            .iter()
            .map(|field| (field.name.to_owned(), String::from_utf8(field.value.to_vec()).unwrap()))
            .collect();
        let status = parsed.code.unwrap();
        let mut response = Self { status, headers, body: String::new() };
        let length: usize = response.header("Content-Length").unwrap().parse().unwrap();
        let body = bytes[head..].get(..length)?;
        response.body = String::from_utf8(body.to_vec()).unwrap();
        Some(response)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Returns the text of the only element called `name` in the XML body.
    pub fn element(&self, name: &str) -> &str {
        let (_, rest) = self.body.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("no {name}: {self:?}"));
        rest.split_once(&format!("</{name}>")).unwrap().0
    }

    #[track_caller]
    pub fn assert_refused(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.element("Code")), (status, code), "{self:?}");
        assert!(!self.body.contains("<Arn>"), "{self:?}");
    }
}
