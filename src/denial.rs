//! Why a login was denied: the cause is counted and implies the kind; the reason is logged.

use bson::raw::{CStr, cstr};
use std::fmt;

/// The kinds of denial. The client gets the same reply for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The client's message was invalid or late, and no request was sent to STS; or STS's response
    /// shows that a clock is wrong.
    MalformedMessage,
    /// STS refused the client, or named a principal that cannot log in.
    RefusedBySts,
    /// STS confirmed the client, but awsIamAllowedAccounts does not list its account.
    AccountNotAllowed,
    /// STS throttles the client's account.
    Throttled,
    /// STS did not respond in time, or the response was not a valid STS response.
    StsUnavailable,
    /// The plugin failed, for example because the system gave no random bytes.
    Internal,
}

impl Kind {
    /// Every kind with its name in serverStatus, in the order of serverStatus.
    pub const ALL: [(Self, &CStr); 6] = [
        (Self::MalformedMessage, cstr!("malformedMessage")),
        (Self::RefusedBySts, cstr!("refusedBySts")),
        (Self::AccountNotAllowed, cstr!("accountNotAllowed")),
        (Self::Throttled, cstr!("throttled")),
        (Self::StsUnavailable, cstr!("stsUnavailable")),
        (Self::Internal, cstr!("internal")),
    ];
}

/// The cause of a denial, as serverStatus counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The client sent a message that no driver sends.
    BrokenMessage,
    /// The clocks of the client, the server and STS differ by too much.
    ClockSkew,
    /// The client signed for another region than that of the current STS host.
    WrongRegion,
    /// The second message came too late, or the trusted STS hosts or roots have changed since the
    /// first one.
    ExpiredConversation,
    /// Temporary credentials came without a session token, or a long-term key with one.
    TokenMismatch,
    /// STS does not know the access key or the session token.
    UnknownKey,
    /// The signature was not made with the access key's secret.
    WrongSignature,
    /// The session token or the signature has expired.
    ExpiredToken,
    /// STS refused with another error code.
    OtherRefusal,
    /// STS named a principal that cannot be a user.
    CannotLogIn,
    /// awsIamAllowedAccounts does not list the account.
    AccountNotAllowed,
    /// STS throttles the client's account.
    Throttled,
    /// The login waited too long for a free STS request slot.
    QueueTimeout,
    /// The name of the STS host, endpoint or proxy was not found.
    NameNotFound,
    /// The connection could not be made, or it failed.
    NoConnection,
    /// The certificate is not trusted, or there are no root certificates.
    UntrustedTls,
    /// A step of the request timed out.
    Timeout,
    /// STS returned a server error (500, 503).
    ServerError,
    /// The response is not a valid STS response.
    InvalidResponse,
    /// The plugin failed.
    Internal,
}

impl Cause {
    /// Every cause with its name in serverStatus, in the order of serverStatus.
    pub const ALL: [(Self, &CStr); 20] = [
        (Self::BrokenMessage, cstr!("brokenMessage")),
        (Self::ClockSkew, cstr!("clockSkew")),
        (Self::WrongRegion, cstr!("wrongRegion")),
        (Self::ExpiredConversation, cstr!("expiredConversation")),
        (Self::TokenMismatch, cstr!("tokenMismatch")),
        (Self::UnknownKey, cstr!("unknownKey")),
        (Self::WrongSignature, cstr!("wrongSignature")),
        (Self::ExpiredToken, cstr!("expiredToken")),
        (Self::OtherRefusal, cstr!("otherRefusal")),
        (Self::CannotLogIn, cstr!("cannotLogIn")),
        (Self::AccountNotAllowed, cstr!("accountNotAllowed")),
        (Self::Throttled, cstr!("throttled")),
        (Self::QueueTimeout, cstr!("queueTimeout")),
        (Self::NameNotFound, cstr!("nameNotFound")),
        (Self::NoConnection, cstr!("noConnection")),
        (Self::UntrustedTls, cstr!("untrustedTls")),
        (Self::Timeout, cstr!("timeout")),
        (Self::ServerError, cstr!("serverError")),
        (Self::InvalidResponse, cstr!("invalidResponse")),
        (Self::Internal, cstr!("internal")),
    ];

    /// The kind of denial.
    pub fn kind(self) -> Kind {
        match self {
            Self::BrokenMessage
            | Self::ClockSkew
            | Self::WrongRegion
            | Self::ExpiredConversation
            | Self::TokenMismatch => Kind::MalformedMessage,
            Self::UnknownKey | Self::WrongSignature | Self::ExpiredToken | Self::OtherRefusal | Self::CannotLogIn => {
                Kind::RefusedBySts
            }
            Self::AccountNotAllowed => Kind::AccountNotAllowed,
            Self::Throttled => Kind::Throttled,
            Self::QueueTimeout
            | Self::NameNotFound
            | Self::NoConnection
            | Self::UntrustedTls
            | Self::Timeout
            | Self::ServerError
            | Self::InvalidResponse => Kind::StsUnavailable,
            Self::Internal => Kind::Internal,
        }
    }
}

/// Whether and when the request to STS may be sent again before the login is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Never: the response would be the same.
    Never,
    /// After a pause: STS was unreachable, or returned a server error.
    AfterPause,
    /// At the pace of the client's account, which STS throttles.
    AfterThrottling,
}

/// One denied login.
///
/// The reason is one plain sentence for the operator. It contains no secret, and no byte from the
/// client or from STS that was not validated first, so it is safe to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    cause: Cause,
    reason: String,
    retry: Retry,
}

impl Denial {
    /// A denial of this cause that is not retryable.
    pub fn new(cause: Cause, reason: impl Into<String>) -> Self {
        Self { cause, reason: reason.into(), retry: Retry::Never }
    }

    /// The client's message is invalid.
    pub fn malformed(reason: impl Into<String>) -> Self {
        Self::new(Cause::BrokenMessage, reason)
    }

    /// The response is not a valid STS response.
    pub fn invalid_response(reason: impl Into<String>) -> Self {
        Self::new(Cause::InvalidResponse, reason)
    }

    /// The plugin failed.
    pub fn internal(reason: impl Into<String>) -> Self {
        Self::new(Cause::Internal, reason)
    }

    /// Appends a detail to the reason.
    #[must_use]
    pub fn with_detail(mut self, detail: &str) -> Self {
        self.reason.push_str("; ");
        self.reason.push_str(detail);
        self
    }

    /// Sets whether and when the request may be sent again.
    #[must_use]
    pub fn retryable(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Whether and when the request may be sent again.
    pub fn retry(&self) -> Retry {
        self.retry
    }

    /// The cause, as it is counted.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// The kind of denial.
    pub fn kind(&self) -> Kind {
        self.cause.kind()
    }

    /// The reason for the log: one sentence.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn miri_every_cause_and_kind_is_listed_once_at_its_own_index() {
        for (number, (cause, name)) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, number, "{name}");
            assert_eq!(Cause::ALL.iter().filter(|(_, other)| *other == name).count(), 1, "{name}");
        }
        for (number, (kind, name)) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number, "{name}");
            assert!(Cause::ALL.iter().any(|(cause, _)| cause.kind() == kind), "{name}");
        }
    }
}
