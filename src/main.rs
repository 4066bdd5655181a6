//! The operator's command.
//!
//! It shares with the shared object what both must decide alike: the grammars, the names of users and the words of the
//! parameters, which are the library's, and the C++ shim's table of what the plugin needs in a server. The reader of ELF
//! files and everything in `command` are not for a server's process, and not in the library.
#![deny(unsafe_code)]

#[allow(unsafe_code, reason = "the bridge to the C++ shim handles raw pointers")]
#[path = "ffi/check_server.rs"]
mod check_server;
mod command;
mod server_file;

use std::process::ExitCode;

fn main() -> ExitCode {
    command::run()
}
