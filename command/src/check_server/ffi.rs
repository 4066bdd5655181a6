//! The C++ shim's checks of a server, applied to a file.
//!
//! They are those that run when the object is preloaded: `build.rs` links the shim's object files.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::server_file::ServerFile;

/// One check of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was checked.
    pub what: String,
    /// Whether the server has it in a form that the plugin knows.
    pub ok: bool,
    /// The symbol that was found; empty if there is none.
    pub found: String,
}

/// The results for one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether it is a server. If not, there are no checks.
    pub is_server: bool,
    /// Whether the plugin would register.
    pub supported: bool,
    /// The checks, in order.
    pub checks: Vec<Check>,
}

/// `struct psmdb_aws_iam_image` of cpp-shim/server_image.h.
#[repr(C)]
struct Image {
    context: *mut c_void,
    find_symbol: unsafe extern "C" fn(*mut c_void, *const c_char, *mut u64, *mut u64) -> c_int,
    read_word: unsafe extern "C" fn(*mut c_void, u64, *mut u64) -> c_int,
}

/// `psmdb_aws_iam_check_report` of the same file.
type ReportCheck = unsafe extern "C" fn(*mut c_void, *const c_char, c_int, *const c_char);

unsafe extern "C" {
    fn psmdb_aws_iam_check_image(
        image: *const Image,
        report: ReportCheck,
        report_context: *mut c_void,
        is_server_out: *mut c_int,
    ) -> c_int;
}

/// The state of one call of [`check`], for the functions that the shim calls.
struct Run<'a> {
    file: &'a ServerFile,
    checks: RefCell<Vec<Check>>,
    panic: Cell<Option<Box<dyn Any + Send>>>,
}

impl<'a> Run<'a> {
    fn new(file: &'a ServerFile) -> Self {
        Self { file, checks: RefCell::new(Vec::new()), panic: Cell::new(None) }
    }

    /// Catches a panic before it reaches the C++ frames; [`check`] resumes it.
    fn guard<T>(&self, on_panic: T, body: impl FnOnce() -> T) -> T {
        // Unwind safety: after a panic, the run is only used to take the payload.
        catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
            self.panic.set(Some(payload));
            on_panic
        })
    }
}

/// Applies every check to a file.
pub fn check(file: &ServerFile) -> Report {
    let run = Run::new(file);
    let context = (&raw const run).cast_mut().cast::<c_void>();
    let image = Image { context, find_symbol, read_word };
    let mut is_server = 0;
    // SAFETY: the declarations are those of server_image.h. The function keeps no pointer after it
    // returns, passes the context unchanged, and calls from this thread only; `run`, `image` and
    // `is_server` live until then. It calls the functions below as they require.
    let supported = unsafe { psmdb_aws_iam_check_image(&raw const image, report, context, &raw mut is_server) };
    if let Some(payload) = run.panic.take() {
        resume_unwind(payload);
    }
    let is_server = is_server == 1;
    Report { is_server, supported: is_server && supported == 1, checks: run.checks.into_inner() }
}

/// # Safety
/// `context` is that of [`check`], `name` ends with a NUL, and the outputs are writable; `size_out`
/// may be null.
unsafe extern "C" fn find_symbol(
    context: *mut c_void,
    name: *const c_char,
    address_out: *mut u64,
    size_out: *mut u64,
) -> c_int {
    // SAFETY: `check` made the context from such a reference, which outlives this call.
    let run = unsafe { &*context.cast_const().cast::<Run<'_>>() };
    run.guard(0, || {
        // SAFETY: it ends with a NUL, as the caller guarantees.
        let name = unsafe { CStr::from_ptr(name) };
        let Some(export) = run.file.export(name.to_bytes()) else { return 0 };
        // SAFETY: both are writable, and `size_out` may be null, as the caller guarantees.
        unsafe {
            address_out.write(export.address);
            if let Some(size_out) = size_out.as_mut() {
                *size_out = export.size;
            }
        }
        1
    })
}

/// # Safety
/// `context` is that of [`check`], and the output is writable.
unsafe extern "C" fn read_word(context: *mut c_void, address: u64, word_out: *mut u64) -> c_int {
    // SAFETY: `check` made the context from such a reference, which outlives this call.
    let run = unsafe { &*context.cast_const().cast::<Run<'_>>() };
    run.guard(0, || {
        let Some(word) = run.file.word(address) else { return 0 };
        // SAFETY: it is writable, as the caller guarantees.
        unsafe { word_out.write(word) };
        1
    })
}

/// # Safety
/// `context` is that of [`check`], and both strings end with a NUL.
unsafe extern "C" fn report(context: *mut c_void, what: *const c_char, ok: c_int, found: *const c_char) {
    // SAFETY: `check` made the context from such a reference, which outlives this call.
    let run = unsafe { &*context.cast_const().cast::<Run<'_>>() };
    run.guard((), || {
        // SAFETY: both end with a NUL, as the caller guarantees.
        let (what, found) = unsafe { (CStr::from_ptr(what), CStr::from_ptr(found)) };
        let text = |text: &CStr| text.to_string_lossy().into_owned();
        run.checks.borrow_mut().push(Check { what: text(what), ok: ok == 1, found: text(found) });
    });
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The test program itself, which is not a server.
    fn this_program() -> ServerFile {
        ServerFile::open(Path::new("/proc/self/exe")).unwrap()
    }

    #[test]
    fn a_program_that_is_no_server_is_not_checked_further() {
        assert_eq!(check(&this_program()), Report { is_server: false, supported: false, checks: Vec::new() });
    }

    #[test]
    fn a_panic_goes_on_only_after_the_shim_has_returned() {
        let file = this_program();
        let run = Run::new(&file);
        assert_eq!(run.guard(0, || 1), 1);
        assert!(run.panic.take().is_none());
        assert_eq!(run.guard(0, || panic!("for the test")), 0);
        assert_eq!(run.panic.take().unwrap().downcast_ref(), Some(&"for the test"));
    }

    #[test]
    fn the_shim_s_lookups_read_the_file() {
        let file = this_program();
        let run = Run::new(&file);
        let context = (&raw const run).cast_mut().cast::<c_void>();
        let (mut address, mut size, mut word) = (1, 2, 3);
        // SAFETY: the context is a run, the strings end with a NUL, and the outputs are variables.
        unsafe {
            assert_eq!(find_symbol(context, c"no such symbol".as_ptr(), &raw mut address, &raw mut size), 0);
            assert_eq!(read_word(context, u64::MAX, &raw mut word), 0);
            report(context, c"one".as_ptr(), 1, c"by".as_ptr());
            report(context, c"two".as_ptr(), 0, c"".as_ptr());
        }
        assert_eq!((address, size, word), (1, 2, 3));
        let check = |what: &str, ok, found: &str| Check { what: what.into(), ok, found: found.into() };
        assert_eq!(run.checks.into_inner(), [check("one", true, "by"), check("two", false, "")]);
    }
}
