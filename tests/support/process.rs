//! The state of a process, as in proc(5).

use std::fs;

/// Returns how many threads it has.
pub fn threads(pid: u32) -> usize {
    status(pid, "Threads:")
}

/// Returns its resident memory, in KiB.
pub fn resident_kib(pid: u32) -> usize {
    status(pid, "VmRSS:")
}

/// Returns how many file descriptors it has open.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs and is ours").count()
}

fn status(pid: u32, field: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the field");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}
