//! The server: it accepts connections, one thread for each, and answers the requests on them.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::mem;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use rustls::{HandshakeKind, ServerConnection, StreamOwned};

use crate::answer::{self, Answer, Refusal};
use crate::faults::Faults;
use crate::gauge::Gauge;
use crate::http::{self, ReadError, Request, Response};
use crate::identity::Identity;
use crate::sigv4::{Verifier, claimed_access_key_id};
use crate::tls::Tls;

const DEFAULT_HOST_NAME: &str = "sts.amazonaws.com";
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// How long a connection that the server ends is kept for the client to read what was written.
const LINGER: Duration = Duration::from_secs(1);
/// In seconds. Dates so far away can be written with four digits for the year.
const CLOCK_OFFSET_LIMIT: u64 = 100 * 365 * 24 * 3600;
/// How long a stop waits for threads before it leaves them behind.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A running STS. It stops when it is dropped: no connection is accepted from then on, those that are open are closed,
/// and its threads have ended.
pub struct LocalSts {
    shared: Arc<Shared>,
    address: SocketAddr,
    ca_pem: String,
    accept_loop: Option<JoinHandle<()>>,
}

impl LocalSts {
    /// Returns a builder with every setting at its default.
    pub fn builder() -> Builder {
        Builder {
            host_names: Vec::new(),
            certificate_name: None,
            certificate_expired: false,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            identities: Vec::new(),
            clock_offset: 0,
            idle_timeout: Duration::from_secs(20),
            read_timeout: Duration::from_secs(20),
            max_connections: 1024,
            resumption: true,
            record_requests: true,
            observer: None,
        }
    }

    /// Returns the address it listens on, with the port that the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns where to dial, as `https://127.0.0.1:PORT`. The certificate is for the host names, not for this.
    pub fn endpoint(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Returns the certificate of the authority that signed the server's certificate, in PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Returns all requests received so far, in the order in which they were complete. A request is in here before its
    /// answer is sent. Empty if [`Builder::record_requests`] was switched off.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        lock(&self.shared.requests).clone()
    }

    /// Returns how many requests were received so far, recorded or not.
    pub fn request_count(&self) -> usize {
        self.shared.request_count.load(Ordering::SeqCst)
    }

    /// Returns how many connections resumed a TLS session so far, of those on which a request came.
    pub fn resumed_count(&self) -> usize {
        self.shared.resumed_count.load(Ordering::SeqCst)
    }

    /// Returns how many TCP connections were accepted so far, those whose TLS handshake failed included.
    pub fn connection_count(&self) -> usize {
        self.shared.connection_count.load(Ordering::SeqCst)
    }

    /// Returns how many connections are open now.
    pub fn open_connections(&self) -> usize {
        lock(&self.shared.open).len()
    }

    /// Returns how many requests are under way now: complete, and not yet answered.
    pub fn at_once(&self) -> usize {
        self.shared.under_way.now()
    }

    /// Returns how many requests were under way at once, at the most, since the start or since the most was forgotten.
    pub fn most_at_once(&self) -> usize {
        self.shared.under_way.most()
    }

    /// Makes [`most_at_once`](Self::most_at_once) begin anew, for the next part of a test or benchmark.
    pub fn forget_most_at_once(&self) {
        self.shared.under_way.forget_most();
    }

    pub(crate) fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Sets how requests are answered that are complete from now on. The default is
    /// [`Answer::Verified`].
    pub fn set_answer(&self, answer: Answer) {
        *lock(&self.shared.answer) = Arc::new(answer);
    }

    /// Makes an identity known, in place of the one with the same access key id if there is one.
    pub fn add_identity(&self, identity: Identity) {
        lock(&self.shared.identities).insert(identity.access_key_id.clone(), identity);
    }
}

impl fmt::Debug for LocalSts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalSts").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for LocalSts {
    fn drop(&mut self) {
        let deadline = Instant::now() + STOP_LIMIT;
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.faults.stop();
        // The loop waits in accept; a connection makes it look at `stopping`.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(accept_loop) = self.accept_loop.take() {
            join_until(accept_loop, deadline);
        }
        let open: Vec<OpenConnection> = lock(&self.shared.open).drain().map(|(_, connection)| connection).collect();
        for connection in &open {
            let _ = connection.socket.shutdown(Shutdown::Both);
        }
        for connection in open {
            join_until(connection.thread, deadline);
        }
    }
}

