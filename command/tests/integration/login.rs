//! `login` to real servers with the plugin, to other servers, and to malicious ones.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use bson::{Document, doc};
use local_sts::Identity;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::{assert_hides, command, run, with_credentials};
use crate::support::fixture::{ACCOUNT, Fixture, ROLE_USER_NAME};
use crate::support::mongod::{Builder, Mongod};
use crate::support::wire::{binary, op_msg};

/// The time within which the command must end, whatever the server does.
const SOON: Duration = Duration::from_secs(20);

fn login(address: &str, identity: &Identity, arguments: &[&str]) -> Command {
    let mut command = command(&["login"]);
    command.args(arguments).arg(address);
    with_credentials(&mut command, identity);
    command
}

/// The exit status and both outputs, which must contain no secret.
fn attempt(address: &str, identity: &Identity, arguments: &[&str]) -> (i32, String, String) {
    let began = Instant::now();
    let ended = run(&mut login(address, identity, arguments));
    assert!(began.elapsed() < SOON, "{}", ended.stderr);
    assert_hides(&ended.stdout, identity);
    assert_hides(&ended.stderr, identity);
    (ended.status, ended.stdout, ended.stderr)
}

fn address_of(mongod: &Mongod) -> String {
    format!("127.0.0.1:{}", mongod.port())
}

#[test]
fn every_step_of_a_login_is_printed_with_the_user_and_its_roles() {
    let fixture = Fixture::start();
    let address = address_of(&fixture.mongod);
    for (identity, name, roles) in
        [(&fixture.user, &*fixture.user.arn, "readWrite@shop"), (&fixture.role, ROLE_USER_NAME, "read@shop")]
    {
        let (status, steps, said) = attempt(&address, identity, &[]);
        let expected = format!(
            "1 connected to {address}, without TLS\n2 hello: MongoDB {}\n3 saslStart: the server requests a signature for \
             sts.amazonaws.com, region us-east-1\n4 saslContinue: logged in; access key id {}, from the environment\n\
             5 connectionStatus: user {name}@$external\n  roles: {roles}\n",
            fixture.mongod.version(),
            identity.access_key_id
        );
        assert_eq!((status, &*steps, &*said), (0, &*expected, ""));
    }
}

#[test]
fn a_refusal_is_printed_with_its_step_and_what_to_do() {
    let fixture = Fixture::start();
    let address = address_of(&fixture.mongod);
    let mut wrong_secret = fixture.user.clone();
    wrong_secret.secret_access_key = "c2VjcmV0LXRoYXQtaXMtd3Jvbmc".to_owned();
    let expired = Identity::assumed_role(ACCOUNT, "reporting", "old").expired();
    fixture.sts.add_identity(expired.clone());
    for identity in [&wrong_secret, &expired] {
        let (status, steps, said) = attempt(&address, identity, &[]);
        assert_eq!(status, 1, "{said}");
        assert!(steps.contains("\n3 saslStart: ") && !steps.contains("\n4 "), "{steps}");
        assert!(
            said.starts_with("psmdb-aws-iam: 4 saslContinue: refused: Authentication failed. (code 18)\n"),
            "{said}"
        );
        let key = format!("look for access key id {}, from the environment\n", identity.access_key_id);
        assert!(said.contains("(id 20249)") && said.contains(&key), "{said}");
        assert!(said.ends_with("psmdb-aws-iam whoami --sts-host sts.amazonaws.com\n"), "{said}");
    }
    // The log has the reasons.
    let reasons = fixture.denial_reasons(2);
    assert!(
        reasons[0].contains(&wrong_secret.access_key_id) && reasons[1].contains(&expired.access_key_id),
        "{reasons:?}"
    );

    fixture.sts.set_processing_time(Duration::from_secs(4));
    let (status, _, said) = attempt(&address, &fixture.user, &["--timeout-ms", "1500"]);
    assert_eq!(status, 2, "{said}");
    assert!(said.starts_with("psmdb-aws-iam: 4 saslContinue: timed out\n"), "{said}");
    assert!(said.contains("the server may still wait for STS, up to its awsStsTimeoutMS"), "{said}");
    fixture.sts.set_processing_time(Duration::ZERO);

    // STS knows them, but the server does not.
    for (identity, name) in [
        (Identity::iam_user(ACCOUNT, "bob"), "arn:aws:iam::123456789012:user/bob"),
        (Identity::assumed_role(ACCOUNT, "app", "i-0abc"), "arn:aws:iam::123456789012:role/app"),
    ] {
        fixture.sts.add_identity(identity.clone());
        let (status, _, said) = attempt(&address, &identity, &[]);
        assert_eq!(status, 1, "{said}");
        assert!(
            said.contains("4 saslContinue: refused: Could not find user \"") && said.contains("(code 11)\n"),
            "{said}"
        );
        let line = format!(
            "\n  db.getSiblingDB('$external').createUser({{user: '{name}', roles: [{{role: 'readWrite', db: 'test'}}]}})\n"
        );
        assert!(said.ends_with(&line), "{said}");
    }
}

