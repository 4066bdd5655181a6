//! Events for the server's log. The shim takes them from here on a thread of the server, so that
//! the plugin's own threads never call into the server.

use crate::aws::Doubt;
use crate::mongosh;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Maximum number of events that wait to be logged; the oldest are dropped beyond that.
const MAX_WAITING: usize = 64;

/// One event, which is one line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The mechanism was registered in the server.
    Registered {
        /// The server ABI, named after the oldest series that has it.
        server_abi: String,
        /// The parameters that do not have their default, each as `NAME: VALUE`.
        parameters: Vec<String>,
    },
    /// STS confirmed a client, but the server did not report a login.
    NotReported {
        /// The ARN in STS's response.
        arn: String,
        /// The name of the user in `$external`.
        user_name: String,
    },
    /// The mechanism replaced the server's built-in one of the same name.
    NativeReplaced,
    /// The environment names a proxy, which is not used, and awsStsProxy is empty.
    ProxyNotUsed {
        /// The names of the variables. Their values are left out: they can contain a password.
        variables: Vec<&'static str>,
    },
    /// A parameter was changed at runtime.
    ParameterChanged {
        /// Its name.
        name: &'static str,
        /// The old value, as text.
        from: String,
        /// The new value, as text.
        to: String,
    },
    /// No STS host is reachable.
    OutageBegan {
        /// The hosts, separated by commas.
        hosts: String,
    },
    /// A host is reachable again.
    OutageEnded {
        /// The host.
        host: String,
        /// How long no host was reachable, in seconds.
        seconds: u64,
    },
    /// New logins use another STS host.
    HostChanged {
        /// The old host.
        from: String,
        /// The new host.
        to: String,
        /// Whether the new host is awsStsHost, after a failover.
        back: bool,
    },
    /// The name of an STS host is accepted, but may be a mistake.
    DoubtfulHost {
        /// The host.
        host: String,
        /// Why.
        doubt: Doubt,
    },
}

/// The severity of an event's log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// No action is needed.
    Information,
    /// An operator should look into it.
    Warning,
}

impl Event {
    /// Its id in the server's log, in a range that the server does not use.
    pub fn log_id(&self) -> i32 {
        match self {
            Self::Registered { .. } => 88_000_001,
            Self::NotReported { .. } => 88_000_002,
            Self::NativeReplaced => 88_000_003,
            Self::HostChanged { back: false, .. } => 88_000_004,
            Self::HostChanged { back: true, .. } => 88_000_005,
            Self::OutageBegan { .. } => 88_000_006,
            Self::OutageEnded { .. } => 88_000_007,
            Self::ParameterChanged { .. } => 88_000_008,
            Self::ProxyNotUsed { .. } => 88_000_009,
            Self::DoubtfulHost { .. } => 88_000_010,
        }
    }

    /// Its severity in the server's log.
    pub fn severity(&self) -> Severity {
        match self {
            Self::HostChanged { back: false, .. } | Self::OutageBegan { .. } | Self::DoubtfulHost { .. } => {
                Severity::Warning
            }
            Self::Registered { .. }
            | Self::NotReported { .. }
            | Self::NativeReplaced
            | Self::HostChanged { back: true, .. }
            | Self::OutageEnded { .. }
            | Self::ParameterChanged { .. }
            | Self::ProxyNotUsed { .. } => Severity::Information,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const VERSION: &str = env!("CARGO_PKG_VERSION");
        match self {
            Self::Registered { server_abi, parameters } => {
                let parameters = if parameters.is_empty() { "all default".to_owned() } else { parameters.join(", ") };
                write!(
                    f,
                    "Registered the MONGODB-AWS mechanism of psmdb-aws-iam {VERSION}; server ABI {server_abi}; \
                     parameters: {parameters}"
                )
            }
            Self::NotReported { arn, user_name } => write!(
                f,
                "MONGODB-AWS: AWS STS confirmed {arn}, but the server reported no login. Possible reasons: the client \
                 disconnected before the response; the connection was already logged in as another user; the member was \
                 not ready (STARTUP, RECOVERING); authenticationRestrictions; systemLog.quiet, which hides successes; \
                 or the user does not exist; create it with the roles that it needs, for example: {}",
                mongosh::create_user(user_name)
            ),
            Self::NativeReplaced => {
                write!(f, "Replaced the server's built-in MONGODB-AWS mechanism with that of psmdb-aws-iam {VERSION}")
            }
            Self::ParameterChanged { name, from, to } => {
                write!(f, "MONGODB-AWS: Changed {name} from \"{from}\" to \"{to}\"")
            }
            Self::ProxyNotUsed { variables } => write!(
                f,
                "MONGODB-AWS: Ignored the proxy variables of the environment ({}); to reach STS through a proxy, set \
                 awsStsProxy to http://host:port",
                variables.join(", ")
            ),
            Self::OutageBegan { hosts } => {
                write!(f, "MONGODB-AWS: Cannot reach STS at {hosts}; see the failed logins for the reason")
            }
            Self::OutageEnded { host, seconds } => {
                write!(f, "MONGODB-AWS: STS is reachable at {host}, after an outage of {seconds} seconds")
            }
            Self::HostChanged { from, to, back: false } => {
                write!(f, "MONGODB-AWS: Cannot reach STS at {from}; failing over to {to} for new logins")
            }
            Self::HostChanged { from, to, back: true } => {
                write!(f, "MONGODB-AWS: STS is reachable at {to} again; new logins use it instead of {from}")
            }
            Self::DoubtfulHost { host, doubt } => write!(f, "MONGODB-AWS: The STS host {host} {doubt}"),
        }
    }
}

/// The queue of events that have not been logged yet.
#[derive(Debug, Default)]
pub struct Events {
    /// Whether the queue may have events, so that an empty one needs no lock.
    any: AtomicBool,
    waiting: Mutex<VecDeque<Event>>,
}

impl Events {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event.
    pub fn push(&self, event: Event) {
        let mut waiting = self.lock();
        if waiting.len() == MAX_WAITING {
            waiting.pop_front();
        }
        waiting.push_back(event);
        self.any.store(true, Ordering::Release);
    }

    /// Takes the oldest event.
    pub fn pop(&self) -> Option<Event> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let mut waiting = self.lock();
        let event = waiting.pop_front();
        self.any.store(!waiting.is_empty(), Ordering::Release);
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn miri_events_are_taken_in_order_and_the_oldest_are_dropped_when_too_many_wait() {
        let events = Events::default();
        assert_eq!(events.pop(), None);
        let event =
            |number: usize| Event::HostChanged { from: number.to_string(), to: "sts.b.com".to_owned(), back: false };
        for number in 0..MAX_WAITING + 2 {
            events.push(event(number));
        }
        for number in 2..MAX_WAITING + 2 {
            assert_eq!(events.pop(), Some(event(number)));
        }
        assert_eq!(events.pop(), None);
    }
}
