//! Compiles the programs in `clients/`, and drives them by lines on their standard input and
//! output.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bson::Document;
use local_sts::Identity;

use crate::support::aws_client::{Signer, client_first, client_second};
use crate::support::fixture::{STS_HOST, credentials};

/// Compiles a client into a folder.
///
/// # Panics
/// If the compilation fails; without libcurl, the message says what to install.
pub fn compile(folder: &Path, name: &str, libraries: &[&str]) -> PathBuf {
    let root = crate::root();
    let program = folder.join(name);
    let output = Command::new("c++")
        .args(["-std=c++20", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-I"])
        .arg(root.join("include"))
        .arg(root.join(format!("benches/clients/{name}.cpp")))
        .arg("-o")
        .arg(&program)
        .args(libraries)
        .output()
        .expect("a C++ compiler, c++");
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("curl/curl.h") {
        eprintln!("make bench compares with libcurl, whose headers are not here.");
        eprintln!("On Debian and Ubuntu: apt-get install libcurl4-openssl-dev");
        std::process::exit(1);
    }
    assert!(output.status.success(), "{name}.cpp: {errors}");
    program
}

/// A running client, which exits when its standard input closes.
pub struct Client {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// The times of a round of requests.
pub struct Round {
    pub times: Vec<Duration>,
    /// In total.
    pub cpu: Duration,
    /// The share of system calls.
    pub kernel: Duration,
}

impl Client {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            // It takes precedence over the programs' paths, and cargo adds its folders to it.
            .env_remove("LD_LIBRARY_PATH")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, input, output }
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("UTF-8");
        if !line.ends_with('\n') {
            panic!("the client has ended: {:?}", self.child.wait());
        }
        line.trim_end().to_owned()
    }

    pub fn send(&mut self, text: &str) {
        let input = self.input.as_mut().expect("open until the end");
        input.write_all(text.as_bytes()).and_then(|()| input.flush()).expect("the client reads");
    }

    fn round(&mut self, count: usize) -> Round {
        let nanos = |text: &str| Duration::from_nanos(text.parse().expect("a number"));
        let times = (0..count).map(|_| nanos(&self.line())).collect();
        let line = self.line();
        let cpu = line.strip_prefix("cpu ").and_then(|cpu| cpu.split_once(' '));
        let (all, kernel) = cpu.expect("the CPU time, and the kernel's");
        Round { times, cpu: nanos(all), kernel: nanos(kernel) }
    }

    /// Verifies this many logins with the plugin, after one that is not measured.
    pub fn verify_by_plugin(&mut self, identity: &Identity, count: usize) -> Round {
        self.send(&format!("{}\n{}\n", count + 1, hex::encode(client_first(&[5; 32]))));
        let replies: Vec<String> = (0..=count).map(|_| self.line()).collect();
        let mut messages = String::new();
        for reply in replies {
            let reply = hex::decode(reply).expect("hexadecimal");
            let reply = Document::from_reader(&reply[..]).expect("BSON");
            let nonce = reply.get_binary_generic("s").expect("a nonce");
            let signed = Signer::new(&credentials(identity), STS_HOST, nonce).sign();
            messages.push_str(&hex::encode(client_second(&signed)));
            messages.push('\n');
        }
        self.send(&messages);
        self.round(count)
    }

    /// Sends this many requests with libcurl, after one that is not measured.
    pub fn verify_by_libcurl(&mut self, identity: &Identity, count: usize) -> Round {
        self.send(&requests(identity, count + 1));
        self.round(count)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// Signed requests for libcurl, after a line with their number.
pub fn requests(identity: &Identity, count: usize) -> String {
    let mut text = format!("{count}\n");
    for _ in 0..count {
        let mut nonce = [0; 64];
        getrandom::fill(&mut nonce).expect("random bytes");
        let signed = Signer::new(&credentials(identity), STS_HOST, &nonce).sign();
        let nonce = BASE64_STANDARD.encode(nonce);
        text.push_str(&format!("{}\t{}\t{nonce}\n", signed.authorization, signed.date));
    }
    text
}
