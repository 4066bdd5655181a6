//! TLS towards STS, and the answer to one question: may this connection carry the next login?
//!
//! An answer of STS names no nonce, so that nothing but its place on the connection ties it to its question. A
//! connection on which anything is left over after an answer - in the socket, in a buffer, in half a TLS record - is
//! therefore never used again: what is left over would be taken for the answer to somebody else's question.

use super::roots::Verifier;
use crate::denial::Denial;
use crate::process::Process;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::cell::Cell;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::unversioned::transport::{Buffers, LazyBuffers, NextTimeout, Transport};
use ureq::{Error, Timeout};
use zeroize::{Zeroize, Zeroizing};

/// Builds the settings of TLS: the system's roots and these, and nothing else; TLS 1.2 and 1.3; sessions are resumed.
///
/// # Errors
/// As [`Verifier::new`].
pub fn client_config(extra_roots: &[CertificateDer<'static>]) -> Result<Arc<ClientConfig>, Denial> {
    // Given explicitly: the library's default provider is a setting of the whole process.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier::new(Arc::clone(&provider), extra_roots)?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| Denial::internal("TLS cannot be set up"))?
        // The library's name for any verifier that is not its own; this one leaves every verdict to the library's.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

thread_local! {
    /// Whether this thread has set out to make a connection since it last asked: the HTTP library makes one on the thread
    /// of the request, and does not tell whether it took a kept one instead.
    static CONNECTED: Cell<bool> = const { Cell::new(false) };
    /// The address that this thread's latest request was sent to, which the HTTP library does not tell either.
    static PEER: Cell<Option<SocketAddr>> = const { Cell::new(None) };
}

/// Runs a request and says whether it set out to make a connection of its own, with success or without.
pub fn noting_connections<T>(request: impl FnOnce() -> T) -> (T, bool) {
    CONNECTED.set(false);
    let result = request();
    (result, CONNECTED.get())
}

/// Notes that a connection was needed and that there may be none.
pub fn note_connection() {
    CONNECTED.set(true);
}

/// Returns the address of the connection that this thread has sent a request on since the last call, if any.
pub fn take_peer() -> Option<SocketAddr> {
    PEER.take()
}

/// A TLS connection to STS.
pub struct TlsTransport {
    address: SocketAddr,
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, Socket>,
    phase: Phase,
    /// What is to be sent when the question is complete, so that its header and its body leave together.
    pending: Zeroizing<Vec<u8>>,
    kept_patience: Duration,
    process: Arc<Process>,
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It carries its first question.
    New,
    /// It has answered before, and now carries another question that nothing has answered yet.
    Kept,
    /// The other side has answered something to the latest question.
    Answering,
    /// Nothing of the answer is left in here; whether more has come since is to be seen when it is used again.
    Parked,
    /// Nothing has come since.
    Ready,
}

/// More than the body of a question has, in bytes.
const ROOM_FOR_BODY: usize = 128;

impl TlsTransport {
    /// Takes a connection to this address whose handshake is complete, how long it may be silent when it is used again,
    /// and where connections are counted.
    pub fn new(
        address: SocketAddr,
        stream: StreamOwned<ClientConnection, Socket>,
        buffers: LazyBuffers,
        kept_patience: Duration,
        process: Arc<Process>,
    ) -> Self {
        process.metrics.connections_opened.add();
        process.metrics.connections_open.enter();
        Self { address, buffers, stream, phase: Phase::New, pending: Zeroizing::default(), kept_patience, process }
    }

    fn send_pending(&mut self, timeout: NextTimeout) -> Result<(), Error> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.stream.sock.set_timeout(timeout);
        // Zeroed here, sent or not.
        let pending = std::mem::take(&mut self.pending);
        Ok(self.stream.write_all(&pending)?)
    }

    /// Whether all that has come from the other side has been handed on.
    fn is_drained(&mut self) -> bool {
        let decrypted = match self.stream.conn.process_new_packets() {
            // A peer that has said goodbye answers nothing more, though its socket may be open for a while.
            Ok(state) if !state.peer_has_closed() => state.plaintext_bytes_to_read(),
            _ => return false,
        };
        decrypted == 0 && self.stream.sock.records.at_boundary()
    }
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        PEER.set(Some(self.address));
        match self.phase {
            Phase::New | Phase::Kept => {}
            Phase::Ready => {
                self.process.metrics.connections_reused.add();
                self.phase = Phase::Kept;
            }
            // Nobody has looked whether something is left over.
            Phase::Answering | Phase::Parked => return Err(Error::ConnectionFailed),
        }
        if self.pending.capacity() - self.pending.len() < amount {
            self.send_pending(timeout)?;
            // Never grown, since that would leave a copy behind.
            self.pending = Zeroizing::new(Vec::with_capacity(amount + ROOM_FOR_BODY));
        }
        let output = &mut self.buffers.output()[..amount];
        self.pending.extend_from_slice(output);
        // The connection is kept, and a request holds a signature and perhaps a token.
        output.zeroize();
        Ok(())
    }

    fn await_input(&mut self, mut timeout: NextTimeout) -> Result<bool, Error> {
        self.send_pending(timeout)?;
        if self.phase == Phase::Kept {
            // It may have died unseen, and there is time for a new one then.
            timeout.after = timeout.after.min(self.kept_patience.into());
        }
        self.stream.sock.set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.phase = Phase::Answering;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    // Asked before a connection is kept and again before it is used.
    fn is_open(&mut self) -> bool {
        let is_drained = self.is_drained();
        match self.phase {
            // The socket is looked at when it counts: right before the next question.
            Phase::Answering if is_drained => {
                self.phase = Phase::Parked;
                true
            }
            Phase::Parked | Phase::Ready if is_drained && self.stream.sock.is_quiet() => {
                self.phase = Phase::Ready;
                true
            }
            _ => false,
        }
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl Drop for TlsTransport {
    fn drop(&mut self) {
        // What was written into it and, for want of time, not sent.
        self.buffers.output().zeroize();
        self.process.metrics.connections_open.leave();
    }
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsTransport")
    }
}

/// What TLS reads from and writes to: a TCP connection that does not block, watched for whole records. It waits for the
/// other side only when it has a time limit.
#[derive(Debug)]
pub struct Socket {
    tcp: TcpStream,
    records: Records,
    limit: Option<(Option<Instant>, Timeout)>,
}

impl Socket {
    /// Takes a connection that does not block; reads and writes return at once.
    pub fn new(tcp: TcpStream) -> Self {
        Self { tcp, records: Records::default(), limit: None }
    }

    /// The connection itself, for what is no part of TLS.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Has reads and writes wait, all of them together for this long.
    fn set_timeout(&mut self, timeout: NextTimeout) {
        // One without an end cannot be added to a moment.
        self.limit = Some((Instant::now().checked_add(*timeout.after), timeout.reason));
    }

    /// Whether the other side has neither said anything nor hung up.
    fn is_quiet(&self) -> bool {
        matches!(self.tcp.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Waits until the socket is ready, if it has a time limit. Once that has passed, nothing is read: TLS reads on
    /// until it has data for the caller, and a peer could send other records without end.
    fn wait(&self, events: PollFlags) -> io::Result<()> {
        let Some((until, reason)) = self.limit else { return Ok(()) };
        let mut socket = [PollFd::new(&self.tcp, events)];
        let is_over = || until.is_some_and(|until| Instant::now() >= until);
        if !is_over() && wait(&mut socket, until)? { Ok(()) } else { Err(Error::Timeout(reason).into_io()) }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

/// Waits until one of the sockets is ready, or until this moment; says whether one is.
///
/// # Errors
/// What the system reports. A signal does not end the wait.
pub(super) fn wait(sockets: &mut [PollFd<'_>], until: Option<Instant>) -> io::Result<bool> {
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(sockets, timeout.as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // First, since the answer is hardly ever there yet.
            self.wait(PollFlags::IN)?;
            match self.tcp.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.limit.is_some() => {}
                Err(error) => return Err(error),
                Ok(amount) => {
                    self.records.follow(&buffer[..amount]);
                    return Ok(amount);
                }
            }
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.tcp.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.limit.is_some() => {
                    self.wait(PollFlags::OUT)?;
                }
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where in a TLS record the stream of received bytes is: a header of five bytes, whose last two are the length of
/// what follows (RFC 8446, section 5.1). The TLS library does not tell whether it holds half a record.
#[derive(Debug, Default)]
struct Records {
    header: [u8; 5],
    header_read: usize,
    body_left: usize,
}

impl Records {
    fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.body_left == 0 {
                self.header[self.header_read] = bytes[0];
                self.header_read += 1;
                bytes = &bytes[1..];
                if self.header_read == self.header.len() {
                    self.header_read = 0;
                    self.body_left = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
                }
            } else {
                let skipped = self.body_left.min(bytes.len());
                self.body_left -= skipped;
                bytes = &bytes[skipped..];
            }
        }
    }

    fn at_boundary(&self) -> bool {
        self.header_read == 0 && self.body_left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::ServerConnection;
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use std::net::TcpListener;

    /// A connection whose handshake is complete, and the other side of it.
    fn connection() -> (TlsTransport, ServerConnection, TcpStream) {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["sts.amazonaws.com".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let mut server = ServerConnection::new(Arc::new(config)).unwrap();
        let name = ServerName::try_from("sts.amazonaws.com").unwrap();
        let mut client = ClientConnection::new(client_config(&[cert.der().clone()]).unwrap(), name).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let tcp = TcpStream::connect(address).unwrap();
        let (mut server_tcp, _) = listener.accept().unwrap();
        tcp.set_nonblocking(true).unwrap();
        let mut socket = Socket::new(tcp);
        socket.set_timeout(soon());
        std::thread::scope(|scope| {
            scope.spawn(|| server.complete_io(&mut server_tcp).unwrap());
            client.complete_io(&mut socket).unwrap();
        });
        let buffers = LazyBuffers::new(1024, 1024);
        let stream = StreamOwned::new(client, socket);
        (TlsTransport::new(address, stream, buffers, Duration::from_secs(1), Arc::default()), server, server_tcp)
    }

    fn soon() -> NextTimeout {
        NextTimeout { after: Duration::from_secs(10).into(), reason: Timeout::Global, ..NextTimeout::default() }
    }

    fn record(server: &mut ServerConnection, text: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        server.writer().write_all(text).unwrap();
        server.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The rest of it would be taken for the answer to the next question. Nothing but the records shows that it is
    /// coming.
    #[test]
    fn a_connection_that_holds_half_a_record_is_not_kept() {
        for surplus in [0, 3, 20] {
            let (mut transport, mut server, mut tcp) = connection();
            let answer = record(&mut server, b"the answer");
            let other = record(&mut server, b"another answer");
            tcp.write_all(&[&answer[..], &other[..surplus]].concat()).unwrap();
            let mut read = 0;
            while read < b"the answer".len() {
                assert!(transport.await_input(soon()).unwrap());
                let got = transport.buffers().input().len();
                transport.buffers().input_consume(got);
                read += got;
            }
            assert!(transport.stream.sock.is_quiet(), "the test is about what is not in the socket any more");
            let is_kept = transport.is_open() && transport.is_open();
            assert_eq!(is_kept, surplus == 0, "{surplus} bytes of another answer");
        }
    }

    #[test]
    fn a_read_ends_at_its_time_limit_and_a_peer_that_hangs_up_is_noticed() {
        let (mut transport, _, tcp) = connection();
        let begun = Instant::now();
        let limit = NextTimeout { after: Duration::from_millis(200).into(), ..soon() };
        let error = transport.await_input(limit).unwrap_err();
        assert!(matches!(error, Error::Timeout(Timeout::Global)), "{error}");
        assert!((200..5000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
        assert!(transport.stream.sock.is_quiet());
        drop(tcp);
        let until = Instant::now() + Duration::from_secs(10);
        while transport.stream.sock.is_quiet() {
            assert!(Instant::now() < until, "nobody noticed");
        }
    }

    /// TLS reads on while there is nothing for the caller in what it reads, such as tickets, which may come without
    /// end.
    #[test]
    fn nothing_is_read_after_the_time_limit() {
        let (mut transport, _, mut tcp) = connection();
        tcp.write_all(b"more").unwrap();
        let socket = &mut transport.stream.sock;
        while socket.is_quiet() {
            std::thread::yield_now();
        }
        socket.set_timeout(NextTimeout { after: Duration::ZERO.into(), ..soon() });
        let error = Error::from(socket.read(&mut [0]).unwrap_err());
        assert!(matches!(error, Error::Timeout(Timeout::Global)), "{error}");
        socket.set_timeout(soon());
        assert_eq!(socket.read(&mut [0]).unwrap(), 1);
    }

    #[test]
    fn miri_records_are_followed_however_the_bytes_are_cut() {
        let stream = [&[22, 3, 3, 0, 3, 1, 2, 3][..], &[23, 3, 3, 1, 0], &[9; 256], &[21, 3, 3, 0, 0]].concat();
        let boundaries = [0, 8, 8 + 5 + 256, stream.len()];
        for size in 1..=stream.len() {
            let mut records = Records::default();
            let mut read = 0;
            for chunk in stream.chunks(size) {
                records.follow(chunk);
                read += chunk.len();
                assert_eq!(records.at_boundary(), boundaries.contains(&read), "{read} bytes in pieces of {size}");
            }
        }
    }
}
