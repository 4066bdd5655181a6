//! An HTTP proxy on the way to STS.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A proxy that makes tunnels as it is asked to, on loopback. Its threads end with their connections.
pub struct TunnelProxy {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl TunnelProxy {
    /// With an answer of its own, it makes no tunnel.
    pub fn start(answer: Option<&'static str>) -> Self {
        Self::start_on((Ipv4Addr::LOCALHOST, 0).into(), answer).expect("a free port")
    }

    /// The same at this address.
    pub fn start_on(address: SocketAddr, answer: Option<&'static str>) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr().expect("an address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let log = Arc::clone(&log);
                thread::spawn(move || serve(client, answer, &log));
            }
        });
        Ok(Self { address, asked })
    }

    /// The heads of the requests so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(mut client: TcpStream, answer: Option<&str>, log: &Mutex<Vec<String>>) -> io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut reader = BufReader::new(client.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
    log.lock().unwrap().push(head.clone());
    if let Some(answer) = answer {
        return client.write_all(answer.as_bytes());
    }
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    // It looks the name up as a proxy does; the tests' names are not in any DNS.
    let Ok(target) = target.replace("sts.nowhere.example", "127.0.0.1").parse::<SocketAddr>() else {
        return client.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n");
    };
    let mut server = TcpStream::connect(target)?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 tests\r\n\r\n")?;
    let (mut back, mut to_client) = (server.try_clone()?, client.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut back, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
    let early = reader.buffer().to_vec();
    server.write_all(&early)?;
    let mut client = reader.into_inner();
    let mut chunk = [0; 16 * 1024];
    loop {
        match client.read(&mut chunk)? {
            0 => return server.shutdown(Shutdown::Both),
            count => server.write_all(&chunk[..count])?,
        }
    }
}
