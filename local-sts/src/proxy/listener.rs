//! The address that clients connect to: open, closed, or full.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

/// Connections that may wait to be accepted: more than any test opens at once.
const BACKLOG: i32 = 4096;

/// The proxy's address and what happens to those who connect to it.
pub(super) struct Listener {
    /// Bound but not listening: no other program can take the port while connections are refused.
    _reservation: OwnedFd,
    address: SocketAddr,
    state: State,
}

enum State {
    Open(TcpListener),
    /// Nobody listens: connections are refused.
    Closed,
    /// A listener with room for one connection, which is there and never accepted: a further SYN
    /// gets no reply.
    Full {
        _listener: TcpListener,
        _filler: TcpStream,
    },
}

impl Listener {
    /// Reserves the address, which may have port 0 for a free port. It is closed at first.
    pub(super) fn reserve(address: SocketAddr) -> io::Result<Self> {
        let socket = bound_socket(address)?;
        let address = SocketAddr::try_from(rustix::net::getsockname(&socket)?).map_err(io::Error::from)?;
        Ok(Self { _reservation: socket, address, state: State::Closed })
    }

    /// Returns the address, with the port that the system chose.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the socket to accept from, if it is open.
    pub(super) fn socket(&self) -> Option<&TcpListener> {
        match &self.state {
            State::Open(listener) => Some(listener),
            State::Closed | State::Full { .. } => None,
        }
    }

    /// Accepts connections. Returns the listening socket if it is a new one.
    pub(super) fn open(&mut self) -> io::Result<Option<&TcpListener>> {
        if self.socket().is_some() {
            return Ok(None);
        }
        self.close();
        let listener = listener_on(self.address, BACKLOG)?;
        listener.set_nonblocking(true)?;
        self.state = State::Open(listener);
        Ok(self.socket())
    }

    /// Refuses connections.
    pub(super) fn close(&mut self) {
        self.state = State::Closed;
    }

    /// Leaves connections without a reply.
    pub(super) fn fill(&mut self) -> io::Result<()> {
        if !matches!(self.state, State::Full { .. }) {
            self.close();
            // A backlog of 0 has room for one.
            let listener = listener_on(self.address, 0)?;
            let filler = TcpStream::connect(self.address)?;
            self.state = State::Full { _listener: listener, _filler: filler };
        }
        Ok(())
    }
}

/// Makes a socket that is bound to the address, does not listen, and lets others of this program
/// bind there.
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

/// Begins to connect without waiting: a server that is slow to accept must delay no other
/// connection.
pub(super) fn connecting_to(address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
        Err(error) => Err(error.into()),
    }
}
