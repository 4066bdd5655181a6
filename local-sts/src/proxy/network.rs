//! The proxy's thread: it waits for sockets, timers and changed settings, and works on the
//! connections concerned.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::thread::set_current_timer_slack;

use super::connection::Connection;
use super::listener::Listener;
use super::settings::{Active, NetworkFault};

const CHUNK: usize = 64 * 1024;

/// epoll's token for changed settings.
const SETTINGS: u64 = 0;
/// epoll's token for clients that connect.
const CLIENTS: u64 = 1;
/// Connections are numbered from here. Each has two tokens: twice its number is the client's
/// socket, one more is the server's.
const FIRST_CONNECTION: u64 = 1;

pub(super) struct Network {
    active: Active,
    listener: Listener,
    server: SocketAddr,
    epoll: OwnedFd,
    connections: HashMap<u64, Timed>,
    next_id: u64,
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    chunk: Vec<u8>,
}

struct Timed {
    connection: Connection,
    /// The timer that counts; earlier ones in the heap are obsolete.
    timer: Option<Instant>,
}

impl Network {
    /// Listens on `listen`, if the settings do not say otherwise, for connections to `server`.
    pub(super) fn new(active: Active, listen: SocketAddr, server: SocketAddr) -> io::Result<Self> {
        let listener = Listener::reserve(listen)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, active.woken(), EventData::new_u64(SETTINGS), EventFlags::IN)?;
        let mut network = Self {
            active,
            listener,
            server,
            epoll,
            connections: HashMap::new(),
            next_id: FIRST_CONNECTION,
            timers: BinaryHeap::new(),
            chunk: vec![0; CHUNK],
        };
        network.set_listener()?;
        Ok(network)
    }

    /// Returns the address it listens on.
    pub(super) fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Runs until the settings say stop, or the system has no more to give.
    pub(super) fn run(&mut self) {
        // The system may let a thread sleep 50 us longer than asked. Without this, delays are a
        // little longer.
        let _ = set_current_timer_slack(NonZeroU64::new(1));
        let mut events = Vec::with_capacity(256);
        while self.run_once(&mut events).is_ok() {}
    }

    /// Waits for something to do, and does it.
    fn run_once(&mut self, events: &mut Vec<epoll::Event>) -> io::Result<()> {
        self.wait(events)?;
        for event in events.drain(..) {
            match event.data.u64() {
                SETTINGS => self.update_settings()?,
                CLIENTS => self.accept(),
                token => {
                    let id = token >> 1;
                    if let Some(Timed { connection, .. }) = self.connections.get_mut(&id) {
                        connection.note(token & 1 == 0, event.flags);
                        self.work_on(id);
                    }
                }
            }
        }
        let now = Instant::now();
        while let Some(Reverse((due, id))) = self.timers.peek().copied() {
            if due > now {
                break;
            }
            self.timers.pop();
            if let Some(timed) = self.connections.get_mut(&id)
                && timed.timer == Some(due)
            {
                timed.timer = None;
                self.work_on(id);
            }
        }
        Ok(())
    }

    fn wait(&self, events: &mut Vec<epoll::Event>) -> io::Result<()> {
        let mut timeout = None;
        if let Some(Reverse((due, _))) = self.timers.peek() {
            // epoll's own timeout is in milliseconds, which is too coarse; but its descriptor can
            // be polled.
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

    fn update_settings(&mut self) -> io::Result<()> {
        self.active.update();
        if self.active.settings.stopping {
            return Err(io::ErrorKind::Interrupted.into());
        }
        self.set_listener()?;
        self.active.confirm();
        let all: Vec<u64> = self.connections.keys().copied().collect();
        for id in all {
            self.work_on(id);
        }
        Ok(())
    }

    /// Opens, closes or fills the listener as the fault demands.
    fn set_listener(&mut self) -> io::Result<()> {
        match self.active.settings.fault {
            NetworkFault::Refused => self.listener.close(),
            NetworkFault::Unreachable => self.listener.fill()?,
            _ => {
                if let Some(socket) = self.listener.open()? {
                    epoll::add(&self.epoll, socket, EventData::new_u64(CLIENTS), EventFlags::IN)?;
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self) {
        while let Some(socket) = self.listener.socket() {
            match socket.accept() {
                Ok((client, _)) => {
                    self.active.shared.accepted.fetch_add(1, Ordering::SeqCst);
                    // After a failure the client sees its connection closed.
                    let _ = self.add(client);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    // Out of descriptors, or the client is gone already: trying again at once helps
                    // neither.
                    thread::sleep(Duration::from_millis(1));
                    return;
                }
            }
        }
    }

    fn add(&mut self, client: TcpStream) -> io::Result<()> {
        let id = self.next_id;
        self.next_id += 1;
        let connection = Connection::open(client, self.server, &mut self.active)?;
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        let (client, server) = connection.sockets();
        for (socket, token) in [(client, id << 1), (server, id << 1 | 1)] {
            if let Some(socket) = socket {
                epoll::add(&self.epoll, socket, EventData::new_u64(token), flags)?;
            }
        }
        self.connections.insert(id, Timed { connection, timer: None });
        self.active.shared.open.fetch_add(1, Ordering::SeqCst);
        self.work_on(id);
        Ok(())
    }

    /// Reads, delivers and sets the timer; forgets the connection if it is over.
    fn work_on(&mut self, id: u64) {
        let Some(timed) = self.connections.get_mut(&id) else { return };
        timed.connection.work(&mut self.active, &mut self.chunk);
        if timed.connection.is_over() {
            self.connections.remove(&id);
            self.active.shared.open.fetch_sub(1, Ordering::SeqCst);
        } else if let Some(due) = timed.connection.due(&self.active)
            && timed.timer.is_none_or(|timer| timer > due)
        {
            timed.timer = Some(due);
            self.timers.push(Reverse((due, id)));
        }
    }
}
