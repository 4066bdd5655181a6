//! An HTTP proxy on the way to STS.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// An HTTP proxy on loopback that opens tunnels. Its threads end with their connections.
pub struct TunnelProxy {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl TunnelProxy {
    /// Starts it. If it has a `response`, it opens no tunnel and responds with that.
    pub fn start(response: Option<&'static str>) -> Self {
        Self::start_on((Ipv4Addr::LOCALHOST, 0).into(), response).expect("a free port")
    }

    /// As [`start`](Self::start), on this address.
    pub fn start_on(address: SocketAddr, response: Option<&'static str>) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr().expect("an address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let log = Arc::clone(&log);
                thread::spawn(move || serve(client, response, &log));
            }
        });
        Ok(Self { address, requests })
    }

    /// Returns the heads of the requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(mut client: TcpStream, response: Option<&str>, log: &Mutex<Vec<String>>) -> io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut reader = BufReader::new(client.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
    log.lock().unwrap().push(head.clone());
    if let Some(response) = response {
        return client.write_all(response.as_bytes());
    }
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    // It resolves the name as a proxy does; the tests' names are in no DNS.
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
