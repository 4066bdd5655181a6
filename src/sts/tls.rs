//! TLS to STS, and the decision whether a connection may carry another request.
//!
//! A response of STS contains no nonce, so only its position on the connection ties it to its
//! request. A connection with anything left over after a response (in the socket, in a buffer, in
//! half a TLS record) is therefore never used again: the rest would be read as the response to the
//! next request.

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

/// Builds the TLS settings: the system's roots and these; TLS 1.2 and 1.3; sessions are resumed.
///
/// # Errors
/// As [`Verifier::new`].
pub fn client_config(extra_roots: &[CertificateDer<'static>]) -> Result<Arc<ClientConfig>, Denial> {
    // Explicit, since the library's default provider is a setting of the whole process.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier::new(Arc::clone(&provider), extra_roots)?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| Denial::internal("TLS cannot be set up"))?
        // The library calls every custom verifier dangerous; this one leaves each verdict to the
        // library.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

thread_local! {
    /// Whether this thread's request needed a new connection. The HTTP library connects on the
    /// thread of the request, but does not report whether it used a kept connection instead.
    static NEEDED_CONNECTION: Cell<bool> = const { Cell::new(false) };
    /// The address of this thread's latest request, which the HTTP library does not report either.
    static PEER: Cell<Option<SocketAddr>> = const { Cell::new(None) };
}

/// Runs a request. Returns its result and whether it needed a new connection, made or not.
pub fn track_new_connections<T>(request: impl FnOnce() -> T) -> (T, bool) {
    NEEDED_CONNECTION.set(false);
    let result = request();
    (result, NEEDED_CONNECTION.get())
}

/// Records that this thread's request needs a new connection.
pub fn mark_new_connection() {
    NEEDED_CONNECTION.set(true);
}

/// Returns the address that this thread has sent a request to since the last call, if any.
pub fn take_peer() -> Option<SocketAddr> {
    PEER.take()
}

/// A TLS connection to STS.
pub struct TlsTransport {
    address: SocketAddr,
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, Socket>,
    usage: Usage,
    /// The request so far. It is sent once it is complete, so header and body leave together.
    pending: Zeroizing<Vec<u8>>,
    stale_connection_timeout: Duration,
    process: Arc<Process>,
}

/// How a connection is used at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Usage {
    /// It carries its first request.
    First,
    /// It carries another request, and no byte of the response has arrived.
    Reused,
    /// The response is arriving.
    Response,
    /// The response was read to its end. Whether more has arrived is checked before the next
    /// request.
    Idle,
    /// Nothing more has arrived: the connection may carry another request.
    Reusable,
}

/// More bytes than the body of a request has.
const ROOM_FOR_BODY: usize = 128;

impl TlsTransport {
    /// Takes a connection whose handshake is complete. When it is reused, the response must begin
    /// within `stale_connection_timeout`. Connections are counted in `process`.
    pub fn new(
        address: SocketAddr,
        stream: StreamOwned<ClientConnection, Socket>,
        buffers: LazyBuffers,
        stale_connection_timeout: Duration,
        process: Arc<Process>,
    ) -> Self {
        process.metrics.connections_opened.add();
        process.metrics.connections_open.enter();
        let (usage, pending) = (Usage::First, Zeroizing::default());
        Self { address, buffers, stream, usage, pending, stale_connection_timeout, process }
    }

    fn send_pending(&mut self, timeout: NextTimeout) -> Result<(), Error> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.stream.sock.set_timeout(timeout);
        // Zeroized here, whether it is sent or not.
        let pending = std::mem::take(&mut self.pending);
        Ok(self.stream.write_all(&pending)?)
    }

    /// Whether all bytes that were read from the socket have been passed on.
    fn is_drained(&mut self) -> bool {
        let decrypted = match self.stream.conn.process_new_packets() {
            // After a close_notify no response comes, even if the socket stays open for a while.
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
        match self.usage {
            Usage::First | Usage::Reused => {}
            Usage::Reusable => {
                self.process.metrics.connections_reused.add();
                self.usage = Usage::Reused;
            }
            // It was not checked whether anything is left over.
            Usage::Response | Usage::Idle => return Err(Error::ConnectionFailed),
        }
        if self.pending.capacity() - self.pending.len() < amount {
            self.send_pending(timeout)?;
            // Never grown, since that would leave a copy in freed memory.
            self.pending = Zeroizing::new(Vec::with_capacity(amount + ROOM_FOR_BODY));
        }
        let output = &mut self.buffers.output()[..amount];
        self.pending.extend_from_slice(output);
        // The buffer lives as long as the connection, and a request contains credentials.
        output.zeroize();
        Ok(())
    }

    fn await_input(&mut self, mut timeout: NextTimeout) -> Result<bool, Error> {
        self.send_pending(timeout)?;
        if self.usage == Usage::Reused {
            // The connection may be dead without notice. This leaves time for a new one.
            timeout.after = timeout.after.min(self.stale_connection_timeout.into());
        }
        self.stream.sock.set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.usage = Usage::Response;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    // Called before a connection is kept, and again before it is reused.
    fn is_open(&mut self) -> bool {
        let is_drained = self.is_drained();
        match self.usage {
            // The socket is checked right before the next request, when it matters.
            Usage::Response if is_drained => {
                self.usage = Usage::Idle;
                true
            }
            Usage::Idle | Usage::Reusable if is_drained && self.stream.sock.is_quiet() => {
                self.usage = Usage::Reusable;
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
        // It may contain a request that timed out before it was sent.
        self.buffers.output().zeroize();
        self.process.metrics.connections_open.leave();
    }
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsTransport")
    }
}

/// The non-blocking TCP connection below TLS, which tracks record boundaries. Reads and writes wait
/// only if a time limit is set.
#[derive(Debug)]
pub struct Socket {
    tcp: TcpStream,
    records: Records,
    limit: Option<(Option<Instant>, Timeout)>,
}

impl Socket {
    /// Takes a non-blocking connection, without a time limit.
    pub fn new(tcp: TcpStream) -> Self {
        Self { tcp, records: Records::default(), limit: None }
    }

    /// The TCP connection, for everything that is not TLS.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Makes reads and writes wait, all of them together for at most this long.
    fn set_timeout(&mut self, timeout: NextTimeout) {
        // An infinite timeout overflows the sum, and then there is no deadline.
        self.limit = Some((Instant::now().checked_add(*timeout.after), timeout.reason));
    }

    /// Whether the peer has neither sent anything nor closed the connection.
    fn is_quiet(&self) -> bool {
        matches!(self.tcp.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Waits until the socket is ready, if a time limit is set. Nothing is read after the limit:
    /// TLS reads until it has data for the caller, and a peer could send other records for ever.
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

/// Waits until one of the sockets is ready or the deadline passes. Returns whether one is ready.
///
/// # Errors
/// Any error of the system. A signal does not end the wait.
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
            // Wait first, since the response has rarely arrived yet.
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

/// The position of the received bytes in their TLS record: a header of five bytes, of which the
/// last two are the length of the rest (RFC 8446, section 5.1). The TLS library does not report
/// whether it holds an incomplete record.
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

    /// A connection whose handshake is complete, and its server side.
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

    /// The rest of the record would be read as the response to the next request. Only the record
    /// boundaries show that it is incomplete.
    #[test]
    fn a_connection_with_an_incomplete_record_is_not_kept() {
        for surplus in [0, 3, 20] {
            let (mut transport, mut server, mut tcp) = connection();
            let response = record(&mut server, b"the response");
            let other = record(&mut server, b"another response");
            tcp.write_all(&[&response[..], &other[..surplus]].concat()).unwrap();
            let mut read = 0;
            while read < b"the response".len() {
                assert!(transport.await_input(soon()).unwrap());
                let got = transport.buffers().input().len();
                transport.buffers().input_consume(got);
                read += got;
            }
            assert!(transport.stream.sock.is_quiet(), "bytes are left in the socket");
            let is_kept = transport.is_open() && transport.is_open();
            assert_eq!(is_kept, surplus == 0, "{surplus} bytes of another response");
        }
    }

    #[test]
    fn a_read_ends_at_its_time_limit_and_a_closed_connection_is_noticed() {
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
            assert!(Instant::now() < until, "the close was not noticed");
        }
    }

    /// TLS reads until it has data for the caller, and a peer may send session tickets for ever.
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
    fn miri_record_boundaries_are_found_however_the_bytes_are_split() {
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