/// Waits for a thread, but not beyond `deadline`; the thread is left behind then.
fn join_until(thread: JoinHandle<()>, deadline: Instant) {
    while !thread.is_finished() {
        if Instant::now() >= deadline {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    let _ = thread.join();
}

/// What a [`LocalSts`] is started with.
#[must_use]
pub struct Builder {
    host_names: Vec<String>,
    certificate_name: Option<String>,
    certificate_expired: bool,
    listen: SocketAddr,
    identities: Vec<Identity>,
    clock_offset: i64,
    idle_timeout: Duration,
    read_timeout: Duration,
    max_connections: usize,
    resumption: bool,
    record_requests: bool,
    observer: Option<Observer>,
}

impl Builder {
    /// Adds a name that the server has: its certificate carries it, and requests whose `Host` is this name, alone or
    /// with port 443 or the port it listens on, are for it. The name also decides the region that signatures must be
    /// made for. Defaults to `sts.amazonaws.com`, if no name is added.
    pub fn host_name(mut self, name: &str) -> Self {
        self.host_names.push(name.to_owned());
        self
    }

    /// Makes the certificate carry this name only, whatever the host names are: for tests of a wrong certificate.
    pub fn certificate_name(mut self, name: &str) -> Self {
        self.certificate_name = Some(name.to_owned());
        self
    }

    /// Makes the certificate one that ended an hour ago; the authority's is still valid.
    pub fn expired_certificate(mut self) -> Self {
        self.certificate_expired = true;
        self
    }

    /// Sets the address to listen on, which must be a loopback address. Defaults to 127.0.0.1 and a free port.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// Adds an identity whose signatures are known. More can be added [while it runs](LocalSts::add_identity).
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identities.push(identity);
        self
    }

    /// Sets how many seconds STS's clock is ahead of the system's; negative: behind. Defaults to 0; at most a century.
    pub fn clock_offset(mut self, seconds: i64) -> Self {
        self.clock_offset = seconds;
        self
    }

    /// Sets how long a connection is kept open while no request comes. Defaults to 20 seconds.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Sets how long a request may take from its first byte to its last, and how long an answer may take to be written.
    /// Defaults to 20 seconds.
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.read_timeout = timeout;
        self
    }

    /// Sets how many connections may be open at a time; further ones are closed at once. Defaults to 1024.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// Sets whether clients may resume TLS sessions: tickets, in TLS 1.3 and 1.2. Defaults to true.
    pub fn resumption(mut self, resumption: bool) -> Self {
        self.resumption = resumption;
        self
    }

    /// Sets whether requests are kept for [`LocalSts::requests`]. Defaults to true; a server that runs for long should
    /// not, since they are kept until it stops.
    pub fn record_requests(mut self, record: bool) -> Self {
        self.record_requests = record;
        self
    }

    /// Sets a function to be called for each request, after it was decided and before the answer is written. It is
    /// called from many threads and should return soon.
    pub fn observer(mut self, observer: impl Fn(&Outcome) + Send + Sync + 'static) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// Starts the server; it accepts connections when this returns.
    ///
    /// # Errors
    /// `InvalidInput` if the address is not a loopback address, a name cannot stand in a certificate, or the clock
    /// offset is more than a century; otherwise what the system reports.
    pub fn start(self) -> io::Result<LocalSts> {
        if !self.listen.ip().is_loopback() {
            let message = format!("{} is not a loopback address", self.listen.ip());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        if self.clock_offset.unsigned_abs() > CLOCK_OFFSET_LIMIT {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the clock offset is more than a century"));
        }
        let mut host_names = self.host_names;
        if host_names.is_empty() {
            host_names.push(DEFAULT_HOST_NAME.to_owned());
        }
        let certificate_names = self.certificate_name.map_or_else(|| host_names.clone(), |name| vec![name]);
        let tls = Tls::new(&certificate_names, self.certificate_expired, self.resumption)?;
        let listener = TcpListener::bind(self.listen)?;
        // The standard library lets 128 connections wait; a storm of logins opens more, and whoever finds no room waits
        // for a second.
        rustix::net::listen(&listener, BACKLOG)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            host_names,
            port: address.port(),
            clock_offset: self.clock_offset,
            idle_timeout: self.idle_timeout,
            read_timeout: self.read_timeout,
            max_connections: self.max_connections,
            record_requests: self.record_requests,
            observer: self.observer,
            tls: tls.config,
            identities: Mutex::new(
                self.identities.into_iter().map(|identity| (identity.access_key_id.clone(), identity)).collect(),
            ),
            answer: Mutex::new(Arc::new(Answer::Verified)),
            requests: Mutex::new(Vec::new()),
            request_count: AtomicUsize::new(0),
            connection_count: AtomicUsize::new(0),
            resumed_count: AtomicUsize::new(0),
            under_way: Gauge::default(),
            faults: Faults::default(),
            open: Mutex::new(HashMap::new()),
            stopping: AtomicBool::new(false),
        });
        let accept_loop = {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name("sts-accept".to_owned()).spawn(move || accept(&listener, &shared))?
        };
        Ok(LocalSts { shared, address, ca_pem: tls.ca_pem, accept_loop: Some(accept_loop) })
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("host_names", &self.host_names)
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

/// A request as it was received. Its `Debug` output shows neither the signature nor the session token, since both can
/// be used again for some minutes.
#[derive(Clone)]
pub struct RecordedRequest {
    /// The method, such as `POST`.
    pub method: String,
    /// The request target, such as `/`.
    pub target: String,
    /// The header fields in the order and letter case received; U+FFFD stands for what is not UTF-8.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The bytes of the request line and the header fields, including the empty line after them.
    pub raw_head: Vec<u8>,
    /// The name that the client asked for in TLS (SNI), if any.
    pub server_name: Option<String>,
}

impl RecordedRequest {
    /// Returns the value of the first header field called `name`; letter case does not matter.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Longer than real session tokens, in bytes.
const LONG_TOKEN: usize = 8000;

fn has_long_token(request: &Request) -> bool {
    request.values("x-amz-security-token").any(|token| token.len() > LONG_TOKEN)
}

impl fmt::Debug for RecordedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<(&str, &str)> = self
            .headers
            .iter()
            .map(|(name, value)| {
                let secret =
                    ["authorization", "x-amz-security-token"].iter().any(|secret| name.eq_ignore_ascii_case(secret));
                (name.as_str(), if secret { "<redacted>" } else { value.as_str() })
            })
            .collect();
        f.debug_struct("RecordedRequest")
            .field("method", &self.method)
            .field("target", &self.target)
            .field("headers", &headers)
            .field("body", &String::from_utf8_lossy(&self.body))
            .finish_non_exhaustive()
    }
}

/// What became of a request, without anything that must be kept secret; see [`Builder::observer`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// When it was decided, on STS's clock.
    pub time: SystemTime,
    /// The access key id that the request claims, verified or not; `None` if there is none in its proper form.
    pub access_key_id: Option<String>,
    /// The status answered; `None` where the answer is not made as HTTP, as for [`Answer::Raw`] and [`Answer::Silence`].
    pub status: Option<u16>,
    /// The error code, if STS itself turned the request down, or failed.
    pub error_code: Option<&'static str>,
}

