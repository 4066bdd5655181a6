//! A raw client: OP_MSG over a TCP connection, and nothing that a driver would add or check.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::time::Duration;

use bson::{Bson, Document, doc, spec::BinarySubtype};

const OP_MSG: i32 = 2013;
const HEADER_LENGTH: usize = 16;
/// The server's own limit, maxMessageSizeBytes.
const LONGEST_MESSAGE: usize = 48_000_000;

/// One connection to a server on this machine.
pub struct WireClient {
    stream: TcpStream,
    last_request: i32,
}

impl WireClient {
    /// Connects; every later read gives up after 30 seconds.
    pub fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, last_request: 0 })
    }

    /// Sends one command and returns its reply, which may say `ok: 0`.
    pub fn command(&mut self, database: &str, command: Document) -> io::Result<Document> {
        self.send(database, command)?;
        self.receive()
    }

    /// Sends one command, and leaves its reply for `receive`.
    pub fn send(&mut self, database: &str, mut command: Document) -> io::Result<()> {
        command.insert("$db", database);
        let body = command.to_vec().map_err(io::Error::other)?;
        self.last_request += 1;
        let mut message = op_msg(&body);
        message[4..8].copy_from_slice(&self.last_request.to_le_bytes());
        self.send_raw(&message)
    }

    /// Sends bytes as they are. `receive` reads what the server makes of them.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads one reply.
    pub fn receive(&mut self) -> io::Result<Document> {
        let mut header = [0; HEADER_LENGTH];
        self.stream.read_exact(&mut header)?;
        let field = |at: usize| i32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        let length = usize::try_from(field(0)).unwrap_or(0);
        if field(12) != OP_MSG || !(HEADER_LENGTH + 5..=LONGEST_MESSAGE).contains(&length) {
            return Err(invalid(format!("not an OP_MSG: {header:?}")));
        }
        let mut message = vec![0; length - HEADER_LENGTH];
        self.stream.read_exact(&mut message)?;
        if message[4] != 0 {
            return Err(invalid(format!("the first section is of kind {}", message[4])));
        }
        Document::from_reader(&message[5..]).map_err(invalid)
    }

    /// Sends nothing more, and reads whatever comes until the server closes the connection.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        self.stream.shutdown(Shutdown::Write)?;
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest)?;
        Ok(rest)
    }

    /// Begins a SASL conversation on `$external`.
    pub fn sasl_start(&mut self, mechanism: &str, payload: &[u8]) -> io::Result<Document> {
        self.command("$external", doc! { "saslStart": 1, "mechanism": mechanism, "payload": binary(payload) })
    }

    /// Continues a SASL conversation on `$external`.
    pub fn sasl_continue(&mut self, conversation_id: &Bson, payload: &[u8]) -> io::Result<Document> {
        self.command("$external", sasl_continue(conversation_id, payload))
    }

    /// Returns the users that this connection is logged in as, by `connectionStatus`, each as
    /// `user@db`.
    pub fn logged_in_users(&mut self) -> io::Result<Vec<String>> {
        let reply = self.command("admin", doc! { "connectionStatus": 1 })?;
        let users = reply
            .get_document("authInfo")
            .and_then(|info| info.get_array("authenticatedUsers"))
            .map_err(|_| invalid(format!("not a connectionStatus reply: {reply}")))?;
        let name = |user: &Bson| {
            let user = user.as_document()?;
            Some(format!("{}@{}", user.get_str("user").ok()?, user.get_str("db").ok()?))
        };
        Ok(users.iter().filter_map(name).collect())
    }
}

/// Returns the command that continues a SASL conversation.
pub fn sasl_continue(conversation_id: &Bson, payload: &[u8]) -> Document {
    doc! { "saslContinue": 1, "conversationId": conversation_id.clone(), "payload": binary(payload) }
}

/// Frames a command, which need not be BSON; its request id is 0.
pub fn op_msg(body: &[u8]) -> Vec<u8> {
    let length = HEADER_LENGTH + 4 + 1 + body.len();
    let mut message = Vec::with_capacity(length);
    for field in [i32::try_from(length).expect("a short command"), 0, 0, OP_MSG, 0] {
        message.extend(field.to_le_bytes());
    }
    message.push(0); // one section, of the kind "body"
    message.extend(body);
    message
}

/// Returns whether a reply has `ok: 1`, in whichever number type.
pub fn is_ok(reply: &Document) -> bool {
    match reply.get("ok") {
        Some(Bson::Double(ok)) => *ok == 1.0,
        Some(Bson::Int32(ok)) => *ok == 1,
        Some(Bson::Int64(ok)) => *ok == 1,
        _ => false,
    }
}

/// Wraps bytes as BSON binary data of subtype 0.
pub fn binary(bytes: &[u8]) -> Bson {
    Bson::Binary(bson::Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() })
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
