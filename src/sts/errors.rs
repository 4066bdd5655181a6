//! What errors of other libraries say.

use std::io;

/// Whether the error says that this machine lacks a resource.
pub fn is_local(error: &io::Error) -> bool {
    let shortages = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::EAGAIN, libc::EADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| shortages.contains(&code))
}

/// An error's text, short and printable: a TLS error may repeat names from an untrusted
/// certificate.
pub fn printable(error: &dyn std::fmt::Display) -> String {
    const LONGEST: usize = 300;
    let plain = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    error.to_string().chars().take(LONGEST).map(plain).collect()
}
