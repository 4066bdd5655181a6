//! Checkers of memory use: AddressSanitizer, with which `make sanitize` builds the plugin and the
//! programs that load it, or else valgrind.

use std::env;
use std::process::Command;
use std::sync::Once;

use super::plugin;

/// Returns whether the plugin under test is built with AddressSanitizer. It reports on standard
/// error, and the program fails.
pub fn is_sanitized() -> bool {
    static CHECKED: Once = Once::new();
    let set = env::var_os("PSMDB_AWS_IAM_SANITIZED").is_some();
    if set {
        CHECKED.call_once(assert_both_languages_are);
    }
    set
}

/// Returns compiler flags for a program that loads the plugin. The sanitizer's runtime is in the
/// program: there must be only one, and it must start before a preloaded object does.
pub fn compiler_flags() -> &'static [&'static str] {
    if is_sanitized() { &["-fsanitize=address", "-static-libasan", "-fno-omit-frame-pointer"] } else { &[] }
}

/// Returns the command line before a program that makes it fail if it leaks; `None`, and reports
/// so, if there is no checker.
pub fn leak_checker() -> Option<&'static [&'static str]> {
    if is_sanitized() {
        return Some(&[]);
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        super::skipped("the search for leaks", "valgrind is not installed; see also make sanitize");
        return None;
    }
    Some(&[
        "valgrind",
        "--quiet",
        "--error-exitcode=9",
        "--leak-check=full",
        // Parameters and idle connections stay until the process ends; some are found by inner
        // pointers only, as those of hash tables are, and then valgrind calls them possibly lost.
        "--show-leak-kinds=definite",
        "--errors-for-leak-kinds=definite",
        // Values that went through ring's assembly are reported as uninitialised wherever TLS uses
        // them.
        "--undef-value-errors=no",
        // The double's own operator new, which is above malloc, stays in use.
        "--soname-synonyms=somalloc=nouserintercepts",
    ])
}

/// The compilers of C++ and of Rust register their global variables by functions of different
/// names.
fn assert_both_languages_are() {
    let plugin = plugin();
    let output =
        Command::new("readelf").args(["-W", "--dyn-syms"]).arg(&plugin).output().expect("readelf, of binutils");
    let symbols = String::from_utf8(output.stdout).expect("UTF-8");
    for (language, name) in [("C++", " __asan_register_globals"), ("Rust", " __asan_register_elf_globals")] {
        let has = symbols.lines().any(|line| line.ends_with(name));
        assert!(has, "the {language} of {} is not built with AddressSanitizer", plugin.display());
    }
}
