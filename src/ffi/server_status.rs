//! What the server shows of the plugin, through the C ABI: the section of its status, and lines of its log.

use super::boundary::{bytes, guard};
use super::parameters::store;
use super::types::Buffer;
use crate::events::{Event, Severity};
use bson::raw::{CStr, RawDocumentBuf};

/// Tells the plugin which server it is in, before any conversation: `abi` is UTF-8 text that names the form of the
/// server's internals, such as "6.0". Told once; a second call changes nothing.
///
/// # Safety
/// `abi` points to `abi_length` readable bytes or the length is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn psmdb_aws_iam_loaded(abi: *const u8, abi_length: usize) {
    guard((), || {
        // SAFETY: readable for this call, as the caller promises.
        if let Some(Ok(abi)) = unsafe { bytes(abi, abi_length) }.map(str::from_utf8) {
            store().process().server.is_of(abi);
        }
    });
}

/// Tells the plugin that its mechanism is registered; with `replaced_native` other than 0, that a mechanism of the
/// server's own was taken out for it. Each is a line for the server's log the first time. From here on a parameter that
/// changes is one, too, and the values in force now limit what can be set: see psmdb_aws_iam_parameter_set.
#[unsafe(no_mangle)]
pub extern "C" fn psmdb_aws_iam_registered(replaced_native: u8) {
    guard((), || {
        let process = store().process();
        store().complete_startup();
        if process.server.begin_to_serve() {
            let server_abi = process.server.abi().to_owned();
            process.events.push(Event::Registered { server_abi, parameters: store().changed_parameters() });
            store().doubtful_hosts().into_iter().for_each(|warning| process.events.push(warning));
            let variables = store().unused_proxy_variables(|name| std::env::var_os(name));
            if !variables.is_empty() {
                process.events.push(Event::ProxyNotUsed { variables });
            }
        }
        if replaced_native != 0 && process.server.replace_native() {
            process.events.push(Event::NativeReplaced);
        }
    });
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
        document.append(name, store().status());
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
