//! The counters, and lines for the server's log, through the C ABI.

use super::boundary::{bytes, guard};
use super::parameters::store;
use super::types::{Buffer, ResultCode};
use crate::events::Severity;
use bson::raw::{CStr, RawDocumentBuf};

/// Counts how a step of a conversation ended.
pub(super) fn count(code: ResultCode) {
    let metrics = &store().process().metrics;
    match code {
        ResultCode::Authenticated => metrics.confirmed.add(),
        ResultCode::DeniedMalformed => metrics.denied_malformed.add(),
        ResultCode::DeniedBySts => metrics.denied_by_sts.add(),
        ResultCode::DeniedAccount => metrics.denied_account.add(),
        ResultCode::DeniedStsUnavailable => metrics.denied_sts_unavailable.add(),
        ResultCode::DeniedInternal | ResultCode::Panic => metrics.denied_internal.add(),
        ResultCode::Ok | ResultCode::Continue | ResultCode::RefusedValue | ResultCode::InvalidArgument => {}
    }
}

/// Counts a conversation that begins.
pub(super) fn count_start() {
    store().process().metrics.started.add();
}

/// The counters since the process began, for a server's status report: a BSON document whose only element has the given
/// name and is a document, in a new buffer for the caller to free. Null for a name that is not UTF-8 without NUL. Any
/// thread may call it at any time; it waits for nothing.
///
/// # Safety
/// `name` points to `name_length` readable bytes or the length is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn psmdb_aws_iam_server_status(name: *const u8, name_length: usize) -> *mut Buffer {
    guard(std::ptr::null_mut(), || {
        // SAFETY: readable for this call, as the caller promises.
        let name = unsafe { bytes(name, name_length) }.and_then(|name| str::from_utf8(name).ok());
        let Some(Ok(name)) = name.map(<&CStr>::try_from) else {
            return std::ptr::null_mut();
        };
        let mut document = RawDocumentBuf::new();
        document.append(name, store().process().metrics.to_bson(store().current().hosts().current().name().as_str()));
        Buffer::into_raw(document.into_bytes())
    })
}

/// Takes the next line that the server should write into its log: its text in a new buffer for the caller to free, its
/// number in `*log_id_out`, and in `*is_warning_out` whether it is a warning (1) or for information (0). Null when there is
/// none, or an argument is null; nothing is written then. Any thread may call it at any time; it is cheap, to be called
/// again until there is none after each step of a conversation.
///
/// # Safety
/// `log_id_out` and `is_warning_out` are null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn psmdb_aws_iam_next_log_line(log_id_out: *mut i32, is_warning_out: *mut u8) -> *mut Buffer {
    guard(std::ptr::null_mut(), || {
        if log_id_out.is_null() || is_warning_out.is_null() {
            return std::ptr::null_mut();
        }
        let Some(event) = store().process().events.pop() else {
            return std::ptr::null_mut();
        };
        // SAFETY: not null, as just checked, and writable, as the caller promises.
        unsafe {
            log_id_out.write(event.log_id());
            is_warning_out.write(u8::from(event.severity() == Severity::Warning));
        }
        Buffer::into_raw(event.to_string().into_bytes())
    })
}
