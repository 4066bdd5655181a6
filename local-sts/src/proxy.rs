//! The network between a client and the STS: a proxy on loopback that adds the time packets travel, and loses them.
//!
//! One thread does all the work, so that a benchmark on a small machine spends its time elsewhere.

mod talk;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::fmt;
use std::io::{self, Read, Write};
use std::mem;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_linger, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
use rustix::thread::set_current_timer_slack;

use talk::Talk;

/// Connections that may wait to be accepted: more than any test opens at once.
const BACKLOG: i32 = 4096;
/// Bytes under way in one direction of a connection; the sender waits when there are more. 4 MiB in half a round trip of
/// 100 ms are 80 MB a second.
const MOST_UNDER_WAY: usize = 4 * 1024 * 1024;
const CHUNK: usize = 64 * 1024;

const WAKE: u64 = 0;
const DOOR: u64 = 1;
/// Connections count from here: two tokens each, for the client's socket and the server's.
const FIRST_CONNECTION: u64 = 1;

/// A TCP proxy that puts a network between clients and a server, both on loopback: latency, and faults. Everything can be
/// changed while it runs, from any thread, for connections that are open too. It ends when it is dropped, with
/// all its connections.
///
/// # Latency
///
/// [`set_round_trip`](Self::set_round_trip) sets how long a packet and its answer travel, half of it each way. Each piece
/// is delivered half a round trip after it arrived, however many are under way, so that throughput stays what it was.
///
/// A connection costs one round trip more, for TCP's own handshake. No program can delay that: the system makes it before
/// the proxy knows of the connection. In its place, what the client says before the server has said anything takes one
/// round trip longer. So TCP, the handshake of TLS 1.3 and a request together take the three round trips that they would,
/// and a further request takes one; but a client that measures its `connect` alone measures nothing.
///
/// ```no_run
/// # use std::time::Duration;
/// use local_sts::{DelayProxy, LocalSts, NetworkFault};
///
/// let sts = LocalSts::builder().start()?;
/// let network = DelayProxy::start(sts.address())?;
/// network.set_round_trip(Duration::from_millis(20));
/// println!("dial {} as sts.amazonaws.com", network.endpoint());
/// network.set_fault(NetworkFault::BlackHole);
/// // ... and when the test has seen enough of it:
/// network.set_fault(NetworkFault::None);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct DelayProxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

/// What a network does to connections; see [`DelayProxy::set_fault`]. Times do not include the latency, which comes on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetworkFault {
    /// Nothing but the latency. The default.
    None,
    /// Connections are accepted and stay open, but nothing arrives at either side: a host or a firewall that hangs. What
    /// was sent arrives once the fault is over, as TCP would send it again.
    BlackHole,
    /// As [`BlackHole`](Self::BlackHole), and new connections get no answer to their SYN, so that `connect` itself waits.
    /// When the fault is over the client's system tries again, Linux 1, 3 and 7 seconds after the first time.
    Unreachable,
    /// New connections are refused by the system (ECONNREFUSED): nobody listens. Open ones are not affected.
    Refused,
    /// Connections are reset (RST) at this stage.
    Reset(Stage),
    /// The connection is reset after so many bytes of an answer, counted as they are in TLS: 5 bytes of header and 17 or
    /// more of encryption for each record. A client sees nothing of a record that is not complete, and LocalSts writes
    /// an answer as one record: to cut between bytes of HTTP, see [`LocalSts::set_cut`](crate::LocalSts::set_cut).
    ResetInAnswer {
        /// Bytes of each answer that still arrive.
        after: usize,
    },
    /// The connection is closed (FIN, no `close_notify`) after so many bytes of an answer, counted as for
    /// [`ResetInAnswer`](Self::ResetInAnswer).
    CutAnswer {
        /// Bytes of each answer that still arrive.
        after: usize,
    },
    /// What the server says arrives at the client byte by byte, the TLS handshake included.
    Drip {
        /// The time from one byte to the next.
        every: Duration,
    },
    /// A connection that was idle, after it had brought an answer, is dropped without a word: what NAT gateways and load
    /// balancers do. Those that were idle for that long before this was set are dropped too.
    Kept {
        /// How long a connection must have been idle; zero for every kept one.
        idle: Duration,
        /// What becomes of it.
        fate: Fate,
    },
}

