//! The way to STS through an HTTP proxy: a tunnel by CONNECT (RFC 9110, section 9.3.6), and TLS with STS inside it.
//!
//! The HTTP library has such a tunnel, but only to the host of the URL, and awsStsEndpoint may name another address. The
//! proxy sees that address and nothing of the question.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;
use ureq::Error;
use ureq::unversioned::transport::{ConnectionDetails, Connector, Transport, TransportAdapter};

use super::tls::time_left;

/// Longest answer of a proxy that is read, in bytes.
const MAX_ANSWER_LENGTH: usize = 8 * 1024;

/// Asks a proxy for a tunnel.
#[derive(Debug)]
pub struct TunnelConnector {
    to: String,
}

impl TunnelConnector {
    /// Takes what the proxy is to connect to, as `host:port`.
    pub fn new(to: String) -> Self {
        Self { to }
    }
}

impl<In: Transport> Connector<In> for TunnelConnector {
    type Out = Box<dyn Transport>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        let tcp: Box<dyn Transport> = Box::new(chained.ok_or(Error::ConnectionFailed)?);
        let mut adapter = TransportAdapter::new(tcp, Arc::clone(&details.current_time));
        adapter.set_timeout(time_left(details)?);
        let to = &self.to;
        adapter.write_all(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes())?;
        adapter.flush()?;
        read_answer(&mut adapter)?;
        Ok(Some(adapter.into_inner()))
    }
}

/// A proxy that makes no tunnel, and why.
#[derive(Debug)]
struct NoTunnel {
    what: String,
    /// Whether it would say the same again.
    is_final: bool,
}

impl fmt::Display for NoTunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the proxy {}", self.what)
    }
}

impl std::error::Error for NoTunnel {}

/// Whether this is a proxy's no: it wants a password, or does not allow the address, or is no proxy.
pub fn is_final(error: &io::Error) -> bool {
    error.get_ref().and_then(|inner| inner.downcast_ref::<NoTunnel>()).is_some_and(|no| no.is_final)
}

/// Reads the proxy's answer up to its last byte and no further: what follows belongs to TLS.
fn read_answer(proxy: &mut impl Read) -> io::Result<()> {
    let refused = |what: String, is_final| Err(io::Error::other(NoTunnel { what, is_final }));
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == MAX_ANSWER_LENGTH {
            return refused("does not end its answer".to_owned(), true);
        }
        proxy.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    // status-line = HTTP-version SP status-code SP [ reason-phrase ]
    let status = answer.strip_prefix(b"HTTP/1.1 ").or_else(|| answer.strip_prefix(b"HTTP/1.0 "));
    match status.and_then(|rest| rest.get(..3)) {
        Some([b'2', a, b]) if a.is_ascii_digit() && b.is_ascii_digit() => Ok(()),
        Some(code @ [b'1'..=b'5', a, b]) if a.is_ascii_digit() && b.is_ascii_digit() => {
            refused(format!("answered {}", String::from_utf8_lossy(code)), code[0] != b'5')
        }
        _ => refused("does not speak HTTP".to_owned(), true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut answer: &[u8]) -> Result<usize, String> {
        read_answer(&mut answer).map(|()| answer.len()).map_err(|error| error.to_string())
    }

    #[test]
    fn miri_a_tunnel_begins_after_the_answer() {
        assert_eq!(read(b"HTTP/1.1 200 Connection established\r\n\r\n"), Ok(0));
        assert_eq!(read(b"HTTP/1.0 200 OK\r\nVia: x\r\n\r\n\x16\x03"), Ok(2));
    }

    #[test]
    fn miri_what_is_no_tunnel_is_refused() {
        for (answer, why) in [
            (&b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"[..], "the proxy answered 407"),
            (b"HTTP/1.1 502 Bad Gateway\r\nX: 200\r\n\r\n", "the proxy answered 502"),
            (b"HTTP/1.1 99 x\r\n\r\n", "the proxy does not speak HTTP"),
            (b"220 smtp.example.com\r\n\r\n", "the proxy does not speak HTTP"),
            (b"\r\n\r\n", "the proxy does not speak HTTP"),
            (b"HTTP/1.1 200 OK\r\n", "failed to fill whole buffer"),
        ] {
            assert_eq!(read(answer), Err(why.to_owned()));
        }
        let ask = |mut answer: &[u8]| read_answer(&mut answer).unwrap_err();
        assert!(is_final(&ask(b"HTTP/1.1 407 x\r\n\r\n")));
        assert!(!is_final(&ask(b"HTTP/1.1 503 x\r\n\r\n")));
        assert_eq!(read(&[b'x'; MAX_ANSWER_LENGTH + 1]), Err("the proxy does not end its answer".to_owned()));
    }
}
