//! TLS towards STS, and the answer to one question: may this connection carry the next login?
//!
//! An answer of STS names no nonce, so that nothing but its place on the connection ties it to its question. A
//! connection on which anything is left over after an answer - in the socket, in a buffer, in half a TLS record - is
//! therefore never used again: what is left over would be taken for the answer to somebody else's question.

use crate::denial::{Cause, Denial};
use crate::process::Process;
use once_cell::sync::OnceCell;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::cell::Cell;
use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;
use ureq::Error;
use ureq::unversioned::transport::time::{Duration, Instant};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, TcpConnector, Transport, TransportAdapter,
};
use zeroize::{Zeroize, Zeroizing};

/// Builds the settings of TLS: the system's roots and these, and nothing else; TLS 1.2 and 1.3; sessions are resumed.
///
/// The system's roots are read once in the life of the process, when that goes well, as OpenSSL finds them: the environment variables
/// SSL_CERT_FILE and SSL_CERT_DIR come first.
///
/// # Errors
/// An unavailable denial when there is no root certificate at all.
pub fn client_config(extra_roots: &[CertificateDer<'static>]) -> Result<Arc<ClientConfig>, Denial> {
    let mut roots = system_roots();
    roots.add_parsable_certificates(extra_roots.iter().cloned());
    if roots.is_empty() {
        return Err(Denial::new(
            Cause::UntrustedTls,
            "no root certificate is there to verify STS with: install the system's ca-certificates or set awsStsCAFile",
        ));
    }
    // Given explicitly: the library's default provider is a setting of the whole process.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| Denial::internal("TLS cannot be set up"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn system_roots() -> RootCertStore {
    static ROOTS: OnceCell<RootCertStore> = OnceCell::new();
    if let Some(roots) = ROOTS.get() {
        return roots.clone();
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A system's store may hold certificates that are no roots by today's rules; the others count.
    roots.add_parsable_certificates(found.certs);
    // What was read in part, for want of file descriptors perhaps, is not kept.
    if found.errors.is_empty() && !roots.is_empty() {
        return ROOTS.get_or_init(|| roots).clone();
    }
    roots
}

thread_local! {
    /// Whether this thread has set out to make a connection since it last asked: the HTTP library makes one on the thread
    /// of the request, and does not tell whether it took a kept one instead.
    static CONNECTED: Cell<bool> = const { Cell::new(false) };
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

/// Makes TCP connections, and notes that it was asked for one.
#[derive(Debug, Default)]
pub struct NotedTcpConnector(TcpConnector);

impl<In: Transport> Connector<In> for NotedTcpConnector {
    type Out = <TcpConnector as Connector<In>>::Out;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        note_connection();
        self.0.connect(details, chained)
    }
}

/// Puts TLS on a TCP connection. The name in the certificate has to be the host of the URL.
pub struct TlsConnector {
    config: Arc<ClientConfig>,
    kept_patience: Duration,
    process: Arc<Process>,
}

impl TlsConnector {
    /// Takes the settings for all connections, how long one that was kept may be silent when it is used again, and where
    /// connections are counted.
    pub fn new(config: Arc<ClientConfig>, kept_patience: std::time::Duration, process: Arc<Process>) -> Self {
        Self { config, kept_patience: Duration::Exact(kept_patience), process }
    }
}

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = TlsTransport;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<TlsTransport>, Error> {
        let tcp: Box<dyn Transport> = Box::new(Coarse(chained.ok_or(Error::ConnectionFailed)?));
        let name = details.uri.host().unwrap_or_default().to_owned();
        let name = ServerName::try_from(name).map_err(|_| Error::Tls("the host is not a DNS name"))?;
        let mut tls = ClientConnection::new(Arc::clone(&self.config), name)
            .map_err(|_| Error::Tls("a connection cannot be set up"))?;
        let mut socket = Socket {
            adapter: TransportAdapter::new(tcp, Arc::clone(&details.current_time)),
            records: Records::default(),
        };
        socket.adapter.set_timeout(time_left(details)?);
        tls.complete_io(&mut socket)?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        self.process.metrics.connections_opened.add();
        self.process.metrics.connections_open.enter();
        Ok(Some(TlsTransport {
            buffers,
            stream: StreamOwned::new(tls, socket),
            phase: Phase::New,
            pending: Zeroizing::default(),
            kept_patience: self.kept_patience,
            process: Arc::clone(&self.process),
        }))
    }
}

/// What is left of the time for making a connection, of which the TCP connection has taken its part.
pub(super) fn time_left(details: &ConnectionDetails) -> Result<NextTimeout, Error> {
    let mut timeout = details.timeout;
    if let Duration::Exact(limit) = timeout.after
        && let (Instant::Exact(began), Instant::Exact(now)) = (details.now, (details.current_time)())
    {
        let taken = now.saturating_duration_since(began);
        timeout.after = Duration::Exact(limit.saturating_sub(taken));
        if limit <= taken {
            return Err(Error::Timeout(timeout.reason));
        }
    }
    Ok(timeout)
}

impl fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsConnector")
    }
}

/// A TLS connection to STS.
pub struct TlsTransport {
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

/// A transport whose time limits change in steps: see [`TIMEOUT_STEP`].
#[derive(Debug)]
struct Coarse<T>(T);

impl<T: Transport> Transport for Coarse<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.0.transmit_output(amount, coarse(timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.0.await_input(coarse(timeout))
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }
}

/// Long time limits are cut to a multiple of this, so that the system is seldom told a new one: it would be a system call for
/// each read and write.
pub const TIMEOUT_STEP: std::time::Duration = std::time::Duration::from_millis(50);

/// A long time limit cut to a coarse one.
fn coarse(mut timeout: NextTimeout) -> NextTimeout {
    if let Duration::Exact(limit) = timeout.after
        && limit > 20 * TIMEOUT_STEP
    {
        let steps = limit.as_nanos() / TIMEOUT_STEP.as_nanos();
        timeout.after = Duration::Exact(TIMEOUT_STEP * u32::try_from(steps).unwrap_or(u32::MAX));
    }
    timeout
}

impl TlsTransport {
    fn send_pending(&mut self, timeout: NextTimeout) -> Result<(), Error> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.stream.sock.adapter.set_timeout(timeout);
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
        let socket = &mut self.stream.sock;
        decrypted == 0 && socket.records.at_boundary() && socket.adapter.get_mut().buffers().input().is_empty()
    }
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
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
            timeout.after = timeout.after.min(self.kept_patience);
        }
        self.stream.sock.adapter.set_timeout(timeout);
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
            Phase::Parked | Phase::Ready if is_drained && self.stream.sock.adapter.get_mut().is_open() => {
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

/// What TLS reads from and writes to: the TCP connection, watched for whole records.
struct Socket {
    adapter: TransportAdapter,
    records: Records,
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let amount = self.adapter.read(buffer)?;
        self.records.follow(&buffer[..amount]);
        Ok(amount)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.adapter.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.adapter.flush()
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