type Observer = Box<dyn Fn(&Outcome) + Send + Sync>;

/// What all threads of a server share.
struct Shared {
    host_names: Vec<String>,
    port: u16,
    clock_offset: i64,
    idle_timeout: Duration,
    read_timeout: Duration,
    max_connections: usize,
    record_requests: bool,
    observer: Option<Observer>,
    tls: Arc<rustls::ServerConfig>,
    identities: Mutex<HashMap<String, Identity>>,
    answer: Mutex<Arc<Answer>>,
    requests: Mutex<Vec<RecordedRequest>>,
    request_count: AtomicUsize,
    connection_count: AtomicUsize,
    resumed_count: AtomicUsize,
    under_way: Gauge,
    faults: Faults,
    open: Mutex<HashMap<usize, OpenConnection>>,
    stopping: AtomicBool,
}

/// A connection that a thread is working on; removed by that thread when it ends.
struct OpenConnection {
    socket: TcpStream,
    thread: JoinHandle<()>,
}

impl Shared {
    fn now(&self) -> SystemTime {
        let offset = Duration::from_secs(self.clock_offset.unsigned_abs());
        if self.clock_offset < 0 { SystemTime::now() - offset } else { SystemTime::now() + offset }
    }

    /// Records `request`, decides what becomes of it, and tells the observer.
    /// `server_name` is the name asked for in TLS; `first` says whether it is the first request of its connection.
    fn handle(&self, request: &Request, server_name: Option<&str>, first: bool) -> Reaction {
        let now = self.now();
        self.record(request, server_name);
        self.faults.think();
        let answer = Arc::clone(&lock(&self.answer));
        let mut error_code = None;
        let mut refuse = |refusal: &Refusal, retry_after: Option<u64>| {
            error_code = Some(refusal.code);
            let mut response = answer::refused(Some(request), refusal, now);
            response.headers.extend(retry_after.map(|seconds| ("Retry-After".to_owned(), seconds.to_string())));
            Reaction::Respond(response)
        };
        let failed = self.faults.failure().map(|(refusal, retry_after)| refuse(&refusal, retry_after));
        let reaction = failed.unwrap_or_else(|| match &*answer {
            Answer::OncePerConnection { silent: true } if !first => Reaction::Silence,
            Answer::OncePerConnection { silent: false } if !first => Reaction::WriteAndClose(Vec::new()),
            Answer::ShortTokensOnly { closes } if has_long_token(request) => {
                if *closes {
                    Reaction::WriteAndClose(Vec::new())
                } else {
                    let headers = vec![("Content-Type".to_owned(), "text/html".to_owned())];
                    Reaction::Respond(Response { status: 431, headers, body: b"<html>431</html>".to_vec() })
                }
            }
            Answer::Verified | Answer::OncePerConnection { .. } | Answer::ShortTokensOnly { .. } => {
                let verifier = Verifier { host_names: &self.host_names, port: self.port, now };
                let identity_of = |id: &str| lock(&self.identities).get(id).cloned();
                match verifier.verify(request, identity_of) {
                    Ok(identity) => match self.faults.charge(&identity.account, Instant::now()) {
                        None => Reaction::Respond(answer::accepted(request, &identity, now)),
                        Some((refusal, retry_after)) => refuse(&refusal, retry_after),
                    },
                    Err(refusal) => refuse(&refusal, None),
                }
            }
            Answer::AlwaysYes(identity) => Reaction::Respond(answer::accepted(request, identity, now)),
            Answer::Fixed { status, headers, body } => {
                Reaction::Respond(Response { status: *status, headers: headers.clone(), body: body.clone() })
            }
            Answer::Raw(bytes) => Reaction::WriteAndClose(bytes.clone()),
            Answer::RawRecords(records) => Reaction::WriteRecords(records.clone()),
            Answer::Silence => Reaction::Silence,
            Answer::Slow { first, rest, pause } => {
                Reaction::WriteSlowly { first: first.clone(), rest: rest.clone(), pause: *pause }
            }
            Answer::Flood { first, again, times } => {
                Reaction::WriteAgain { first: first.clone(), again: again.clone(), times: *times }
            }
        });
        if let Some(observer) = &self.observer {
            let status = match &reaction {
                Reaction::Respond(response) => Some(response.status),
                _ => None,
            };
            observer(&Outcome { time: now, access_key_id: claimed_access_key_id(request), status, error_code });
        }
        reaction
    }

