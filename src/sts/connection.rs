//! New connections to STS: the addresses of its name are raced, as RFC 8305 ("Happy Eyeballs") says.
//!
//! An address may be dead before or after it has accepted TCP, so that each runs to the end of its TLS handshake. The
//! first connection that STS's certificate vouches for wins; the others are closed. All attempts of a login run on its
//! own thread, over sockets that do not block, so that a login storm against a dead address starts no thread.

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

/// How long an address is tried alone: the Connection Attempt Delay that RFC 8305 recommends (section 5).
const FIRST_DELAY: Duration = Duration::from_millis(250);

/// How long after an attempt the next one begins while an earlier one has no answer: the least that RFC 8305 recommends
/// (section 8), so that with [`MAX_ADDRESSES`] the last begins within a second.
const NEXT_DELAY: Duration = Duration::from_millis(100);

/// Addresses that are tried for one connection.
const MAX_ADDRESSES: usize = 8;

/// Sockets that are open for one connection at once: the oldest is closed for another. Logins ask many at once.
const MAX_OPEN: usize = 4;

/// A step of making a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The TCP connection to STS, or to the proxy.
    Tcp,
    /// The proxy's answer to CONNECT.
    Tunnel,
    /// The TLS handshake with STS.
    Tls,
}

/// What came of trying one address.
#[derive(Debug)]
pub struct Tried {
    /// The address of STS, or of the proxy.
    pub address: SocketAddr,
    /// How long after the first address it was tried.
    pub begun_after: Duration,
    /// The steps that were begun, with how long each took. All but the last were completed.
    pub steps: Vec<(Step, Duration)>,
    /// How it ended.
    pub end: End,
}

/// How an attempt ended.
#[derive(Debug)]
pub enum End {
    /// The connection is made.
    Connected,
    /// Its last step failed.
    Failed(Trouble),
    /// Another address was faster.
    Overtaken,
}

/// Why a step failed.
#[derive(Debug)]
pub enum Trouble {
    /// The other side did not answer in the time there was.
    Silent,
    /// The other side closed the connection.
    Closed,
    /// The system reports this, here or about the other side.
    Io(io::Error),
    /// The proxy makes no tunnel.
    NoTunnel(NoTunnel),
    /// TLS failed; perhaps the certificate is not trusted.
    Tls(rustls::Error),
}

impl Tried {
    fn weight(&self) -> u8 {
        match (&self.end, self.steps.last()) {
            (End::Failed(trouble), Some((step, _))) => trouble.weight(*step),
            _ => 0,
        }
    }
}

/// Nothing of what the other side has sent.
impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("no response"),
            Self::Closed => f.write_str("the connection was closed"),
            Self::NoTunnel(no) => write!(f, "the proxy {no}"),
            Self::Io(error) => f.write_str(&printable(error)),
            Self::Tls(error) => f.write_str(&certificates::reason(error)),
        }
    }
}

impl Trouble {
    /// Whether STS's certificate is not trusted.
    pub fn is_untrusted(&self) -> bool {
        matches!(self, Self::Tls(rustls::Error::InvalidCertificate(_)))
    }

    /// Whether it would be the same the next time.
    fn is_final(&self) -> bool {
        self.is_untrusted() || matches!(self, Self::NoTunnel(NoTunnel { is_final: true, .. }))
    }

    /// How much it tells an operator, compared with what other addresses met.
    fn weight(&self, step: Step) -> u8 {
        match self {
            Self::Tls(_) if self.is_untrusted() => 6,
            Self::Tls(_) | Self::NoTunnel(_) => 5,
            // Of the other addresses nothing is known then. A machine without IPv6 has no local address for one of its.
            Self::Io(error) if is_local(error) && error.kind() != io::ErrorKind::AddrNotAvailable => 4,
            Self::Io(_) | Self::Closed if step > Step::Tcp => 3,
            Self::Silent if step > Step::Tcp => 2,
            // No route, mostly to a family of addresses that this machine does not have.
            Self::Io(error) if error.kind() != io::ErrorKind::ConnectionRefused => 0,
            Self::Io(_) | Self::Closed | Self::Silent => 1,
        }
    }
}