#[test]
fn the_advised_command_uses_the_same_credentials() {
    let fixture = Fixture::start();
    let address = address_of(&fixture.mongod);
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    let Identity { access_key_id, secret_access_key, .. } = &fixture.user;
    let profile = |name: &str, secret: &str| {
        format!("[{name}]\naws_access_key_id = {access_key_id}\naws_secret_access_key = {secret}\n")
    };
    fs::write(&keys, profile("shop", secret_access_key) + &profile("old", "wrong")).unwrap();
    let login = |profile: &str| {
        let mut command = login(&address, &fixture.role, &["--profile", profile]);
        run(command.env("AWS_SHARED_CREDENTIALS_FILE", &keys))
    };
    let steps = login("shop").printed();
    let whose = format!("logged in; access key id {access_key_id}, from the profile shop\n");
    assert!(steps.contains(&whose), "{steps}");
    let ended = login("old");
    let next = ": psmdb-aws-iam whoami --profile old --sts-host sts.amazonaws.com\n";
    assert!(ended.status == 1 && ended.stderr.ends_with(next), "{}", ended.stderr);
    // A shell splits it into the same words, and this STS gets a request with the same keys.
    let command = ended.stderr.trim_end().rsplit_once(": psmdb-aws-iam ").unwrap().1;
    fs::write(folder.path().join("ca.pem"), fixture.sts.ca_pem()).unwrap();
    let line = format!("exec \"$0\" {command} --endpoint {} --ca-file ca.pem", fixture.sts.endpoint());
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &line, env!("CARGO_BIN_EXE_psmdb-aws-iam")]).current_dir(folder.path());
    let said = run(shell.env_clear().env("AWS_SHARED_CREDENTIALS_FILE", &keys)).refused(1);
    assert!(said.contains("SignatureDoesNotMatch"), "{said}");
}

#[test]
fn a_server_without_the_mechanism_is_recognized() {
    let mongod = Mongod::builder().preload(false).start();
    let (status, steps, said) = attempt(&address_of(&mongod), &Identity::iam_user(ACCOUNT, "alice"), &[]);
    assert_eq!(status, 1, "{said}");
    assert!(steps.contains("\n2 hello: MongoDB ") && !steps.contains("\n3 "), "{steps}");
    assert!(said.starts_with("psmdb-aws-iam: 3 saslStart: refused: ") && said.contains("not enabled"), "{said}");
    // 4.4 has no separate code for it.
    assert!(
        said.contains(" (code 334)\n") || said.contains(" (code 2)\n") && mongod.version().starts_with("4.4."),
        "{said}"
    );
    assert!(said.contains("\n  setParameter:\n    authenticationMechanisms: MONGODB-AWS,SCRAM-SHA-256\n"), "{said}");
}

