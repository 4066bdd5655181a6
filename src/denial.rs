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
    /// STS could not be asked in time, or its answer was not an answer of STS.
    StsUnavailable,
    /// The plugin itself could not go on, for example without random bytes.
    Internal,
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
    /// Too many other logins stood before it.
    NoTurn,
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
    /// What answered is not STS.
    OddAnswer,
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
        (Self::NoTurn, cstr!("noTurn")),
        (Self::NameNotFound, cstr!("nameNotFound")),
        (Self::NoConnection, cstr!("noConnection")),
        (Self::UntrustedTls, cstr!("untrustedTls")),
        (Self::Timeout, cstr!("timeout")),
        (Self::ServerError, cstr!("serverError")),
        (Self::OddAnswer, cstr!("oddAnswer")),
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
            Self::Throttled
            | Self::NoTurn
            | Self::NameNotFound
            | Self::NoConnection
            | Self::UntrustedTls
            | Self::Timeout
            | Self::ServerError
            | Self::OddAnswer => Kind::StsUnavailable,
            Self::Internal => Kind::Internal,
        }
    }
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
    cause: Cause,
    reason: String,
    again: Again,
}

impl Denial {
    /// A login that this cause made fail.
    pub fn new(cause: Cause, reason: impl Into<String>) -> Self {
        Self { cause, reason: reason.into(), again: Again::Never }
    }

    /// The client's message breaks the protocol.
    pub fn malformed(reason: impl Into<String>) -> Self {
        Self::new(Cause::BrokenMessage, reason)
    }

    /// What answered is not STS.
    pub fn odd_answer(reason: impl Into<String>) -> Self {
        Self::new(Cause::OddAnswer, reason)
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
    fn miri_every_cause_is_at_the_place_of_its_number() {
        for (number, (cause, name)) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, number, "{name}");
            assert_eq!(Cause::ALL.iter().filter(|(_, other)| *other == name).count(), 1, "{name}");
        }
    }
}
