//! The server: it listens, runs a thread for each connection, and offers the switches of tests.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::connection::{self, Context};
use crate::faults::{Failures, RateLimit};
use crate::identity::Identity;
use crate::in_flight::InFlight;
use crate::response::StsResponse;
use crate::service::{Observer, Outcome, RecordedRequest, Service, Setup};
use crate::tls::Tls;

const DEFAULT_HOST_NAME: &str = "sts.amazonaws.com";
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// In seconds. Within it, dates can be written with four digits for the year.
const MAX_CLOCK_OFFSET: u64 = 100 * 365 * 24 * 3600;
/// How long a stop waits for threads before it leaves them behind.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A running STS. It stops when it is dropped, as [`stop`](Self::stop) describes.
pub struct LocalSts {
    shared: Arc<Shared>,
    address: SocketAddr,
    ca_pem: String,
    /// `None` while it is stopped.
    accept_loop: Option<JoinHandle<()>>,
}

/// What the threads of a server share.
struct Shared {
    context: Context,
    max_connections: usize,
    connection_count: AtomicUsize,
    open: Mutex<HashMap<usize, OpenConnection>>,
    stopping: AtomicBool,
}

/// A connection and its thread, which removes it when it ends.
struct OpenConnection {
    socket: TcpStream,
    thread: JoinHandle<()>,
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

    /// Stops the server: it accepts no connection any more, and those that are open are closed. Its
    /// threads have ended when this returns. Counters, identities and all that was set are kept.
    /// Does nothing if it is stopped already.
    pub fn stop(&mut self) {
        let Some(accept_loop) = self.accept_loop.take() else { return };
        let deadline = Instant::now() + STOP_LIMIT;
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.service().faults.stop();
        // The loop waits in accept; a connection makes it look at `stopping`.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        join_until(accept_loop, deadline);
        let open: Vec<OpenConnection> = lock(&self.shared.open).drain().map(|(_, connection)| connection).collect();
        for connection in &open {
            let _ = connection.socket.shutdown(Shutdown::Both);
        }
        for connection in open {
            join_until(connection.thread, deadline);
        }
    }

    /// Starts the server again after [`stop`](Self::stop), on the same address and with the same
    /// certificate. Does nothing if it runs.
    ///
    /// # Errors
    /// What the system reports; another program may have taken the port.
    pub fn start_again(&mut self) -> io::Result<()> {
        if self.accept_loop.is_none() {
            let listener = listen_on(self.address)?;
            self.shared.stopping.store(false, Ordering::SeqCst);
            self.service().faults.resume();
            self.accept_loop = Some(spawn_accept_loop(listener, &self.shared)?);
        }
        Ok(())
    }

    /// Returns the address it listens on, with the port that the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns where to connect, as `https://127.0.0.1:PORT`. The certificate is for the host
    /// names, not for this.
    pub fn endpoint(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Returns the certificate of the authority that signed the server's certificate, in PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Returns all requests received so far, in the order in which they were complete. A request is
    /// in the list before its response is sent. Empty if [`Builder::record_requests`] was switched
    /// off.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.service().requests()
    }

    /// Returns how many requests were received so far, recorded or not.
    pub fn request_count(&self) -> usize {
        self.service().request_count()
    }

    /// Returns how many connections resumed a TLS session so far, of those on which a request came.
    pub fn resumed_count(&self) -> usize {
        self.shared.context.resumed_count.load(Ordering::SeqCst)
    }

    /// Returns how many TCP connections were accepted so far, those whose TLS handshake failed
    /// included.
    pub fn connection_count(&self) -> usize {
        self.shared.connection_count.load(Ordering::SeqCst)
    }

    /// Returns how many connections are open now.
    pub fn open_connections(&self) -> usize {
        lock(&self.shared.open).len()
    }

    /// Returns how many requests are in flight now: complete, and without a complete response.
    pub fn in_flight(&self) -> usize {
        self.shared.context.in_flight.current()
    }

