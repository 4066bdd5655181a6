//! The parameters through the C ABI. Like a server's own parameters, they belong to the whole
//! process.

use super::boundary::{bytes, export, text, write_object};
use super::types::{Buffer, Bytes, ResultCode};
use crate::parameters::{PARAMETERS, Parameter};
use crate::settings::Store;
use bson::raw::{CStr, RawDocumentBuf};
use once_cell::sync::Lazy;
use std::ptr::null_mut;

static STORE: Lazy<Store> = Lazy::new(Store::default);

/// The parameters of this process.
pub(super) fn store() -> &'static Store {
    &STORE
}

export!(
    /// The number of parameters. An index from 0 up to this number identifies a parameter.
    pub extern "C" fn psmdb_aws_iam_parameter_count() -> usize {
        PARAMETERS.len()
    }
);

export!(
    /// The name of a parameter, such as "awsStsHost"; valid forever. Empty for an index out of
    /// range.
    pub extern "C" fn psmdb_aws_iam_parameter_name(index: usize) -> Bytes {
        PARAMETERS.get(index).map_or(Bytes::EMPTY, |parameter| Bytes::of(parameter.name.as_bytes()))
    }
);

export!(
    /// Sets a parameter from text, as a command line or a configuration file gives it. Applies from
    /// the next login on.
    ///
    /// After the first call of psmdb_aws_iam_registered, psmdb_aws_iam_parameter_set_bson or
    /// psmdb_aws_iam_parameter_validate_bson, the values in force then limit awsStsHost,
    /// awsStsFallbackHosts, awsStsCAFile and awsIamAllowedAccounts: another value than one of those
    /// is refused.
    ///
    /// For a value that is not allowed, returns PSMDB_AWS_IAM_RESULT_REFUSED_VALUE and, unless
    /// `reason_out` is null, writes to `*reason_out` a new buffer with one sentence that says what
    /// is allowed. The caller frees it. Otherwise `*reason_out` is not written. May read a file.
    /// May be called by any thread at any time.
    ///
    /// # Safety
    /// `text` points to `text_length` readable bytes or the length is 0; `reason_out` is null or
    /// can be written.
    pub unsafe extern "C" fn psmdb_aws_iam_parameter_set(
        index: usize,
        text: *const u8,
        text_length: usize,
        reason_out: *mut *mut Buffer,
    ) -> ResultCode {
        // SAFETY: readable for this call, as the caller promises.
        let text = unsafe { bytes(text, text_length) };
        let (result, reason) = apply(index, text, |parameter, text| match str::from_utf8(text) {
            Ok(text) => store().set_text(parameter, text),
            Err(_) => Err(format!("{}: must be UTF-8", parameter.name)),
        });
        // SAFETY: null or writable, as the caller promises.
        unsafe { write_object(reason_out, reason) };
        result
    }
);

export!(
    /// Sets a parameter from a BSON element: its type byte, its NUL-terminated name and its value.
    /// The element's name does not matter. Otherwise the same as psmdb_aws_iam_parameter_set.
    ///
    /// # Safety
    /// `element` points to `element_length` readable bytes or the length is 0; `reason_out` is null
    /// or can be written.
    pub unsafe extern "C" fn psmdb_aws_iam_parameter_set_bson(
        index: usize,
        element: *const u8,
        element_length: usize,
        reason_out: *mut *mut Buffer,
    ) -> ResultCode {
        // SAFETY: readable for this call, as the caller promises.
        let element = unsafe { bytes(element, element_length) };
        let (result, reason) =
            apply(index, element, |parameter, element| store().set_bson(parameter, &document(element)?));
        // SAFETY: null or writable, as the caller promises.
        unsafe { write_object(reason_out, reason) };
        result
    }
);

export!(
    /// Checks whether psmdb_aws_iam_parameter_set_bson would accept the element. Changes nothing.
    ///
    /// # Safety
    /// As for psmdb_aws_iam_parameter_set_bson.
    pub unsafe extern "C" fn psmdb_aws_iam_parameter_validate_bson(
        index: usize,
        element: *const u8,
        element_length: usize,
        reason_out: *mut *mut Buffer,
    ) -> ResultCode {
        // SAFETY: readable for this call, as the caller promises.
        let element = unsafe { bytes(element, element_length) };
        let (result, reason) =
            apply(index, element, |parameter, element| store().validate_bson(parameter, &document(element)?));
        // SAFETY: null or writable, as the caller promises.
        unsafe { write_object(reason_out, reason) };
        result
    }
);

export!(
    /// The value of a parameter as text, in a new buffer that the caller frees. Null for an index
    /// out of range.
    pub extern "C" fn psmdb_aws_iam_parameter_get(index: usize) -> *mut Buffer {
        PARAMETERS.get(index).map_or(null_mut(), |parameter| Buffer::into_raw(store().text(parameter).into_bytes()))
    }
);

export!(
    /// The value of a parameter as a BSON document of one element with the given name, in a new
    /// buffer that the caller frees. Null for an index out of range, and for a name that is not
    /// UTF-8 or holds a NUL.
    ///
    /// # Safety
    /// `name` points to `name_length` readable bytes or the length is 0.
    pub unsafe extern "C" fn psmdb_aws_iam_parameter_get_bson(
        index: usize,
        name: *const u8,
        name_length: usize,
    ) -> *mut Buffer {
        // SAFETY: readable for this call, as the caller promises.
        let name = unsafe { text(name, name_length) };
        let (Some(parameter), Some(Ok(name))) = (PARAMETERS.get(index), name.map(<&CStr>::try_from)) else {
            return null_mut();
        };
        Buffer::into_raw(store().bson(parameter, name).into_bytes())
    }
);

