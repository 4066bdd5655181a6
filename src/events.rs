//! What the server's log should say besides the reason of each login. The shim takes it from here on a thread of the
//! server's, so that the plugin's own threads never touch the server.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Events that wait to be logged, at most; the oldest are given up then.
const MOST: usize = 64;

/// Something that happened once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// STS was not reached in some attempts in a row.
    TroubleBegan {
        /// The host.
        host: String,
    },
    /// STS was reached again after that.
    TroubleEnded {
        /// The host.
        host: String,
        /// For how long it was not, in seconds.
        seconds: u64,
    },
    /// New logins are told another STS host.
    HostChanged {
        /// The host until now.
        from: String,
        /// The host from now on.
        to: String,
        /// Whether that is awsStsHost again.
        back: bool,
    },
}

/// How much an event should worry an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Good to know.
    Information,
    /// Somebody should look.
    Warning,
}

impl Event {
    /// Its number in the server's log, in the range that is the plugin's own.
    pub fn log_id(&self) -> i32 {
        match self {
            Self::HostChanged { back: false, .. } => 88_000_004,
            Self::HostChanged { back: true, .. } => 88_000_005,
            Self::TroubleBegan { .. } => 88_000_006,
            Self::TroubleEnded { .. } => 88_000_007,
        }
    }

    /// How much it should worry an operator.
    pub fn severity(&self) -> Severity {
        match self {
            Self::HostChanged { back: false, .. } | Self::TroubleBegan { .. } => Severity::Warning,
            Self::HostChanged { back: true, .. } | Self::TroubleEnded { .. } => Severity::Information,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TroubleBegan { host } => {
                write!(f, "MONGODB-AWS: STS is not reached at {host}; the lines of failed logins say why")
            }
            Self::TroubleEnded { host, seconds } => {
                write!(f, "MONGODB-AWS: STS is reached at {host} again, after {seconds} seconds")
            }
            Self::HostChanged { from, to, back: false } => {
                write!(f, "MONGODB-AWS: STS does not answer at {from}; new logins are told {to} instead")
            }
            Self::HostChanged { from, to, back: true } => {
                write!(f, "MONGODB-AWS: new logins are told {to} again, instead of {from}")
            }
        }
    }
}

/// The events that have not been logged yet.
#[derive(Debug, Default)]
pub struct Events {
    some: AtomicBool,
    waiting: Mutex<VecDeque<Event>>,
}

impl Events {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event.
    pub fn push(&self, event: Event) {
        let mut waiting = self.lock();
        if waiting.len() == MOST {
            waiting.pop_front();
        }
        waiting.push_back(event);
        self.some.store(true, Ordering::Release);
    }

    /// Takes the oldest event. Cheap when there is none.
    pub fn pop(&self) -> Option<Event> {
        if !self.some.load(Ordering::Acquire) {
            return None;
        }
        let mut waiting = self.lock();
        let event = waiting.pop_front();
        self.some.store(!waiting.is_empty(), Ordering::Release);
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn miri_events_come_out_in_order_and_never_pile_up() {
        let events = Events::default();
        assert_eq!(events.pop(), None);
        let event =
            |number: usize| Event::HostChanged { from: number.to_string(), to: "sts.b.com".to_owned(), back: false };
        for number in 0..MOST + 2 {
            events.push(event(number));
        }
        for number in 2..MOST + 2 {
            assert_eq!(events.pop(), Some(event(number)));
        }
        assert_eq!(events.pop(), None);
    }
}