/// When [`NetworkFault::Reset`] resets a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// As soon as it is accepted.
    Accepted,
    /// When the client's first bytes arrive; the server gets none of them.
    ClientHello,
    /// When the TLS handshake is over and a request arrives, of which the server gets nothing.
    BeforeRequest,
    /// When the answer to a request arrives, of which the client gets nothing: the server did what was asked.
    BeforeAnswer,
}

/// What becomes of an idle connection; see [`NetworkFault::Kept`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// It is closed (FIN) when it has been idle for that long; the client can see that before it uses it.
    Closed,
    /// It is reset (RST) when the client uses it next; until then nothing shows.
    Reset,
    /// What the client sends on it never arrives, and nothing comes back.
    BlackHole,
}

struct Shared {
    settings: Mutex<Settings>,
    /// The version of the settings that are in force.
    applied: Mutex<u64>,
    changed: Condvar,
    /// A byte here makes the thread look at the settings.
    wake: UnixStream,
    connections: AtomicUsize,
    open: AtomicUsize,
    strikes: AtomicUsize,
}

#[derive(Clone, Copy)]
struct Settings {
    /// Counts the changes.
    version: u64,
    round_trip: Duration,
    fault: NetworkFault,
    /// How many connections the fault may still hit.
    times: usize,
    stopping: bool,
}

impl DelayProxy {
    /// Starts a proxy on 127.0.0.1 and a free port in front of `server`. It adds nothing until it is told to.
    ///
    /// # Errors
    /// `InvalidInput` if `server` is not on loopback; otherwise what the system reports.
    pub fn start(server: SocketAddr) -> io::Result<Self> {
        Self::start_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), server)
    }

    /// As [`start`](Self::start), listening on this address, which must be on loopback.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_on(listen: SocketAddr, server: SocketAddr) -> io::Result<Self> {
        for address in [listen, server] {
            if !address.ip().is_loopback() {
                let message = format!("{} is not a loopback address", address.ip());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
        }
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let settings = Settings {
            version: 0,
            round_trip: Duration::ZERO,
            fault: NetworkFault::None,
            times: usize::MAX,
            stopping: false,
        };
        let shared = Arc::new(Shared {
            settings: Mutex::new(settings),
            applied: Mutex::new(0),
            changed: Condvar::new(),
            wake,
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            strikes: AtomicUsize::new(0),
        });
        let mut network = Network::new(Arc::clone(&shared), woken, listen, server, settings)?;
        let address = network.address;
        let thread = thread::Builder::new().name("sts-network".to_owned()).spawn(move || network.run())?;
        Ok(Self { shared, address, thread: Some(thread) })
    }

    /// Returns the address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns where to dial, as `https://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Sets how long a round trip takes, for all that arrives from now on. Defaults to zero.
    pub fn set_round_trip(&self, round_trip: Duration) {
        self.set(|settings| settings.round_trip = round_trip);
    }

    /// Sets what happens to connections from now on, until it is set to something else.
    pub fn set_fault(&self, fault: NetworkFault) {
        self.set_fault_times(fault, usize::MAX);
    }

    /// Sets what happens to the next connections: once it has hit `times` of them, the fault is over. Resets, cuts and
    /// [`NetworkFault::Kept`] are counted; the others know no number and last.
    pub fn set_fault_times(&self, fault: NetworkFault, times: usize) {
        let fault = if times == 0 { NetworkFault::None } else { fault };
        self.set(|settings| (settings.fault, settings.times) = (fault, times));
    }

    /// Returns the fault that is on; [`NetworkFault::None`] when one that was set for some times is over.
    pub fn fault(&self) -> NetworkFault {
        self.shared.settings().fault
    }

    /// Returns how many connections were accepted so far.
    pub fn connection_count(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Returns how many connections are open now, at either side.
    pub fn open_connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Returns how many connections were reset, cut or dropped by a fault so far.
    pub fn strike_count(&self) -> usize {
        self.shared.strikes.load(Ordering::SeqCst)
    }

    /// Returns when it is in force, unless the proxy has stopped.
    fn set(&self, change: impl FnOnce(&mut Settings)) {
        let settings = {
            let mut settings = self.shared.settings();
            change(&mut settings);
            settings.version += 1;
            *settings
        };
        // A full pipe is as good: the thread will wake.
        let _ = (&self.shared.wake).write(&[0]);
        let applied = self.shared.applied.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |applied: &mut u64| *applied < settings.version && !settings.stopping;
        let _ = self.shared.changed.wait_timeout_while(applied, Duration::from_secs(5), is_old);
    }
}

