//! What passes through the proxy, as far as it shows outside the encryption: where requests and answers begin.
//!
//! Nothing is decrypted. The headers of TLS records are plain (RFC 8446 section 5.1, RFC 5246 section 6.2.1), and so is
//! the server's choice of a version.

/// `ContentType` of application data; in TLS 1.3 also of everything else that is encrypted.
const APPLICATION_DATA: u8 = 23;
const HEADER: usize = 5;
/// A record of this length or less holds no request and no answer: an encrypted alert has 19 bytes or a few more.
const LONGEST_ALERT: usize = 64;
/// Nor does one of this length in TLS 1.3 as long as there was no answer: it is the session ticket. `LocalSts` sends one, of
/// some 200 bytes; its answers have 400 and more.
const LONGEST_TICKET: usize = 300;
/// Where the length of the session id is in a record that holds a `ServerHello`: after the headers of record (5 bytes)
/// and handshake message (4), the version (2) and the random bytes (32).
const SESSION_ID: usize = 43;

/// Follows one direction from record to record.
#[derive(Default)]
struct Records {
    header: [u8; HEADER],
    known: usize,
    /// Bytes that are missing of the record whose header is known.
    left: usize,
}

impl Records {
    /// Calls `begins` for each record whose header ends in `bytes`, with the place where the record begins (0 if that was
    /// in earlier bytes), its type, and its length.
    fn follow(&mut self, bytes: &[u8], mut begins: impl FnMut(usize, u8, usize)) {
        let mut at = 0;
        let mut begun = 0;
        while at < bytes.len() {
            if self.left > 0 {
                let count = self.left.min(bytes.len() - at);
                self.left -= count;
                at += count;
                continue;
            }
            if self.known == 0 {
                begun = at;
            }
            self.header[self.known] = bytes[at];
            self.known += 1;
            at += 1;
            if self.known == HEADER {
                let length = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
                begins(begun, self.header[0], length);
                (self.known, self.left) = (0, length);
            }
        }
    }
}

/// A connection's talk between client and server.
#[derive(Default)]
pub(super) struct Talk {
    client: Records,
    server: Records,
    /// The beginning of what the server said.
    hello: Vec<u8>,
    /// Whether the client's first record of application data was seen.
    client_data: bool,
    /// Whether a request was seen that has no answer yet.
    asked: bool,
    /// Whether there was an answer.
    answered: bool,
}

impl Talk {
    /// Takes what the client says, and returns where in it a request begins.
    pub(super) fn client_says(&mut self, bytes: &[u8]) -> Option<usize> {
        // The client's first encrypted record is the end of the handshake in TLS 1.3, and a request before.
        let is_tls13 = is_tls13(&self.hello);
        let mut request = None;
        self.client.follow(bytes, |at, kind, length| {
            if kind == APPLICATION_DATA {
                let ends_handshake = is_tls13 && !self.client_data;
                self.client_data = true;
                if !ends_handshake && length > LONGEST_ALERT && !self.asked {
                    self.asked = true;
                    request = Some(at);
                }
            }
        });
        request
    }

    /// Takes what the server says, and returns where in it an answer begins.
    pub(super) fn server_says(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.hello.len() < 2 * SESSION_ID {
            let count = bytes.len().min(2 * SESSION_ID - self.hello.len());
            self.hello.extend_from_slice(&bytes[..count]);
        }
        let shortest = if is_tls13(&self.hello) && !self.answered { LONGEST_TICKET } else { LONGEST_ALERT };
        let mut answer = None;
        self.server.follow(bytes, |at, kind, length| {
            if kind == APPLICATION_DATA && self.asked && length > shortest {
                (self.asked, self.answered) = (false, true);
                answer = Some(at);
            }
        });
        answer
    }

    /// Says whether an answer has begun, at any time.
    pub(super) fn answered(&self) -> bool {
        self.answered
    }

    /// Says whether a request is without an answer.
    pub(super) fn asked(&self) -> bool {
        self.asked
    }
}

/// Says whether the server chose TLS 1.3: it has cipher suites of its own, 0x13.., RFC 8446 appendix B.4.
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
    fn requests_and_answers_are_found_in_both_versions_of_tls_byte_by_byte_too() {
        for (suite, finished) in [(0x13, 23), (0xc0, 22)] {
            for piece in [1, 7, 100_000] {
                let mut talk = Talk::default();
                let mut say = |from_client: bool, bytes: Vec<u8>| {
                    let mut found = None;
                    for (n, part) in bytes.chunks(piece).enumerate() {
                        let at = if from_client { talk.client_says(part) } else { talk.server_says(part) };
                        found = found.or(at.map(|at| n * piece + at));
                    }
                    found
                };
                assert_eq!(say(true, record(22, 300)), None);
                assert_eq!(say(false, server_hello(suite)), None);
                // With the request at once, after the end of the handshake.
                let at = say(true, [record(finished, 69), record(23, 700)].concat()).unwrap();
                assert!((69 + HEADER..69 + 2 * HEADER).contains(&at), "{suite} {piece} {at}");
                let ticket = record(if suite == 0x13 { 23 } else { 22 }, 240);
                let at = say(false, [ticket, record(23, 800)].concat()).unwrap();
                assert!((240 + HEADER..240 + 2 * HEADER).contains(&at), "{suite} {piece} {at}");
                assert!(say(true, record(23, 700)).is_some_and(|at| at < HEADER));
                assert!(say(false, record(23, 100)).is_some_and(|at| at < HEADER));
                assert_eq!(say(true, record(23, 19)), None, "an alert");
            }
        }
    }
}
