//! Where requests and responses begin in a TLS connection, as far as that shows outside the
//! encryption.
//!
//! Nothing is decrypted. The headers of TLS records are plain (RFC 8446 section 5.1, RFC 5246
//! section 6.2.1), and so is the server's choice of a version.

/// `ContentType` of application data; in TLS 1.3 also of everything else that is encrypted.
const APPLICATION_DATA: u8 = 23;
const HEADER: usize = 5;
/// A record of this length or less holds no request and no response: an encrypted alert has 19
/// bytes or a few more.
const MAX_ALERT: usize = 64;
/// Nor does one of this length in TLS 1.3 as long as there was no response: it is the session
/// ticket. `LocalSts` sends one, of some 200 bytes; its responses have 400 and more.
const MAX_TICKET: usize = 300;
/// Where the length of the session id is in a record that holds a `ServerHello`: after the headers
/// of record (5 bytes) and handshake message (4), the version (2) and the random bytes (32).
const SESSION_ID: usize = 43;

/// Follows one direction from record to record.
#[derive(Default)]
struct Records {
    header: [u8; HEADER],
    known: usize,
    /// Bytes of the current record's payload that are still to come.
    left: usize,
}

impl Records {
    /// Calls `begins` for each record whose header ends in `bytes`, with the offset at which the
    /// record begins (0 if that was in earlier bytes), its type, and its length.
    fn follow(&mut self, bytes: &[u8], mut begins: impl FnMut(usize, u8, usize)) {
        let mut at = 0;
        let mut begin = 0;
        while at < bytes.len() {
            if self.left > 0 {
                let count = self.left.min(bytes.len() - at);
                self.left -= count;
                at += count;
                continue;
            }
            if self.known == 0 {
                begin = at;
            }
            self.header[self.known] = bytes[at];
            self.known += 1;
            at += 1;
            if self.known == HEADER {
                let length = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
                begins(begin, self.header[0], length);
                (self.known, self.left) = (0, length);
            }
        }
    }
}

/// A connection's traffic in both directions.
#[derive(Default)]
pub(super) struct Traffic {
    client: Records,
    server: Records,
    /// The beginning of what the server sent.
    hello: Vec<u8>,
    /// Whether the client's first record of application data was seen.
    client_data: bool,
    /// Whether a request was seen that has no response yet.
    awaits_response: bool,
    /// Whether there was a response.
    had_response: bool,
}

impl Traffic {
    /// Takes what the client has sent; returns where in it a request begins.
    pub(super) fn client_sent(&mut self, bytes: &[u8]) -> Option<usize> {
        // The client's first encrypted record is the end of the handshake in TLS 1.3, and a request
        // before.
        let is_tls13 = is_tls13(&self.hello);
        let mut request = None;
        self.client.follow(bytes, |at, kind, length| {
            if kind == APPLICATION_DATA {
                let ends_handshake = is_tls13 && !self.client_data;
                self.client_data = true;
                if !ends_handshake && length > MAX_ALERT && !self.awaits_response {
                    self.awaits_response = true;
                    request = Some(at);
                }
            }
        });
        request
    }

    /// Takes what the server has sent; returns where in it a response begins.
    pub(super) fn server_sent(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.hello.len() < 2 * SESSION_ID {
            let count = bytes.len().min(2 * SESSION_ID - self.hello.len());
            self.hello.extend_from_slice(&bytes[..count]);
        }
        let no_response = if is_tls13(&self.hello) && !self.had_response { MAX_TICKET } else { MAX_ALERT };
        let mut response = None;
        self.server.follow(bytes, |at, kind, length| {
            if kind == APPLICATION_DATA && self.awaits_response && length > no_response {
                (self.awaits_response, self.had_response) = (false, true);
                response = Some(at);
            }
        });
        response
    }

    /// Returns whether the last request has its response, and there was one.
    pub(super) fn is_idle(&self) -> bool {
        self.had_response && !self.awaits_response
    }
}

/// Returns whether the server chose TLS 1.3, which has cipher suites of its own, 0x13.., RFC 8446
/// appendix B.4.
fn is_tls13(hello: &[u8]) -> bool {
    let suite = hello.get(SESSION_ID).map(|length| SESSION_ID + 1 + usize::from(*length));
    suite.and_then(|at| hello.get(at)) == Some(&0x13)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![kind, 3, 3];
        bytes.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        bytes.resize(HEADER + length, 0);
        bytes
    }

    fn server_hello(suite: u8) -> Vec<u8> {
        let mut bytes = record(22, 90);
        bytes[SESSION_ID] = 32;
        bytes[SESSION_ID + 33] = suite;
        bytes
    }

    #[test]
    fn requests_and_responses_are_found_in_both_versions_of_tls_byte_by_byte_too() {
        for (suite, finished) in [(0x13, 23), (0xc0, 22)] {
            for piece in [1, 7, 100_000] {
                let mut traffic = Traffic::default();
                let mut send = |from_client: bool, bytes: Vec<u8>| {
                    let mut found = None;
                    for (n, part) in bytes.chunks(piece).enumerate() {
                        let at = if from_client { traffic.client_sent(part) } else { traffic.server_sent(part) };
                        found = found.or(at.map(|at| n * piece + at));
                    }
                    found
                };
                assert_eq!(send(true, record(22, 300)), None);
                assert_eq!(send(false, server_hello(suite)), None);
                // With the request at once, after the end of the handshake.
                let at = send(true, [record(finished, 69), record(23, 700)].concat()).unwrap();
                assert!((69 + HEADER..69 + 2 * HEADER).contains(&at), "{suite} {piece} {at}");
                let ticket = record(if suite == 0x13 { 23 } else { 22 }, 240);
                let at = send(false, [ticket, record(23, 800)].concat()).unwrap();
                assert!((240 + HEADER..240 + 2 * HEADER).contains(&at), "{suite} {piece} {at}");
                assert!(send(true, record(23, 700)).is_some_and(|at| at < HEADER));
                assert!(send(false, record(23, 100)).is_some_and(|at| at < HEADER));
                assert_eq!(send(true, record(23, 19)), None, "an alert");
            }
        }
    }
}