impl fmt::Debug for DelayProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DelayProxy").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for DelayProxy {
    fn drop(&mut self) {
        self.set(|settings| settings.stopping = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The proxy's thread.
struct Network {
    shared: Arc<Shared>,
    woken: UnixStream,
    settings: Settings,
    /// Bound to the address but not listening: nobody else can take the port while connections are refused.
    _holder: OwnedFd,
    address: SocketAddr,
    server: SocketAddr,
    door: Door,
    epoll: OwnedFd,
    connections: HashMap<u64, Connection>,
    next: u64,
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    chunk: Vec<u8>,
}

/// How the address meets those who connect.
enum Door {
    Open(TcpListener),
    /// Nobody listens.
    Shut,
    /// Somebody listens, and never accepts the one connection that there is room for.
    Full {
        _listener: TcpListener,
        _filler: TcpStream,
    },
}

/// A connection of a client, and the one to the server that belongs to it.
struct Connection {
    /// `None` when it was reset, or lost.
    client: Option<TcpStream>,
    server: Option<TcpStream>,
    to_server: Way,
    to_client: Way,
    talk: Talk,
    /// Whether the client has said anything, and the server.
    client_spoke: bool,
    server_spoke: bool,
    /// How many bytes of the answer are still to be forwarded, if it is to be cut.
    answer_left: Option<usize>,
    /// What arrives is thrown away: the connection has been hit.
    hit: bool,
    /// It was idle for too long, and is now a black hole.
    lost: bool,
    /// When something arrived last.
    moved: Instant,
    /// When a timer will look at it next.
    timer: Option<Instant>,
}

/// One direction of a connection.
#[derive(Default)]
struct Way {
    queue: VecDeque<Parcel>,
    under_way: usize,
    /// There may be something to read at its beginning.
    readable: bool,
    /// So says the system, and that its beginning has ended or failed.
    ending: bool,
    /// Its end takes bytes.
    writable: bool,
    /// Its beginning has said all.
    over: bool,
    /// When the next byte may be delivered, if it is byte by byte.
    next_byte: Option<Instant>,
}

struct Parcel {
    due: Instant,
    load: Load,
}

enum Load {
    Bytes { bytes: Vec<u8>, written: usize },
    End,
    Reset,
}

impl Way {
    fn new() -> Self {
        Self { writable: true, ..Self::default() }
    }

    /// Queues what is to be delivered then, but not before what is queued already.
    fn send(&mut self, due: Instant, load: Load) {
        if let Load::Bytes { bytes, .. } = &load {
            if bytes.is_empty() {
                return;
            }
            self.under_way += bytes.len();
        }
        let due = self.queue.back().map_or(due, |last| last.due.max(due));
        self.queue.push_back(Parcel { due, load });
    }

    /// Queues a reset. What was queued before still arrives.
    fn send_reset(&mut self, due: Instant) {
        self.over = true;
        self.send(due, Load::Reset);
    }

    /// Delivers what is due to `sink`; returns whether anything was delivered.
    fn deliver(&mut self, sink: &mut Option<TcpStream>, now: Instant, drip: Option<Duration>) -> bool {
        let mut delivered = false;
        while let Some(parcel) = self.queue.front_mut() {
            if parcel.due > now || !self.writable {
                break;
            }
            let Some(socket) = sink else {
                // Nobody is there to take it.
                self.queue.clear();
                self.under_way = 0;
                return true;
            };
            match &mut parcel.load {
                Load::Bytes { bytes, written } => {
                    let mut rest = &bytes[*written..];
                    if let Some(every) = drip {
                        if self.next_byte.is_some_and(|next| next > now) {
                            break;
                        }
                        self.next_byte = Some(now + every);
                        rest = &rest[..1];
                    }
                    match socket.write(rest) {
                        Ok(count) => {
                            *written += count;
                            self.under_way -= count;
                            if *written < bytes.len() {
                                continue;
                            }
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            self.writable = false;
                            break;
                        }
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                        Err(_) => {
                            *sink = None;
                            continue;
                        }
                    }
                }
                Load::End => {
                    let _ = socket.shutdown(Shutdown::Write);
                }
                Load::Reset => {
                    // Without lingering, a close throws away what is unsent and resets.
                    let _ = set_socket_linger(&*socket, Some(Duration::ZERO));
                    *sink = None;
                }
            }
            self.queue.pop_front();
            delivered = true;
        }
        delivered
    }

    /// Returns when there will be something to do.
    fn due(&self, drip: bool) -> Option<Instant> {
        if !self.writable {
            return None;
        }
        let due = self.queue.front()?.due;
        Some(if drip { self.next_byte.map_or(due, |next| due.max(next)) } else { due })
    }
}

impl Network {
    fn new(
        shared: Arc<Shared>,
        woken: UnixStream,
        listen: SocketAddr,
        server: SocketAddr,
        settings: Settings,
    ) -> io::Result<Self> {
        woken.set_nonblocking(true)?;
        let holder = bound_socket(listen)?;
        let address = SocketAddr::try_from(rustix::net::getsockname(&holder)?).map_err(io::Error::from)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &woken, EventData::new_u64(WAKE), EventFlags::IN)?;
        let mut network = Self {
            shared,
            woken,
            settings,
            _holder: holder,
            address,
            server,
            door: Door::Shut,
            epoll,
            connections: HashMap::new(),
            next: FIRST_CONNECTION,
            timers: BinaryHeap::new(),
            chunk: vec![0; CHUNK],
        };
        network.set_door()?;
        Ok(network)
    }

    fn run(&mut self) {
        // The system may let a thread sleep 50 us longer than it asked to, unless it is told that this matters. If it cannot
        // be told, delays are a little longer.
        let _ = set_current_timer_slack(NonZeroU64::new(1));
        let mut events = Vec::with_capacity(256);
        // An error is the end: the proxy was dropped, or the system has nothing left to give.
        while self.turn(&mut events).is_ok() {}
    }

    /// Waits for something to do, and does it.
    fn turn(&mut self, events: &mut Vec<epoll::Event>) -> io::Result<()> {
        self.wait(events)?;
        for event in events.drain(..) {
            match event.data.u64() {
                WAKE => self.wake_up()?,
                DOOR => self.accept(),
                token => self.note(token, event.flags),
            }
        }
        let now = Instant::now();
        while let Some(Reverse((due, id))) = self.timers.peek().copied() {
            if due > now {
                break;
            }
            self.timers.pop();
            if let Some(connection) = self.connections.get_mut(&id)
                && connection.timer == Some(due)
            {
                connection.timer = None;
                self.work_on(id);
            }
        }
        Ok(())
    }

    fn wait(&mut self, events: &mut Vec<epoll::Event>) -> io::Result<()> {
        let mut timeout = None;
        if let Some(Reverse((due, _))) = self.timers.peek() {
            // epoll's own timeout is in milliseconds, which is too coarse; but its descriptor can be polled.
            let left = due.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            match poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], Some(&left)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            timeout = Some(Timespec::default());
        }
        match epoll::wait(&self.epoll, spare_capacity(events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn wake_up(&mut self) -> io::Result<()> {
        while self.woken.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
        self.settings = *self.shared.settings();
        if self.settings.stopping {
            return Err(io::ErrorKind::Interrupted.into());
        }
        self.set_door()?;
        *self.shared.applied.lock().unwrap_or_else(PoisonError::into_inner) = self.settings.version;
        self.shared.changed.notify_all();
        let all: Vec<u64> = self.connections.keys().copied().collect();
        for id in all {
            self.work_on(id);
        }
        Ok(())
    }

    /// Makes the door what the fault asks for.
    fn set_door(&mut self) -> io::Result<()> {
        match (self.settings.fault, &self.door) {
            (NetworkFault::Refused, Door::Shut) | (NetworkFault::Unreachable, Door::Full { .. }) => {}
            (NetworkFault::Refused, _) => self.door = Door::Shut,
            (NetworkFault::Unreachable, _) => {
                self.door = Door::Shut;
                // There is always room for one.
                let listener = listener_on(self.address, 0)?;
                let filler = TcpStream::connect(self.address)?;
                self.door = Door::Full { _listener: listener, _filler: filler };
            }
            (_, Door::Open(_)) => {}
            (_, _) => {
                self.door = Door::Shut;
                let listener = listener_on(self.address, BACKLOG)?;
                listener.set_nonblocking(true)?;
                epoll::add(&self.epoll, &listener, EventData::new_u64(DOOR), EventFlags::IN)?;
                self.door = Door::Open(listener);
            }
        }
        Ok(())
    }

    fn accept(&mut self) {
        loop {
            let Door::Open(listener) = &self.door else { return };
            match listener.accept() {
                Ok((client, _)) => {
                    self.shared.connections.fetch_add(1, Ordering::SeqCst);
                    // The client sees its connection closed.
                    let _ = self.admit(client);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    // Out of descriptors, or the client is gone already: neither is helped by hurry.
                    thread::sleep(Duration::from_millis(1));
                    return;
                }
            }
        }
    }

    fn admit(&mut self, client: TcpStream) -> io::Result<()> {
        let now = Instant::now();
        let id = self.next;
        self.next += 1;
        client.set_nonblocking(true)?;
        client.set_nodelay(true)?;
        let mut connection = Connection {
            client: None,
            server: None,
            to_server: Way::new(),
            to_client: Way::new(),
            talk: Talk::default(),
            client_spoke: false,
            server_spoke: false,
            answer_left: None,
            hit: false,
            lost: false,
            moved: now,
            timer: None,
        };
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, &client, EventData::new_u64(id << 1), flags)?;
        connection.client = Some(client);
        if self.settings.fault == NetworkFault::Reset(Stage::Accepted) {
            self.strike(&mut connection, now, now + self.settings.round_trip);
        } else {
            let server = connecting_to(self.server)?;
            server.set_nodelay(true)?;
            epoll::add(&self.epoll, &server, EventData::new_u64(id << 1 | 1), flags)?;
            connection.server = Some(server);
        }
        self.connections.insert(id, connection);
        self.shared.open.fetch_add(1, Ordering::SeqCst);
        self.work_on(id);
        Ok(())
    }

    fn note(&mut self, token: u64, flags: EventFlags) {
        let Some(connection) = self.connections.get_mut(&(token >> 1)) else { return };
        let is_client = token & 1 == 0;
        let (from, to) = if is_client {
            (&mut connection.to_server, &mut connection.to_client)
        } else {
            (&mut connection.to_client, &mut connection.to_server)
        };
        from.ending |= flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        from.readable |= from.ending || flags.contains(EventFlags::IN);
        to.writable |= flags.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR);
        self.work_on(token >> 1);
    }

    /// Reads, delivers and sets the timer, as far as each is possible.
    fn work_on(&mut self, id: u64) {
        let Some(mut connection) = self.connections.remove(&id) else { return };
        loop {
            let read = self.read(&mut connection, true) | self.read(&mut connection, false);
            if !self.deliver(&mut connection) && !read {
                break;
            }
        }
        self.drop_if_idle(&mut connection);
        if connection.is_over() {
            self.shared.open.fetch_sub(1, Ordering::SeqCst);
            return;
        }
        self.set_timer(id, &mut connection);
        self.connections.insert(id, connection);
    }

    /// Reads once from one side, and decides what becomes of it; returns whether there was anything.
    fn read(&mut self, connection: &mut Connection, from_client: bool) -> bool {
        let (way, source) = if from_client {
            (&mut connection.to_server, &mut connection.client)
        } else {
            (&mut connection.to_client, &mut connection.server)
        };
        let Some(socket) = source else { return false };
        if !way.readable || way.under_way >= MOST_UNDER_WAY {
            return false;
        }
        let result = socket.read(&mut self.chunk);
        let now = Instant::now();
        let half = self.settings.round_trip / 2;
        match result {
            Ok(0) => {
                way.readable = false;
                if !way.over {
                    way.over = true;
                    way.send(now + half, Load::End);
                }
            }
            Ok(count) => {
                // That was all, and the system tells of more; one question saved.
                way.readable = count == CHUNK || way.ending;
                let bytes = self.chunk[..count].to_vec();
                if from_client {
                    self.client_says(connection, bytes, now);
                } else {
                    self.server_says(connection, bytes, now);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                way.readable = false;
                return false;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => {
                // The other side learns of it when the news has travelled.
                *source = None;
                way.readable = false;
                if !way.over {
                    way.send_reset(now + half);
                }
            }
        }
        true
    }

    fn client_says(&mut self, connection: &mut Connection, mut bytes: Vec<u8>, now: Instant) {
        let round_trip = self.settings.round_trip;
        // See DelayProxy about TCP's handshake.
        let travel = if connection.server_spoke { round_trip / 2 } else { round_trip + round_trip / 2 };
        let there = now + travel;
        let and_back = there + round_trip / 2;
        let first = !mem::replace(&mut connection.client_spoke, true);
        let idle = now.duration_since(connection.moved);
        let kept = connection.talk.answered() && !connection.talk.asked();
        let request = connection.talk.client_says(&bytes);
        connection.moved = now;
        if connection.hit {
            return;
        }
        match self.settings.fault {
            NetworkFault::Reset(Stage::ClientHello) if first => return self.strike(connection, there, and_back),
            NetworkFault::Reset(Stage::BeforeRequest) => {
                if let Some(at) = request {
                    bytes.truncate(at);
                    connection.to_server.send(there, Load::Bytes { bytes, written: 0 });
                    return self.strike(connection, there, and_back);
                }
            }
            NetworkFault::Kept { idle: limit, fate } if kept && idle >= limit && !connection.lost => match fate {
                Fate::Reset => return self.strike(connection, there, and_back),
                Fate::BlackHole => {
                    connection.lost = true;
                    self.count_strike();
                }
                // Its time comes without the client's doing, or just now.
                Fate::Closed => {}
            },
            _ => {}
        }
        connection.to_server.send(there, Load::Bytes { bytes, written: 0 });
    }

    fn server_says(&mut self, connection: &mut Connection, mut bytes: Vec<u8>, now: Instant) {
        let there = now + self.settings.round_trip / 2;
        connection.server_spoke = true;
        connection.moved = now;
        let answer = connection.talk.server_says(&bytes);
        if connection.hit {
            return;
        }
        match self.settings.fault {
            NetworkFault::Reset(Stage::BeforeAnswer) => {
                if let Some(at) = answer {
                    bytes.truncate(at);
                    connection.to_client.send(there, Load::Bytes { bytes, written: 0 });
                    return self.strike(connection, now, there);
                }
            }
            NetworkFault::ResetInAnswer { after } | NetworkFault::CutAnswer { after } => {
                let begins = answer.unwrap_or(0);
                if answer.is_some() {
                    connection.answer_left = Some(after);
                }
                if let Some(left) = &mut connection.answer_left {
                    let rest = bytes.len() - begins;
                    if rest >= *left {
                        bytes.truncate(begins + *left);
                        connection.to_client.send(there, Load::Bytes { bytes, written: 0 });
                        if matches!(self.settings.fault, NetworkFault::CutAnswer { .. }) {
                            return self.close(connection, now, there);
                        }
                        return self.strike(connection, now, there);
                    }
                    *left -= rest;
                }
            }
            _ => connection.answer_left = None,
        }
        connection.to_client.send(there, Load::Bytes { bytes, written: 0 });
    }

    /// Resets both sides, each at its time.
    fn strike(&mut self, connection: &mut Connection, server_at: Instant, client_at: Instant) {
        connection.hit = true;
        connection.to_server.send_reset(server_at);
        connection.to_client.send_reset(client_at);
        self.count_strike();
    }

    /// Closes the client's side in order, and resets the server's.
    fn close(&mut self, connection: &mut Connection, server_at: Instant, client_at: Instant) {
        connection.hit = true;
        connection.to_server.send_reset(server_at);
        connection.to_client.over = true;
        connection.to_client.send(client_at, Load::End);
        self.count_strike();
    }

    fn count_strike(&mut self) {
        self.shared.strikes.fetch_add(1, Ordering::SeqCst);
        let mut settings = self.shared.settings();
        // Another fault may have been set that this thread has not seen yet: its number is not for this strike.
        if settings.fault == self.settings.fault && settings.times != usize::MAX {
            settings.times -= 1;
            if settings.times == 0 {
                settings.fault = NetworkFault::None;
            }
            (self.settings.fault, self.settings.times) = (settings.fault, settings.times);
        }
    }

    fn deliver(&self, connection: &mut Connection) -> bool {
        if self.is_blocked(connection) {
            return false;
        }
        let now = Instant::now();
        let Connection { client, server, to_server, to_client, .. } = connection;
        let delivered = to_server.deliver(server, now, None) | to_client.deliver(client, now, self.drip());
        // Whoever is gone says nothing more.
        for (source, way) in [(client, to_server), (server, to_client)] {
            if source.is_none() && !way.over {
                way.send_reset(now + self.settings.round_trip / 2);
            }
        }
        delivered
    }

    fn is_blocked(&self, connection: &Connection) -> bool {
        connection.lost || matches!(self.settings.fault, NetworkFault::BlackHole | NetworkFault::Unreachable)
    }

    fn drip(&self) -> Option<Duration> {
        match self.settings.fault {
            NetworkFault::Drip { every } => Some(every),
            _ => None,
        }
    }

    /// Closes a kept connection whose time is over.
    fn drop_if_idle(&mut self, connection: &mut Connection) {
        if self.idle_end(connection).is_some_and(|end| end <= Instant::now()) {
            let now = Instant::now();
            self.close(connection, now, now + self.settings.round_trip / 2);
            self.deliver(connection);
        }
    }

    /// Returns when a kept connection's time will be over.
    fn idle_end(&self, connection: &Connection) -> Option<Instant> {
        let NetworkFault::Kept { idle, fate: Fate::Closed } = self.settings.fault else { return None };
        let kept = connection.talk.answered() && !connection.talk.asked() && !connection.hit;
        kept.then(|| connection.moved + idle)
    }

    fn set_timer(&mut self, id: u64, connection: &mut Connection) {
        let mut due = self.idle_end(connection);
        if !self.is_blocked(connection) {
            let drips = self.drip().is_some();
            due = [due, connection.to_server.due(false), connection.to_client.due(drips)].into_iter().flatten().min();
        }
        if let Some(due) = due
            && connection.timer.is_none_or(|timer| timer > due)
        {
            connection.timer = Some(due);
            self.timers.push(Reverse((due, id)));
        }
    }
}

impl Connection {
    /// Says whether both sides are gone, or have been told that the other has said all.
    fn is_over(&self) -> bool {
        let gone = self.client.is_none() && self.server.is_none();
        let done = |way: &Way| way.over && way.queue.is_empty();
        // A client that was closed on may keep its side open for as long as it likes.
        let client_left = self.server.is_none() && self.hit && !self.to_server.readable && self.client_hung_up();
        gone || client_left || (!self.hit && done(&self.to_server) && done(&self.to_client))
    }

    fn client_hung_up(&self) -> bool {
        self.client.as_ref().is_none_or(|client| matches!(client.peek(&mut [0]), Ok(0)))
    }
}

/// Makes a socket that is bound to the address, does not listen, and lets others of this program bind there.
fn bound_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::TCP))?;
    set_socket_reuseaddr(socket.as_fd(), true)?;
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

fn listener_on(address: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let socket = bound_socket(address)?;
    rustix::net::listen(&socket, backlog)?;
    Ok(TcpListener::from(socket))
}

/// Begins to connect, without waiting: a server that is slow to accept must hold up nobody else.
fn connecting_to(address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
        Err(error) => Err(error.into()),
    }
}