/// Why there is no connection: what the most telling address met.
#[derive(Debug)]
pub struct ConnectError {
    /// The address.
    pub address: SocketAddr,
    /// The step that failed.
    pub step: Step,
    /// How long the step took.
    pub took: Duration,
    /// Why it failed.
    pub trouble: Trouble,
    /// How many addresses were tried.
    pub addresses: usize,
    /// Whether each of them would fail in the same way the next time.
    pub is_final: bool,
}

impl ConnectError {
    /// Chooses what to report: the last of what was tried; none when no address was.
    fn of(tried: Vec<Tried>) -> Option<Self> {
        let addresses = tried.len();
        let is_final = tried.iter().all(|tried| matches!(&tried.end, End::Failed(trouble) if trouble.is_final()));
        let Tried { address, steps, end: End::Failed(trouble), .. } = tried.into_iter().next_back()? else {
            return None;
        };
        let (step, took) = *steps.last()?;
        Some(Self { address, step, took, trouble, addresses, is_final })
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no connection to {}", self.address)
    }
}

impl std::error::Error for ConnectError {}

/// How connecting went, once there is a connection or every address has failed.
#[derive(Clone, Copy, Debug)]
pub struct Connecting<'a> {
    /// When it began. Name resolution ended then.
    pub began: Instant,
    /// The addresses that name resolution returned.
    pub addresses: &'a [SocketAddr],
    /// The addresses that were tried; the last of them decided.
    pub tried: &'a [Tried],
}

/// Receives how connecting went; for a command that shows it.
pub type Observer = Arc<dyn Fn(Connecting<'_>) + Send + Sync>;

/// Makes TLS connections to STS, through a tunnel of the proxy if there is one. Clones share what they remember.
#[derive(Clone)]
pub struct StsConnector {
    /// What the proxy is to connect to, `host:port`.
    tunnel: Option<String>,
    tls: Arc<ClientConfig>,
    kept_patience: Duration,
    process: Arc<Process>,
    /// The address of the latest connection: it is tried first the next time.
    last_good: Arc<Mutex<Option<SocketAddr>>>,
    observer: Option<Observer>,
}

impl StsConnector {
    /// Takes what the proxy is to connect to (`host:port`) if there is one, the settings of TLS, how long a kept
    /// connection may be silent when it is used again, and where connections are counted.
    pub fn new(tunnel: Option<String>, tls: Arc<ClientConfig>, kept_patience: Duration, process: Arc<Process>) -> Self {
        Self { tunnel, tls, kept_patience, process, last_good: Arc::default(), observer: None }
    }

    /// Returns a connector of the same settings whose attempts are shown to the observer.
    #[must_use]
    pub fn observed(&self, observer: Observer) -> Self {
        Self { observer: Some(observer), ..self.clone() }
    }
}

impl Connector for StsConnector {
    type Out = TlsTransport;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<TlsTransport>, Error> {
        tls::note_connection();
        let resolved = Instant::now();
        let name = details.uri.host().unwrap_or_default().to_owned();
        let name = ServerName::try_from(name).map_err(|_| Error::Tls("the host is not a DNS name"))?;
        let began = match details.now {
            time::Instant::Exact(now) => now,
            _ => Instant::now(),
        };
        let last_good = *self.last_good.lock().unwrap_or_else(PoisonError::into_inner);
        let addresses = in_order(&details.addrs, last_good);
        let race = Race::new(Target { tunnel: self.tunnel.as_deref(), tls: &self.tls, name }, addresses);
        let (winner, tried) = race.run(began.checked_add(*details.timeout.after));
        if let Some(observer) = &self.observer {
            observer(Connecting { began: resolved, addresses: &details.addrs, tried: &tried });
        }
        let Some((address, stream)) = winner else {
            return Err(ConnectError::of(tried).map_or(Error::HostNotFound, |error| Error::Other(Box::new(error))));
        };
        *self.last_good.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(TlsTransport::new(address, stream, buffers, self.kept_patience, Arc::clone(&self.process))))
    }
}

impl fmt::Debug for StsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StsConnector").field("tunnel", &self.tunnel).finish_non_exhaustive()
    }
}

