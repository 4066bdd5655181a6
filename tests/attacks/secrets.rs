//! Signatures, session tokens and the headers that carry them: what is left of them after a login.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use bson::{Document, doc};
use local_sts::{Identity, LocalSts, StsResponse};
use mongodb::options::{AuthMechanism, Credential};
use mongodb::sync::Client;

use crate::support::aws_client::{Conversation, Credentials, SignedLogin, Signer, client_first, client_second};
use crate::support::fixture::{ACCOUNT, Fixture, ROLE_USER_NAME, STS_HOST, credentials};
use crate::support::plugin;
use crate::support::wire::WireClient;

/// A shorter piece proves nothing: what a vector register held of a text, 16 bytes, turns up in the
/// unused parts of whatever is stored next.
const PIECE: usize = 32;

/// A process that logs clients in through the C ABI, without a server's own copies of what they
/// send.
struct Holder {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

impl Holder {
    fn start(folder: &Path, sts: &LocalSts) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let library = plugin();
        let library_folder = library.parent().expect("a path of a file");
        let program = folder.join("after_login");
        let compiled = Command::new("cc")
            .args(["-std=c11", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"])
            .arg(root.join("include"))
            .arg(root.join("tests/c_abi/after_login.c"))
            .arg("-L")
            .arg(library_folder)
            .arg(format!("-l:{}", library.file_name().expect("a path of a file").display()))
            .arg(format!("-Wl,-rpath,{}", library_folder.display()))
            .arg("-o")
            .arg(&program)
            .output()
            .expect("a C compiler");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let ca_file = folder.join("ca.pem");
        fs::write(&ca_file, sts.ca_pem()).expect("a file for the CA");
        let mut child = Command::new(&program)
            .arg(sts.endpoint())
            .arg(ca_file)
            .env_remove("LD_LIBRARY_PATH")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let (input, output) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        Self { child, input, output }
    }

    fn exchange(&mut self, message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap();
        self.input.write_all(&[&length.to_le_bytes()[..], message].concat()).expect("the program reads");
        let mut header = [0; 4];
        self.output.read_exact(&mut header).expect("the program answers");
        let mut reply = vec![0; u32::from_le_bytes(header) as usize];
        self.output.read_exact(&mut reply).expect("the whole answer");
        reply
    }

    /// Logs in and returns the verdict, and what the client sent.
    fn login(&mut self, credentials: &Credentials) -> (String, SignedLogin) {
        let reply = self.exchange(&client_first(&[9; 32]));
        let reply = Document::from_reader(&reply[..]).expect("BSON");
        let signed = Signer::new(credentials, STS_HOST, reply.get_binary_generic("s").expect("a nonce")).sign();
        let verdict = self.exchange(&client_second(&signed));
        (String::from_utf8(verdict).expect("a word"), signed)
    }

    /// Every byte of memory that the process can write, in the pieces it has.
    fn memory(&self) -> Vec<Vec<u8>> {
        let pid = self.child.id();
        let memory = File::open(format!("/proc/{pid}/mem")).expect("the process runs and is ours");
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("the process runs");
        let mut pieces = Vec::new();
        for line in maps.lines() {
            let mut words = line.split_whitespace();
            let (range, rights) = (words.next().expect("a range"), words.next().expect("rights"));
            if !rights.starts_with("rw") {
                continue;
            }
            let (from, to) = range.split_once('-').expect("two addresses");
            let address = |text| u64::from_str_radix(text, 16).expect("hexadecimal");
            let mut piece = vec![0; usize::try_from(address(to) - address(from)).expect("it fits")];
            memory.read_exact_at(&mut piece, address(from)).expect("it is mapped");
            pieces.push(piece);
        }
        pieces
    }

    /// Asserts that no piece of these texts is in memory.
    fn assert_holds_none(&self, after: &str, secrets: &[(&str, &str)]) {
        // Cut in this way, any run of twice the length holds one of the pieces whole.
        let pieces: HashMap<&[u8], &str> = secrets
            .iter()
            .flat_map(|(name, secret)| secret.as_bytes().chunks_exact(PIECE).map(|piece| (piece, *name)))
            .collect();
        let first_bytes = |bytes: &[u8]| usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
        // Most of memory is told apart by two bytes.
        let mut begins = vec![false; 1 << 16];
        pieces.keys().for_each(|piece| begins[first_bytes(piece)] = true);
        for memory in self.memory() {
            for window in memory.windows(PIECE).filter(|window| begins[first_bytes(window)]) {
                if let Some(name) = pieces.get(window) {
                    panic!("after {after}, {:?} of the {name} is in memory", String::from_utf8_lossy(window));
                }
            }
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signature(signed: &SignedLogin) -> &str {
    signed.authorization.split("Signature=").nth(1).expect("a signature")
}

#[test]
fn after_a_login_no_piece_of_its_signature_or_token_is_in_the_plugin_s_memory() {
    let mut role = Identity::assumed_role(ACCOUNT, "reporting", "i-0123456789abcdef0");
    // Longer than a buffer that grows step by step, and nowhere the same.
    role.session_token = Some((0..700).map(|n| format!("{:08x}", n * 2_654_435_761_u64 % 0xffff_fff1)).collect());
    let sts = LocalSts::builder().identity(role.clone()).record_requests(false).start().expect("an STS");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut holder = Holder::start(folder.path(), &sts);
    let good = credentials(&role);
    let mut wrong_secret = good.clone();
    wrong_secret.secret_access_key = "wrong".to_owned();

    // That the search finds what is there.
    let first = holder.exchange(&client_first(&[9; 32]));
    let nonce = Document::from_reader(&first[..]).unwrap().get_binary_generic("s").unwrap().clone();
    assert!(holder.memory().iter().any(|memory| memory.windows(32).any(|window| window == &nonce[32..])));
    assert_eq!(holder.exchange(b"nonsense"), b"denied");

    let cases: [(&str, StsResponse, &Credentials, &str); 5] = [
        ("a login", StsResponse::Verified, &good, "authenticated"),
        ("a login on a kept connection", StsResponse::Verified, &good, "authenticated"),
        ("a wrong signature", StsResponse::Verified, &wrong_secret, "denied"),
        ("an STS that breaks off", StsResponse::Raw(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()), &good, "denied"),
        ("another login", StsResponse::Verified, &good, "authenticated"),
    ];
    for (name, answer, credentials, expected) in cases {
        sts.set_response(answer);
        let (verdict, signed) = holder.login(credentials);
        assert_eq!(verdict, expected, "{name}");
        let token = signed.token.as_deref().expect("a token");
        holder.assert_holds_none(name, &[("signature", signature(&signed)), ("token", token)]);
    }
}

/// No secret may be found in what the server writes and shows, at the highest verbosity.
#[test]
fn secrets_are_in_no_log_and_no_status() {
    let fixture = Fixture::start_with(|builder| builder.arg("-vvvvv"));
    let mut wrong_secret = fixture.role.clone();
    wrong_secret.secret_access_key = "wrongwrongwrongwrongwrongwrongwrongwrong".to_owned();
    fixture.login(&fixture.role).unwrap();
    fixture.login(&wrong_secret).unwrap_err();
    // A message that is refused before STS is asked, with all that the client has in it.
    let conversation = Conversation::start(fixture.mongod.port()).unwrap();
    let mut odd = conversation.signer(&credentials(&fixture.role)).sign();
    odd.authorization.push(' ');
    let odd_signature = signature(&odd).trim().to_owned();
    assert!(conversation.finish(&client_second(&odd)).is_err());
    fixture.sts.set_response(StsResponse::Silence);
    fixture.set_parameter("awsStsTimeoutMS", 300);
    fixture.login(&fixture.role).unwrap_err();
    fixture.denial_reasons(3);

    let mongod = &fixture.mongod;
    let mut shown = [mongod.log_text(), mongod.stderr_text(), mongod.stdout_text()].concat();
    for command in [
        doc! { "serverStatus": 1 },
        doc! { "getParameter": "*" },
        doc! { "getLog": "global" },
        doc! { "currentOp": 1, "$all": true },
    ] {
        shown.push_str(&mongod.run_as_admin("admin", command).to_string());
    }
    let requests = fixture.sts.requests();
    let role = &fixture.role;
    let mut secrets = vec![role.secret_access_key.clone(), role.session_token.clone().unwrap(), odd_signature];
    for request in &requests {
        let authorization = request.header("authorization").unwrap();
        secrets.push(authorization.split("Signature=").nth(1).unwrap().to_owned());
    }
    assert!(requests.len() >= 3);
    for secret in secrets {
        assert!(secret.len() >= PIECE && !shown.contains(&secret[..PIECE]), "a secret is in what the server shows");
        assert!(!shown.contains(&secret[secret.len() - PIECE..]), "a secret is in what the server shows");
    }
    assert!(shown.contains("SignatureDoesNotMatch"), "the failed login is not in the log at all");
    assert!(shown.contains("awsIam"), "the status is not in what was searched");
}

/// Says whether these bytes are anywhere in a reply.
fn shows(reply: &Document, secret: &str) -> bool {
    let bytes = reply.to_vec().expect("BSON");
    bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
}

#[test]
fn currentop_shows_a_waiting_login_to_holders_of_inprog_who_cannot_use_it() {
    let fixture = Fixture::start();
    let user = |name: &str| {
        let create = doc! { "createUser": name, "pwd": name, "roles": [name], "mechanisms": ["SCRAM-SHA-256"] };
        fixture.mongod.run_as_admin("admin", create);
        let mut options = fixture.mongod.client_options();
        let credential = Credential::builder().username(name.to_owned()).password(name.to_owned());
        options.credential = Some(credential.mechanism(AuthMechanism::ScramSha256).build());
        Client::with_options(options).expect("a client").database("admin")
    };
    let agent = user("clusterMonitor");
    let reader = user("readAnyDatabase");
    let current = || agent.run_command(doc! { "currentOp": 1, "$all": true }).run().expect("it has inprog");

    fixture.sts.set_processing_time(Duration::from_secs(2));
    let conversation = Conversation::start(fixture.mongod.port()).unwrap();
    let signed = conversation.signer(&credentials(&fixture.role)).sign();
    let payload = client_second(&signed);
    let token = signed.token.clone().expect("a session token");
    let (seen, login) = thread::scope(|scope| {
        let login = scope.spawn(|| conversation.finish(&payload));
        let mut seen = false;
        while !login.is_finished() {
            let reply = current();
            seen |= shows(&reply, &token) && shows(&reply, signature(&signed));
            reader.run_command(doc! { "currentOp": 1 }).run().expect_err("it has no inprog");
            let own = reader.run_command(doc! { "currentOp": 1, "$ownOps": true }).run().expect("its own");
            assert!(!shows(&own, &token), "who has no inprog sees the token");
            thread::sleep(Duration::from_millis(50));
        }
        (seen, login.join().unwrap())
    });
    assert!(login.is_ok(), "the role logs in");
    assert!(seen, "currentOp shows no waiting login: docs/threat-model.md and docs/monitoring.md say that it does");
    assert!(!shows(&current(), &token), "it is still there after the login");

    // What was seen is the whole message and the token, without the secret key.
    fixture.sts.set_processing_time(Duration::ZERO);
    let replay = Conversation::start(fixture.mongod.port()).unwrap().finish(&payload);
    assert!(replay.is_err(), "the message of one conversation works in another");
    let mut thief = fixture.role.clone();
    thief.secret_access_key = "x".repeat(40);
    fixture.login(&thief).expect_err("a token without its secret key");
    fixture.assert_still_serves("currentOp");
}

/// Of every user of MongoDB, but here the names are those of AWS accounts and roles.
#[test]
fn hello_tells_a_stranger_whether_an_arn_has_a_user() {
    let fixture = Fixture::start();
    let mechanisms = |arn: &str| {
        let mut stranger = WireClient::connect(fixture.mongod.port()).unwrap();
        let hello = doc! { "hello": 1, "saslSupportedMechs": format!("$external.{arn}") };
        let reply = stranger.command("admin", hello).unwrap();
        reply.get_array("saslSupportedMechs").ok().cloned()
    };
    assert_eq!(mechanisms(&fixture.user.arn), Some(vec!["MONGODB-AWS".into()]));
    assert_eq!(mechanisms(ROLE_USER_NAME), Some(vec!["MONGODB-AWS".into()]));
    assert_eq!(mechanisms("arn:aws:iam::123456789012:user/nobody"), None);
    assert_eq!(mechanisms("arn:aws:iam::210987654321:role/reporting"), None);
}