    /// Returns the maximum number of requests in flight at a time, since the start or the last
    /// [`reset_max_in_flight`](Self::reset_max_in_flight).
    pub fn max_in_flight(&self) -> usize {
        self.shared.context.in_flight.max()
    }

    /// Resets the maximum to the number of requests in flight now, for the next part of a test or
    /// benchmark.
    pub fn reset_max_in_flight(&self) {
        self.shared.context.in_flight.reset_max();
    }

    /// Makes an identity known. It replaces the one with the same access key id, if there is one.
    pub fn add_identity(&self, identity: Identity) {
        self.service().add_identity(identity);
    }

    /// Sets the response to requests that are complete from now on. Defaults to
    /// [`StsResponse::Verified`].
    pub fn set_response(&self, response: StsResponse) {
        self.service().set_response(response);
    }

    fn service(&self) -> &Service {
        &self.shared.context.service
    }
}

/// Faults of the service. All are off by default and can be switched from any thread.
impl LocalSts {
    /// Sets how many requests an account may make; `None`: any number. Every account begins with a
    /// full bucket.
    pub fn set_rate_limit(&self, limit: impl Into<Option<RateLimit>>) {
        self.service().faults.set_rate_limit(limit.into());
    }

    /// Returns how many requests were over the rate limit so far.
    pub fn throttled_count(&self) -> usize {
        self.service().faults.throttled_count()
    }

    /// Sets which requests fail; `None`: none. Their number is counted from now on.
    pub fn set_failures(&self, failures: impl Into<Option<Failures>>) {
        self.service().faults.set_failures(failures.into());
    }

    /// Returns how many requests failed because of [`set_failures`](Self::set_failures) so far.
    pub fn failure_count(&self) -> usize {
        self.service().faults.failure_count()
    }

    /// Sets how long the server works on each request before it decides, also on those in flight.
    /// The network adds its own time, see [`DelayProxy`](crate::DelayProxy).
    pub fn set_processing_time(&self, time: Duration) {
        self.service().faults.set_delay(time);
    }

    /// Ends every response after so many bytes of HTTP: TLS and TCP are closed in order, as by a
    /// server that is stopped. `None`: responses are complete.
    pub fn set_cut(&self, after: Option<usize>) {
        self.service().faults.set_cut(after);
    }

    /// Writes responses byte by byte, each in a TLS record of its own, with so much time from one
    /// to the next. `None`: in one piece.
    pub fn set_drip(&self, every: Option<Duration>) {
        self.service().faults.set_drip(every);
    }
}

