//! A connection to a MongoDB server with one deadline: TCP, optional TLS, and commands as OP_MSG.
//!
//! Source: MongoDB, "MongoDB Wire Protocol",
//! <https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/>.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bson::Document;
use bson::raw::{RawBsonRef, RawDocument, RawDocumentBuf, cstr};
use psmdb_aws_iam::sts::certificates;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use zeroize::Zeroizing;

use crate::output::shown;

const OP_MSG: i32 = 2013;
const HEADER_LENGTH: usize = 16;
/// The maximum length and nesting of a reply. Replies to the commands used here stay far below.
const MAX_REPLY_LENGTH: usize = 1024 * 1024;
const MAX_DEPTH: usize = 16;
const DEFAULT_PORT: u16 = 27017;

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name, or an IP address without brackets.
    pub host: String,
    /// The port; the default is 27017.
    pub port: u16,
}

impl Address {
    /// Reads `HOST`, `HOST:PORT`, or the same with an IPv6 address in brackets.
    ///
    /// # Errors
    /// What the text must be.
    pub fn parse(text: &str) -> Result<Self, String> {
        const ALLOWED: &str = "the server must be HOST or HOST:PORT, such as db1.example.com:27017 or [::1]:27017";
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or(ALLOWED)?)),
            None if text.contains("://") => {
                return Err(format!("{ALLOWED}, not a connection string, which may contain a password"));
            }
            // An IPv6 address without brackets has no port.
            None if text.matches(':').count() > 1 => (text, None),
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = match port {
            None => DEFAULT_PORT,
            Some(digits) => digits.parse().ok().filter(|port| *port != 0).ok_or(ALLOWED)?,
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte);
        if host.is_empty() || !host.bytes().all(plain) {
            return Err(ALLOWED.to_owned());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Why a connection or a command failed.
#[derive(Debug)]
pub enum Error {
    /// DNS has no such name.
    NameNotFound,
    /// The TCP connection could not be made, or was lost.
    Broken(io::Error),
    /// The server closed the connection before its reply.
    Closed,
    /// The deadline passed.
    TimedOut,
    /// TLS failed.
    Tls(rustls::Error),
    /// The reply does not follow the protocol; the text says how.
    NotMongoDb(String),
    /// The command cannot be encoded.
    CannotEncode(String),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => return Self::TimedOut,
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                return Self::Closed;
            }
            _ => {}
        }
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(tls) => Self::Tls(tls.clone()),
            None => Self::Broken(error),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameNotFound => f.write_str("the host name was not found"),
            Self::Broken(error) => write!(f, "{error}"),
            Self::Closed => f.write_str("the server closed the connection"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Tls(error) => f.write_str(&shown(&certificates::reason(error))),
            Self::NotMongoDb(what) => write!(f, "this is not a MongoDB server: {what}"),
            Self::CannotEncode(why) => f.write_str(why),
        }
    }
}

/// A connection.
pub struct Connection {
    stream: Stream,
    peer: SocketAddr,
    last_request: i32,
}

/// The transport of commands.
enum Stream {
    Plain(DeadlineStream),
    Tls(Box<StreamOwned<ClientConnection, DeadlineStream>>),
}

/// A TCP connection whose every read and write ends by the deadline.
struct DeadlineStream {
    tcp: TcpStream,
    deadline: Instant,
}

impl Connection {
    /// Connects, with TLS if a configuration is given.
    ///
    /// # Errors
    /// Why there is no connection by the deadline.
    pub fn open(address: &Address, tls: Option<Arc<ClientConfig>>, deadline: Instant) -> Result<Self, Error> {
        let tcp = connect(&resolve(address, deadline)?, deadline)?;
        let peer = tcp.peer_addr()?;
        tcp.set_nodelay(true)?;
        let mut tcp = DeadlineStream { tcp, deadline };
        let stream = match tls {
            None => Stream::Plain(tcp),
            Some(config) => {
                let name = ServerName::try_from(address.host.clone()).map_err(|_| {
                    Error::Tls(rustls::Error::General("the host is not valid as a name for TLS".to_owned()))
                })?;
                let mut tls = ClientConnection::new(config, name).map_err(Error::Tls)?;
                while tls.is_handshaking() {
                    tls.complete_io(&mut tcp)?;
                }
                Stream::Tls(Box::new(StreamOwned::new(tls, tcp)))
            }
        };
        Ok(Self { stream, peer, last_request: 0 })
    }

