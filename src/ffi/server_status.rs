//! What the plugin shows in the server, through the C ABI: its section of serverStatus, and its
//! log lines.

use super::boundary::{export, text};
use super::parameters::store;
use super::types::Buffer;
use crate::events::Severity;
use bson::raw::{CStr, RawDocumentBuf};
use std::ptr::null_mut;

export!(
    /// Says which server the plugin is in, before any conversation. `abi` is UTF-8 text that names
    /// the form of the server's internals, such as "6.0". A second call changes nothing.
    ///
    /// # Safety
    /// `abi` points to `abi_length` readable bytes or the length is 0.
    pub unsafe extern "C" fn psmdb_aws_iam_loaded(abi: *const u8, abi_length: usize) {
        // SAFETY: readable for this call, as the caller promises.
        if let Some(abi) = unsafe { text(abi, abi_length) } {
            store().process().registration.set_abi(abi);
        }
    }
);

export!(
    /// Says that the mechanism is registered.
    ///
    /// With `replaced_native` other than 0, it replaced the server's own mechanism. The first call
    /// of each kind adds a line for the server's log. From now on a change of a parameter does,
    /// too, and the values in force limit further changes: see psmdb_aws_iam_parameter_set.
    ///
    /// With `reports_logins` other than 0, the server reports each login that succeeds:
    /// psmdb_aws_iam_conversation_logged_in is called. Without, and without this call, a login
    /// counts as successful when STS confirms it.
    pub extern "C" fn psmdb_aws_iam_registered(replaced_native: u8, reports_logins: u8) {
        store().register(replaced_native != 0, reports_logins != 0, |name| std::env::var_os(name));
    }
);

export!(
    /// The counters since the process began, for a server's status report: a BSON document of one
    /// element, which is a document and has the given name, in a new buffer that the caller frees.
    /// Null for a name that is not UTF-8 or holds a NUL. May be called by any thread at any time;
    /// does not block.
    ///
    /// # Safety
    /// `name` points to `name_length` readable bytes or the length is 0.
    pub unsafe extern "C" fn psmdb_aws_iam_server_status(name: *const u8, name_length: usize) -> *mut Buffer {
        // SAFETY: readable for this call, as the caller promises.
        let name = unsafe { text(name, name_length) };
        let Some(Ok(name)) = name.map(<&CStr>::try_from) else { return null_mut() };
        let mut document = RawDocumentBuf::new();
        document.append(name, store().status());
        Buffer::into_raw(document.into_bytes())
    }
);

export!(
    /// Takes the next line for the server's log: returns its text in a new buffer that the caller
    /// frees, and writes its number to `*log_id_out` and to `*is_warning_out` 1 for a warning, 0
    /// for information. Returns null and writes nothing when there is no line, or an argument is
    /// null. May be called by any thread at any time, and costs little: call it after each step of
    /// a conversation, until it returns null.
    ///
    /// # Safety
    /// `log_id_out` and `is_warning_out` are null or can be written.
    pub unsafe extern "C" fn psmdb_aws_iam_next_log_line(log_id_out: *mut i32, is_warning_out: *mut u8) -> *mut Buffer {
        if log_id_out.is_null() || is_warning_out.is_null() {
            return null_mut();
        }
        let Some(event) = store().process().events.pop() else { return null_mut() };
        // SAFETY: not null, as just checked, and writable, as the caller promises.
        unsafe {
            log_id_out.write(event.log_id());
            is_warning_out.write(u8::from(event.severity() == Severity::Warning));
        }
        Buffer::into_raw(event.to_string().into_bytes())
    }
);
