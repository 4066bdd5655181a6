//! What the server's log should say besides the reason of each login. The shim takes it from here on a thread of the
//! server's, so that the plugin's own threads never touch the server.

use crate::aws::Doubt;
use crate::principal;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Events that wait to be logged, at most; the oldest are given up then.
const MOST: usize = 64;

/// Something that happened once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The mechanism is registered in the server.
    Registered {
        /// The form of the server's internals, named after the oldest series that has it.
        server_abi: String,
        /// The parameters that are not the default, `NAME: VALUE` each.
        parameters: Vec<String>,
    },
    /// STS confirmed a client, and the server did not say that it logged it in.
    NotReported {
        /// What STS named.
        arn: String,
        /// The name of the user in `$external`.
        user_name: String,
    },
    /// The server's own mechanism of this name is not used any more.
    NativeReplaced,
    /// The environment has a proxy, and awsStsProxy has none.
    ProxyNotUsed {
        /// The names of the variables; a value can hold a password.
        variables: Vec<&'static str>,
    },
    /// A parameter has another value while the server runs.
    ParameterChanged {
        /// Its name.
        name: &'static str,
        /// The value until now, as text.
        from: String,
        /// The value from now on.
        to: String,
    },
    /// No STS host is reachable.
    OutageBegan {
        /// The hosts, separated by commas.
        hosts: String,
    },
    /// A host is reachable after that.
    OutageEnded {
        /// The host.
        host: String,
        /// For how long none was, in seconds.
        seconds: u64,
    },
    /// New logins get another STS host.
    HostChanged {
        /// The host until now.
        from: String,
        /// The host from now on.
        to: String,
        /// Whether that is awsStsHost again.
        back: bool,
    },
    /// The name of an STS host may be a mistake.
    DoubtfulHost {
        /// The host.
        host: String,
        /// Why.
        doubt: Doubt,
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

    /// How much it should worry an operator.
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
                let parameters =
                    if parameters.is_empty() { "all the defaults".to_owned() } else { parameters.join(", ") };
                write!(
                    f,
                    "MONGODB-AWS is provided by psmdb-aws-iam {VERSION}; server ABI {server_abi}; parameters: {parameters}"
                )
            }
            Self::NotReported { arn, user_name } => write!(
                f,
                "MONGODB-AWS: AWS STS confirmed {arn}, but the server reported no login. Possible reasons: the client \
                 disconnected before the answer; the connection was already logged in as another user; the member was \
                 not ready (STARTUP, RECOVERING); authenticationRestrictions; systemLog.quiet, which hides successes; \
                 or the user does not exist, then create it: {}",
                principal::create_user_command(user_name)
            ),
            Self::NativeReplaced => {
                write!(f, "The MONGODB-AWS of the server itself is taken over by psmdb-aws-iam {VERSION}")
            }
            Self::ParameterChanged { name, from, to } => {
                write!(f, "MONGODB-AWS: {name} is now \"{to}\"; it was \"{from}\"")
            }
            Self::ProxyNotUsed { variables } => write!(
                f,
                "MONGODB-AWS: awsStsProxy is empty, and the proxy in the environment ({}) is not used; to reach STS \
                 through a proxy, set awsStsProxy to http://host:port",
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
            Self::DoubtfulHost { host, doubt } => write!(f, "MONGODB-AWS: the STS host {host} {doubt}"),
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
