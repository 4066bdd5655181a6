//! Generates the C header from `src/ffi`, compiles the C++ shim and puts it into the shared object.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{env, fs};

const HEADER: &str = "include/psmdb_aws_iam.h";
const EXPORTS: [&str; 4] =
    ["src/ffi/types.rs", "src/ffi/conversation.rs", "src/ffi/parameters.rs", "src/ffi/server_status.rs"];
const SHIM: &str = "cpp-shim";
/// The files of the shim that check a server. They need no more of it than each other.
const SERVER_CHECKS: [&str; 2] = ["server_symbols", "vtable"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=cbindgen.toml");
    for source in EXPORTS {
        println!("cargo:rerun-if-changed={source}");
    }
    // Look-ups and probes run on threads of their own, which must not lose their code when a caller
    // unloads the object.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    generate_header();
    compile_shim();
}

/// Writes the header anew when the exported functions have changed; it is checked in, so that C and
/// C++ callers can read it without a build.
fn generate_header() {
    println!("cargo:rerun-if-changed={HEADER}");
    let config = cbindgen::Config::from_file("cbindgen.toml").expect("cbindgen.toml can be read");
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in EXPORTS {
        builder = builder.with_src(expand_exports(Path::new(source)));
    }
    let bindings = builder.generate().expect("the C ABI in src/ffi can be read");
    let mut header = Vec::new();
    bindings.write(&mut header);
    if fs::read(HEADER).ok().as_deref() != Some(&header) {
        fs::write(HEADER, header).expect("include/psmdb_aws_iam.h can be written");
    }
}

/// Copies a source with each `export!(...)` replaced by the function in it, since cbindgen does not
/// expand macros on a stable compiler. Returns the path of the copy.
fn expand_exports(source: &Path) -> PathBuf {
    let text = fs::read_to_string(source).expect("the source can be read");
    let mut parts = text.split("export!(\n");
    let mut expanded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (function, rest) = part.split_once("\n);\n").expect("export! ends with a line of its own");
        expanded.extend(["#[unsafe(no_mangle)]\n", function, "\n", rest]);
    }
    let folder = env::var_os("OUT_DIR").expect("cargo sets it");
    let copy = Path::new(&folder).join(source.file_name().expect("a file"));
    fs::write(&copy, expanded).expect("the folder for output can be written");
    copy
}

/// Compiles every file of the shim. It becomes part of the shared object; the Rust library has
/// nothing to register with. The command makes the same checks of a server's file: its build script
/// is told where they are.
fn compile_shim() {
    println!("cargo:rerun-if-changed={SHIM}");
    let sources: Vec<PathBuf> = files_of(Path::new(SHIM), "cpp");
    let objects = cc::Build::new()
        .cpp(true)
        // In builds for tests too: unoptimised, small functions of libstdc++ are calls into its
        // library.
        .opt_level(2)
        // From C++20 on, libstdc++ lets std::string be instantiated here instead of leaving it to
        // its library.
        .std("c++20")
        .files(&sources)
        .include("include")
        // The shim links no C++ library: it uses the types of the standard library as the server
        // laid them out, and the server's own runtime. See cpp-shim/cxx_runtime.h.
        .cpp_link_stdlib(None)
        .flag("-fno-exceptions")
        .flag("-fno-rtti")
        .flag("-fno-threadsafe-statics")
        // A server's exception may pass through the shim's frames.
        .flag("-funwind-tables")
        .flag("-fvisibility=hidden")
        .flag("-fstack-protector-strong")
        .flag("-Wextra")
        .flag("-Wshadow")
        .flag("-Wconversion")
        .warnings_into_errors(true)
        .cargo_metadata(false)
        .compile_intermediates();
    for object in &objects {
        println!("cargo:rustc-link-arg-cdylib={}", object.display());
    }
    // cc puts a hash before the name.
    let checks: Vec<_> = objects
        .iter()
        .filter(|object| {
            let name = object.file_stem().and_then(OsStr::to_str).and_then(|stem| stem.split_once('-'));
            name.is_some_and(|(_, name)| SERVER_CHECKS.contains(&name))
        })
        .collect();
    assert_eq!(checks.len(), SERVER_CHECKS.len(), "the checks of a server are among {objects:?}");
    let checks = env::join_paths(checks).expect("the target folder's name has no colon");
    // Cargo gives it to build scripts of packages that depend on this one, as
    // DEP_PSMDB_AWS_IAM_SERVER_CHECKS.
    println!("cargo:server_checks={}", checks.display());
    // Symbolic functions: the object's own functions are bound inside it, whatever else the process
    // has loaded. (With all of -Bsymbolic, dlsym would look into the object before it looks into
    // the server.)
    for flag in ["-Wl,-Bsymbolic-functions", "-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack", "-Wl,--build-id"] {
        println!("cargo:rustc-link-arg-cdylib={flag}");
    }
    if env::var("PROFILE").as_deref() == Ok("release") {
        // Unused sections of the shim and of C code in libraries go.
        println!("cargo:rustc-link-arg-cdylib=-Wl,--gc-sections");
    }
}

fn files_of(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder is part of the sources");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("the folder can be read").path()).collect();
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files.sort();
    files
}
