//! Why a login failed: the kind decides counters and log levels, the reason goes to the server's log.

use std::fmt;

/// The kinds of failure. The client sees the same denial for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The client's message is wrong. STS was not asked.
    MalformedMessage,
    /// STS was asked and said no, or named a principal that cannot log in.
    RefusedBySts,
    /// STS confirmed the client, but its account is not one that may log in.
    AccountNotAllowed,
    /// STS could not be asked in time, or its answer was not an answer of STS.
    StsUnavailable,
    /// The plugin itself could not go on, for example without random bytes.
    Internal,
}

/// Whether STS may be asked the same once more before the login is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// The answer would be the same.
    Never,
    /// STS could not be reached, or could not answer.
    Later,
    /// STS limits the requests of the client's account.
    Throttled,
}

/// One denied login.
///
/// The reason is one plain sentence for the operator. It holds no secret, and no byte of the client's or of STS's
/// that has not passed a grammar first, so that it can be written to a log as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    kind: Kind,
    reason: String,
    again: Again,
}

impl Denial {
    fn new(kind: Kind, reason: String) -> Self {
        Self { kind, reason, again: Again::Never }
    }

    /// The client's message breaks the protocol.
    pub fn malformed(reason: impl Into<String>) -> Self {
        Self::new(Kind::MalformedMessage, reason.into())
    }

    /// STS said no.
    pub fn refused(reason: impl Into<String>) -> Self {
        Self::new(Kind::RefusedBySts, reason.into())
    }

    /// STS said yes, and the operator's list of accounts says no.
    pub fn account_not_allowed(reason: impl Into<String>) -> Self {
        Self::new(Kind::AccountNotAllowed, reason.into())
    }

    /// STS could not be asked, or what answered is not STS.
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::new(Kind::StsUnavailable, reason.into())
    }

    /// The plugin could not go on.
    pub fn internal(reason: impl Into<String>) -> Self {
        Self::new(Kind::Internal, reason.into())
    }

    /// The same denial with more for the operator at the end of its reason.
    #[must_use]
    pub fn with_detail(mut self, detail: &str) -> Self {
        self.reason.push_str("; ");
        self.reason.push_str(detail);
        self
    }

    /// The same denial, which may be no denial yet: STS can be asked again.
    #[must_use]
    pub fn unless_asked(mut self, again: Again) -> Self {
        self.again = again;
        self
    }

    /// Whether STS may be asked again.
    pub fn again(&self) -> Again {
        self.again
    }

    /// Which kind of failure this is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// One sentence for the operator.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Denial {}
