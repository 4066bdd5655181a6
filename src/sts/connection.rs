//! New connections to STS. The addresses of the name are raced (RFC 8305, "Happy Eyeballs").
//!
//! An address may accept TCP and be dead all the same, so each attempt includes the TLS handshake.
//! The first connection with a trusted certificate wins; the others are closed. All attempts of a
//! login run on its own thread with non-blocking sockets, so many logins at a dead address start no
//! threads.

use super::certificates;
use super::errors::{is_local, printable};
use super::proxy::{self, NoTunnel, ProxyResponse};
use super::tls::{self, Socket, TlsTransport};
use crate::process::Process;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with, sockopt};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use ureq::Error;
use ureq::unversioned::transport::{ConnectionDetails, Connector, LazyBuffers, time};

/// How long the first address is tried alone: the recommended Connection Attempt Delay of RFC 8305
/// (section 5).
const FIRST_DELAY: Duration = Duration::from_millis(250);

/// The delay between later attempts: the recommended minimum of RFC 8305 (section 8). With it, the
/// last of [`MAX_ADDRESSES`] is tried within a second.
const NEXT_DELAY: Duration = Duration::from_millis(100);

/// The maximum number of addresses that are tried for one connection.
const MAX_ADDRESSES: usize = 8;

/// The maximum number of sockets per connection at the same time, since many logins may connect at
/// once. The oldest is closed for another.
const MAX_OPEN: usize = 4;

/// A step of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The TCP connection to STS or to the proxy.
    Tcp,
    /// CONNECT at the proxy.
    Tunnel,
    /// The TLS handshake with STS.
    Tls,
}

/// The report of an attempt to connect to one address.
#[derive(Debug)]
pub struct AttemptReport {
    /// The address of STS or of the proxy.
    pub address: SocketAddr,
    /// How long after the first address it was tried.
    pub started_after: Duration,
    /// The steps that were started, with their durations. All but the last were completed.
    pub steps: Vec<(Step, Duration)>,
    /// How the attempt ended.
    pub end: AttemptEnd,
}

/// How an attempt ended.
#[derive(Debug)]
pub enum AttemptEnd {
    /// The connection was made.
    Connected,
    /// The last step failed.
    Failed(StepError),
    /// Another address was faster.
    LostRace,
}

/// Why a step failed.
#[derive(Debug)]
pub enum StepError {
    /// The peer did not respond in time.
    TimedOut,
    /// The peer closed the connection.
    Closed,
    /// An error of the system.
    Io(io::Error),
    /// The proxy opened no tunnel.
    NoTunnel(NoTunnel),
    /// TLS failed, for example because the certificate is not trusted.
    Tls(rustls::Error),
}

impl AttemptReport {
    /// How relevant the error of this attempt is; 0 without an error.
    fn relevance(&self) -> u8 {
        match (&self.end, self.steps.last()) {
            (AttemptEnd::Failed(error), Some((step, _))) => error.relevance(*step),
            _ => 0,
        }
    }
}

/// Contains no text that the peer has sent.
impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("no response"),
            Self::Closed => f.write_str("the connection was closed"),
            Self::NoTunnel(no) => write!(f, "the proxy {no}"),
            Self::Io(error) => f.write_str(&printable(error)),
            Self::Tls(error) => f.write_str(&certificates::reason(error)),
        }
    }
}

impl StepError {
    /// Whether the certificate is not trusted.
    pub fn is_untrusted(&self) -> bool {
        matches!(self, Self::Tls(rustls::Error::InvalidCertificate(_)))
    }

    /// Whether a retry would fail in the same way.
    fn is_final(&self) -> bool {
        self.is_untrusted() || matches!(self, Self::NoTunnel(NoTunnel { is_final: true, .. }))
    }

