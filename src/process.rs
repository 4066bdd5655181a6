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
    /// What the server's log should say.
    pub events: Events,
    /// What the process is, and what the plugin is in it.
    pub server: Server,
}

/// The server that the plugin is loaded into, as far as the plugin has registered in it.
#[derive(Debug, Default)]
pub struct Server {
    abi: OnceCell<String>,
    is_serving: AtomicBool,
    native_replaced: AtomicBool,
    reports_logins: AtomicBool,
}

impl Server {
    /// The form of the server's internals is this one. It is told once; what comes later is not believed.
    pub fn is_of(&self, abi: &str) {
        // A second word would be a defect of the shim's, and harms nobody.
        let _ = self.abi.set(abi.to_owned());
    }

    /// The form of the server's internals; empty while it is not known.
    pub fn abi(&self) -> &str {
        self.abi.get().map_or("", String::as_str)
    }

    /// The mechanism is registered; says whether that is news.
    pub fn begin_to_serve(&self) -> bool {
        !self.is_serving.swap(true, Ordering::Relaxed)
    }

    /// Whether the mechanism is registered.
    pub fn is_serving(&self) -> bool {
        self.is_serving.load(Ordering::Relaxed)
    }

    /// The server has reported that it logged a client in.
    pub fn login_reported(&self) {
        self.reports_logins.store(true, Ordering::Relaxed);
    }

    /// Whether the server has ever done so; one that runs with quiet does not.
    pub fn reports_logins(&self) -> bool {
        self.reports_logins.load(Ordering::Relaxed)
    }

    /// The server's own mechanism is not used any more; says whether that is news.
    pub fn replace_native(&self) -> bool {
        !self.native_replaced.swap(true, Ordering::Relaxed)
    }
}

impl Process {
    /// The section of `serverStatus`: `{version, serverAbi, nativeMechanismReplaced, stsHost, stsHostSince}` and what
    /// [`Metrics::to_bson`] adds. The host is the one that new logins are told.
    pub fn status(&self, sts_host: &str, since: SystemTime) -> RawDocumentBuf {
        let mut section = RawDocumentBuf::new();
        section.append(cstr!("version"), env!("CARGO_PKG_VERSION"));
        section.append(cstr!("serverAbi"), self.server.abi());
        section.append(cstr!("nativeMechanismReplaced"), self.server.native_replaced.load(Ordering::Relaxed));
        section.append(cstr!("stsHost"), sts_host);
        section.append(cstr!("stsHostSince"), DateTime::from_system_time(since));
        for (name, value) in self.metrics.to_bson().iter().flatten() {
            section.append(name, value);
        }
        section
    }
}
