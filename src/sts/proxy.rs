//! HTTP proxies: a CONNECT tunnel (RFC 9110, section 9.3.6), with TLS to STS inside it.
//!
//! The HTTP library supports tunnels only to the host of the URL, but awsStsEndpoint can name
//! another address. The proxy sees that address, and nothing of the request.

use std::fmt;

/// Maximum length of a proxy's response header, in bytes.
const MAX_RESPONSE_LENGTH: usize = 8 * 1024;

/// The CONNECT request for a tunnel to `host:port`.
pub fn request(to: &str) -> Vec<u8> {
    format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").into_bytes()
}

/// Why a proxy opened no tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoTunnel {
    /// What the proxy did instead, without any text of its own.
    pub what: String,
    /// Whether a retry would fail, too: the proxy requires a password, does not allow the address,
    /// or is not a proxy.
    pub is_final: bool,
}

impl fmt::Display for NoTunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// The part of a proxy's response that has arrived.
#[derive(Debug, Default)]
pub struct ProxyResponse(Vec<u8>);

impl ProxyResponse {
    /// Takes the bytes that belong to the response header and returns how many. The bytes after it
    /// belong to TLS.
    pub fn take(&mut self, arrived: &[u8]) -> usize {
        for (count, byte) in arrived.iter().enumerate() {
            if self.is_whole() || self.0.len() == MAX_RESPONSE_LENGTH {
                return count;
            }
            self.0.push(*byte);
        }
        arrived.len()
    }

    fn is_whole(&self) -> bool {
        self.0.ends_with(b"\r\n\r\n")
    }

    /// Returns whether the tunnel is open, once the response header is complete or too long.
    pub fn verdict(&self) -> Option<Result<(), NoTunnel>> {
        let refused = |what: &str, is_final| Some(Err(NoTunnel { what: what.to_owned(), is_final }));
        if !self.is_whole() {
            return if self.0.len() < MAX_RESPONSE_LENGTH {
                None
            } else {
                refused("sent a response header that is too long", true)
            };
        }
        // status-line = HTTP-version SP status-code SP [ reason-phrase ]
        let status = self.0.strip_prefix(b"HTTP/1.1 ").or_else(|| self.0.strip_prefix(b"HTTP/1.0 "));
        match status.and_then(|rest| rest.get(..3)) {
            Some([b'2', a, b]) if a.is_ascii_digit() && b.is_ascii_digit() => Some(Ok(())),
            Some(code @ [b'1'..=b'5', a, b]) if a.is_ascii_digit() && b.is_ascii_digit() => {
                refused(&format!("answered {} to CONNECT", String::from_utf8_lossy(code)), code[0] != b'5')
            }
            _ => refused("sent a response that is not HTTP", true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads bytes that arrive in pieces of this size. Returns how many follow the response, or why
    /// there is no tunnel.
    fn read(bytes: &[u8], size: usize) -> Option<Result<usize, String>> {
        let mut response = ProxyResponse::default();
        let mut taken = 0;
        for piece in bytes.chunks(size) {
            taken += response.take(piece);
            if let Some(verdict) = response.verdict() {
                return Some(verdict.map(|()| bytes.len() - taken).map_err(|no| no.to_string()));
            }
        }
        None
    }

    #[test]
    fn miri_a_tunnel_begins_after_the_response() {
        for size in [1, 7, 100] {
            assert_eq!(read(b"HTTP/1.1 200 Connection established\r\n\r\n", size), Some(Ok(0)));
            assert_eq!(read(b"HTTP/1.0 200 OK\r\nVia: x\r\n\r\n\x16\x03", size), Some(Ok(2)));
        }
    }

    #[test]
    fn miri_any_other_response_is_an_error() {
        for (response, why) in [
            (&b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"[..], "answered 407 to CONNECT"),
            (b"HTTP/1.1 502 Bad Gateway\r\nX: 200\r\n\r\n", "answered 502 to CONNECT"),
            (b"HTTP/1.1 99 x\r\n\r\n", "sent a response that is not HTTP"),
            (b"220 smtp.example.com\r\n\r\n", "sent a response that is not HTTP"),
            (b"\r\n\r\n", "sent a response that is not HTTP"),
            (&[b'x'; MAX_RESPONSE_LENGTH + 1], "sent a response header that is too long"),
        ] {
            for size in [1, 5, response.len()] {
                assert_eq!(read(response, size), Some(Err(why.to_owned())));
            }
        }
        assert_eq!(read(b"HTTP/1.1 200 OK\r\n", 100), None);
        let is_final = |bytes: &[u8]| {
            let mut response = ProxyResponse::default();
            response.take(bytes);
            response.verdict().unwrap().unwrap_err().is_final
        };
        assert!(is_final(b"HTTP/1.1 407 x\r\n\r\n"));
        assert!(!is_final(b"HTTP/1.1 503 x\r\n\r\n"));
    }
}
