//! The machine that the numbers were measured on.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::support::mongod::DEFAULT_VERSION;

/// The state of the machine before the measurements.
pub struct Machine {
    load: String,
}

impl Machine {
    pub fn now() -> Self {
        Self { load: first_word("/proc/loadavg") }
    }

    /// Describes the machine and the time of the measurements.
    pub fn describe(&self, took: Duration) -> String {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let memory = field("/proc/meminfo", "MemTotal").and_then(|text| {
            let kib: f64 = text.split(' ').next()?.parse().ok()?;
            Some(format!("{:.0} GiB", kib / 1024.0 / 1024.0))
        });
        format!(
            "{date}, commit {commit}; {cores} cores ({model}), {memory} of memory, Linux {kernel}; mongod {DEFAULT_VERSION}; \
             libcurl {libcurl}. The run took {took:.0} s. Load average before it: {load}: a value far above 0 means \
             that other programs ran.",
            date = output("date", &["-u", "+%Y-%m-%d"]),
            commit = output("git", &["-C", &crate::root().display().to_string(), "describe", "--always", "--dirty"]),
            model = field("/proc/cpuinfo", "model name").unwrap_or_default(),
            memory = memory.unwrap_or_default(),
            kernel = output("uname", &["-r"]),
            libcurl = output("curl-config", &["--version"]).trim_start_matches("libcurl "),
            took = took.as_secs_f64(),
            load = self.load,
        )
    }
}

fn first_word(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().split(' ').next().unwrap_or_default().to_owned()
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
