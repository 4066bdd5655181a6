//! The types that cross the boundary.

use super::boundary;

/// What a function answers.
///
/// The values that mean success are far from 0 and 1: a result that was zeroed, or never written, is a failure.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultCode {
    /// Done.
    Ok = 7000,
    /// Send the reply to the client and give its next message to the conversation.
    Continue = 7001,
    /// The client has proved who it is: see psmdb_aws_iam_conversation_user_name. Send it an empty reply.
    Authenticated = 7002,
    /// Denied: the client's message is wrong, and STS was not asked; or its conversation has expired; or a clock is
    /// wrong.
    DeniedMalformed = 1,
    /// Denied: STS said no, or named a principal that cannot log in.
    DeniedBySts = 2,
    /// Denied: STS could not be asked in time, or its response was not one of STS.
    DeniedStsUnavailable = 3,
    /// Denied: the library could not go on, for example without random bytes.
    DeniedInternal = 4,
    /// Denied: a defect of the library was caught before it could do harm. Please report it.
    Panic = 5,
    /// A parameter's value was refused. Nothing has changed.
    RefusedValue = 6,
    /// A pointer is null, or an index or a length is out of range. Nothing was done.
    InvalidArgument = 7,
    /// Denied: STS confirmed the client, but awsIamAllowedAccounts does not list its account.
    DeniedAccount = 8,
    /// Denied: STS limits the requests of the client's account.
    DeniedThrottled = 9,
}

/// Bytes that belong to the library. They stay as they are until the object they came from is used again or freed;
/// names and versions stay for ever. Not terminated by a NUL. An empty one has length 0, and data is never null.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Bytes {
    /// The first byte.
    pub data: *const u8,
    /// How many bytes there are.
    pub length: usize,
}

impl Bytes {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self { data: bytes.as_ptr(), length: bytes.len() }
    }

    pub(super) fn empty() -> Self {
        Self::of(&[])
    }
}

/// Bytes that belong to the caller: read with psmdb_aws_iam_buffer_bytes, free with psmdb_aws_iam_buffer_free.
#[derive(Debug)]
pub struct Buffer(Vec<u8>);

impl Buffer {
    pub(super) fn into_raw(bytes: Vec<u8>) -> *mut Self {
        Box::into_raw(Box::new(Self(bytes)))
    }
}

/// The bytes of a buffer, valid until it is freed. Empty for a null pointer.
///
/// # Safety
/// `buffer` is null or came from a function of this library and has not been freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn psmdb_aws_iam_buffer_bytes(buffer: *const Buffer) -> Bytes {
    boundary::guard(Bytes::empty(), || {
        // SAFETY: null or a live buffer of ours, as the caller promises.
        unsafe { buffer.as_ref() }.map_or_else(Bytes::empty, |buffer| Bytes::of(&buffer.0))
    })
}

/// Frees a buffer. Nothing happens for a null pointer.
///
/// # Safety
/// `buffer` is null or came from a function of this library and has not been freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn psmdb_aws_iam_buffer_free(buffer: *mut Buffer) {
    boundary::guard((), || {
        if !buffer.is_null() {
            // SAFETY: it came from `Buffer::into_raw`, and the caller gives it up.
            drop(unsafe { Box::from_raw(buffer) });
        }
    });
}

/// The version of the library as a NUL-terminated string, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn psmdb_aws_iam_version() -> *const std::ffi::c_char {
    boundary::guard(c"".as_ptr(), || {
        const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
        VERSION.as_ptr().cast()
    })
}