    /// How relevant the error is to an operator, compared with those of the other addresses.
    fn relevance(&self, step: Step) -> u8 {
        match self {
            Self::Tls(_) if self.is_untrusted() => 6,
            Self::Tls(_) | Self::NoTunnel(_) => 5,
            // A lack of resources here says nothing about the addresses. AddrNotAvailable is not
            // one: it is normal for an IPv6 address on a machine without IPv6.
            Self::Io(error) if is_local(error) && error.kind() != io::ErrorKind::AddrNotAvailable => 4,
            Self::Io(_) | Self::Closed if step > Step::Tcp => 3,
            Self::TimedOut if step > Step::Tcp => 2,
            // No route: mostly the machine does not support the address family.
            Self::Io(error) if error.kind() != io::ErrorKind::ConnectionRefused => 0,
            Self::Io(_) | Self::Closed | Self::TimedOut => 1,
        }
    }
}

/// Why there is no connection: the most relevant error of all addresses.
#[derive(Debug)]
pub struct ConnectError {
    /// The address.
    pub address: SocketAddr,
    /// The step that failed.
    pub step: Step,
    /// How long the step took.
    pub took: Duration,
    /// Why it failed.
    pub error: StepError,
    /// How many addresses were tried.
    pub addresses: usize,
    /// Whether a retry would fail in the same way at every address.
    pub is_final: bool,
}

impl ConnectError {
    /// Takes the reports of all attempts, the most relevant one last; none if no address was tried.
    fn of(attempts: Vec<AttemptReport>) -> Option<Self> {
        let addresses = attempts.len();
        let is_final =
            attempts.iter().all(|attempt| matches!(&attempt.end, AttemptEnd::Failed(error) if error.is_final()));
        let AttemptReport { address, steps, end: AttemptEnd::Failed(error), .. } = attempts.into_iter().next_back()?
        else {
            return None;
        };
        let (step, took) = *steps.last()?;
        Some(Self { address, step, took, error, addresses, is_final })
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no connection to {}", self.address)
    }
}

impl std::error::Error for ConnectError {}

/// The report of all attempts for one connection, once it is made or every address has failed.
#[derive(Clone, Copy, Debug)]
pub struct Connecting<'a> {
    /// When it began, which is when name resolution ended.
    pub began: Instant,
    /// The addresses that name resolution returned.
    pub addresses: &'a [SocketAddr],
    /// The attempts. The last is that of the connection, or of the most relevant error.
    pub attempts: &'a [AttemptReport],
}

/// Receives the report; for the operator's command.
pub type Observer = Arc<dyn Fn(Connecting<'_>) + Send + Sync>;

/// Makes TLS connections to STS, through the proxy if there is one. Clones share the address that
/// worked last.
#[derive(Clone)]
pub struct StsConnector {
    /// The target of the proxy's tunnel, `host:port`; none without a proxy.
    tunnel: Option<String>,
    tls: Arc<ClientConfig>,
    stale_connection_timeout: Duration,
    process: Arc<Process>,
    /// The address of the latest connection, which is tried first.
    last_good: Arc<Mutex<Option<SocketAddr>>>,
    observer: Option<Observer>,
}

impl StsConnector {
    /// Takes the target of the proxy's tunnel (`host:port`) if there is a proxy, the TLS settings,
    /// how long a reused connection may wait for the response, and where connections are counted.
    pub fn new(
        tunnel: Option<String>,
        tls: Arc<ClientConfig>,
        stale_connection_timeout: Duration,
        process: Arc<Process>,
    ) -> Self {
        Self { tunnel, tls, stale_connection_timeout, process, last_good: Arc::default(), observer: None }
    }

    /// Returns a connector with the same settings that reports its attempts to the observer.
    #[must_use]
    pub fn observed(&self, observer: Observer) -> Self {
        Self { observer: Some(observer), ..self.clone() }
    }
}

impl Connector for StsConnector {
    type Out = TlsTransport;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<TlsTransport>, Error> {
        tls::mark_new_connection();
        let resolved = Instant::now();
        let name = details.uri.host().unwrap_or_default().to_owned();
        let name = ServerName::try_from(name).map_err(|_| Error::Tls("the host is not a valid DNS name"))?;
        let began = match details.now {
            time::Instant::Exact(now) => now,
            _ => Instant::now(),
        };
        let last_good = *self.last_good.lock().unwrap_or_else(PoisonError::into_inner);
        let addresses = in_order(&details.addrs, last_good);
        let race = Race::new(Target { tunnel: self.tunnel.as_deref(), tls: &self.tls, name }, addresses);
        let (winner, attempts) = race.run(began.checked_add(*details.timeout.after));
        if let Some(observer) = &self.observer {
            observer(Connecting { began: resolved, addresses: &details.addrs, attempts: &attempts });
        }
        let Some((address, stream)) = winner else {
            return Err(ConnectError::of(attempts).map_or(Error::HostNotFound, |error| Error::Other(Box::new(error))));
        };
        *self.last_good.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        let process = Arc::clone(&self.process);
        Ok(Some(TlsTransport::new(address, stream, buffers, self.stale_connection_timeout, process)))
    }
}

impl fmt::Debug for StsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StsConnector").field("tunnel", &self.tunnel).finish_non_exhaustive()
    }
}

