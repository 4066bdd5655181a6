//! A client's connection together with its own connection to the server, and what a fault does to
//! the two.

use std::io::{self, Read};
use std::net::TcpStream;
use std::time::Instant;
use std::{mem, net::SocketAddr};

use rustix::event::epoll::EventFlags;

use super::direction::Direction;
use super::listener::connecting_to;
use super::settings::{Active, IdleDrop, NetworkFault, Stage};
use super::traffic::Traffic;

pub(super) struct Connection {
    /// `None` after a reset or a failure; so is the server.
    client: Option<TcpStream>,
    server: Option<TcpStream>,
    to_server: Direction,
    to_client: Direction,
    traffic: Traffic,
    /// Whether the client has sent anything.
    client_sent: bool,
    /// Whether the server has sent anything.
    server_sent: bool,
    /// Bytes of the response that are still to be forwarded, if it is to be cut.
    response_left: Option<usize>,
    /// A fault has ended it: what arrives is discarded.
    hit: bool,
    /// It was idle for too long, and nothing passes any more.
    lost: bool,
    /// When something arrived last.
    used: Instant,
}

impl Connection {
    /// Takes the socket of a client that was accepted now, and connects to `server`, unless a fault
    /// prevents that.
    pub(super) fn open(client: TcpStream, server: SocketAddr, active: &mut Active) -> io::Result<Self> {
        let now = Instant::now();
        client.set_nonblocking(true)?;
        client.set_nodelay(true)?;
        let mut connection = Self {
            client: Some(client),
            server: None,
            to_server: Direction::new(),
            to_client: Direction::new(),
            traffic: Traffic::default(),
            client_sent: false,
            server_sent: false,
            response_left: None,
            hit: false,
            lost: false,
            used: now,
        };
        if active.settings.fault == NetworkFault::Reset(Stage::Accepted) {
            connection.reset(active, now, now + active.settings.round_trip);
        } else {
            let server = connecting_to(server)?;
            server.set_nodelay(true)?;
            connection.server = Some(server);
        }
        Ok(connection)
    }

    /// Returns the client's socket and the server's, as far as they are open.
    pub(super) fn sockets(&self) -> (Option<&TcpStream>, Option<&TcpStream>) {
        (self.client.as_ref(), self.server.as_ref())
    }

