//! The way to STS through an HTTP proxy: a tunnel by CONNECT (RFC 9110, section 9.3.6), and TLS with STS inside it.
//!
//! The HTTP library has such a tunnel, but only to the host of the URL, and awsStsEndpoint may name another address. The
//! proxy sees that address and nothing of the question.

use std::fmt;

/// Longest answer of a proxy that is read, in bytes.
const MAX_ANSWER_LENGTH: usize = 8 * 1024;

/// The request for a tunnel to `host:port`.
pub fn request(to: &str) -> Vec<u8> {
    format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").into_bytes()
}

/// A proxy that makes no tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoTunnel {
    /// What it did instead, without its own text.
    pub what: String,
    /// Whether it would say the same again: it wants a password, or does not allow the address, or is no proxy.
    pub is_final: bool,
}

impl fmt::Display for NoTunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// A proxy's answer to the request, as far as it has arrived.
#[derive(Debug, Default)]
pub struct Answer(Vec<u8>);

impl Answer {
    /// Takes those of the bytes that belong to the answer, up to its last and no further, since what follows belongs to
    /// TLS; returns how many these are.
    pub fn take(&mut self, arrived: &[u8]) -> usize {
        for (count, byte) in arrived.iter().enumerate() {
            if self.is_whole() || self.0.len() == MAX_ANSWER_LENGTH {
                return count;
            }
            self.0.push(*byte);
        }
        arrived.len()
    }

    fn is_whole(&self) -> bool {
        self.0.ends_with(b"\r\n\r\n")
    }

    /// Says whether there is a tunnel, once the answer is whole or too long.
    pub fn verdict(&self) -> Option<Result<(), NoTunnel>> {
        let refused = |what: &str, is_final| Some(Err(NoTunnel { what: what.to_owned(), is_final }));
        if !self.is_whole() {
            return if self.0.len() < MAX_ANSWER_LENGTH { None } else { refused("does not end its answer", true) };
        }
        // status-line = HTTP-version SP status-code SP [ reason-phrase ]
        let status = self.0.strip_prefix(b"HTTP/1.1 ").or_else(|| self.0.strip_prefix(b"HTTP/1.0 "));
        match status.and_then(|rest| rest.get(..3)) {
            Some([b'2', a, b]) if a.is_ascii_digit() && b.is_ascii_digit() => Some(Ok(())),
            Some(code @ [b'1'..=b'5', a, b]) if a.is_ascii_digit() && b.is_ascii_digit() => {
                refused(&format!("answered {} to CONNECT", String::from_utf8_lossy(code)), code[0] != b'5')
            }
            _ => refused("does not speak HTTP", true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads bytes that arrive in pieces of this size; returns how many were left over, or why there is no tunnel.
    fn read(bytes: &[u8], size: usize) -> Option<Result<usize, String>> {
        let mut answer = Answer::default();
        let mut taken = 0;
        for piece in bytes.chunks(size) {
            taken += answer.take(piece);
            if let Some(verdict) = answer.verdict() {
                return Some(verdict.map(|()| bytes.len() - taken).map_err(|no| no.to_string()));
            }
        }
        None
    }

    #[test]
    fn miri_a_tunnel_begins_after_the_answer() {
        for size in [1, 7, 100] {
            assert_eq!(read(b"HTTP/1.1 200 Connection established\r\n\r\n", size), Some(Ok(0)));
            assert_eq!(read(b"HTTP/1.0 200 OK\r\nVia: x\r\n\r\n\x16\x03", size), Some(Ok(2)));
        }
    }

    #[test]
    fn miri_what_is_no_tunnel_is_refused() {
        for (answer, why) in [
            (&b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"[..], "answered 407 to CONNECT"),
            (b"HTTP/1.1 502 Bad Gateway\r\nX: 200\r\n\r\n", "answered 502 to CONNECT"),
            (b"HTTP/1.1 99 x\r\n\r\n", "does not speak HTTP"),
            (b"220 smtp.example.com\r\n\r\n", "does not speak HTTP"),
            (b"\r\n\r\n", "does not speak HTTP"),
            (&[b'x'; MAX_ANSWER_LENGTH + 1], "does not end its answer"),
        ] {
            for size in [1, 5, answer.len()] {
                assert_eq!(read(answer, size), Some(Err(why.to_owned())));
            }
        }
        assert_eq!(read(b"HTTP/1.1 200 OK\r\n", 100), None);
        let is_final = |bytes: &[u8]| {
            let mut answer = Answer::default();
            answer.take(bytes);
            answer.verdict().unwrap().unwrap_err().is_final
        };
        assert!(is_final(b"HTTP/1.1 407 x\r\n\r\n"));
        assert!(!is_final(b"HTTP/1.1 503 x\r\n\r\n"));
    }
}