/// The addresses in the order of the attempts: the last good one first, if it is still among them,
/// then alternating between the address families (RFC 8305 section 4).
fn in_order(addresses: &[SocketAddr], last_good: Option<SocketAddr>) -> VecDeque<SocketAddr> {
    let first = last_good.filter(|good| addresses.contains(good));
    let rest = addresses.iter().copied().filter(|address| Some(*address) != first);
    let all: Vec<_> = first.into_iter().chain(rest).collect();
    let (first_family, other): (Vec<_>, Vec<_>) =
        all.iter().copied().partition(|address: &SocketAddr| address.is_ipv4() == all[0].is_ipv4());
    let longest = first_family.len().max(other.len());
    let alternating = (0..longest).flat_map(|index| [first_family.get(index), other.get(index)]);
    alternating.flatten().copied().take(MAX_ADDRESSES).collect()
}

/// When each address is tried.
#[derive(Debug)]
struct Schedule {
    waiting: VecDeque<SocketAddr>,
    next: Instant,
}

impl Schedule {
    /// Returns the next address if it is due now. `running` is the number of attempts under way.
    fn due(&mut self, now: Instant, running: usize) -> Option<SocketAddr> {
        if now < self.next {
            return None;
        }
        let address = self.waiting.pop_front()?;
        self.next = now + if running == 0 { FIRST_DELAY } else { NEXT_DELAY };
        Some(address)
    }

    /// Makes the next address due, after an attempt has failed.
    fn failed(&mut self, now: Instant) {
        self.next = now;
    }

    /// When the next address is due, if there is one.
    fn next(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.next)
    }
}

/// The target of a connection.
struct Target<'a> {
    tunnel: Option<&'a str>,
    tls: &'a Arc<ClientConfig>,
    /// The name that the certificate must be valid for.
    name: ServerName<'static>,
}

/// The attempts to make one connection.
struct Race<'a> {
    target: Target<'a>,
    schedule: Schedule,
    began: Instant,
    running: Vec<Attempt>,
    ended: Vec<AttemptReport>,
}

/// The connection and its address.
type Winner = (SocketAddr, StreamOwned<ClientConnection, Socket>);

impl<'a> Race<'a> {
    fn new(target: Target<'a>, addresses: VecDeque<SocketAddr>) -> Self {
        let began = Instant::now();
        let schedule = Schedule { waiting: addresses, next: began };
        Self { target, schedule, began, running: Vec::with_capacity(MAX_OPEN), ended: Vec::new() }
    }

    /// Connects, at most until the deadline. Also returns the report of each attempt.
    fn run(mut self, deadline: Option<Instant>) -> (Option<Winner>, Vec<AttemptReport>) {
        loop {
            let now = Instant::now();
            if let Some(address) = self.schedule.due(now, self.running.len()) {
                self.begin(address, now);
                continue;
            }
            let is_over = self.running.is_empty() && self.schedule.next().is_none();
            if is_over || deadline.is_some_and(|deadline| now >= deadline) {
                // Time after the deadline does not count.
                return self.end(None, deadline.map_or(now, |deadline| deadline.min(now)));
            }
            let until = self.schedule.next().into_iter().chain(deadline).min();
            if let Some(winner) = self.advance(until) {
                return self.end(Some(winner), Instant::now());
            }
        }
    }

