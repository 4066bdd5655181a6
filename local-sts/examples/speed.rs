//! Measures the STS and the proxy, to know what a benchmark with them can measure:
//! `cargo run --release -p local-sts --example speed`
//!
//! Clients send requests over open connections as fast as they can; the STS verifies each
//! signature. CPU time is that of the threads, from `/proc`. Latency is that of a single client.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use local_sts::{DelayProxy, Identity, LocalSts};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
const TIME: Duration = Duration::from_secs(3);

type Stream = StreamOwned<ClientConnection, TcpStream>;

fn main() {
    let alice = Identity::iam_user("123456789012", "alice");
    let sts = LocalSts::builder().identity(alice.clone()).record_requests(false).start().expect("an STS");
    let network = DelayProxy::start(sts.address()).expect("a proxy");
    let request = signed(&alice);
    let tls = client_config(sts.ca_pem());

    for clients in [1, 8, 64] {
        throughput("direct", clients, sts.address(), &tls, &request);
    }
    for clients in [1, 8, 64] {
        throughput("through the proxy", clients, network.address(), &tls, &request);
    }
    latency("direct", sts.address(), &tls, &request);
    for millis in [0, 1, 20] {
        network.set_round_trip(Duration::from_millis(millis));
        latency(&format!("through the proxy, round trip {millis} ms"), network.address(), &tls, &request);
    }
    network.set_round_trip(Duration::from_millis(20));
    for clients in [8, 64, 256] {
        throughput("through the proxy, round trip 20 ms", clients, network.address(), &tls, &request);
    }
    network.set_round_trip(Duration::ZERO);
    connections(sts.address(), &tls);
}

/// Measures throughput and CPU time with so many clients at a time.
fn throughput(what: &str, clients: usize, address: SocketAddr, tls: &Arc<ClientConfig>, request: &[u8]) {
    let streams: Vec<Stream> = (0..clients).map(|_| connect(address, tls)).collect();
    let (count, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let before = cpu();
    let start = Instant::now();
    thread::scope(|scope| {
        for mut stream in streams {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    send_request(&mut stream, request);
                    count.fetch_add(1, Ordering::Relaxed);
                }
                // Kept until the threads were measured.
                drop(stream);
            });
        }
        thread::sleep(TIME);
        let (elapsed, after) = (start.elapsed(), cpu());
        let count = count.load(Ordering::Relaxed);
        let each = |before: u64, after: u64| (after - before) as f64 / 1000.0 / count as f64;
        println!(
            "{what}, {clients} clients: {:.0} requests/s; CPU for each: STS {:.1} us, proxy {:.1} us",
            count as f64 / elapsed.as_secs_f64(),
            each(before.0, after.0),
            each(before.1, after.1),
        );
        stop.store(true, Ordering::Relaxed);
    });
}

/// Measures how long a request over an open connection takes.
fn latency(what: &str, address: SocketAddr, tls: &Arc<ClientConfig>, request: &[u8]) {
    let mut stream = connect(address, tls);
    send_request(&mut stream, request);
    let mut times = Vec::new();
    let until = Instant::now() + TIME;
    while Instant::now() < until {
        let start = Instant::now();
        send_request(&mut stream, request);
        times.push(start.elapsed());
    }
    times.sort();
    let percentile = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
    println!(
        "{what}: p1 {:.3} ms, p50 {:.3} ms, p99 {:.3} ms ({} requests)",
        percentile(1),
        percentile(50),
        percentile(99),
        times.len()
    );
}

/// Measures how long connections take, with tickets and without.
fn connections(address: SocketAddr, tls: &Arc<ClientConfig>) {
    let mut without = ClientConfig::clone(tls);
    without.resumption = rustls::client::Resumption::disabled();
    for (what, tls) in [("resumed", tls), ("full", &Arc::new(without))] {
        let (mut resumed, mut count) = (0, 0);
        let start = Instant::now();
        while start.elapsed() < TIME {
            let mut stream = connect(address, tls);
            // The tickets come with the first response.
            send_bad_request(&mut stream);
            resumed += usize::from(stream.conn.handshake_kind() == Some(HandshakeKind::Resumed));
            count += 1;
        }
        println!(
            "connections, {what}: {:.0}/s one after another, {resumed} of {count} resumed",
            f64::from(count) / start.elapsed().as_secs_f64(),
        );
    }
}

fn connect(address: SocketAddr, tls: &Arc<ClientConfig>) -> Stream {
    let name = ServerName::try_from("sts.amazonaws.com").expect("a name");
    let connection = ClientConnection::new(Arc::clone(tls), name).expect("a connection");
    let socket = TcpStream::connect(address).expect("a connection");
    socket.set_nodelay(true).expect("no delay");
    let mut stream = StreamOwned::new(connection, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).expect("a handshake");
    }
    stream
}

fn send_request(stream: &mut Stream, request: &[u8]) {
    assert!(exchange(stream, request).starts_with(b"HTTP/1.1 200"), "not verified");
}

fn send_bad_request(stream: &mut Stream) {
    assert!(exchange(stream, b"GET / HTTP/1.1\r\nHost: sts.amazonaws.com\r\n\r\n").starts_with(b"HTTP/1.1 4"));
}

/// Sends a request and reads its response, which is XML.
fn exchange(stream: &mut Stream, request: &[u8]) -> Vec<u8> {
    stream.write_all(request).expect("it is sent");
    stream.flush().expect("it is sent");
    let mut response = Vec::new();
    let mut chunk = [0; 4096];
    while !response.ends_with(b"Response>\n") {
        let count = stream.read(&mut chunk).expect("a response");
        assert!(count > 0, "no response");
        response.extend_from_slice(&chunk[..count]);
    }
    response
}

fn client_config(ca_pem: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).expect("a certificate")).expect("a certificate");
    Arc::new(
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}

/// Returns the CPU time, in nanoseconds, of the threads of the STS and of the proxy that run now.
fn cpu() -> (u64, u64) {
    let (mut sts, mut network) = (0, 0);
    for task in fs::read_dir("/proc/self/task").expect("this is Linux").flatten() {
        let read = |file| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let ran = read("schedstat").split(' ').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        match read("comm").trim() {
            "sts-network" => network += ran,
            name if name.starts_with("sts-") => sts += ran,
            _ => {}
        }
    }
    (sts, network)
}

fn signed(identity: &Identity) -> Vec<u8> {
    let credentials = Credentials::new(&identity.access_key_id, &identity.secret_access_key, None, None, "x").into();
    let parameters = v4::SigningParams::builder()
        .identity(&credentials)
        .region("us-east-1")
        .name("sts")
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()
        .expect("parameters")
        .into();
    let mut headers = vec![
        ("Content-Type", "application/x-www-form-urlencoded".to_owned()),
        ("Content-Length", BODY.len().to_string()),
        ("Host", "sts.amazonaws.com".to_owned()),
        ("X-MongoDB-Server-Nonce", "A".repeat(88)),
        ("X-MongoDB-GS2-CB-Flag", "n".to_owned()),
    ];
    let fields = headers.iter().map(|(name, value)| (*name, value.as_str()));
    let body = SignableBody::Bytes(BODY.as_bytes());
    let signable = SignableRequest::new("POST", "https://sts.amazonaws.com/", fields, body).expect("a request");
    let (instructions, _) = sign(signable, &parameters).expect("a signature").into_parts();
    let signing: Vec<(String, String)> =
        instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    headers.extend(signing.iter().map(|(name, value)| (name.as_str(), value.clone())));
    let mut text = String::from("POST / HTTP/1.1\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.push_str(BODY);
    text.into_bytes()
}