    /// The address of the server.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The version of TLS, such as `TLSv1_3`; `None` without TLS.
    pub fn tls_version(&self) -> Option<String> {
        match &self.stream {
            Stream::Plain(_) => None,
            Stream::Tls(tls) => {
                Some(tls.conn.protocol_version().map_or_else(|| "TLS".to_owned(), |version| format!("{version:?}")))
            }
        }
    }

    /// Sends a command and returns its reply, which may be an error of the server. The sent bytes
    /// are zeroed, since they may contain a session token.
    ///
    /// # Errors
    /// When there is no reply by the deadline, or it does not follow the protocol.
    pub fn command(&mut self, database: &str, mut command: RawDocumentBuf) -> Result<Document, Error> {
        command.append(cstr!("$db"), database);
        let body = Zeroizing::new(command.into_bytes());
        self.last_request += 1;
        let length = HEADER_LENGTH + 4 + 1 + body.len();
        let header_length =
            i32::try_from(length).map_err(|_| Error::CannotEncode("the command is too long".to_owned()))?;
        let mut message = Zeroizing::new(Vec::with_capacity(length));
        for field in [header_length, self.last_request, 0, OP_MSG, 0] {
            message.extend(field.to_le_bytes());
        }
        message.push(0); // one section, of kind "body"
        message.extend_from_slice(&body);
        let io: &mut dyn ReadWrite = match &mut self.stream {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => &mut **tls,
        };
        io.write_all(&message)?;
        io.flush()?;
        receive(io, self.last_request)
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// Reads one reply.
fn receive(io: &mut dyn ReadWrite, request: i32) -> Result<Document, Error> {
    let mut header = [0; HEADER_LENGTH];
    let mut read = 0;
    while read < HEADER_LENGTH {
        match io.read(&mut header[read..]) {
            Ok(0) if read == 0 => return Err(Error::Closed),
            Ok(0) => return Err(not_mongodb(&header[..read])),
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if read == 0 => return Err(error.into()),
            Err(_) => return Err(not_mongodb(&header[..read])),
        }
    }
    let [length, _, response_to, code] = [0, 4, 8, 12].map(|at| {
        let mut field = [0; 4];
        field.copy_from_slice(&header[at..at + 4]);
        i32::from_le_bytes(field)
    });
    let length = usize::try_from(length).unwrap_or_default();
    if code != OP_MSG || response_to != request || !(HEADER_LENGTH + 5..=MAX_REPLY_LENGTH).contains(&length) {
        return Err(not_mongodb(&header));
    }
    let mut message = vec![0; length - HEADER_LENGTH];
    io.read_exact(&mut message)?;
    if message[4] != 0 {
        return Err(Error::NotMongoDb("its reply has no body".to_owned()));
    }
    document(&message[5..]).ok_or_else(|| Error::NotMongoDb("its reply is not BSON".to_owned()))
}

/// Reads one whole document from an untrusted server. Returns `None` for everything else, and for a
/// document nested too deeply: its reader is recursive and copies each level.
pub fn document(bytes: &[u8]) -> Option<Document> {
    let mut level = vec![RawDocument::from_bytes(bytes).ok()?];
    for _ in 0..MAX_DEPTH {
        let mut next = Vec::new();
        for document in level {
            for element in document {
                match element.ok()?.1 {
                    RawBsonRef::Document(inner) => next.push(inner),
                    RawBsonRef::Array(inner) => next.push(RawDocument::from_bytes(inner.as_bytes()).ok()?),
                    RawBsonRef::JavaScriptCodeWithScope(_) => return None,
                    _ => {}
                }
            }
        }
        if next.is_empty() {
            return Document::from_reader(bytes).ok();
        }
        level = next;
    }
    None
}

fn not_mongodb(began: &[u8]) -> Error {
    Error::NotMongoDb(format!("its reply begins with {:?}", shown(&String::from_utf8_lossy(began))))
}

/// Resolves the name, on a separate thread because the system's resolver has no time limit.
fn resolve(address: &Address, deadline: Instant) -> Result<Vec<SocketAddr>, Error> {
    let (sender, receiver) = mpsc::channel();
    let target = (address.host.clone(), address.port);
    thread::Builder::new().spawn(move || {
        // Fails if the deadline has passed.
        let _ = sender.send(target.to_socket_addrs().map(Iterator::collect::<Vec<_>>));
    })?;
    match receiver.recv_timeout(remaining(deadline)) {
        Ok(Ok(found)) if !found.is_empty() => Ok(found),
        Ok(_) => Err(Error::NameNotFound),
        Err(_) => Err(Error::TimedOut),
    }
}

/// Connects to the first address that accepts; each gets an equal share of the remaining time.
fn connect(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, Error> {
    let mut last = Error::TimedOut;
    for (at, address) in addresses.iter().enumerate() {
        let share = remaining(deadline) / u32::try_from(addresses.len() - at).unwrap_or(1);
        if share.is_zero() {
            return Err(Error::TimedOut);
        }
        match TcpStream::connect_timeout(address, share) {
            Ok(tcp) => return Ok(tcp),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => last = Error::TimedOut,
            Err(error) => last = Error::Broken(error),
        }
    }
    Err(last)
}

fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

impl DeadlineStream {
    fn time_left(&self) -> io::Result<Duration> {
        let left = remaining(self.deadline);
        // A timeout of 0 would mean no timeout.
        if left < Duration::from_millis(1) { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for DeadlineStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tcp.set_read_timeout(Some(self.time_left()?))?;
        self.tcp.read(buffer)
    }
}

impl Write for DeadlineStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.set_write_timeout(Some(self.time_left()?))?;
        self.tcp.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_that_would_take_much_memory_is_refused() {
        let nested = |levels: usize| {
            let mut bytes = vec![5, 0, 0, 0, 0];
            for _ in 0..levels {
                let inner = bytes;
                let length = u32::try_from(4 + 1 + 2 + inner.len() + 1).unwrap();
                bytes = [&length.to_le_bytes()[..], b"\x03a\0", &inner, b"\0"].concat();
            }
            bytes
        };
        assert!(document(&nested(MAX_DEPTH - 1)).is_some());
        assert!(document(&nested(MAX_DEPTH)).is_none());
        assert!(document(&nested(2_000)).is_none());
        // The stated length must be the actual one.
        for wrong in [&b"\xff\xff\xff\x7f\0"[..], b"\x05\0\0\0", b"", b"\x05\0\0\0\0\0"] {
            assert!(document(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn an_address_is_a_host_with_an_optional_port() {
        for (text, host, port, written) in [
            ("db1", "db1", 27017, "db1:27017"),
            ("db1.example.com:27018", "db1.example.com", 27018, "db1.example.com:27018"),
            ("127.0.0.1:1", "127.0.0.1", 1, "127.0.0.1:1"),
            ("[::1]", "::1", 27017, "[::1]:27017"),
            ("[::1]:65535", "::1", 65535, "[::1]:65535"),
            ("::1", "::1", 27017, "[::1]:27017"),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!((&*address.host, address.port), (host, port), "{text}");
            assert_eq!(address.to_string(), written);
        }
        for wrong in
            ["", ":27017", "db1:", "db1:0", "db1:65536", "db1:x", "[::1", "[::1]27017", "a b", "a/b", "u:p@h", "a,b"]
        {
            assert!(Address::parse(wrong).is_err(), "{wrong:?} was accepted");
        }
        let why = Address::parse("mongodb://user:secret@db1").unwrap_err();
        assert!(why.contains("not a connection string") && !why.contains("secret"), "{why}");
    }
}