    /// Keeps `request` if it is to be kept, and counts it after that, so that what was counted can be looked at.
    fn record(&self, request: &Request, server_name: Option<&str>) {
        if self.record_requests {
            let Request { method, target, headers, body, raw_head, .. } = request.clone();
            let server_name = server_name.map(str::to_owned);
            lock(&self.requests).push(RecordedRequest { method, target, headers, body, raw_head, server_name });
        }
        self.request_count.fetch_add(1, Ordering::SeqCst);
    }
}

/// What a connection does about a request.
enum Reaction {
    Respond(Response),
    WriteAndClose(Vec<u8>),
    WriteRecords(Vec<Vec<u8>>),
    WriteSlowly { first: Vec<u8>, rest: Vec<u8>, pause: Duration },
    WriteAgain { first: Vec<u8>, again: Vec<u8>, times: Option<usize> },
    Silence,
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for id in 0.. {
        let accepted = listener.accept();
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok((socket, _)) = accepted else {
            // Out of descriptors, or the client is gone already: neither is helped by hurry.
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        shared.connection_count.fetch_add(1, Ordering::SeqCst);
        // Held until the connection is in the map, so that its thread cannot remove it before.
        let mut open = lock(&shared.open);
        if open.len() >= shared.max_connections {
            continue;
        }
        let Ok(other) = socket.try_clone() else { continue };
        let for_thread = Arc::clone(shared);
        let spawned = thread::Builder::new().name("sts-connection".to_owned()).spawn(move || {
            let _removed_at_end = Removal { shared: &for_thread, id };
            // Errors are the client's business: it sees them as a closed connection.
            let _ = serve(other, &for_thread);
        });
        if let Ok(thread) = spawned {
            open.insert(id, OpenConnection { socket, thread });
        }
    }
}

/// Removes a connection from the map of open ones at the end of its thread, a panic included.
struct Removal<'a> {
    shared: &'a Shared,
    id: usize,
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        lock(&self.shared.open).remove(&self.id);
    }
}