/// The addresses in the order in which to try them: the last good one first, if it is still among them, then the
/// families by turns (RFC 8305 section 4).
fn in_order(addresses: &[SocketAddr], last_good: Option<SocketAddr>) -> VecDeque<SocketAddr> {
    let first = last_good.filter(|good| addresses.contains(good));
    let rest = addresses.iter().copied().filter(|address| Some(*address) != first);
    let all: Vec<_> = first.into_iter().chain(rest).collect();
    let (first_family, other): (Vec<_>, Vec<_>) =
        all.iter().copied().partition(|address: &SocketAddr| address.is_ipv4() == all[0].is_ipv4());
    let longest = first_family.len().max(other.len());
    let by_turns = (0..longest).flat_map(|index| [first_family.get(index), other.get(index)]);
    by_turns.flatten().copied().take(MAX_ADDRESSES).collect()
}

/// When which address is tried.
#[derive(Debug)]
struct Schedule {
    waiting: VecDeque<SocketAddr>,
    next: Instant,
}

impl Schedule {
    /// Returns the address to try now, if it is time for one, while so many others are being tried.
    fn due(&mut self, now: Instant, running: usize) -> Option<SocketAddr> {
        if now < self.next {
            return None;
        }
        let address = self.waiting.pop_front()?;
        self.next = now + if running == 0 { FIRST_DELAY } else { NEXT_DELAY };
        Some(address)
    }

    /// An attempt has failed: the next address need not wait.
    fn failed(&mut self, now: Instant) {
        self.next = now;
    }

    /// When the next address is to be tried, if there is one.
    fn next(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.next)
    }
}

/// Whom a connection is to reach.
struct Target<'a> {
    tunnel: Option<&'a str>,
    tls: &'a Arc<ClientConfig>,
    /// The name in the certificate.
    name: ServerName<'static>,
}

/// The attempts to make one connection.
struct Race<'a> {
    target: Target<'a>,
    schedule: Schedule,
    began: Instant,
    running: Vec<Attempt>,
    ended: Vec<Tried>,
}

/// A connection that is made, and to which address.
type Winner = (SocketAddr, StreamOwned<ClientConnection, Socket>);

impl<'a> Race<'a> {
    fn new(target: Target<'a>, addresses: VecDeque<SocketAddr>) -> Self {
        let began = Instant::now();
        let schedule = Schedule { waiting: addresses, next: began };
        Self { target, schedule, began, running: Vec::with_capacity(MAX_OPEN), ended: Vec::new() }
    }

    /// Makes the connection, until the deadline; returns what came of each address too.
    fn run(mut self, deadline: Option<Instant>) -> (Option<Winner>, Vec<Tried>) {
        loop {
            let now = Instant::now();
            if let Some(address) = self.schedule.due(now, self.running.len()) {
                self.begin(address, now);
                continue;
            }
            let is_over = self.running.is_empty() && self.schedule.next().is_none();
            if is_over || deadline.is_some_and(|deadline| now >= deadline) {
                // What came later than it was waited for took no longer.
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
            self.ended.push(oldest.end(self.began, now, End::Failed(Trouble::Silent)));
        }
        match Attempt::begin(address, now) {
            Ok(attempt) => self.running.push(attempt),
            Err(error) => {
                let begun_after = now.saturating_duration_since(self.began);
                let steps = vec![(Step::Tcp, Duration::ZERO)];
                self.ended.push(Tried { address, begun_after, steps, end: End::Failed(Trouble::Io(error)) });
                self.schedule.failed(now);
            }
        }
    }

    /// Waits for the attempts under way and takes them on; returns the one that is done.
    fn advance(&mut self, until: Option<Instant>) -> Option<Attempt> {
        let mut sockets: Vec<_> =
            self.running.iter().map(|attempt| PollFd::new(&attempt.socket, attempt.awaited())).collect();
        let waited = tls::wait(&mut sockets, until);
        let ready: Vec<_> = sockets.iter().map(|socket| !socket.revents().is_empty()).collect();
        if let Err(error) = waited {
            if !self.running.is_empty() {
                self.fail(0, Instant::now(), Trouble::Io(error));
            }
            return None;
        }
        let mut index = 0;
        for is_ready in ready {
            let result = if is_ready { self.running[index].advance(&self.target) } else { Ok(false) };
            match result {
                Ok(false) => index += 1,
                Ok(true) => return Some(self.running.remove(index)),
                Err(trouble) => self.fail(index, Instant::now(), trouble),
            }
        }
        None
    }

    fn fail(&mut self, index: usize, now: Instant, trouble: Trouble) {
        let attempt = self.running.remove(index);
        self.ended.push(attempt.end(self.began, now, End::Failed(trouble)));
        self.schedule.failed(now);
    }

    /// Closes what is still open. What decides is the last of what was tried.
    fn end(mut self, winner: Option<Attempt>, now: Instant) -> (Option<Winner>, Vec<Tried>) {
        for attempt in self.running {
            let end = if winner.is_some() { End::Overtaken } else { End::Failed(Trouble::Silent) };
            self.ended.push(attempt.end(self.began, now, end));
        }
        let Some(Attempt { address, begun, steps, socket, state: State::Tls(tls), .. }) = winner else {
            // Of those that tell as much, the one that was tried first.
            let weights = self.ended.iter().map(Tried::weight).enumerate().rev();
            if let Some((index, _)) = weights.max_by_key(|(_, weight)| *weight) {
                let telling = self.ended.remove(index);
                self.ended.push(telling);
            }
            return (None, self.ended);
        };
        let begun_after = begun.saturating_duration_since(self.began);
        self.ended.push(Tried { address, begun_after, steps, end: End::Connected });
        (Some((address, StreamOwned::new(*tls, socket))), self.ended)
    }
}

/// One address that is being tried.
struct Attempt {
    address: SocketAddr,
    begun: Instant,
    /// The steps that are completed.
    steps: Vec<(Step, Duration)>,
    /// Since when the present one has been under way.
    since: Instant,
    socket: Socket,
    state: State,
}

enum State {
    Tcp,
    Tunnel { unsent: Vec<u8>, answer: ProxyResponse },
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
        Ok(Self { address, begun: now, steps: Vec::new(), since: now, socket, state: State::Tcp })
    }