    fn begin(&mut self, address: SocketAddr, now: Instant) {
        if self.running.len() == MAX_OPEN {
            let oldest = self.running.remove(0);
            self.ended.push(oldest.end(self.began, now, AttemptEnd::Failed(StepError::TimedOut)));
        }
        match Attempt::begin(address, now) {
            Ok(attempt) => self.running.push(attempt),
            Err(error) => {
                let started_after = now.saturating_duration_since(self.began);
                let steps = vec![(Step::Tcp, Duration::ZERO)];
                let end = AttemptEnd::Failed(StepError::Io(error));
                self.ended.push(AttemptReport { address, started_after, steps, end });
                self.schedule.failed(now);
            }
        }
    }

    /// Waits for the running attempts and advances them. Returns the one that is connected.
    fn advance(&mut self, until: Option<Instant>) -> Option<Attempt> {
        let mut sockets: Vec<_> =
            self.running.iter().map(|attempt| PollFd::new(&attempt.socket, attempt.awaited())).collect();
        let waited = tls::wait(&mut sockets, until);
        let ready: Vec<_> = sockets.iter().map(|socket| !socket.revents().is_empty()).collect();
        if let Err(error) = waited {
            if !self.running.is_empty() {
                self.fail(0, Instant::now(), StepError::Io(error));
            }
            return None;
        }
        let mut index = 0;
        for is_ready in ready {
            let result = if is_ready { self.running[index].advance(&self.target) } else { Ok(false) };
            match result {
                Ok(false) => index += 1,
                Ok(true) => return Some(self.running.remove(index)),
                Err(error) => self.fail(index, Instant::now(), error),
            }
        }
        None
    }

    fn fail(&mut self, index: usize, now: Instant, error: StepError) {
        let attempt = self.running.remove(index);
        self.ended.push(attempt.end(self.began, now, AttemptEnd::Failed(error)));
        self.schedule.failed(now);
    }

    /// Closes the other connections. The last report is that of the winner, or of the most relevant
    /// error.
    fn end(mut self, winner: Option<Attempt>, now: Instant) -> (Option<Winner>, Vec<AttemptReport>) {
        for attempt in self.running {
            let end = if winner.is_some() { AttemptEnd::LostRace } else { AttemptEnd::Failed(StepError::TimedOut) };
            self.ended.push(attempt.end(self.began, now, end));
        }
        let Some(Attempt { address, started, steps, socket, state: State::Tls(tls), .. }) = winner else {
            // If several are equally relevant, the one that was tried first.
            let relevance = self.ended.iter().map(AttemptReport::relevance).enumerate().rev();
            if let Some((index, _)) = relevance.max_by_key(|(_, relevance)| *relevance) {
                let most_relevant = self.ended.remove(index);
                self.ended.push(most_relevant);
            }
            return (None, self.ended);
        };
        let started_after = started.saturating_duration_since(self.began);
        self.ended.push(AttemptReport { address, started_after, steps, end: AttemptEnd::Connected });
        (Some((address, StreamOwned::new(*tls, socket))), self.ended)
    }
}

/// A running attempt to connect to one address.
struct Attempt {
    address: SocketAddr,
    started: Instant,
    /// The completed steps.
    steps: Vec<(Step, Duration)>,
    /// When the current step started.
    since: Instant,
    socket: Socket,
    state: State,
}

enum State {
    Tcp,
    Tunnel { unsent: Vec<u8>, response: ProxyResponse },
    Tls(Box<ClientConnection>),
}

