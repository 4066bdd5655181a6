//! Why a login failed: the cause is counted and decides the kind, the reason goes to the server's log.

use bson::raw::{CStr, cstr};
use std::fmt;

/// The kinds of failure. The client sees the same denial for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The client's message is wrong, and STS was not asked; or its conversation has expired.
    MalformedMessage,
    /// STS was asked and said no, or named a principal that cannot log in.
    RefusedBySts,
    /// STS confirmed the client, but its account is not one that may log in.
    AccountNotAllowed,
    /// STS limits the requests of the client's account.
    Throttled,
    /// STS could not be asked in time, or its response was not one of STS.
    StsUnavailable,
    /// The plugin itself could not go on, for example without random bytes.
    Internal,
}

impl Kind {
    /// Every kind, in the order in which they are shown, with the name that serverStatus has for it.
    pub const ALL: [(Self, &CStr); 6] = [
        (Self::MalformedMessage, cstr!("malformedMessage")),
        (Self::RefusedBySts, cstr!("refusedBySts")),
        (Self::AccountNotAllowed, cstr!("accountNotAllowed")),
        (Self::Throttled, cstr!("throttled")),
        (Self::StsUnavailable, cstr!("stsUnavailable")),
        (Self::Internal, cstr!("internal")),
    ];
}

/// What made a login fail, as precisely as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A message of the client's that no driver sends.
    BrokenMessage,
    /// The client's clock is too far from the server's.
    ClockSkew,
    /// The client signed for another region than that of the STS host it was told.
    WrongRegion,
    /// The second message came too late, or the trusted STS hosts or roots have changed since the first one.
    ExpiredConversation,
    /// Temporary credentials came without a session token, or a long-term key with one.
    TokenMismatch,
    /// STS does not know the access key or the session token.
    UnknownKey,
    /// The signature is not one of the access key's.
    WrongSignature,
    /// The session token, or the signature, is too old for STS.
    ExpiredToken,
    /// STS refused with another code.
    OtherRefusal,
    /// STS named a principal that cannot be a user.
    CannotLogIn,
    /// awsIamAllowedAccounts does not list the account.
    AccountNotAllowed,
    /// STS limits the requests of the client's account.
    Throttled,
    /// It was not its turn in time, since too many other logins asked STS.
    QueueTimeout,
    /// The name of STS, of its endpoint or of the proxy was not found.
    NameNotFound,
    /// There was no connection, or it broke.
    NoConnection,
    /// Nobody vouches for the certificate of what answered, or no root certificate is there to do so.
    UntrustedTls,
    /// STS did not answer in time.
    Timeout,
    /// STS answered that it is in trouble.
    ServerError,
    /// The response is not a valid response of STS.
    InvalidResponse,
    /// The plugin itself could not go on.
    Internal,
}

impl Cause {
    /// Every cause, in the order in which they are shown, with the name that serverStatus has for it.
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

    /// The kind of failure that it is.
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

/// Whether the request to STS may be sent once more before the login is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// No: the response would be the same.
    Never,
    /// After a pause: STS could not be reached, or could not answer.
    AfterPause,
    /// At the pace of the client's account, which STS throttles.
    AfterThrottling,
}

/// One denied login.
///
/// The reason is one plain sentence for the operator. It holds no secret, and no byte of the client's or of STS's
/// that has not passed a grammar first, so that it can be written to a log as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    cause: Cause,
    reason: String,
    retry: Retry,
}

impl Denial {
    /// A login that this cause made fail.
    pub fn new(cause: Cause, reason: impl Into<String>) -> Self {
        Self { cause, reason: reason.into(), retry: Retry::Never }
    }

    /// The client's message breaks the protocol.
    pub fn malformed(reason: impl Into<String>) -> Self {
        Self::new(Cause::BrokenMessage, reason)
    }

    /// The response is not a valid response of STS.
    pub fn invalid_response(reason: impl Into<String>) -> Self {
        Self::new(Cause::InvalidResponse, reason)
    }

    /// The plugin could not go on.
    pub fn internal(reason: impl Into<String>) -> Self {
        Self::new(Cause::Internal, reason)
    }

    /// The same denial with more for the operator at the end of its reason.
    #[must_use]
    pub fn with_detail(mut self, detail: &str) -> Self {
        self.reason.push_str("; ");
        self.reason.push_str(detail);
        self
    }

    /// The same denial, with whether the request may be sent once more before it is final.
    #[must_use]
    pub fn retryable(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Whether the request may be sent once more.
    pub fn retry(&self) -> Retry {
        self.retry
    }

    /// What made the login fail.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// Which kind of failure this is.
    pub fn kind(&self) -> Kind {
        self.cause.kind()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn miri_every_cause_and_kind_is_at_the_place_of_its_number() {
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