/// A socket whose reads and writes fail with `TimedOut` once a deadline is over; without one they wait for ever.
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

/// Answers the requests on one connection until either side ends it.
fn serve(socket: TcpStream, shared: &Shared) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let connection = ServerConnection::new(Arc::clone(&shared.tls)).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, TimedSocket { socket, deadline: None });
    let mut buffer = Vec::new();
    let mut first = true;
    loop {
        if buffer.is_empty() {
            stream.sock.deadline = Some(Instant::now() + shared.idle_timeout);
            let mut chunk = [0; 8192];
            match stream.read(&mut chunk) {
                Ok(0) => return end(stream),
                Ok(count) => buffer.extend_from_slice(&chunk[..count]),
                Err(error) if is_time_over(&error) => return end(stream),
                Err(error) => return Err(error),
            }
        }
        stream.sock.deadline = Some(Instant::now() + shared.read_timeout);
        let (response, keep_alive, _under_way) = match http::read_request(&mut stream, &mut buffer) {
            Ok(request) => {
                let keep_alive = request.keep_alive;
                if first && stream.conn.handshake_kind() == Some(HandshakeKind::Resumed) {
                    shared.resumed_count.fetch_add(1, Ordering::SeqCst);
                }
                let under_way = shared.under_way.enter();
                match shared.handle(&request, stream.conn.server_name(), mem::take(&mut first)) {
                    Reaction::Respond(response) => (response, keep_alive, Some(under_way)),
                    Reaction::WriteAndClose(bytes) => {
                        write(&mut stream, shared, &bytes)?;
                        return end(stream);
                    }
                    Reaction::WriteRecords(records) => {
                        write_at_once(&mut stream, shared, &records)?;
                        continue;
                    }
                    Reaction::WriteSlowly { first, rest, pause } => {
                        write(&mut stream, shared, &first)?;
                        for byte in rest {
                            thread::sleep(pause);
                            write(&mut stream, shared, &[byte])?;
                        }
                        return end(stream);
                    }
                    Reaction::WriteAgain { first, again, times } => {
                        write(&mut stream, shared, &first)?;
                        let mut written = 0;
                        while times.is_none_or(|times| written < times) {
                            write(&mut stream, shared, &again)?;
                            written += 1;
                        }
                        return end(stream);
                    }
                    Reaction::Silence => return stay_silent(stream),
                }
            }
            Err(ReadError::Refused(status, message)) => {
                let refusal = Refusal::new(status, "InvalidRequest", message);
                (answer::refused(None, &refusal, shared.now()), false, None)
            }
            Err(ReadError::Connection(error)) => return Err(error),
        };
        let is_whole = shared.faults.write(&response.to_bytes(), |bytes| write(&mut stream, shared, bytes))?;
        if !is_whole || !keep_alive || !response.keeps_alive() {
            return end(stream);
        }
    }
}

fn write(stream: &mut TlsStream, shared: &Shared, bytes: &[u8]) -> io::Result<()> {
    stream.sock.deadline = Some(Instant::now() + shared.read_timeout);
    stream.write_all(bytes)?;
    stream.flush()
}

/// Writes each part as a record of its own, and all of them to the socket in one piece.
fn write_at_once(stream: &mut TlsStream, shared: &Shared, parts: &[Vec<u8>]) -> io::Result<()> {
    let mut records = Vec::new();
    for part in parts {
        stream.conn.writer().write_all(part)?;
        while stream.conn.wants_write() {
            stream.conn.write_tls(&mut records)?;
        }
    }
    stream.sock.deadline = Some(Instant::now() + shared.read_timeout);
    stream.sock.write_all(&records)
}

/// Ends a connection so that the client gets all that was written: closing a socket with unread bytes would make the
/// system throw away what is still under way.
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

fn is_time_over(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Locks, also after a thread panicked: what is protected is never left half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