    fn step(&self) -> Step {
        match self.state {
            State::Tcp => Step::Tcp,
            State::Tunnel { .. } => Step::Tunnel,
            State::Tls(_) => Step::Tls,
        }
    }

    /// What the socket has to be ready for before it can go on.
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
            // What the other side says may end it, whatever is still to be sent. After the handshake nothing is read
            // here.
            State::Tls(tls) => {
                let mut awaited = PollFlags::empty();
                awaited.set(PollFlags::IN, tls.is_handshaking());
                awaited.set(PollFlags::OUT, tls.wants_write());
                awaited
            }
        }
    }

    /// Goes on as far as it can without waiting; says whether the connection is made.
    fn advance(&mut self, target: &Target) -> Result<bool, Trouble> {
        loop {
            let next = match &mut self.state {
                State::Tcp => {
                    sockopt::socket_error(&self.socket).and_then(|result| result).map_err(io::Error::from)?;
                    self.socket.tcp().set_nodelay(true)?;
                    match target.tunnel {
                        Some(to) => State::Tunnel { unsent: proxy::request(to), answer: ProxyResponse::default() },
                        None => State::Tls(target.handshake()?),
                    }
                }
                State::Tunnel { unsent, answer } => {
                    if !ask_for_tunnel(self.socket.tcp(), unsent, answer)? {
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

    fn end(mut self, race_began: Instant, now: Instant, end: End) -> Tried {
        self.complete_step(now);
        let begun_after = self.begun.saturating_duration_since(race_began);
        Tried { address: self.address, begun_after, steps: self.steps, end }
    }
}

impl Target<'_> {
    fn handshake(&self) -> Result<Box<ClientConnection>, Trouble> {
        // Not before the address is known to be there: a session that can be resumed is tried once.
        let tls = ClientConnection::new(Arc::clone(self.tls), self.name.clone()).map_err(Trouble::Tls)?;
        Ok(Box::new(tls))
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What came of a read or a write that does not wait: `None` when it would have to.
fn unblocked(result: io::Result<usize>) -> Result<Option<usize>, Trouble> {
    match result {
        Ok(0) => Err(Trouble::Closed),
        Ok(amount) => Ok(Some(amount)),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(Trouble::Io(error)),
    }
}

/// Goes on with a request for a tunnel; says whether there is one.
fn ask_for_tunnel(mut tcp: &TcpStream, unsent: &mut Vec<u8>, answer: &mut ProxyResponse) -> Result<bool, Trouble> {
    while !unsent.is_empty() {
        let Some(amount) = unblocked(tcp.write(unsent))? else { return Ok(false) };
        unsent.drain(..amount);
    }
    let mut arrived = [0; 512];
    loop {
        let Some(amount) = unblocked(tcp.peek(&mut arrived))? else { return Ok(false) };
        let taken = answer.take(&arrived[..amount]);
        tcp.read_exact(&mut arrived[..taken])?;
        if let Some(verdict) = answer.verdict() {
            return verdict.map(|()| true).map_err(Trouble::NoTunnel);
        }
    }
}

/// Goes on with a TLS handshake, by one read at most, so that nobody can keep it busy past the deadline; says whether
/// it is complete, which includes that the certificate is trusted.
fn shake_hands(tls: &mut ClientConnection, socket: &mut Socket) -> Result<bool, Trouble> {
    send_handshake(tls, socket)?;
    if tls.is_handshaking() && unblocked(tls.read_tls(socket))?.is_some() {
        if let Err(error) = tls.process_new_packets() {
            // The other side should know why, if it can be said at once.
            let _ = tls.write_tls(socket);
            return Err(Trouble::Tls(error));
        }
        send_handshake(tls, socket)?;
    }
    Ok(!tls.is_handshaking() && !tls.wants_write())
}

/// Sends what there is to send, as far as the socket takes it.
fn send_handshake(tls: &mut ClientConnection, socket: &mut Socket) -> Result<(), Trouble> {
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
    /// What a connection may take although an address is dead.
    const SOON: Duration = Duration::from_secs(1);

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn miri_families_are_tried_by_turns_and_the_last_good_address_first() {
        let all = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "10.0.0.1:1", "10.0.0.2:1"]);
        for (last_good, expected) in [
            (None, ["[::1]:1", "10.0.0.1:1", "[::2]:1", "10.0.0.2:1", "[::3]:1"]),
            (Some("10.0.0.2:1"), ["10.0.0.2:1", "[::1]:1", "10.0.0.1:1", "[::2]:1", "[::3]:1"]),
            (Some("[::3]:1"), ["[::3]:1", "10.0.0.1:1", "[::1]:1", "10.0.0.2:1", "[::2]:1"]),
            // It is not an address of the name any more.
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
    fn miri_an_address_is_tried_when_those_before_it_had_their_time_or_have_failed() {
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
        // Alone again, it has the time of the first.
        schedule.failed(at(370));
        assert_eq!(schedule.due(at(370), 0), Some(all[4]));
        assert_eq!((schedule.next, schedule.next()), (at(620), None));
    }

    #[test]
    fn miri_the_last_of_as_many_addresses_as_are_tried_begins_within_a_second() {
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

    /// An STS, and addresses that lead to it or to nobody.
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

        fn race(&self, addresses: &[SocketAddr], timeout: Duration) -> (Option<SocketAddr>, Vec<Tried>, Duration) {
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
            assert!(matches!(tried.last().unwrap().end, End::Connected), "{tried:?}");
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
            let lasted = |tried: &Tried| tried.steps.iter().map(|(_, took)| *took).sum::<Duration>();
            let closed_early: Vec<_> = tried.iter().filter(|tried| matches!(tried.end, End::Failed(_))).collect();
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
        assert_eq!(received.first(), Some(&22), "it was asked for a TLS handshake");
    }

    #[test]
    fn an_address_whose_certificate_is_not_trusted_never_wins_and_is_what_is_reported() {
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
                assert!(error.trouble.is_untrusted(), "{error:?}");
                assert_eq!((error.step, error.addresses, error.is_final), (Step::Tls, 2, is_final), "{error:?}");
            }
        }
        assert_eq!(impostor.request_count() + other.request_count(), 0);
    }

    #[test]
    fn a_race_without_a_winner_ends_at_its_deadline_and_reports_the_step_that_came_farthest() {
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
            assert_eq!(matches!(error.trouble, Trouble::Silent), is_silent, "{error:?}");
            assert!(!is_silent || took >= timeout && took < ENOUGH && error.took <= timeout, "{took:?}, {error:?}");
            assert!(is_silent || took < timeout, "nothing was left to wait for: {took:?}");
        }
    }

    /// Bytes without an end, as fast as they are taken.
    #[test]
    fn whoever_talks_without_an_end_is_cut_off_at_the_deadline() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                // A record of the handshake that announces a long message, and more of it.
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

    /// A name with these addresses.
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
            .observed(Arc::new(move |connecting| seen.lock().unwrap().push(connecting.tried.len())));
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
