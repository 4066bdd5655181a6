//! What the network does: the latency and the fault that are set, and how many connections the
//! fault still hits.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a network does to connections; see [`DelayProxy::set_fault`](crate::DelayProxy::set_fault).
/// Times do not include the latency, which is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetworkFault {
    /// Nothing but the latency. The default.
    None,
    /// Connections are accepted and stay open, but nothing arrives at either side: a host or a
    /// firewall that hangs. What was sent arrives once the fault is over, as TCP would retransmit
    /// it.
    BlackHole,
    /// As [`BlackHole`](Self::BlackHole), and the SYN of a new connection gets no reply, so that
    /// `connect` itself waits. When the fault is over, the client's system retries: Linux 1, 3 and
    /// 7 seconds after the first time.
    Unreachable,
    /// New connections are refused by the system (ECONNREFUSED): nobody listens. Open ones are not
    /// affected.
    Refused,
    /// Connections are reset (RST) at this stage.
    Reset(Stage),
    /// The connection is reset after so many bytes of a response, counted as they are in TLS: 5
    /// bytes of header and 17 or more of encryption for each record. A client sees nothing of an
    /// incomplete record, and LocalSts writes a response as one record: to cut between bytes of
    /// HTTP, see [`LocalSts::set_cut`](crate::LocalSts::set_cut).
    ResetInResponse {
        /// Bytes of each response that still arrive.
        after: usize,
    },
    /// The connection is closed (FIN, no `close_notify`) after so many bytes of a response, counted
    /// as for [`ResetInResponse`](Self::ResetInResponse).
    CutResponse {
        /// Bytes of each response that still arrive.
        after: usize,
    },
    /// What the server sends arrives at the client byte by byte, the TLS handshake included.
    Drip {
        /// The time from one byte to the next.
        every: Duration,
    },
    /// A connection that was idle after a response is dropped without notice, as NAT gateways and
    /// load balancers do. Those that were idle for long enough before this was set are dropped too.
    DropIdle {
        /// How long a connection must have been idle; zero for every idle one.
        after: Duration,
        /// How it is dropped.
        how: IdleDrop,
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
    /// When the response to a request arrives, of which the client gets nothing: the server has
    /// done its part.
    BeforeResponse,
}

/// How [`NetworkFault::DropIdle`] drops a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdleDrop {
    /// It is closed (FIN) once it has been idle for that long; the client can see that before it
    /// uses it.
    Close,
    /// It is reset (RST) when the client uses it next; until then nothing shows.
    Reset,
    /// What the client sends on it never arrives, and nothing comes back.
    BlackHole,
}

/// What is set, as one value that the network's thread copies.
#[derive(Clone, Copy)]
pub(super) struct Settings {
    /// Counts the changes.
    version: u64,
    pub(super) round_trip: Duration,
    pub(super) fault: NetworkFault,
    /// How many connections the fault may still hit.
    pub(super) times: usize,
    pub(super) stopping: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { version: 0, round_trip: Duration::ZERO, fault: NetworkFault::None, times: usize::MAX, stopping: false }
    }
}

/// What the proxy's owner and the network's thread share.
pub(super) struct Shared {
    settings: Mutex<Settings>,
    /// The version of the settings that the thread works with.
    applied: Mutex<u64>,
    changed: Condvar,
    /// A byte here makes the thread read the settings.
    wake: UnixStream,
    pub(super) accepted: AtomicUsize,
    pub(super) open: AtomicUsize,
    pub(super) hits: AtomicUsize,
}

impl Shared {
    /// Returns default settings, and the socket that gets a byte whenever they change.
    pub(super) fn new() -> io::Result<(Arc<Self>, UnixStream)> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let shared = Self {
            settings: Mutex::new(Settings::default()),
            applied: Mutex::new(0),
            changed: Condvar::new(),
            wake,
            accepted: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            hits: AtomicUsize::new(0),
        };
        Ok((Arc::new(shared), woken))
    }

    pub(super) fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the settings; returns when the thread works with them, unless it is to stop.
    pub(super) fn change(&self, change: impl FnOnce(&mut Settings)) {
        let settings = {
            let mut settings = self.settings();
            change(&mut settings);
            settings.version += 1;
            *settings
        };
        // If the socket's buffer is full, the thread will wake anyway.
        let _ = (&self.wake).write(&[0]);
        let applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |applied: &mut u64| *applied < settings.version && !settings.stopping;
        let _ = self.changed.wait_timeout_while(applied, Duration::from_secs(5), is_old);
    }
}

/// The settings that the network's thread works with.
pub(super) struct Active {
    pub(super) shared: Arc<Shared>,
    woken: UnixStream,
    pub(super) settings: Settings,
}

impl Active {
    pub(super) fn new(shared: Arc<Shared>, woken: UnixStream) -> Self {
        let settings = *shared.settings();
        Self { shared, woken, settings }
    }

    /// Returns the socket that is readable when the settings have changed.
    pub(super) fn woken(&self) -> &UnixStream {
        &self.woken
    }

    /// Takes over the settings; [`confirm`](Self::confirm) follows once they are in force.
    pub(super) fn update(&mut self) {
        while (&self.woken).read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
        self.settings = *self.shared.settings();
    }

    /// Lets [`Shared::change`] return.
    pub(super) fn confirm(&self) {
        *self.shared.applied.lock().unwrap_or_else(PoisonError::into_inner) = self.settings.version;
        self.shared.changed.notify_all();
    }

    /// Returns the time that a packet travels from one side to the other.
    pub(super) fn one_way(&self) -> Duration {
        self.settings.round_trip / 2
    }

    /// Returns whether nothing passes at all.
    pub(super) fn is_black_hole(&self) -> bool {
        matches!(self.settings.fault, NetworkFault::BlackHole | NetworkFault::Unreachable)
    }

    /// Returns the time between two bytes, if the server's bytes arrive one by one.
    pub(super) fn drip(&self) -> Option<Duration> {
        match self.settings.fault {
            NetworkFault::Drip { every } => Some(every),
            _ => None,
        }
    }

    /// Returns when a connection that was last used at `used` is closed for being idle, if that is
    /// the fault.
    pub(super) fn idle_end(&self, used: Instant) -> Option<Instant> {
        match self.settings.fault {
            NetworkFault::DropIdle { after, how: IdleDrop::Close } => Some(used + after),
            _ => None,
        }
    }

    /// Counts a connection that the fault has hit, and ends the fault with the last that it may
    /// hit.
    pub(super) fn count_hit(&mut self) {
        self.shared.hits.fetch_add(1, Ordering::SeqCst);
        let mut settings = self.shared.settings();
        // The owner may have set another fault by now; this hit does not count against its number.
        if settings.fault == self.settings.fault && settings.times != usize::MAX {
            settings.times -= 1;
            if settings.times == 0 {
                settings.fault = NetworkFault::None;
            }
            (self.settings.fault, self.settings.times) = (settings.fault, settings.times);
        }
    }
}
