//! What stands between a panic and the server, and between raw pointers and safe code.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs the body of an exported function. A panic ends here and becomes `on_panic`: one that left an `extern "C"`
/// function would abort the server.
pub fn guard<T>(on_panic: T, body: impl FnOnce() -> T) -> T {
    // Unwind safety: a body either only reads, or replaces what it changes as a whole.
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => value,
        Err(payload) => {
            // Dropping a payload runs code of its own, which could panic again.
            std::mem::forget(payload);
            on_panic
        }
    }
}

/// Borrows the caller's bytes for the time of the call. `None` for a null pointer with a length, and for a length that
/// no object can have; a null pointer without a length is empty.
///
/// # Safety
/// `data` is null or points to `length` readable bytes that nobody writes to for as long as the slice is used.
pub unsafe fn bytes<'a>(data: *const u8, length: usize) -> Option<&'a [u8]> {
    if length == 0 {
        return Some(&[]);
    }
    if data.is_null() || isize::try_from(length).is_err() {
        return None;
    }
    // SAFETY: not null and of a possible length, as just checked; readable and unchanged, as the caller promises.
    Some(unsafe { std::slice::from_raw_parts(data, length) })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct PanicsWhenDropped;

    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    #[test]
    fn miri_a_panic_becomes_the_value_for_it() {
        assert_eq!(guard(1, || 2), 2);
        assert_eq!(guard(1, || panic!("for the test")), 1);
        assert_eq!(guard(1, || std::panic::panic_any(PanicsWhenDropped)), 1);
    }

    #[test]
    fn miri_impossible_pointers_and_lengths_are_refused() {
        // SAFETY: none of these is read through.
        unsafe {
            assert_eq!(bytes(std::ptr::null(), 0), Some(&[][..]));
            assert_eq!(bytes(std::ptr::null(), 1), None);
            assert_eq!(bytes([0].as_ptr(), usize::MAX), None);
        }
    }
}