impl fmt::Debug for LocalSts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalSts").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for LocalSts {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The settings of a [`LocalSts`].
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
    /// Adds a host name of the server. Its certificate has the name, and the `Host` of a request
    /// must be such a name, alone or with port 443 or the port it listens on. The name also decides
    /// the region that signatures must name. Defaults to `sts.amazonaws.com`, if no name is added.
    pub fn host_name(mut self, name: &str) -> Self {
        self.host_names.push(name.to_owned());
        self
    }

    /// Puts only this name into the certificate, instead of the host names: for tests of a wrong
    /// certificate.
    pub fn certificate_name(mut self, name: &str) -> Self {
        self.certificate_name = Some(name.to_owned());
        self
    }

    /// Makes the certificate one that expired an hour ago; the authority's is still valid.
    pub fn expired_certificate(mut self) -> Self {
        self.certificate_expired = true;
        self
    }

    /// Sets the address to listen on, which must be a loopback address. Defaults to 127.0.0.1 and a
    /// free port.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// Adds an identity whose signatures are accepted. More can be added [while it
    /// runs](LocalSts::add_identity).
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identities.push(identity);
        self
    }

    /// Sets how many seconds STS's clock is ahead of the system's; negative: behind. Defaults to 0;
    /// at most a century.
    pub fn clock_offset(mut self, seconds: i64) -> Self {
        self.clock_offset = seconds;
        self
    }

    /// Sets how long a connection is kept open while no request comes. Defaults to 20 seconds.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Sets how long a request may take from its first byte to its last, and how long writing a
    /// response may take. Defaults to 20 seconds.
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.read_timeout = timeout;
        self
    }

    /// Sets how many connections may be open at a time; further ones are closed at once. Defaults
    /// to 1024.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// Sets whether clients may resume TLS sessions: tickets, in TLS 1.3 and 1.2. Defaults to true.
    pub fn resumption(mut self, resumption: bool) -> Self {
        self.resumption = resumption;
        self
    }

    /// Sets whether requests are kept for [`LocalSts::requests`]. Defaults to true. They are kept
    /// as long as the server: switch this off for one that runs for long.
    pub fn record_requests(mut self, record: bool) -> Self {
        self.record_requests = record;
        self
    }

    /// Sets a function to be called for each request, after the reply was decided and before it is
    /// written. It is called from many threads and should return soon.
    pub fn observer(mut self, observer: impl Fn(&Outcome) + Send + Sync + 'static) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// Starts the server; it accepts connections when this returns.
    ///
    /// # Errors
    /// `InvalidInput` if the address is not a loopback address, a name is not possible in a
    /// certificate, or the clock offset is more than a century; otherwise what the system reports.
    pub fn start(self) -> io::Result<LocalSts> {
        if !self.listen.ip().is_loopback() {
            let message = format!("{} is not a loopback address", self.listen.ip());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        if self.clock_offset.unsigned_abs() > MAX_CLOCK_OFFSET {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the clock offset is more than a century"));
        }
        let mut host_names = self.host_names;
        if host_names.is_empty() {
            host_names.push(DEFAULT_HOST_NAME.to_owned());
        }
        let certificate_names = self.certificate_name.map_or_else(|| host_names.clone(), |name| vec![name]);
        let tls = Tls::new(&certificate_names, self.certificate_expired, self.resumption)?;
        let listener = listen_on(self.listen)?;
        let address = listener.local_addr()?;
        let service = Service::new(Setup {
            host_names,
            port: address.port(),
            identities: self.identities,
            clock_offset: self.clock_offset,
            record_requests: self.record_requests,
            observer: self.observer,
        });
        let context = Context {
            service,
            tls: tls.config,
            idle_timeout: self.idle_timeout,
            read_timeout: self.read_timeout,
            in_flight: InFlight::default(),
            resumed_count: AtomicUsize::new(0),
        };
        let shared = Arc::new(Shared {
            context,
            max_connections: self.max_connections,
            connection_count: AtomicUsize::new(0),
            open: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        let accept_loop = spawn_accept_loop(listener, &shared)?;
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

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    // The standard library lets 128 connections wait. A storm of logins opens more, and a client
    // that finds no room waits for a second.
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

fn spawn_accept_loop(listener: TcpListener, shared: &Arc<Shared>) -> io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    thread::Builder::new().name("sts-accept".to_owned()).spawn(move || accept(&listener, &shared))
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for id in 0.. {
        let accepted = listener.accept();
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok((socket, _)) = accepted else {
            // Out of descriptors, or the client is gone already: trying again at once helps
            // neither.
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        shared.connection_count.fetch_add(1, Ordering::SeqCst);
        // Locked until the connection is in the map, so that its thread cannot remove it before.
        let mut open = lock(&shared.open);
        if open.len() >= shared.max_connections {
            continue;
        }
        let Ok(other) = socket.try_clone() else { continue };
        let for_thread = Arc::clone(shared);
        let spawned = thread::Builder::new().name("sts-connection".to_owned()).spawn(move || {
            let _removed_at_end = Removal { shared: &for_thread, id };
            // The client sees an error as a closed connection.
            let _ = connection::serve(other, &for_thread.context);
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

/// Locks, also after a thread panicked: what is protected is never left half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
