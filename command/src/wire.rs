//! A connection to a MongoDB server: TCP, TLS if wanted, and commands as OP_MSG, all of it by one deadline.
//!
//! Source: MongoDB, "MongoDB Wire Protocol", <https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/>.

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
/// The longest reply that is read, and the deepest nesting in it. The replies to these commands are far from both; a server
/// that sends more is none.
const MAX_MESSAGE_LENGTH: usize = 1024 * 1024;
const MAX_DEPTH: usize = 16;
const DEFAULT_PORT: u16 = 27017;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name, or an IP address without brackets.
    pub host: String,
    /// The port, 27017 unless another was named.
    pub port: u16,
}

impl Address {
    /// Reads `HOST`, `HOST:PORT`, or the same with an IPv6 address in brackets.
    ///
    /// # Errors
    /// A sentence that says what is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        const ALLOWED: &str = "HOST or HOST:PORT is allowed, such as db1.example.com:27017 or [::1]:27017";
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or(ALLOWED)?)),
            None if text.contains("://") => {
                return Err(format!("{ALLOWED}, and not a connection string, which may hold a password"));
            }
            // An IPv6 address without brackets is all host.
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

/// What went wrong on a connection.
#[derive(Debug)]
pub enum Trouble {
    /// The name is not known.
    NameNotFound,
    /// There is no TCP connection, or it broke.
    Broken(io::Error),
    /// The other side closed the connection instead of an answer.
    Closed,
    /// The time is over.
    TimedOut,
    /// There is no TLS.
    Tls(rustls::Error),
    /// What answers does not speak the protocol; the sentence says what it does.
    NotMongo(String),
    /// The command cannot be written down.
    Unsendable(String),
}

impl From<io::Error> for Trouble {
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

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameNotFound => f.write_str("the name is not found"),
            Self::Broken(error) => write!(f, "{error}"),
            Self::Closed => f.write_str("the other side closed the connection"),
            Self::TimedOut => f.write_str("nothing came in time"),
            Self::Tls(error) => f.write_str(&shown(&certificates::reason(error))),
            Self::NotMongo(what) => write!(f, "this is not a MongoDB server: {what}"),
            Self::Unsendable(why) => f.write_str(why),
        }
    }
}

/// A connection.
pub struct Connection {
    stream: Stream,
    peer: SocketAddr,
    last_request: i32,
}

/// What commands are written to.
enum Stream {
    Plain(Deadlined),
    Tls(Box<StreamOwned<ClientConnection, Deadlined>>),
}

/// A TCP connection whose every read and write ends by the deadline.
struct Deadlined {
    tcp: TcpStream,
    deadline: Instant,
}

impl Connection {
    /// Connects, by TLS if there are settings for it.
    ///
    /// # Errors
    /// Why there is no connection by the deadline.
    pub fn open(address: &Address, tls: Option<Arc<ClientConfig>>, deadline: Instant) -> Result<Self, Trouble> {
        let tcp = connect(&resolve(address, deadline)?, deadline)?;
        let peer = tcp.peer_addr()?;
        tcp.set_nodelay(true)?;
        let mut tcp = Deadlined { tcp, deadline };
        let stream = match tls {
            None => Stream::Plain(tcp),
            Some(config) => {
                let name = ServerName::try_from(address.host.clone())
                    .map_err(|_| Trouble::Tls(rustls::Error::General("the host is not a name for TLS".to_owned())))?;
                let mut tls = ClientConnection::new(config, name).map_err(Trouble::Tls)?;
                while tls.is_handshaking() {
                    tls.complete_io(&mut tcp)?;
                }
                Stream::Tls(Box::new(StreamOwned::new(tls, tcp)))
            }
        };
        Ok(Self { stream, peer, last_request: 0 })
    }

    /// Whom it is to.
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