/// Writes a server's key with its certificate, and the certificate of their CA.
fn certificates(folder: &std::path::Path) -> (PathBuf, PathBuf) {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    let (server, roots) = (folder.join("server.pem"), folder.join("ca.pem"));
    fs::write(&server, format!("{}{}", key.serialize_pem(), leaf.pem())).unwrap();
    fs::write(&roots, ca.pem()).unwrap();
    (server, roots)
}

#[test]
fn a_login_with_tls_verifies_the_server_s_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (server, roots) = certificates(folder.path());
    // The test's own client has no TLS. Newer servers require a CA for clients, even if these need
    // no certificate.
    let with_tls = |builder: Builder| {
        let builder = builder.arg("--tlsMode").arg("preferTLS").arg("--tlsCertificateKeyFile").arg(&server);
        builder.arg("--tlsCAFile").arg(&roots)
    };
    let fixture = Fixture::start_with(|builder| with_tls(builder).arg("--tlsAllowConnectionsWithoutCertificates"));
    let (user, port) = (&fixture.user, fixture.mongod.port());
    let ca = ["--tls", "--tls-ca-file", roots.to_str().unwrap()];
    let (status, steps, said) = attempt(&format!("localhost:{port}"), user, &ca);
    assert_eq!((status, &*said), (0, ""), "{steps}");
    assert!(steps.starts_with(&format!("1 connected to localhost:{port}, with TLSv1_")), "{steps}");
    assert!(steps.contains(&format!("\n5 connectionStatus: user {}@$external\n", user.arn)), "{steps}");

    for (name, host, arguments, why) in [
        ("another name", "127.0.0.1", &ca[..], "use a host name that it contains"),
        ("no CA", "localhost", &["--tls"], "the server's certificate is not trusted: give its CA with --tls-ca-file"),
        (
            "no file",
            "localhost",
            &["--tls", "--tls-ca-file", "/nonexistent"],
            "--tls-ca-file: must be a PEM file of CA",
        ),
    ] {
        let (status, steps, said) = attempt(&format!("{host}:{port}"), user, arguments);
        assert_eq!((status, &*steps), (2, ""), "{name}: {said}");
        assert!(said.contains(why), "{name}: {said}");
    }
    let asked = fixture.sts.request_count();
    assert_eq!(asked, 1);

    let plain = Mongod::builder().preload(false).start();
    let (status, _, said) = attempt(&format!("localhost:{}", plain.port()), user, &ca);
    assert_eq!(status, 2, "{said}");
    assert!(said.contains("1 connect: ") && said.contains("the server may not use TLS (net.tls.mode)"), "{said}");
    let strict = with_tls(Mongod::builder().preload(false)).start();
    let (status, _, said) = attempt(&format!("localhost:{}", strict.port()), user, &ca);
    assert_eq!(status, 2, "{said}");
    assert!(said.contains(" require a client certificate, which is not supported"), "{said}");
}

/// A listener on a free port that passes each connection to a function.
fn listener(serve: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            serve(client);
        }
    });
    address
}