impl Attempt {
    fn begin(address: SocketAddr, now: Instant) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let socket = Socket::new(TcpStream::from(socket));
        Ok(Self { address, started: now, steps: Vec::new(), since: now, socket, state: State::Tcp })
    }

    fn step(&self) -> Step {
        match self.state {
            State::Tcp => Step::Tcp,
            State::Tunnel { .. } => Step::Tunnel,
            State::Tls(_) => Step::Tls,
        }
    }

    /// The readiness of the socket that the next step needs.
    fn awaited(&self) -> PollFlags {
        match &self.state {
            State::Tcp => PollFlags::OUT,
            State::Tunnel { unsent, .. } => {
                if unsent.is_empty() {
                    PollFlags::IN
                } else {
                    PollFlags::OUT
                }
            }
            // The peer may end the handshake even while there is something to send. After the
            // handshake, nothing is read here.
            State::Tls(tls) => {
                let mut awaited = PollFlags::empty();
                awaited.set(PollFlags::IN, tls.is_handshaking());
                awaited.set(PollFlags::OUT, tls.wants_write());
                awaited
            }
        }
    }

    /// Advances as far as possible without waiting. Returns whether it is connected.
    fn advance(&mut self, target: &Target) -> Result<bool, StepError> {
        loop {
            let next = match &mut self.state {
                State::Tcp => {
                    sockopt::socket_error(&self.socket).and_then(|result| result).map_err(io::Error::from)?;
                    self.socket.tcp().set_nodelay(true)?;
                    match target.tunnel {
                        Some(to) => State::Tunnel { unsent: proxy::request(to), response: ProxyResponse::default() },
                        None => State::Tls(target.handshake()?),
                    }
                }
                State::Tunnel { unsent, response } => {
                    if !open_tunnel(self.socket.tcp(), unsent, response)? {
                        return Ok(false);
                    }
                    State::Tls(target.handshake()?)
                }
                State::Tls(tls) => {
                    let is_done = shake_hands(tls, &mut self.socket)?;
                    if is_done {
                        self.complete_step(Instant::now());
                    }
                    return Ok(is_done);
                }
            };
            self.complete_step(Instant::now());
            self.state = next;
        }
    }

    fn complete_step(&mut self, now: Instant) {
        self.steps.push((self.step(), now.saturating_duration_since(self.since)));
        self.since = now;
    }

    fn end(mut self, race_began: Instant, now: Instant, end: AttemptEnd) -> AttemptReport {
        self.complete_step(now);
        let started_after = self.started.saturating_duration_since(race_began);
        AttemptReport { address: self.address, started_after, steps: self.steps, end }
    }
}

impl Target<'_> {
    fn handshake(&self) -> Result<Box<ClientConnection>, StepError> {
        // Only once TCP is connected, since this uses up a session ticket.
        let tls = ClientConnection::new(Arc::clone(self.tls), self.name.clone()).map_err(StepError::Tls)?;
        Ok(Box::new(tls))
    }
}

impl From<io::Error> for StepError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Converts the result of a non-blocking read or write; `None` if it would block.
fn unblocked(result: io::Result<usize>) -> Result<Option<usize>, StepError> {
    match result {
        Ok(0) => Err(StepError::Closed),
        Ok(amount) => Ok(Some(amount)),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(StepError::Io(error)),
    }
}

/// Continues a CONNECT request. Returns whether the tunnel is open.
fn open_tunnel(mut tcp: &TcpStream, unsent: &mut Vec<u8>, response: &mut ProxyResponse) -> Result<bool, StepError> {
    while !unsent.is_empty() {
        let Some(amount) = unblocked(tcp.write(unsent))? else { return Ok(false) };
        unsent.drain(..amount);
    }
    let mut arrived = [0; 512];
    loop {
        let Some(amount) = unblocked(tcp.peek(&mut arrived))? else { return Ok(false) };
        let taken = response.take(&arrived[..amount]);
        tcp.read_exact(&mut arrived[..taken])?;
        if let Some(verdict) = response.verdict() {
            return verdict.map(|()| true).map_err(StepError::NoTunnel);
        }
    }
}

/// Continues a TLS handshake, by at most one read, so no peer can keep it busy past the deadline.
/// Returns whether it is complete, which implies that the certificate is trusted.
fn shake_hands(tls: &mut ClientConnection, socket: &mut Socket) -> Result<bool, StepError> {
    send_handshake(tls, socket)?;
    if tls.is_handshaking() && unblocked(tls.read_tls(socket))?.is_some() {
        if let Err(error) = tls.process_new_packets() {
            // Send the peer the TLS alert, if that does not block.
            let _ = tls.write_tls(socket);
            return Err(StepError::Tls(error));
        }
        send_handshake(tls, socket)?;
    }
    Ok(!tls.is_handshaking() && !tls.wants_write())
}