    /// Sends a command and returns its reply, which may say `ok: 0`. What was sent is zeroed.
    ///
    /// # Errors
    /// When there is no reply by the deadline, or it is none of MongoDB's.
    pub fn command(&mut self, database: &str, mut command: RawDocumentBuf) -> Result<Document, Trouble> {
        command.append(cstr!("$db"), database);
        let body = Zeroizing::new(command.into_bytes());
        self.last_request += 1;
        let length = HEADER_LENGTH + 4 + 1 + body.len();
        let header_length =
            i32::try_from(length).map_err(|_| Trouble::Unsendable("the command is too long".to_owned()))?;
        let mut message = Zeroizing::new(Vec::with_capacity(length));
        for field in [header_length, self.last_request, 0, OP_MSG, 0] {
            message.extend(field.to_le_bytes());
        }
        message.push(0); // one section, of the kind "body"
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
fn receive(io: &mut dyn ReadWrite, request: i32) -> Result<Document, Trouble> {
    let mut header = [0; HEADER_LENGTH];
    let mut read = 0;
    while read < HEADER_LENGTH {
        match io.read(&mut header[read..]) {
            Ok(0) if read == 0 => return Err(Trouble::Closed),
            Ok(0) => return Err(not_mongo(&header[..read])),
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if read == 0 => return Err(error.into()),
            Err(_) => return Err(not_mongo(&header[..read])),
        }
    }
    let [length, _, response_to, code] = [0, 4, 8, 12].map(|at| {
        let mut field = [0; 4];
        field.copy_from_slice(&header[at..at + 4]);
        i32::from_le_bytes(field)
    });
    let length = usize::try_from(length).unwrap_or_default();
    if code != OP_MSG || response_to != request || !(HEADER_LENGTH + 5..=MAX_MESSAGE_LENGTH).contains(&length) {
        return Err(not_mongo(&header));
    }
    let mut message = vec![0; length - HEADER_LENGTH];
    io.read_exact(&mut message)?;
    if message[4] != 0 {
        return Err(Trouble::NotMongo("its reply has no body".to_owned()));
    }
    document(&message[5..]).ok_or_else(|| Trouble::NotMongo("its reply is not BSON".to_owned()))
}

/// Reads one whole document from a server that may be anybody's. `None` for everything else, and for one that is nested so
/// deep that reading it would take much memory: the reader copies each level, and calls itself.
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

fn not_mongo(began: &[u8]) -> Trouble {
    Trouble::NotMongo(format!("its answer begins with {:?}", shown(&String::from_utf8_lossy(began))))
}

/// Looks the name up, on a thread of its own since the system's resolver has no time limit.
fn resolve(address: &Address, deadline: Instant) -> Result<Vec<SocketAddr>, Trouble> {
    let (sender, receiver) = mpsc::channel();
    let target = (address.host.clone(), address.port);
    thread::Builder::new().spawn(move || {
        // Nobody listens any more when it comes late.
        let _ = sender.send(target.to_socket_addrs().map(Iterator::collect::<Vec<_>>));
    })?;
    match receiver.recv_timeout(left(deadline)) {
        Ok(Ok(found)) if !found.is_empty() => Ok(found),
        Ok(_) => Err(Trouble::NameNotFound),
        Err(_) => Err(Trouble::TimedOut),
    }
}

/// Connects to the first address that answers; each has its share of the time.
fn connect(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, Trouble> {
    let mut trouble = Trouble::TimedOut;
    for (at, address) in addresses.iter().enumerate() {
        let share = left(deadline) / u32::try_from(addresses.len() - at).unwrap_or(1);
        if share.is_zero() {
            return Err(Trouble::TimedOut);
        }
        match TcpStream::connect_timeout(address, share) {
            Ok(tcp) => return Ok(tcp),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => trouble = Trouble::TimedOut,
            Err(error) => trouble = Trouble::Broken(error),
        }
    }
    Err(trouble)
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

impl Deadlined {
    fn time_left(&self) -> io::Result<Duration> {
        let left = left(self.deadline);
        // The system takes no time for no limit.
        if left < Duration::from_millis(1) { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Deadlined {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tcp.set_read_timeout(Some(self.time_left()?))?;
        self.tcp.read(buffer)
    }
}

impl Write for Deadlined {
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
    fn a_reply_that_would_take_much_memory_is_none() {
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
        // A length that is not that of what is there is not believed.
        for wrong in [&b"\xff\xff\xff\x7f\0"[..], b"\x05\0\0\0", b"", b"\x05\0\0\0\0\0"] {
            assert!(document(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn an_address_is_a_host_and_perhaps_a_port() {
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