#[test]
fn a_server_other_than_mongodb_is_recognized() {
    let alice = Identity::iam_user(ACCOUNT, "alice");
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let says = |reply: &'static [u8]| {
        listener(move |mut client| {
            let _ = client.read(&mut [0; 1024]);
            let _ = client.write_all(reply);
        })
    };
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    for (name, address, step, why) in [
        ("nobody", closed.to_string(), "1 connect: Connection refused", "check that a server listens on 127.0.0.1:"),
        (
            "an unknown name",
            "db.nowhere.invalid".to_owned(),
            "1 connect: the host name was not found",
            "check the name db.nowhere.invalid, and DNS",
        ),
        (
            "a web server",
            says(b"HTTP/1.1 400 Bad Request\r\n\r\n").to_string(),
            "2 hello: this is not a MongoDB server: its reply begins with \"HTTP/1.1 400 Bad\"",
            "it must be net.port of the server's mongod.conf",
        ),
        (
            "few bytes",
            says(b"no\x1b").to_string(),
            "2 hello: this is not a MongoDB server: its reply begins with \"no?\"",
            "check the port of 127.0.0.1:",
        ),
        (
            "a closed connection",
            says(b"").to_string(),
            "2 hello: the server closed the connection",
            "the server may require TLS (--tls)",
        ),
        (
            "silence",
            silent.local_addr().unwrap().to_string(),
            "2 hello: timed out",
            "the limit for all steps is 1500 ms",
        ),
    ] {
        let timeout = if name == "silence" { "1500" } else { "15000" };
        let (status, _, said) = attempt(&address, &alice, &["--timeout-ms", timeout]);
        assert_eq!(status, 2, "{name}: {said}");
        assert!(said.starts_with(&format!("psmdb-aws-iam: {step}")), "{name}: {said}");
        assert!(said.contains(why), "{name}: {said}");
    }
}

/// A server that sends these replies in order, whatever the commands are.
fn scripted(replies: Vec<Document>) -> SocketAddr {
    listener(move |mut client| {
        let mut nonce = None;
        for reply in &replies {
            let mut header = [0; 16];
            if client.read_exact(&mut header).is_err() {
                return;
            }
            let mut body = vec![0; u32::from_le_bytes(header[..4].try_into().unwrap()) as usize - 16];
            client.read_exact(&mut body).unwrap();
            let command = Document::from_reader(&body[5..]).unwrap();
            if command.contains_key("saslStart") {
                let first = Document::from_reader(&command.get_binary_generic("payload").unwrap()[..]).unwrap();
                nonce = Some(first.get_binary_generic("r").unwrap().clone());
            }
            let mut reply = reply.clone();
            if let Some(host) = reply.remove("host") {
                let both = [&nonce.clone().unwrap()[..], &[7; 32]].concat();
                let payload = doc! { "s": binary(&both), "h": host }.to_vec().unwrap();
                reply.extend(doc! { "conversationId": 1, "done": false, "payload": binary(&payload) });
            }
            let mut message = op_msg(&reply.to_vec().unwrap());
            message[8..12].copy_from_slice(&header[4..8]);
            client.write_all(&message).unwrap();
        }
    })
}

