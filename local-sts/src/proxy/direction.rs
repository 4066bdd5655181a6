//! One direction of a connection: what is under way in it, and when it arrives.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;

/// Bytes that may be under way; the sender waits when there are more. 4 MiB in half a round trip of
/// 100 ms are 80 MB a second.
const MAX_UNDER_WAY: usize = 4 * 1024 * 1024;

#[derive(Default)]
pub(super) struct Direction {
    queue: VecDeque<Parcel>,
    under_way: usize,
    /// The source may have something to read.
    pub(super) readable: bool,
    /// The system reports that the source has ended or failed.
    pub(super) ending: bool,
    /// The sink takes bytes.
    pub(super) writable: bool,
    /// Nothing more is queued: the source has ended, or the connection was reset.
    pub(super) ended: bool,
    /// When the next byte may be delivered, if they arrive one by one.
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

impl Direction {
    pub(super) fn new() -> Self {
        Self { writable: true, ..Self::default() }
    }

    /// Returns whether the source should be read now.
    pub(super) fn wants_to_read(&self) -> bool {
        self.readable && self.under_way < MAX_UNDER_WAY
    }

    /// Returns whether the source has ended and all that it sent was delivered.
    pub(super) fn is_done(&self) -> bool {
        self.ended && self.queue.is_empty()
    }

    /// Queues bytes for this time.
    pub(super) fn send(&mut self, due: Instant, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.under_way += bytes.len();
            self.push(due, Load::Bytes { bytes, written: 0 });
        }
    }

    /// Queues the end (FIN).
    pub(super) fn send_end(&mut self, due: Instant) {
        self.ended = true;
        self.push(due, Load::End);
    }

    /// Queues a reset (RST). What was queued before still arrives.
    pub(super) fn send_reset(&mut self, due: Instant) {
        self.ended = true;
        self.push(due, Load::Reset);
    }

    /// Nothing is delivered before what was queued earlier.
    fn push(&mut self, due: Instant, load: Load) {
        let due = self.queue.back().map_or(due, |last| last.due.max(due));
        self.queue.push_back(Parcel { due, load });
    }

    /// Delivers what is due to `sink`, byte by byte if `drip` is the time between two; returns
    /// whether anything was delivered. `sink` is `None` after a reset or a failure.
    pub(super) fn deliver(&mut self, sink: &mut Option<TcpStream>, now: Instant, drip: Option<Duration>) -> bool {
        let mut delivered = false;
        while let Some(parcel) = self.queue.front_mut() {
            if parcel.due > now || !self.writable {
                break;
            }
            let Some(socket) = sink else {
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
                    // Without lingering, a close discards what is unsent and resets.
                    let _ = set_socket_linger(&*socket, Some(Duration::ZERO));
                    *sink = None;
                }
            }
            self.queue.pop_front();
            delivered = true;
        }
        delivered
    }

    /// Returns when the next delivery is due, if the sink takes bytes; `drip` says whether they go
    /// one by one.
    pub(super) fn due(&self, drip: bool) -> Option<Instant> {
        if !self.writable {
            return None;
        }
        let due = self.queue.front()?.due;
        Some(if drip { self.next_byte.map_or(due, |next| due.max(next)) } else { due })
    }
}
