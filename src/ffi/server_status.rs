//! The counters through the C ABI.

use super::boundary::{bytes, guard};
use super::parameters::store;
use super::types::{Buffer, ResultCode};
use crate::metrics::Metrics;
use bson::raw::{CStr, RawDocumentBuf};

static METRICS: Metrics = Metrics::new();

/// Counts how a step of a conversation ended.
pub(super) fn count(code: ResultCode) {
    match code {
        ResultCode::Authenticated => METRICS.confirmed.add(),
        ResultCode::DeniedMalformed => METRICS.denied_malformed.add(),
        ResultCode::DeniedBySts => METRICS.denied_by_sts.add(),
        ResultCode::DeniedAccount => METRICS.denied_account.add(),
        ResultCode::DeniedStsUnavailable => METRICS.denied_sts_unavailable.add(),
        ResultCode::DeniedInternal | ResultCode::Panic => METRICS.denied_internal.add(),
        ResultCode::Ok | ResultCode::Continue | ResultCode::RefusedValue | ResultCode::InvalidArgument => {}
    }
}

/// Counts a conversation that begins.
pub(super) fn count_start() {
    METRICS.started.add();
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
        document.append(name, METRICS.to_bson(store().current().host().as_str()));
        Buffer::into_raw(document.into_bytes())
    })
}