#[test]
fn a_malicious_server_is_recognized_and_gets_no_signature() {
    let alice = Identity::iam_user(ACCOUNT, "alice");
    let hello = doc! { "ok": 1, "maxWireVersion": 17, "setName": "rs\u{1b}[2J0", "msg": "isdbgrid" };
    let version = doc! { "ok": 1, "version": "6.0.5" };
    let begun = || vec![hello.clone(), version.clone()];
    let with = |more: Vec<Document>| [begun(), more].concat();
    let other_nonce = doc! { "s": binary(&[7; 64]), "h": "sts.amazonaws.com" }.to_vec().unwrap();
    let start = |payload: &[u8]| doc! { "ok": 1, "conversationId": 1, "done": false, "payload": binary(payload) };
    for (name, replies, status, why) in [
        ("no wire version", vec![doc! { "ok": 1 }], 2, "2 hello: this is not a MongoDB server: its reply to hello"),
        (
            "no payload",
            with(vec![doc! { "ok": 1, "conversationId": 1 }]),
            1,
            "3 saslStart: the server's reply is not a valid",
        ),
        ("junk", with(vec![start(b"junk")]), 1, "its payload is not BSON. Nothing was signed"),
        ("another nonce", with(vec![start(&other_nonce)]), 1, "its nonce does not begin with the client's"),
        (
            "an address",
            with(vec![doc! { "ok": 1, "host": "10.0.0.1:8443\u{1b}" }]),
            1,
            "3 saslStart: the server requests a signature for \"10.0.0.1:8443?\", with which no login can succeed. Set \
             awsStsHost on the server: it must be a host name",
        ),
        (
            "a region of another partition",
            with(vec![doc! { "ok": 1, "host": "sts.cn-north-1.amazonaws.com" }]),
            1,
            "Set awsStsHost on the server: it must be sts.cn-north-1.amazonaws.com.cn; ",
        ),
        (
            "a host that is not AWS's",
            with(vec![
                doc! { "ok": 1, "host": "sts.eu-west-1.example.com" },
                doc! { "ok": 0, "code": 18, "errmsg": "no" },
            ]),
            1,
            "warning: sts.eu-west-1.example.com is not an AWS host name: ",
        ),
        (
            "an endless login",
            with(vec![doc! { "ok": 1, "host": "sts.amazonaws.com" }, doc! { "ok": 1, "done": false }]),
            1,
            "4 saslContinue: the server's reply does not end the login",
        ),
        (
            "nobody logged in",
            with(vec![
                doc! { "ok": 1, "host": "sts.amazonaws.com" },
                doc! { "ok": 1, "done": true },
                doc! { "ok": 1, "authInfo": { "authenticatedUsers": [] } },
            ]),
            1,
            "5 connectionStatus: the server reports no logged-in user",
        ),
        (
            "a message without a user name",
            with(vec![
                doc! { "ok": 1, "host": "sts.amazonaws.com" },
                doc! { "ok": 0, "code": 11, "errmsg": "UserNotFound" },
            ]),
            1,
            ": psmdb-aws-iam whoami --sts-host sts.amazonaws.com shows the user to create",
        ),
    ] {
        let (ended, steps, said) = attempt(&scripted(replies).to_string(), &alice, &["--timeout-ms", "5000"]);
        assert_eq!(ended, status, "{name}: {said}");
        assert!(said.contains(why), "{name}: {said}");
        assert!(!steps.contains('\u{1b}') && !said.contains('\u{1b}'), "{name}: {steps}{said}");
        if name != "no wire version" {
            assert!(steps.contains("2 hello: MongoDB 6.0.5 (mongos), replica set rs?[2J0\n"), "{name}: {steps}");
        }
    }
}

#[test]
fn without_tls_only_this_machine_is_trusted() {
    // A local address that is not loopback: the source of packets to a documentation network.
    let outer = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        TcpListener::bind((socket.local_addr()?.ip(), 0))
    });
    let Some(listener) = outer.ok().filter(|listener| !listener.local_addr().unwrap().ip().is_loopback()) else {
        return crate::support::skipped("a server that is not on loopback", "this machine has only loopback addresses");
    };
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || for _ in listener.incoming() {});
    let (status, _, said) = attempt(&address, &Identity::iam_user(ACCOUNT, "alice"), &["--timeout-ms", "1000"]);
    assert_eq!(status, 2);
    assert!(said.starts_with("psmdb-aws-iam: warning: the connection has no TLS. Others can read"), "{said}");
}

#[test]
fn wrong_usage_is_reported_before_anything_is_sent() {
    let alice = Identity::iam_user(ACCOUNT, "alice");
    for (arguments, why) in [
        (&["mongodb://u:p@127.0.0.1/"][..], "not a connection string"),
        (&["127.0.0.1:0"], "the server must be HOST or HOST:PORT"),
        (&["--tls-ca-file", "x", "127.0.0.1"], "--tls"),
        (&["--timeout-ms", "1", "127.0.0.1"], "100..=600000"),
        (&[], "HOST"),
    ] {
        let mut command = command(&["login"]);
        with_credentials(command.args(arguments), &alice);
        let ended = run(&mut command);
        assert_eq!((ended.status, &*ended.stdout), (2, ""), "{arguments:?}");
        assert!(ended.stderr.contains(why) && !ended.stderr.contains("u:p"), "{arguments:?}: {}", ended.stderr);
    }
    let said = run(&mut command(&["login", "127.0.0.1:1"])).refused(2);
    assert!(said.contains("no AWS credentials: "), "{said}");
}
