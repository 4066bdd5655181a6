//! A DNS server on loopback, with the faults of one.
//!
//! It implements as little of [RFC 1035] as glibc's resolver needs: one question per message, over
//! UDP.
//!
//! [RFC 1035]: https://www.rfc-editor.org/rfc/rfc1035

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const HEADER: usize = 12;
/// RFC 1035 section 3.2.2, and RFC 3596 for AAAA.
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
/// RFC 1035 section 4.1.1.
const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;
/// In seconds: resolvers must not cache the response.
const TTL: [u8; 4] = [0; 4];

/// A DNS server on 127.0.0.1 and a free UDP port, with the same response for every name. It stops
/// when it is dropped.
///
/// ```
/// use std::time::Duration;
/// use local_sts::{Dns, DnsResponse};
///
/// let dns = Dns::start()?;
/// dns.set_response(DnsResponse::Silence);
/// dns.set_response(DnsResponse::Address([127, 0, 0, 1].into()));
/// dns.set_delay(Duration::from_millis(500));
/// println!("the DNS server is {}", dns.address());
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Dns {
    shared: Arc<Shared>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

/// The response of a [`Dns`] to a query.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DnsResponse {
    /// Every name has this address, and none of the other family. The default, with 127.0.0.1.
    Address(IpAddr),
    /// Every name has these addresses, in this order; at most 16 of each family, to fit a UDP
    /// message.
    Addresses(Vec<IpAddr>),
    /// Every name exists and has no address.
    NoAddress,
    /// There is no such name (NXDOMAIN).
    NoSuchName,
    /// The server has failed (SERVFAIL).
    ServerFailure,
    /// No response: a black hole.
    Silence,
}

struct Shared {
    settings: Mutex<(DnsResponse, Duration)>,
    queries: AtomicUsize,
    stopping: AtomicBool,
}

impl Dns {
    /// Starts a server; it responds when this returns.
    ///
    /// # Errors
    /// What the system reports.
    pub fn start() -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = socket.local_addr()?;
        let shared = Arc::new(Shared {
            settings: Mutex::new((DnsResponse::Address(Ipv4Addr::LOCALHOST.into()), Duration::ZERO)),
            queries: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
        });
        let for_thread = Arc::clone(&shared);
        let thread = thread::Builder::new().name("sts-dns".to_owned()).spawn(move || serve(&socket, &for_thread))?;
        Ok(Self { shared, address, thread: Some(thread) })
    }

    /// Returns the UDP address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the response to queries that come from now on.
    pub fn set_response(&self, response: DnsResponse) {
        self.shared.settings().0 = response;
    }

    /// Sets the delay of responses to queries that come from now on. Defaults to zero.
    pub fn set_delay(&self, delay: Duration) {
        self.shared.settings().1 = delay;
    }

    /// Returns how many queries were received so far, with a response or without.
    pub fn query_count(&self) -> usize {
        self.shared.queries.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dns").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // An empty message wakes the thread, which waits for a query.
        if let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) {
            let _ = socket.send_to(&[], self.address);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn settings(&self) -> MutexGuard<'_, (DnsResponse, Duration)> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serve(socket: &UdpSocket, shared: &Shared) {
    let mut late: VecDeque<(Instant, Vec<u8>, SocketAddr)> = VecDeque::new();
    let mut message = [0; 1500];
    while !shared.stopping.load(Ordering::SeqCst) {
        let next = late.iter().map(|(due, ..)| *due).min();
        // A timeout of zero is none.
        let wait = next.map(|due| due.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)));
        if socket.set_read_timeout(wait).is_err() {
            return;
        }
        if let Ok((length, client)) = socket.recv_from(&mut message)
            && let Some(question) = Question::of(&message[..length])
        {
            shared.queries.fetch_add(1, Ordering::SeqCst);
            let (response, delay) = shared.settings().clone();
            late.extend(question.message(&response).map(|bytes| (Instant::now() + delay, bytes, client)));
        }
        let now = Instant::now();
        late.retain(|(due, bytes, client)| {
            let is_due = *due <= now;
            if is_due {
                // A client that is gone needs no response.
                let _ = socket.send_to(bytes, client);
            }
            !is_due
        });
    }
}

/// A query for one name.
struct Question<'a> {
    id: &'a [u8],
    /// The name, the type and the class, as they were sent.
    section: &'a [u8],
    kind: u16,
}

impl<'a> Question<'a> {
    fn of(message: &'a [u8]) -> Option<Self> {
        let is_query = message.get(2)? & 0b1111_1000 == 0;
        if !is_query || message.get(4..6)? != [0, 1] {
            return None;
        }
        let mut end = HEADER;
        loop {
            let length = usize::from(*message.get(end)?);
            // A longer one is a pointer, and a question has no earlier name to point to.
            if length > 63 {
                return None;
            }
            end += 1 + length;
            if length == 0 {
                break;
            }
        }
        let section = message.get(HEADER..end + 4)?;
        let kind = u16::from_be_bytes([message[end], message[end + 1]]);
        Some(Self { id: &message[..2], section, kind })
    }

