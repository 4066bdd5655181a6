//! The C ABI as a server that links the library in uses it: `tests/c_abi/conversation.c` drives
//! logins without a mongod, and the tests are its client.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use bson::Document;

use crate::support::aws_client::{Credentials, Signer, client_first, client_second};
use crate::support::fixture::{ROLE_USER_NAME, STS_HOST, credentials};
use crate::support::memory;
use crate::support::plugin;
use crate::support::sts::TestSts;

const DENIED_MALFORMED: &str = "1";
const DENIED_BY_STS: &str = "2";

const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

/// The compiled program, and an STS for it to ask.
struct Vendor {
    program: PathBuf,
    test: TestSts,
}

/// What the program wrote besides its replies, and its exit status.
struct End {
    last_line: String,
    status: Option<i32>,
    stderr: String,
}

impl Vendor {
    fn new() -> Self {
        let test = TestSts::new();
        let program = test.folder.path().join("conversation");
        let library = plugin();
        let library_folder = library.parent().expect("a path of a file");
        let mut rpath = OsString::from("-Wl,-rpath,");
        rpath.push(library_folder);
        compile(
            Command::new("cc")
                .args(["-std=c11", "-g"])
                .args(STRICT)
                .args(memory::compiler_flags())
                .args(include())
                .arg(source())
                .arg("-L")
                .arg(library_folder)
                .arg(format!("-l:{}", library.file_name().expect("a path of a file").display()))
                .arg(rpath)
                .arg("-o")
                .arg(&program),
        );
        Self { program, test }
    }

    /// The program as its only command line; valgrind and its options may come before it.
    fn command(&self, before: &[&str], host: &str) -> Command {
        let mut words: Vec<OsString> = before.iter().map(OsString::from).collect();
        words.push(self.program.clone().into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args([host, &self.test.sts.endpoint()]).arg(self.test.ca_file());
        command
    }

    /// Starts a command, lets `client` talk with it, and waits for its end.
    fn run(&self, mut command: Command, client: impl FnOnce(&mut ChildStdin, &mut BufReader<ChildStdout>)) -> End {
        let stderr = self.test.folder.path().join("stderr");
        let mut child = command
            // It comes before the program's own path, and cargo puts the folder of another build
            // into it.
            .env_remove("LD_LIBRARY_PATH")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&stderr).expect("a file"))
            .spawn()
            .expect("the program starts");
        let mut input = child.stdin.take().expect("a pipe");
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        client(&mut input, &mut output);
        drop(input);
        let mut rest = String::new();
        output.read_to_string(&mut rest).expect("UTF-8");
        let status = child.wait().expect("its exit status").code();
        let last_line = rest.lines().last().unwrap_or_default().to_owned();
        End { last_line, status, stderr: fs::read_to_string(stderr).expect("UTF-8") }
    }

    /// Logs in as a driver does.
    fn login(&self, before: &[&str], credentials: &Credentials) -> End {
        self.run(self.command(before, STS_HOST), |input, output| {
            send(input, &client_first(&[5; 32]));
            let (host, nonce) = server_first(output);
            assert_eq!(host, STS_HOST);
            send(input, &client_second(&Signer::new(credentials, &host, &nonce).sign()));
        })
    }
}

fn send(input: &mut ChildStdin, message: &[u8]) {
    writeln!(input, "{}", hex::encode(message)).expect("the program reads");
}

/// Reads the reply to the client's first message: the host and the nonce to sign.
fn server_first(output: &mut BufReader<ChildStdout>) -> (String, Vec<u8>) {
    let mut line = String::new();
    output.read_line(&mut line).expect("UTF-8");
    let reply = hex::decode(line.trim_end()).unwrap_or_else(|_| panic!("not a reply: {line:?}"));
    let reply = Document::from_reader(&reply[..]).expect("BSON");
    let nonce = reply.get_binary_generic("s").expect("a nonce");
    assert_eq!((nonce.len(), &nonce[..32]), (64, &[5; 32][..]));
    (reply.get_str("h").expect("a host").to_owned(), nonce.clone())
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c_abi/conversation.c")
}