/// Sends pending data of the handshake, as far as the socket accepts it.
fn send_handshake(tls: &mut ClientConnection, socket: &mut Socket) -> Result<(), StepError> {
    while tls.wants_write() {
        if unblocked(tls.write_tls(socket))?.is_none() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sts::request::{BODY, CONTENT_TYPE};
    use local_sts::{DelayProxy, LocalSts, NetworkFault};
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;
    use ureq::config::Config;
    use ureq::http::Uri;
    use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
    use ureq::unversioned::transport::NextTimeout;

    const ENOUGH: Duration = Duration::from_secs(10);
    /// The maximum duration of a connection although an address is dead.
    const SOON: Duration = Duration::from_secs(1);

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn miri_families_alternate_after_the_last_good_address() {
        let all = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "10.0.0.1:1", "10.0.0.2:1"]);
        for (last_good, expected) in [
            (None, ["[::1]:1", "10.0.0.1:1", "[::2]:1", "10.0.0.2:1", "[::3]:1"]),
            (Some("10.0.0.2:1"), ["10.0.0.2:1", "[::1]:1", "10.0.0.1:1", "[::2]:1", "[::3]:1"]),
            (Some("[::3]:1"), ["[::3]:1", "10.0.0.1:1", "[::1]:1", "10.0.0.2:1", "[::2]:1"]),
            // No longer an address of the name.
            (Some("10.0.0.9:1"), ["[::1]:1", "10.0.0.1:1", "[::2]:1", "10.0.0.2:1", "[::3]:1"]),
        ] {
            let ordered = in_order(&all, last_good.map(|text| text.parse().unwrap()));
            assert_eq!(ordered, addresses(&expected), "{last_good:?}");
        }
        assert!(in_order(&[], None).is_empty());
        let many: Vec<_> = (1..=16).map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).collect();
        assert_eq!(in_order(&many, Some(many[15])).len(), MAX_ADDRESSES);
    }

    #[test]
    fn miri_an_address_is_due_after_a_delay_or_a_failure() {
        let began = Instant::now();
        let at = |millis| began + Duration::from_millis(millis);
        let all = addresses(&["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1", "10.0.0.4:1", "10.0.0.5:1"]);
        let mut schedule = Schedule { waiting: all.iter().copied().collect(), next: began };
        for (now, running, expected) in
            [(0, 0, Some(0)), (249, 1, None), (250, 1, Some(1)), (349, 2, None), (350, 2, Some(2))]
        {
            assert_eq!(schedule.due(at(now), running), expected.map(|index: usize| all[index]), "{now}");
        }
        schedule.failed(at(360));
        assert_eq!(schedule.due(at(360), 2), Some(all[3]));
        assert_eq!(schedule.next(), Some(at(460)));
        // With no other attempt running, the first delay applies again.
        schedule.failed(at(370));
        assert_eq!(schedule.due(at(370), 0), Some(all[4]));
        assert_eq!((schedule.next, schedule.next()), (at(620), None));
    }

    #[test]
    fn miri_the_last_address_is_tried_within_a_second() {
        let began = Instant::now();
        let mut schedule = Schedule {
            waiting: (1..=8).map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).collect(),
            next: began,
        };
        assert_eq!(schedule.waiting.len(), MAX_ADDRESSES);
        let mut last = began;
        for running in 0..MAX_ADDRESSES {
            last = schedule.next().unwrap();
            assert!(schedule.due(last, running).is_some());
        }
        assert_eq!(last - began, Duration::from_millis(850));
    }

    /// An STS, and addresses that lead to it or nowhere.
    struct Network {
        sts: LocalSts,
        tls: Arc<ClientConfig>,
        ways: Vec<DelayProxy>,
    }

    impl Network {
        fn new(faults: &[NetworkFault]) -> Self {
            let sts = LocalSts::builder().start().unwrap();
            let roots: Vec<_> = CertificateDer::pem_slice_iter(sts.ca_pem().as_bytes()).map(Result::unwrap).collect();
            let way = |fault: &NetworkFault| {
                let way = DelayProxy::start(sts.address()).unwrap();
                way.set_fault(*fault);
                way
            };
            let ways = faults.iter().map(way).collect();
            Self { tls: tls::client_config(&roots).unwrap(), ways, sts }
        }

        fn addresses(&self) -> Vec<SocketAddr> {
            self.ways.iter().map(DelayProxy::address).collect()
        }

        fn race(
            &self,
            addresses: &[SocketAddr],
            timeout: Duration,
        ) -> (Option<SocketAddr>, Vec<AttemptReport>, Duration) {
            let name = ServerName::try_from("sts.amazonaws.com").unwrap();
            let target = Target { tunnel: None, tls: &self.tls, name };
            let began = Instant::now();
            let (winner, tried) = Race::new(target, in_order(addresses, None)).run(Some(began + timeout));
            (winner.map(|(address, _)| address), tried, began.elapsed())
        }
    }

    #[test]
    fn a_dead_address_before_a_good_one_costs_less_than_a_second() {
        use NetworkFault::{BlackHole, None, Refused, Unreachable};
        for faults in [
            &[Unreachable, None][..],
            &[BlackHole, None],
            &[Refused, None],
            &[Refused, Unreachable, BlackHole, None],
            &[Unreachable, Unreachable, Unreachable, None],
            &[BlackHole, BlackHole, BlackHole, None],
        ] {
            let network = Network::new(faults);
            let (winner, tried, took) = network.race(&network.addresses(), ENOUGH);
            assert_eq!(winner, network.addresses().last().copied(), "{faults:?}: {tried:?}");
            assert!(took < SOON, "{faults:?}: {took:?}, {tried:?}");
            assert_eq!(tried.len(), faults.len());
            assert!(matches!(tried.last().unwrap().end, AttemptEnd::Connected), "{tried:?}");
        }
    }

    #[test]
    fn seven_dead_addresses_before_a_good_one_hold_four_sockets_at_once() {
        for fault in [NetworkFault::Unreachable, NetworkFault::BlackHole] {
            let mut faults = [fault; 8];
            faults[7] = NetworkFault::None;
            let network = Network::new(&faults);
            let (winner, tried, took) = network.race(&network.addresses(), ENOUGH);
            assert_eq!(winner, Some(network.ways[7].address()), "{tried:?}");
            assert!(took < Duration::from_millis(1500), "{took:?}");
            // Each was closed when the fourth after it began.
            let lasted = |tried: &AttemptReport| tried.steps.iter().map(|(_, took)| *took).sum::<Duration>();
            let closed_early: Vec<_> =
                tried.iter().filter(|tried| matches!(tried.end, AttemptEnd::Failed(_))).collect();
            assert_eq!(closed_early.len(), 8 - MAX_OPEN, "{tried:?}");
            assert!(closed_early.iter().all(|tried| lasted(tried) < Duration::from_millis(800)), "{tried:?}");
        }
    }

    #[test]
    fn the_sockets_of_losers_are_closed_at_once() {
        let network = Network::new(&[NetworkFault::None]);
        let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (winner, ..) = network.race(&[silent.local_addr().unwrap(), network.ways[0].address()], ENOUGH);
        assert_eq!(winner, Some(network.ways[0].address()));
        let (mut loser, _) = silent.accept().unwrap();
        loser.set_read_timeout(Some(ENOUGH)).unwrap();
        let mut received = Vec::new();
        loser.read_to_end(&mut received).expect("the end of the connection");
        assert_eq!(received.first(), Some(&22), "a TLS handshake was started");
    }

    #[test]
    fn an_address_with_an_untrusted_certificate_never_wins_and_is_reported() {
        let network = Network::new(&[NetworkFault::None, NetworkFault::BlackHole]);
        let impostor = LocalSts::builder().start().unwrap();
        let (winner, ..) = network.race(&[impostor.address(), network.ways[0].address()], ENOUGH);
        assert_eq!(winner, Some(network.ways[0].address()));
        let other = LocalSts::builder().certificate_name("sts.example.com").start().unwrap();
        for (also, is_final) in [(other.address(), true), (network.ways[1].address(), false)] {
            for all in [[impostor.address(), also], [also, impostor.address()]] {
                let (winner, tried, _) = network.race(&all, Duration::from_millis(600));
                assert_eq!(winner, None);
                let error = ConnectError::of(tried).unwrap();
                assert!(error.error.is_untrusted(), "{error:?}");
                assert_eq!((error.step, error.addresses, error.is_final), (Step::Tls, 2, is_final), "{error:?}");
            }
        }
        assert_eq!(impostor.request_count() + other.request_count(), 0);
    }

    #[test]
    fn a_race_without_a_winner_ends_at_its_deadline_and_reports_the_attempt_that_got_farthest() {
        let network = Network::new(&[NetworkFault::Unreachable, NetworkFault::BlackHole, NetworkFault::Refused]);
        let all = network.addresses();
        for (addresses, address, step, is_silent) in [
            (&all[..1], all[0], Step::Tcp, true),
            (&all[..2], all[1], Step::Tls, true),
            (&all[1..], all[1], Step::Tls, true),
            (&all[2..], all[2], Step::Tcp, false),
        ] {
            let timeout = Duration::from_millis(500);
            let (winner, tried, took) = network.race(addresses, timeout);
            assert_eq!(winner, None);
            let error = ConnectError::of(tried).unwrap();
            assert_eq!((error.address, error.step), (address, step), "{error:?}");
            assert_eq!(matches!(error.error, StepError::TimedOut), is_silent, "{error:?}");
            assert!(!is_silent || took >= timeout && took < ENOUGH && error.took <= timeout, "{took:?}, {error:?}");
            assert!(is_silent || took < timeout, "nothing was left to wait for: {took:?}");
        }
    }

    #[test]
    fn a_peer_that_sends_data_for_ever_is_cut_off_at_the_deadline() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                // A handshake record that announces a long message, and then parts of the message.
                let _ = stream.write_all(&[22, 3, 3, 64, 0, 2, 0, 63, 252]);
                while stream.write_all(&[0; 100]).is_ok() {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
        let network = Network::new(&[]);
        let (winner, _, took) = network.race(&[address], Duration::from_millis(400));
        assert!(winner.is_none() && took < ENOUGH, "{took:?}");
    }

    /// A resolver that returns these addresses for every name.
    #[derive(Debug)]
    struct Fixed(Vec<SocketAddr>);

    impl Resolver for Fixed {
        fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
            let mut all = self.empty();
            self.0.iter().for_each(|address| all.push(*address));
            Ok(all)
        }
    }

    #[test]
    fn the_address_that_worked_is_tried_first_until_another_one_does() {
        let network = Network::new(&[NetworkFault::BlackHole, NetworkFault::None]);
        let process = Arc::new(Process::default());
        let tried = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&tried);
        let connector = StsConnector::new(None, Arc::clone(&network.tls), SOON, Arc::clone(&process))
            .observed(Arc::new(move |connecting| seen.lock().unwrap().push(connecting.attempts.len())));
        let config = Config::builder().max_idle_connections(0).timeout_global(Some(ENOUGH));
        let config = config.http_status_as_error(false).build();
        let agent = ureq::Agent::with_parts(config, connector, Fixed(network.addresses()));
        let ask = || {
            let began = Instant::now();
            let post = agent.post("https://sts.amazonaws.com/").content_type(CONTENT_TYPE);
            assert_eq!(post.send(BODY).unwrap().status(), 403);
            assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        };
        ask();
        ask();
        ask();
        network.ways[0].set_fault(NetworkFault::None);
        network.ways[1].set_fault(NetworkFault::BlackHole);
        ask();
        ask();
        assert_eq!(*tried.lock().unwrap(), [2, 1, 1, 2, 1]);
        assert_eq!(process.metrics.connections_opened.get(), 5);
        assert_eq!(network.sts.request_count(), 5);
        drop(agent);
        assert_eq!(process.metrics.connections_open.get(), 0);
    }
}
