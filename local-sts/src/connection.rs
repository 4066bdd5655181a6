//! One connection: the TLS handshake, and requests and replies until either side ends it.

use std::io::{self, Read, Write};
use std::mem;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustls::{HandshakeKind, ServerConfig, ServerConnection, StreamOwned};

use crate::http::{self, ReadError};
use crate::in_flight::InFlight;
use crate::service::{Reply, Service};

/// How long a connection that the server ends is kept open for the client to read what was written.
const LINGER: Duration = Duration::from_secs(1);

/// What all connections of a server share.
pub(crate) struct Context {
    pub(crate) service: Service,
    pub(crate) tls: Arc<ServerConfig>,
    pub(crate) idle_timeout: Duration,
    pub(crate) read_timeout: Duration,
    pub(crate) in_flight: InFlight,
    /// Connections that resumed a TLS session, of those on which a request came.
    pub(crate) resumed_count: AtomicUsize,
}

/// A socket whose reads and writes fail with `TimedOut` after a deadline; without one they wait for
/// ever.
struct TimedSocket {
    socket: TcpStream,
    deadline: Option<Instant>,
}

impl TimedSocket {
    fn time_left(&self) -> io::Result<Option<Duration>> {
        match self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => Err(io::ErrorKind::TimedOut.into()),
            left => Ok(left),
        }
    }
}

impl Read for TimedSocket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(self.time_left()?)?;
        self.socket.read(into)
    }
}

impl Write for TimedSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(self.time_left()?)?;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

type TlsStream = StreamOwned<ServerConnection, TimedSocket>;

/// Serves the requests on one connection until either side ends it.
pub(crate) fn serve(socket: TcpStream, context: &Context) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let connection = ServerConnection::new(Arc::clone(&context.tls)).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, TimedSocket { socket, deadline: None });
    let mut buffer = Vec::new();
    let mut is_first = true;
    loop {
        if buffer.is_empty() {
            stream.sock.deadline = Some(Instant::now() + context.idle_timeout);
            let mut chunk = [0; 8192];
            match stream.read(&mut chunk) {
                Ok(0) => return end(stream),
                Ok(count) => buffer.extend_from_slice(&chunk[..count]),
                Err(error) if is_timeout(&error) => return end(stream),
                Err(error) => return Err(error),
            }
        }
        stream.sock.deadline = Some(Instant::now() + context.read_timeout);
        let (response, keep_alive, _in_flight) = match http::read_request(&mut stream, &mut buffer) {
            Ok(request) => {
                let keep_alive = request.keep_alive;
                if is_first && stream.conn.handshake_kind() == Some(HandshakeKind::Resumed) {
                    context.resumed_count.fetch_add(1, Ordering::SeqCst);
                }
                let in_flight = context.in_flight.enter();
                match context.service.handle(&request, stream.conn.server_name(), mem::take(&mut is_first)) {
                    Reply::Response(response) => (response, keep_alive, Some(in_flight)),
                    Reply::Raw(bytes) => {
                        write(&mut stream, context, &bytes)?;
                        return end(stream);
                    }
                    Reply::Records(records) => {
                        write_at_once(&mut stream, context, &records)?;
                        continue;
                    }
                    Reply::Slow { first, rest, pause } => {
                        write(&mut stream, context, &first)?;
                        for byte in rest {
                            thread::sleep(pause);
                            write(&mut stream, context, &[byte])?;
                        }
                        return end(stream);
                    }
                    Reply::Flood { first, repeated, times } => {
                        write(&mut stream, context, &first)?;
                        let mut written = 0;
                        while times.is_none_or(|times| written < times) {
                            write(&mut stream, context, &repeated)?;
                            written += 1;
                        }
                        return end(stream);
                    }
                    Reply::Silence => return stay_silent(stream),
                }
            }
            Err(ReadError::Refused(status, message)) => (context.service.not_a_request(status, message), false, None),
            Err(ReadError::Connection(error)) => return Err(error),
        };
        let faults = &context.service.faults;
        let is_whole = faults.write(&response.to_bytes(), |bytes| write(&mut stream, context, bytes))?;
        if !is_whole || !keep_alive || !response.keeps_alive() {
            return end(stream);
        }
    }
}

fn write(stream: &mut TlsStream, context: &Context, bytes: &[u8]) -> io::Result<()> {
    stream.sock.deadline = Some(Instant::now() + context.read_timeout);
    stream.write_all(bytes)?;
    stream.flush()
}

/// Writes each part as a record of its own, and all of them to the socket in one piece.
fn write_at_once(stream: &mut TlsStream, context: &Context, parts: &[Vec<u8>]) -> io::Result<()> {
    let mut records = Vec::new();
    for part in parts {
        stream.conn.writer().write_all(part)?;
        while stream.conn.wants_write() {
            stream.conn.write_tls(&mut records)?;
        }
    }
    stream.sock.deadline = Some(Instant::now() + context.read_timeout);
    stream.sock.write_all(&records)
}

/// Ends a connection so that the client gets all that was written: on closing a socket with unread
/// bytes, the system discards what is still under way.
fn end(mut stream: TlsStream) -> io::Result<()> {
    stream.sock.deadline = Some(Instant::now() + LINGER);
    stream.conn.send_close_notify();
    stream.flush()?;
    stream.sock.socket.shutdown(Shutdown::Write)?;
    let mut ignored = [0; 8192];
    while stream.sock.read(&mut ignored)? > 0 {}
    Ok(())
}

/// Reads and ignores until the client or the server closes.
fn stay_silent(mut stream: TlsStream) -> io::Result<()> {
    stream.sock.deadline = None;
    let mut ignored = [0; 8192];
    while stream.read(&mut ignored)? > 0 {}
    Ok(())
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
