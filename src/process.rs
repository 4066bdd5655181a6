//! What lives as long as the process, whatever the parameters are: counters, and what bounds the questions to STS.

use crate::events::Events;
use crate::metrics::Metrics;
use crate::sts::admission::Admission;
use crate::sts::pacing::Pacing;

/// Shared by all logins of a process.
#[derive(Debug, Default)]
pub struct Process {
    /// How logins went.
    pub metrics: Metrics,
    /// What the server's log should say.
    pub events: Events,
    /// How many questions may be under way at once.
    pub admission: Admission,
    /// How fast the questions of a throttled account may follow each other.
    pub pacing: Pacing,
}
