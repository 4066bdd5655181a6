//! The panic boundary, and the helpers that turn a caller's pointers into references.
//!
//! Every function of the C ABI is defined by [`export!`], which puts its body inside [`guard`]. The
//! compiler enforces it: the crate denies `unsafe_code`, that lint rejects `no_mangle` and
//! `export_name`, and only the macro allows them. An attribute macro would need a crate of its own.
//! A return type that only the boundary can make would not do: it cannot stop a function with
//! another return type.

use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Defines a function of the C ABI.
///
/// In parentheses, so that rustfmt formats the function. `build.rs` replaces `export!(` with
/// `#[unsafe(no_mangle)]` when it gives these files to cbindgen, which does not expand macros.
macro_rules! export {
    ($(#[$attribute:meta])* pub unsafe extern "C" fn $name:ident($($arguments:tt)*) $(-> $result:ty)? $body:block) => {
        $(#[$attribute])*
        #[allow(unsafe_code, reason = "exported, and its body is inside the panic boundary")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arguments)*) $(-> $result)? {
            $crate::ffi::boundary::guard(|| $body)
        }
    };
    ($(#[$attribute:meta])* pub extern "C" fn $name:ident($($arguments:tt)*) $(-> $result:ty)? $body:block) => {
        $(#[$attribute])*
        #[allow(unsafe_code, reason = "exported, and its body is inside the panic boundary")]
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($arguments)*) $(-> $result)? {
            $crate::ffi::boundary::guard(|| $body)
        }
    };
}
pub(super) use export;

/// What an exported function returns when its body panics.
pub trait OnPanic {
    /// A value that no caller takes for a success.
    const ON_PANIC: Self;
}

impl OnPanic for () {
    const ON_PANIC: Self = ();
}

impl OnPanic for usize {
    const ON_PANIC: Self = 0;
}

impl<T> OnPanic for *mut T {
    const ON_PANIC: Self = std::ptr::null_mut();
}

impl OnPanic for *const c_char {
    const ON_PANIC: Self = c"".as_ptr();
}

/// Runs the body of an exported function. A panic ends here: one that left an `extern "C"` function
/// would abort the server.
pub fn guard<T: OnPanic>(body: impl FnOnce() -> T) -> T {
    // Unwind safety: a body either only reads, or replaces what it changes as a whole.
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => value,
        Err(payload) => {
            // Dropping a payload runs code of its own, which could panic again.
            std::mem::forget(payload);
            T::ON_PANIC
        }
    }
}

/// Borrows the caller's bytes for the time of the call. `None` for a null pointer with a length,
/// and for a length that no object can have; a null pointer without a length is empty.
///
/// # Safety
/// `data` is null or points to `length` readable bytes that nobody writes to for as long as the
/// slice is used.
#[allow(unsafe_code, reason = "reads through a caller's pointer")]
pub unsafe fn bytes<'a>(data: *const u8, length: usize) -> Option<&'a [u8]> {
    if length == 0 {
        return Some(&[]);
    }
    if data.is_null() || isize::try_from(length).is_err() {
        return None;
    }
    // SAFETY: not null and of a possible length, as just checked; readable and unchanged, as the
    // caller promises.
    Some(unsafe { std::slice::from_raw_parts(data, length) })
}

/// Borrows the caller's UTF-8 text for the time of the call; `None` as [`bytes`], and for what is
/// not UTF-8.
///
/// # Safety
/// As [`bytes`].
#[allow(unsafe_code, reason = "reads through a caller's pointer")]
pub unsafe fn text<'a>(data: *const u8, length: usize) -> Option<&'a str> {
    // SAFETY: as the caller promises.
    unsafe { bytes(data, length) }.and_then(|bytes| str::from_utf8(bytes).ok())
}

/// Gives an object, if there is one, to the caller, who frees it. Frees it itself when the caller does
/// not want it and `out` is null.
///
/// # Safety
/// `out` is null or can be written.
#[allow(unsafe_code, reason = "writes through a caller's pointer")]
pub unsafe fn write_object<T>(out: *mut *mut T, object: Option<Box<T>>) {
    if let Some(object) = object
        && !out.is_null()
    {
        // SAFETY: not null, as just checked, and writable, as the caller promises.
        unsafe { out.write(Box::into_raw(object)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::{Buffer, Bytes, ResultCode};

    struct PanicsWhenDropped;

    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    #[test]
    fn miri_a_panic_becomes_the_value_for_it() {
        assert_eq!(guard(|| ResultCode::Ok), ResultCode::Ok);
        assert_eq!(guard(|| -> ResultCode { panic!("for the test") }), ResultCode::Panic);
        assert_eq!(guard(|| -> ResultCode { std::panic::panic_any(PanicsWhenDropped) }), ResultCode::Panic);
        assert_eq!(guard(|| -> usize { panic!("for the test") }), 0);
        assert_eq!(guard(|| -> Bytes { panic!("for the test") }).length, 0);
        assert!(guard(|| -> *mut Buffer { panic!("for the test") }).is_null());
    }

    #[test]
    #[allow(unsafe_code, reason = "a test of functions with pointers")]
    fn miri_impossible_pointers_and_lengths_are_refused() {
        // SAFETY: none of these is read through.
        unsafe {
            assert_eq!(bytes(std::ptr::null(), 0), Some(&[][..]));
            assert_eq!(bytes(std::ptr::null(), 1), None);
            assert_eq!(bytes([0].as_ptr(), usize::MAX), None);
        }
    }
}