    /// Returns the message with this response, unless it is silence.
    fn message(&self, response: &DnsResponse) -> Option<Vec<u8>> {
        let (code, addresses) = match response {
            DnsResponse::Address(address) => (0, std::slice::from_ref(address)),
            DnsResponse::Addresses(addresses) => (0, &addresses[..]),
            DnsResponse::NoAddress => (0, &[][..]),
            DnsResponse::NoSuchName => (NXDOMAIN, &[][..]),
            DnsResponse::ServerFailure => (SERVFAIL, &[][..]),
            DnsResponse::Silence => return None,
        };
        let records = addresses.iter().filter_map(|address| match address {
            IpAddr::V4(address) if self.kind == TYPE_A => Some(address.octets().to_vec()),
            IpAddr::V6(address) if self.kind == TYPE_AAAA => Some(address.octets().to_vec()),
            _ => None,
        });
        let records: Vec<_> = records.take(16).collect();
        let mut message = self.id.to_vec();
        // A response, recursion desired and available; one question, perhaps some records.
        message.extend([0b1000_0001, 0b1000_0000 | code, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
        message.extend(self.section);
        for address in records {
            // The name is the one at the beginning of the question.
            message.extend([0xc0, HEADER as u8]);
            message.extend(&self.section[self.section.len() - 4..]);
            message.extend(TTL);
            message.extend([0, address.len() as u8]);
            message.extend(address);
        }
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03sts\x07example\x00\x00\x01\x00\x01";

    fn client(dns: &Dns) -> UdpSocket {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect(dns.address()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    }

    fn receive(socket: &UdpSocket) -> io::Result<Vec<u8>> {
        let mut message = [0; 512];
        socket.recv(&mut message).map(|length| message[..length].to_vec())
    }

    #[test]
    fn a_name_has_the_configured_address() {
        let dns = Dns::start().unwrap();
        dns.set_response(DnsResponse::Address([127, 0, 0, 9].into()));
        let socket = client(&dns);
        socket.send(QUERY).unwrap();
        let response = receive(&socket).unwrap();
        assert_eq!(&response[..12], b"\x12\x34\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00");
        assert_eq!(&response[12..QUERY.len()], &QUERY[12..]);
        assert_eq!(&response[QUERY.len()..], b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\x7f\x00\x00\x09");
        let mut ipv6 = QUERY.to_vec();
        ipv6[QUERY.len() - 3] = 28;
        socket.send(&ipv6).unwrap();
        assert_eq!(&receive(&socket).unwrap()[..12], b"\x12\x34\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00");
    }

    #[test]
    fn each_address_is_in_the_response_for_its_family() {
        let dns = Dns::start().unwrap();
        let addresses: Vec<IpAddr> = ["127.0.0.2", "::1", "127.0.0.3"].map(|text| text.parse().unwrap()).to_vec();
        dns.set_response(DnsResponse::Addresses(addresses));
        let socket = client(&dns);
        socket.send(QUERY).unwrap();
        let response = receive(&socket).unwrap();
        assert_eq!(&response[..12], b"\x12\x34\x81\x80\x00\x01\x00\x02\x00\x00\x00\x00");
        let record = |last: u8| [b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\x7f\x00\x00", &[last][..]].concat();
        assert_eq!(&response[QUERY.len()..], [record(2), record(3)].concat());
        let mut ipv6 = QUERY.to_vec();
        ipv6[QUERY.len() - 3] = 28;
        socket.send(&ipv6).unwrap();
        assert!(receive(&socket).unwrap().ends_with(b"\x00\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01"));
    }

    #[test]
    fn it_fails_delays_and_stays_silent_as_configured() {
        const DELAY: Duration = Duration::from_millis(60);
        let dns = Dns::start().unwrap();
        let socket = client(&dns);
        for (response, code) in
            [(DnsResponse::NoSuchName, 0x83), (DnsResponse::ServerFailure, 0x82), (DnsResponse::NoAddress, 0x80)]
        {
            dns.set_response(response.clone());
            socket.send(QUERY).unwrap();
            assert_eq!(receive(&socket).unwrap()[3], code, "{response:?}");
        }
        dns.set_delay(DELAY);
        let start = Instant::now();
        socket.send(QUERY).unwrap();
        receive(&socket).unwrap();
        assert!(start.elapsed() >= DELAY, "{:?}", start.elapsed());
        dns.set_response(DnsResponse::Silence);
        socket.send(QUERY).unwrap();
        socket.set_read_timeout(Some(2 * DELAY)).unwrap();
        assert!(receive(&socket).is_err());
        assert_eq!(dns.query_count(), 5);
    }

    #[test]
    fn a_message_that_is_no_query_is_ignored() {
        for message in
            [&b""[..], b"\x12\x34\x01", &QUERY[..QUERY.len() - 1], b"\0\0\x80\0\0\x01\0\0\0\0\0\0\0\0\x01\0\x01"]
        {
            assert!(Question::of(message).is_none(), "{message:?}");
        }
    }
}
