//! Doubles of servers, compiled from tests/server-doubles.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::{Arc, Mutex, OnceLock};

use super::{memory, root};

/// The double of a series, which a definition may change.
pub fn double_of(series: &str, definition: Option<&str>) -> PathBuf {
    let name = definition.map_or_else(|| series.to_owned(), |definition| format!("{series}-{definition}"));
    let definition = definition.map(|definition| format!("-D{definition}=1"));
    built(name, series, definition.as_deref().as_slice())
}

/// The double of a series that contains the C++ runtime as servers do, for the checks of its file.
pub fn file_of(series: &str) -> PathBuf {
    // Nothing else links the function, since vtables refer to it weakly.
    built(format!("{series}-file"), series, &["-static-libstdc++", "-Wl,-u,__cxa_pure_virtual"])
}

/// A program that is compiled once for all tests.
fn built(mut name: String, series: &str, arguments: &[&str]) -> PathBuf {
    type Builds = Mutex<HashMap<String, Arc<OnceLock<PathBuf>>>>;
    static BUILDS: OnceLock<Builds> = OnceLock::new();
    if memory::is_sanitized() {
        name += "-sanitized";
    }
    let build = BUILDS.get_or_init(Builds::default).lock().unwrap().entry(name.clone()).or_default().clone();
    build.get_or_init(|| compile(&name, series, arguments)).clone()
}

fn compile(name: &str, series: &str, arguments: &[&str]) -> PathBuf {
    let sources = root().join("tests/server-doubles");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("server-doubles");
    fs::create_dir_all(&folder).expect("a folder in the target folder");
    let program = folder.join(format!("double-{name}"));
    let modified = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    let newest = fs::read_dir(&sources).expect("the sources").map(|entry| modified(&entry.unwrap().path())).max();
    if modified(&program) > newest.expect("there are sources") {
        return program;
    }
    // Another process may build the same program at the same time. The last one wins.
    let unfinished = folder.join(format!("double-{name}.{}", process::id()));
    let mut command = Command::new("c++");
    command
        .args(["-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-rdynamic", "-pthread"])
        .args(memory::compiler_flags())
        .arg(format!("-DSERIES=\"series_{series}.h\""))
        .args(arguments)
        .args(["server.cpp", "main.cpp"].map(|file| sources.join(file)))
        .arg("-o")
        .arg(&unfinished);
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    fs::rename(&unfinished, &program).expect("a file in the target folder");
    program
}
