//! The network between a client and the STS: a proxy on loopback that adds latency and faults.
//!
//! One thread does all the work, to leave the processors of a small machine to the benchmark.

mod connection;
mod direction;
mod listener;
mod network;
mod settings;
mod traffic;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use network::Network;
use settings::{Active, Shared};
pub use settings::{IdleDrop, NetworkFault, Stage};

/// A TCP proxy that adds a network's latency and faults between clients and a server, both on
/// loopback. Everything can be changed while it runs, from any thread, and applies to open
/// connections too. It stops when it is dropped, and closes all its connections.
///
/// # Latency
///
/// [`set_round_trip`](Self::set_round_trip) sets the time of a round trip, half of it each way.
/// Every piece of data is delivered half a round trip after it arrived, regardless of others under
/// way, so that the throughput stays the same.
///
/// A connection costs one round trip more, for TCP's own handshake. No program can delay that: the
/// system completes it before the proxy knows of the connection. Instead, what the client sends
/// before the server has sent anything takes one round trip longer. So TCP, the handshake of TLS
/// 1.3 and a request together take three round trips, as on a real network, and a further request
/// takes one; but a client's `connect` alone is not delayed.
///
/// ```no_run
/// # use std::time::Duration;
/// use local_sts::{DelayProxy, LocalSts, NetworkFault};
///
/// let sts = LocalSts::builder().start()?;
/// let network = DelayProxy::start(sts.address())?;
/// network.set_round_trip(Duration::from_millis(20));
/// println!("connect to {} as sts.amazonaws.com", network.endpoint());
/// network.set_fault(NetworkFault::BlackHole);
/// // ... and to end the fault:
/// network.set_fault(NetworkFault::None);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct DelayProxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl DelayProxy {
    /// Starts a proxy to `server` on 127.0.0.1 and a free port, without latency and faults.
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
        let (shared, woken) = Shared::new()?;
        let mut network = Network::new(Active::new(Arc::clone(&shared), woken), listen, server)?;
        let address = network.address();
        let thread = thread::Builder::new().name("sts-network".to_owned()).spawn(move || network.run())?;
        Ok(Self { shared, address, thread: Some(thread) })
    }

    /// Returns the address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns where to connect, as `https://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Sets the time of a round trip, for data that arrives from now on. Defaults to zero.
    pub fn set_round_trip(&self, round_trip: Duration) {
        self.shared.change(|settings| settings.round_trip = round_trip);
    }

    /// Sets the fault of the network, until another is set.
    pub fn set_fault(&self, fault: NetworkFault) {
        self.set_fault_times(fault, usize::MAX);
    }

    /// Sets a fault that ends once it has hit `times` connections. Only resets, cuts and
    /// [`NetworkFault::DropIdle`] are counted; the others last until another is set.
    pub fn set_fault_times(&self, fault: NetworkFault, times: usize) {
        let fault = if times == 0 { NetworkFault::None } else { fault };
        self.shared.change(|settings| (settings.fault, settings.times) = (fault, times));
    }

    /// Returns the current fault; [`NetworkFault::None`] once it has hit as many connections as
    /// were set.
    pub fn fault(&self) -> NetworkFault {
        self.shared.settings().fault
    }

    /// Returns how many connections were accepted so far.
    pub fn connection_count(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Returns how many connections are open now, on at least one side.
    pub fn open_connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Returns how many connections were reset, cut or dropped by a fault so far.
    pub fn hit_count(&self) -> usize {
        self.shared.hits.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for DelayProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DelayProxy").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for DelayProxy {
    fn drop(&mut self) {
        self.shared.change(|settings| settings.stopping = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