    /// Notes what the system reports about the client's socket, or about the server's.
    pub(super) fn note(&mut self, is_client: bool, flags: EventFlags) {
        let (from, to) = if is_client {
            (&mut self.to_server, &mut self.to_client)
        } else {
            (&mut self.to_client, &mut self.to_server)
        };
        from.ending |= flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        from.readable |= from.ending || flags.contains(EventFlags::IN);
        to.writable |= flags.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR);
    }

    /// Reads and delivers as long as either is possible. `chunk` is a buffer for one read.
    pub(super) fn work(&mut self, active: &mut Active, chunk: &mut [u8]) {
        loop {
            let read = self.read(active, chunk, true) | self.read(active, chunk, false);
            if !self.deliver(active) && !read {
                break;
            }
        }
        let now = Instant::now();
        if self.idle_end(active).is_some_and(|end| end <= now) {
            self.close(active, now, now + active.one_way());
            self.deliver(active);
        }
    }

    /// Returns when there will be something to do, if time alone brings it.
    pub(super) fn due(&self, active: &Active) -> Option<Instant> {
        let mut due = [self.idle_end(active), None, None];
        if !self.is_blocked(active) {
            due[1..].copy_from_slice(&[self.to_server.due(false), self.to_client.due(active.drip().is_some())]);
        }
        due.into_iter().flatten().min()
    }

    /// Returns whether both sides are closed, or have got all that the other has sent.
    pub(super) fn is_over(&self) -> bool {
        let closed = self.client.is_none() && self.server.is_none();
        // After a hit, the client may keep its side open for as long as it likes.
        let client_left = self.server.is_none() && self.hit && !self.to_server.readable && self.client_hung_up();
        closed || client_left || (!self.hit && self.to_server.is_done() && self.to_client.is_done())
    }

    fn client_hung_up(&self) -> bool {
        self.client.as_ref().is_none_or(|client| matches!(client.peek(&mut [0]), Ok(0)))
    }

    /// Reads once from one side; returns whether there was anything.
    fn read(&mut self, active: &mut Active, chunk: &mut [u8], from_client: bool) -> bool {
        let (direction, source) =
            if from_client { (&mut self.to_server, &mut self.client) } else { (&mut self.to_client, &mut self.server) };
        let Some(socket) = source else { return false };
        if !direction.wants_to_read() {
            return false;
        }
        let result = socket.read(chunk);
        let now = Instant::now();
        match result {
            Ok(0) => {
                direction.readable = false;
                if !direction.ended {
                    direction.send_end(now + active.one_way());
                }
            }
            Ok(count) => {
                // After a partial read the system reports when there is more, which saves a read.
                direction.readable = count == chunk.len() || direction.ending;
                let bytes = chunk[..count].to_vec();
                if from_client {
                    self.forward_to_server(active, bytes, now);
                } else {
                    self.forward_to_client(active, bytes, now);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                direction.readable = false;
                return false;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => {
                *source = None;
                direction.readable = false;
                if !direction.ended {
                    direction.send_reset(now + active.one_way());
                }
            }
        }
        true
    }

    /// Queues what the client has sent, or does what the fault demands.
    fn forward_to_server(&mut self, active: &mut Active, mut bytes: Vec<u8>, now: Instant) {
        let round_trip = active.settings.round_trip;
        // See DelayProxy about TCP's handshake.
        let travel = if self.server_sent { active.one_way() } else { round_trip + active.one_way() };
        let there = now + travel;
        let and_back = there + active.one_way();
        let is_first = !mem::replace(&mut self.client_sent, true);
        let idle = now.duration_since(self.used);
        let was_idle = self.traffic.is_idle();
        let request = self.traffic.client_sent(&bytes);
        self.used = now;
        if self.hit {
            return;
        }
        match active.settings.fault {
            NetworkFault::Reset(Stage::ClientHello) if is_first => return self.reset(active, there, and_back),
            NetworkFault::Reset(Stage::BeforeRequest) => {
                if let Some(at) = request {
                    bytes.truncate(at);
                    self.to_server.send(there, bytes);
                    return self.reset(active, there, and_back);
                }
            }
            NetworkFault::DropIdle { after, how } if was_idle && idle >= after && !self.lost => match how {
                IdleDrop::Reset => return self.reset(active, there, and_back),
                IdleDrop::BlackHole => {
                    self.lost = true;
                    active.count_hit();
                }
                // A timer closes it, see `idle_end`.
                IdleDrop::Close => {}
            },
            _ => {}
        }
        self.to_server.send(there, bytes);
    }

    /// Queues what the server has sent, or does what the fault demands.
    fn forward_to_client(&mut self, active: &mut Active, mut bytes: Vec<u8>, now: Instant) {
        let there = now + active.one_way();
        self.server_sent = true;
        self.used = now;
        let response = self.traffic.server_sent(&bytes);
        if self.hit {
            return;
        }
        match active.settings.fault {
            NetworkFault::Reset(Stage::BeforeResponse) => {
                if let Some(at) = response {
                    bytes.truncate(at);
                    self.to_client.send(there, bytes);
                    return self.reset(active, now, there);
                }
            }
            NetworkFault::ResetInResponse { after } | NetworkFault::CutResponse { after } => {
                let begin = response.unwrap_or(0);
                if response.is_some() {
                    self.response_left = Some(after);
                }
                if let Some(left) = &mut self.response_left {
                    let rest = bytes.len() - begin;
                    if rest >= *left {
                        bytes.truncate(begin + *left);
                        self.to_client.send(there, bytes);
                        if matches!(active.settings.fault, NetworkFault::CutResponse { .. }) {
                            return self.close(active, now, there);
                        }
                        return self.reset(active, now, there);
                    }
                    *left -= rest;
                }
            }
            _ => self.response_left = None,
        }
        self.to_client.send(there, bytes);
    }

    /// Resets both sides, each at its time.
    fn reset(&mut self, active: &mut Active, server_at: Instant, client_at: Instant) {
        self.hit = true;
        self.to_server.send_reset(server_at);
        self.to_client.send_reset(client_at);
        active.count_hit();
    }

    /// Closes the client's side (FIN) and resets the server's, each at its time.
    fn close(&mut self, active: &mut Active, server_at: Instant, client_at: Instant) {
        self.hit = true;
        self.to_server.send_reset(server_at);
        self.to_client.send_end(client_at);
        active.count_hit();
    }

    /// Delivers what is due to both sides; returns whether there was anything.
    fn deliver(&mut self, active: &Active) -> bool {
        if self.is_blocked(active) {
            return false;
        }
        let now = Instant::now();
        let Self { client, server, to_server, to_client, .. } = self;
        let delivered = to_server.deliver(server, now, None) | to_client.deliver(client, now, active.drip());
        // A closed source sends nothing more.
        for (source, direction) in [(client, to_server), (server, to_client)] {
            if source.is_none() && !direction.ended {
                direction.send_reset(now + active.one_way());
            }
        }
        delivered
    }

    fn is_blocked(&self, active: &Active) -> bool {
        self.lost || active.is_black_hole()
    }

    /// Returns when it will be closed for being idle.
    fn idle_end(&self, active: &Active) -> Option<Instant> {
        if self.traffic.is_idle() && !self.hit { active.idle_end(self.used) } else { None }
    }
}