/// Applies a change to a parameter. A refused value comes with its reason.
fn apply(
    index: usize,
    value: Option<&[u8]>,
    change: impl FnOnce(&Parameter, &[u8]) -> Result<(), String>,
) -> (ResultCode, Option<Box<Buffer>>) {
    let (Some(parameter), Some(value)) = (PARAMETERS.get(index), value) else {
        return (ResultCode::InvalidArgument, None);
    };
    match change(parameter, value) {
        Ok(()) => (ResultCode::Ok, None),
        Err(reason) => (ResultCode::RefusedValue, Some(Buffer::new(reason.into_bytes()))),
    }
}

/// Puts an element's bytes into a document. Whether they are an element shows when the document is
/// read.
fn document(element: &[u8]) -> Result<RawDocumentBuf, String> {
    let wrong = || "the value is not a BSON element".to_owned();
    let length = element.len().checked_add(5).and_then(|length| i32::try_from(length).ok()).ok_or_else(wrong)?;
    let document = [&length.to_le_bytes()[..], element, &[0]].concat();
    RawDocumentBuf::from_bytes(document).map_err(|_| wrong())
}

#[cfg(test)]
#[allow(unsafe_code, reason = "tests of functions with pointers")]
mod tests {
    use super::*;
    use crate::ffi::{psmdb_aws_iam_buffer_bytes, psmdb_aws_iam_buffer_free};

    fn index(name: &str) -> usize {
        PARAMETERS.iter().position(|parameter| parameter.name == name).unwrap()
    }

    fn take(buffer: *mut Buffer) -> Vec<u8> {
        assert!(!buffer.is_null());
        // SAFETY: a live buffer, read before it is freed.
        unsafe {
            let bytes = psmdb_aws_iam_buffer_bytes(buffer);
            let copy = std::slice::from_raw_parts(bytes.data, bytes.length).to_vec();
            psmdb_aws_iam_buffer_free(buffer);
            copy
        }
    }

    // Only awsStsTimeoutMS is changed: the store is the process's, and other tests read the rest of
    // it.
    #[test]
    fn miri_values_are_set_and_read_and_refused_with_a_reason() {
        let timeout = index("awsStsTimeoutMS");
        let mut reason = std::ptr::null_mut();
        // SAFETY: every pointer is to a live object of the length given.
        unsafe {
            let set = |text: &[u8], reason: &mut *mut Buffer| {
                psmdb_aws_iam_parameter_set(timeout, text.as_ptr(), text.len(), reason)
            };
            assert_eq!(set(b"2000", &mut reason), ResultCode::Ok);
            assert!(reason.is_null());
            assert_eq!(take(psmdb_aws_iam_parameter_get(timeout)), b"2000");
            assert_eq!(set(b"1", &mut reason), ResultCode::RefusedValue);
            assert!(take(reason).starts_with(b"awsStsTimeoutMS: "));
            assert_eq!(set(b"\xff", &mut std::ptr::null_mut()), ResultCode::RefusedValue);

            let element = b"\x10awsStsTimeoutMS\0\x88\x13\0\0";
            let change = |change: unsafe extern "C" fn(usize, *const u8, usize, *mut *mut Buffer) -> ResultCode,
                          element: &[u8]| {
                change(timeout, element.as_ptr(), element.len(), std::ptr::null_mut())
            };
            assert_eq!(change(psmdb_aws_iam_parameter_validate_bson, element), ResultCode::Ok);
            assert_eq!(take(psmdb_aws_iam_parameter_get(timeout)), b"2000");
            assert_eq!(change(psmdb_aws_iam_parameter_set_bson, element), ResultCode::Ok);
            assert_eq!(take(psmdb_aws_iam_parameter_get(timeout)), b"5000");
            for broken in [&b""[..], b"\x10", b"\x10x\0\x01", b"\x02x\0\xff\xff\xff\x7fa\0", b"\xffx\0"] {
                assert_eq!(change(psmdb_aws_iam_parameter_set_bson, broken), ResultCode::RefusedValue, "{broken:?}");
            }
            let shown = take(psmdb_aws_iam_parameter_get_bson(timeout, b"t".as_ptr(), 1));
            assert_eq!(shown, bson::rawdoc! { "t": 5000 }.into_bytes());
        }
    }

    #[test]
    fn miri_an_index_out_of_range_is_refused() {
        // SAFETY: null and out of range are allowed.
        unsafe {
            let past = psmdb_aws_iam_parameter_count();
            let null = std::ptr::null_mut();
            assert_eq!(psmdb_aws_iam_parameter_name(past).length, 0);
            assert_eq!(psmdb_aws_iam_parameter_set(past, std::ptr::null(), 0, null), ResultCode::InvalidArgument);
            assert_eq!(psmdb_aws_iam_parameter_set(0, std::ptr::null(), 1, null), ResultCode::InvalidArgument);
            assert!(psmdb_aws_iam_parameter_get(past).is_null());
            assert!(psmdb_aws_iam_parameter_get_bson(past, std::ptr::null(), 0).is_null());
            assert!(psmdb_aws_iam_parameter_get_bson(0, b"a\0b".as_ptr(), 3).is_null());
            assert_eq!(psmdb_aws_iam_buffer_bytes(std::ptr::null()).length, 0);
            psmdb_aws_iam_buffer_free(std::ptr::null_mut());
        }
    }
}