fn include() -> [OsString; 2] {
    ["-I".into(), Path::new(env!("CARGO_MANIFEST_DIR")).join("include").into()]
}

fn compile(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{command:?}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_c_program_logs_a_user_in() {
    let vendor = Vendor::new();
    let end = vendor.login(&[], &credentials(&vendor.test.user));
    assert_eq!(end.last_line, format!("authenticated {0} {0}", vendor.test.user.arn));
    assert_eq!((end.status, &*end.stderr), (Some(0), ""));
}

#[test]
fn a_c_program_logs_a_role_in_by_the_name_of_the_role() {
    let vendor = Vendor::new();
    let end = vendor.login(&[], &credentials(&vendor.test.role));
    assert_eq!(end.last_line, format!("authenticated {ROLE_USER_NAME} {}", vendor.test.role.arn));
    assert_eq!((end.status, &*end.stderr), (Some(0), ""));
}

#[test]
fn a_c_program_denies_a_wrong_secret_and_says_why() {
    let vendor = Vendor::new();
    let end = vendor.login(&[], &Credentials::new(&vendor.test.user.access_key_id, "not-the-secret"));
    let reason = format!("denied {DENIED_BY_STS} STS returned 403 SignatureDoesNotMatch: ");
    assert!(end.last_line.starts_with(&reason), "{}", end.last_line);
    assert_eq!((end.status, &*end.stderr), (Some(1), ""));
}

#[test]
fn a_c_program_denies_what_is_no_message_without_asking_sts() {
    let vendor = Vendor::new();
    let long = [0x41; 40_000];
    for garbage in [&b""[..], b"\xff", b"garbage", &long] {
        let end = vendor.run(vendor.command(&[], STS_HOST), |input, _| send(input, garbage));
        let start = format!("denied {DENIED_MALFORMED} the client's first message ");
        assert!(end.last_line.starts_with(&start), "{}", end.last_line);
        assert_eq!((end.status, &*end.stderr), (Some(1), ""));

        let end = vendor.run(vendor.command(&[], STS_HOST), |input, output| {
            send(input, &client_first(&[5; 32]));
            server_first(output);
            send(input, garbage);
        });
        let start = format!("denied {DENIED_MALFORMED} the client's second message ");
        assert!(end.last_line.starts_with(&start), "{}", end.last_line);
        assert_eq!((end.status, &*end.stderr), (Some(1), ""));
    }
    assert_eq!(vendor.test.sts.request_count(), 0);
}

#[test]
fn a_c_program_is_told_what_value_a_parameter_allows() {
    let vendor = Vendor::new();
    let end = vendor.run(vendor.command(&[], "https://sts.amazonaws.com"), |_, _| {});
    assert!(end.last_line.starts_with("refused awsStsHost: must be a host name in lower case"), "{}", end.last_line);
    assert_eq!((end.status, &*end.stderr), (Some(2), ""));
}

#[test]
fn a_c_program_and_the_library_free_what_they_allocate() {
    let Some(checker) = memory::leak_checker() else { return };
    let vendor = Vendor::new();
    let end = vendor.login(checker, &credentials(&vendor.test.user));
    assert_eq!(end.last_line, format!("authenticated {0} {0}", vendor.test.user.arn), "{}", end.stderr);
    assert_eq!((end.status, &*end.stderr), (Some(0), ""));
}

#[test]
fn the_header_and_the_program_are_c_and_cxx_without_warnings() {
    compile(Command::new("cc").args(["-std=c11", "-fsyntax-only"]).args(STRICT).args(include()).arg(source()));
    let as_cxx = ["-x", "c++", "-std=c++17", "-fsyntax-only"];
    compile(Command::new("c++").args(as_cxx).args(STRICT).args(include()).arg(source()));
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/psmdb_aws_iam.h");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let alone = folder.path().join("alone.c");
    // Included twice and before all else, it stands on its own.
    fs::write(&alone, format!("#include \"{0}\"\n#include \"{0}\"\nint x;\n", header.display())).expect("a file");
    compile(Command::new("cc").args(["-std=c11", "-fsyntax-only"]).args(STRICT).arg(&alone));
    compile(Command::new("c++").args(as_cxx).args(STRICT).arg(&alone));
}
