//! The types that cross the boundary.

use super::boundary::{OnPanic, export};
use crate::denial::Kind;
use crate::login::Progress;
use std::ffi::c_char;

/// The result of a function.
///
/// The values that mean success are far from 0 and 1: a result that was zeroed, or never written,
/// is a failure.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultCode {
    /// Done.
    Ok = 7000,
    /// Send the reply to the client and give its next message to the conversation.
    Continue = 7001,
    /// The client has proved who it is: see psmdb_aws_iam_conversation_user_name. Send it an empty
    /// reply.
    Authenticated = 7002,
    /// Denied: the client's message is wrong, and no request was sent to STS; or its conversation
    /// has expired, or a clock is wrong.
    DeniedMalformed = 1,
    /// Denied: STS refused the request, or named a principal that cannot log in.
    DeniedBySts = 2,
    /// Denied: STS did not respond in time, or its response was not a valid STS response.
    DeniedStsUnavailable = 3,
    /// Denied: the library could not continue, for example without random bytes.
    DeniedInternal = 4,
    /// Denied: a defect of the library was caught. Please report it.
    Panic = 5,
    /// The parameter's value was refused. Nothing has changed.
    RefusedValue = 6,
    /// A pointer is null, or an index or a length is out of range. Nothing was done.
    InvalidArgument = 7,
    /// Denied: STS confirmed the client, but awsIamAllowedAccounts does not list its account.
    DeniedAccount = 8,
    /// Denied: STS limits the requests of the client's account.
    DeniedThrottled = 9,
}

impl From<Progress> for ResultCode {
    fn from(progress: Progress) -> Self {
        match progress {
            Progress::Continue => Self::Continue,
            Progress::Authenticated => Self::Authenticated,
            Progress::Denied(Kind::MalformedMessage) => Self::DeniedMalformed,
            Progress::Denied(Kind::RefusedBySts) => Self::DeniedBySts,
            Progress::Denied(Kind::AccountNotAllowed) => Self::DeniedAccount,
            Progress::Denied(Kind::Throttled) => Self::DeniedThrottled,
            Progress::Denied(Kind::StsUnavailable) => Self::DeniedStsUnavailable,
            Progress::Denied(Kind::Internal) => Self::DeniedInternal,
        }
    }
}

impl OnPanic for ResultCode {
    const ON_PANIC: Self = Self::Panic;
}

/// Bytes that the library owns. They are valid until the object that they came from is used again
/// or freed; names and versions are valid forever. No NUL follows them. When there are none, length
/// is 0 and data is not null.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Bytes {
    /// The first byte.
    pub data: *const u8,
    /// The number of bytes.
    pub length: usize,
}

impl Bytes {
    pub(super) const EMPTY: Self = Self::of(&[]);

    pub(super) const fn of(bytes: &[u8]) -> Self {
        Self { data: bytes.as_ptr(), length: bytes.len() }
    }
}

impl OnPanic for Bytes {
    const ON_PANIC: Self = Self::EMPTY;
}

/// Bytes that the caller owns. Read them with psmdb_aws_iam_buffer_bytes, free them with
/// psmdb_aws_iam_buffer_free.
#[derive(Debug)]
pub struct Buffer(Vec<u8>);

impl Buffer {
    pub(super) fn new(bytes: Vec<u8>) -> Box<Self> {
        Box::new(Self(bytes))
    }

    pub(super) fn into_raw(bytes: Vec<u8>) -> *mut Self {
        Box::into_raw(Self::new(bytes))
    }
}

export!(
    /// The bytes of a buffer, valid until it is freed. Empty for a null pointer.
    ///
    /// # Safety
    /// `buffer` is null, or came from a function of this library and has not been freed.
    pub unsafe extern "C" fn psmdb_aws_iam_buffer_bytes(buffer: *const Buffer) -> Bytes {
        // SAFETY: null or a live buffer of ours, as the caller promises.
        unsafe { buffer.as_ref() }.map_or(Bytes::EMPTY, |buffer| Bytes::of(&buffer.0))
    }
);

export!(
    /// Frees a buffer. Does nothing for a null pointer.
    ///
    /// # Safety
    /// `buffer` is null, or came from a function of this library and has not been freed.
    pub unsafe extern "C" fn psmdb_aws_iam_buffer_free(buffer: *mut Buffer) {
        if !buffer.is_null() {
            // SAFETY: it came from `Buffer::into_raw`, and the caller gives it up.
            drop(unsafe { Box::from_raw(buffer) });
        }
    }
);

export!(
    /// The version of the library as a NUL-terminated string, such as "0.1.0".
    pub extern "C" fn psmdb_aws_iam_version() -> *const c_char {
        const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
        VERSION.as_ptr().cast()
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    /// Every value of an enum; a variant that is not listed does not compile.
    macro_rules! all {
        ($type:ident: $($variant:ident),+ $(,)?) => {{
            let _ = |value: $type| match value { $($type::$variant => ()),+ };
            [$($type::$variant),+]
        }};
    }

    #[test]
    fn miri_no_failure_has_the_code_of_a_success() {
        for (kind, _) in Kind::ALL {
            let code = ResultCode::from(Progress::Denied(kind));
            assert!((code as u32) < 7000, "{code:?}");
        }
        let codes = all!(
            ResultCode: Ok, Continue, Authenticated, DeniedMalformed, DeniedBySts, DeniedStsUnavailable, DeniedInternal,
            Panic, RefusedValue, InvalidArgument, DeniedAccount, DeniedThrottled,
        );
        for code in codes {
            let is_success = matches!(code, ResultCode::Ok | ResultCode::Continue | ResultCode::Authenticated);
            assert_eq!(is_success, code as u32 >= 7000, "{code:?}");
            assert_ne!(code as u32, 0, "{code:?}");
        }
    }
}
