//! What lives as long as the process, whatever the parameters are.

use crate::events::Events;
use crate::metrics::Metrics;
use bson::DateTime;
use bson::raw::{RawDocumentBuf, cstr};
use once_cell::sync::OnceCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

/// Shared by all logins of a process.
#[derive(Debug, Default)]
pub struct Process {
    /// How logins went.
    pub metrics: Metrics,
    /// Lines for the server's log.
    pub events: Events,
    /// How the plugin is registered in the server.
    pub registration: Registration,
}

/// How the plugin is registered in the server, as the shim reports it.
#[derive(Debug, Default)]
pub struct Registration {
    abi: OnceCell<String>,
    is_registered: AtomicBool,
    native_replaced: AtomicBool,
    reports_logins: AtomicBool,
    has_reported_login: AtomicBool,
}

impl Registration {
    /// Sets the form of the server's internals. Only the first call counts.
    pub fn set_abi(&self, abi: &str) {
        // A second call would be a defect of the shim, and does no harm.
        let _ = self.abi.set(abi.to_owned());
    }

    /// The form of the server's internals; empty while it is not known.
    pub fn abi(&self) -> &str {
        self.abi.get().map_or("", String::as_str)
    }

    /// Records that the mechanism is registered, and whether the server reports logins. Returns
    /// whether the mechanism was not registered before.
    pub fn mark_registered(&self, reports_logins: bool) -> bool {
        self.reports_logins.store(reports_logins, Ordering::Relaxed);
        !self.is_registered.swap(true, Ordering::Relaxed)
    }

    /// Whether the mechanism is registered.
    pub fn is_registered(&self) -> bool {
        self.is_registered.load(Ordering::Relaxed)
    }

    /// Records that the server's own mechanism was replaced. Returns whether it was not before.
    pub fn mark_native_replaced(&self) -> bool {
        !self.native_replaced.swap(true, Ordering::Relaxed)
    }

    /// Whether the server's own mechanism was replaced.
    pub fn is_native_replaced(&self) -> bool {
        self.native_replaced.load(Ordering::Relaxed)
    }

    /// Whether the server reports each login that succeeds.
    pub fn reports_logins(&self) -> bool {
        self.reports_logins.load(Ordering::Relaxed)
    }

    /// Records that the server has reported a login.
    pub fn mark_login_reported(&self) {
        self.has_reported_login.store(true, Ordering::Relaxed);
    }

    /// Whether the server has ever reported a login. One that runs with quiet never does.
    pub fn has_reported_login(&self) -> bool {
        self.has_reported_login.load(Ordering::Relaxed)
    }
}

impl Process {
    /// The section of `serverStatus`: `{version, serverAbi, nativeMechanismReplaced, stsHost,
    /// stsHostSince}` and the counters. The host is the one that new logins use.
    pub fn status(&self, sts_host: &str, since: SystemTime) -> RawDocumentBuf {
        let mut section = RawDocumentBuf::new();
        section.append(cstr!("version"), env!("CARGO_PKG_VERSION"));
        section.append(cstr!("serverAbi"), self.registration.abi());
        section.append(cstr!("nativeMechanismReplaced"), self.registration.is_native_replaced());
        section.append(cstr!("stsHost"), sts_host);
        section.append(cstr!("stsHostSince"), DateTime::from_system_time(since));
        self.metrics.append_to(&mut section);
        section
    }
}
