//! HTTP/1.1 as far as STS needs it: requests with a `Content-Length`, in sequence on a connection.
//!
//! Framing follows RFC 9112. Chunked bodies are refused: no client of STS sends them.

use std::io::{self, Read, Write};

/// Maximum size of the request line and header fields, in bytes.
pub(crate) const HEAD_LIMIT: usize = 64 * 1024;
/// Maximum size of a body, in bytes.
pub(crate) const BODY_LIMIT: usize = 1024 * 1024;
/// Maximum number of header fields.
const FIELD_LIMIT: usize = 128;

/// A request as it was received.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Names as they were written; values U+FFFD replaces what is not UTF-8.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The bytes up to and including the empty line.
    pub(crate) raw_head: Vec<u8>,
    /// Whether the client leaves the connection open after the response.
    pub(crate) keep_alive: bool,
}

impl Request {
    /// Returns the values of all fields called `name`, in order; letter case does not matter.
    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        values(&self.headers, name)
    }
}

/// Returns the values of all fields in `headers` that are called `name`.
pub(crate) fn values<'a>(headers: &'a [(String, String)], name: &'a str) -> impl Iterator<Item = &'a str> {
    headers.iter().filter(move |(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// Why a request could not be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The connection failed, ended inside a request, or timed out: no response is possible.
    Connection(io::Error),
    /// It is malformed or too big. The response has this status, and the connection must be closed:
    /// where the next request begins is unknown.
    Refused(u16, &'static str),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Connection(error)
    }
}

/// Reads one request from `stream`, beginning with what `buffer` already holds.
///
/// Bytes that belong to the next request are left in `buffer`. A client that waits for `100
/// Continue` gets it.
pub(crate) fn read_request(stream: &mut (impl Read + Write), buffer: &mut Vec<u8>) -> Result<Request, ReadError> {
    let (mut request, length) = loop {
        if let Some(parsed) = parse_head(buffer)? {
            break parsed;
        }
        if buffer.len() >= HEAD_LIMIT {
            return Err(ReadError::Refused(431, "the header fields are too big"));
        }
        read_more(stream, buffer)?;
    };
    if request.raw_head.len() > HEAD_LIMIT {
        return Err(ReadError::Refused(431, "the header fields are too big"));
    }
    buffer.drain(..request.raw_head.len());

    if buffer.len() < length && request.values("expect").any(|value| value.eq_ignore_ascii_case("100-continue")) {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        stream.flush()?;
    }
    while buffer.len() < length {
        read_more(stream, buffer)?;
    }
    let rest = buffer.split_off(length);
    request.body = std::mem::replace(buffer, rest);
    Ok(request)
}

/// Reads once and appends to `buffer`; the end of the connection is an error.
fn read_more(stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<()> {
    let mut chunk = [0; 8192];
    match stream.read(&mut chunk)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => {
            buffer.extend_from_slice(&chunk[..count]);
            Ok(())
        }
    }
}

/// Parses the head if it is complete; returns the request without its body, and the length that the
/// body has.
fn parse_head(buffer: &[u8]) -> Result<Option<(Request, usize)>, ReadError> {
    let mut fields = [httparse::EMPTY_HEADER; FIELD_LIMIT];
    let mut parsed = httparse::Request::new(&mut fields);
    let head_length = match parsed.parse(buffer) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(ReadError::Refused(431, "too many header fields")),
        Err(_) => return Err(ReadError::Refused(400, "this is not an HTTP/1.1 request")),
    };
    let headers: Vec<(String, String)> = parsed
        .headers
        .iter()
        .map(|field| (field.name.to_owned(), String::from_utf8_lossy(field.value).into_owned()))
        .collect();
    let length = body_length(&headers)?;
    let keep_alive = parsed.version == Some(1)
        && !values(&headers, "connection")
            .flat_map(|value| value.split(','))
            .any(|option| option.trim().eq_ignore_ascii_case("close"));
    let request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        target: parsed.path.unwrap_or_default().to_owned(),
        headers,
        body: Vec::new(),
        raw_head: buffer[..head_length].to_vec(),
        keep_alive,
    };
    Ok(Some((request, length)))
}

/// Returns the length of the body, RFC 9112 section 6.3, and refuses what could be read in two
/// ways.
fn body_length(headers: &[(String, String)]) -> Result<usize, ReadError> {
    if values(headers, "transfer-encoding").next().is_some() {
        return Err(ReadError::Refused(501, "a body must come with Content-Length"));
    }
    let mut lengths = values(headers, "content-length");
    let Some(text) = lengths.next() else { return Ok(0) };
    if lengths.next().is_some() || text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ReadError::Refused(400, "Content-Length must be one number"));
    }
    match text.parse() {
        Ok(length) if length <= BODY_LIMIT => Ok(length),
        _ => Err(ReadError::Refused(413, "the body is too big")),
    }
}

/// A response that is ready to be written.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// Returns whether another request can follow: the fields neither say `close` nor frame the
    /// body otherwise than by its true length.
    pub(crate) fn keeps_alive(&self) -> bool {
        !values(&self.headers, "connection").any(|value| value.eq_ignore_ascii_case("close"))
            && values(&self.headers, "transfer-encoding").next().is_none()
            && values(&self.headers, "content-length").all(|value| value.parse() == Ok(self.body.len()))
    }

    /// Returns the bytes to send: `Content-Length` is added unless the fields frame the body
    /// already.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status)).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        let framed =
            ["content-length", "transfer-encoding"].iter().any(|name| values(&self.headers, name).next().is_some());
        if !framed {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", self.body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        301 => "Moved Permanently",
        302 => "Found",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that has said everything it will say, one piece for each read.
    struct Script {
        pieces: std::collections::VecDeque<Vec<u8>>,
        written: Vec<u8>,
    }

    impl Script {
        fn new(pieces: &[&[u8]]) -> Self {
            Self { pieces: pieces.iter().map(|piece| piece.to_vec()).collect(), written: Vec::new() }
        }
    }

    impl Read for Script {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let piece = self.pieces.pop_front().unwrap_or_default();
            into[..piece.len()].copy_from_slice(&piece);
            Ok(piece.len())
        }
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.written.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn refused_status(pieces: &[&[u8]]) -> u16 {
        match read_request(&mut Script::new(pieces), &mut Vec::new()) {
            Err(ReadError::Refused(status, _)) => status,
            Err(ReadError::Connection(error)) => panic!("{error}"),
            Ok(_) => panic!("accepted"),
        }
    }

    #[test]
    fn a_request_in_pieces_is_assembled_and_the_next_one_is_kept() {
        let mut buffer = Vec::new();
        let mut script =
            Script::new(&[b"POST / HT", b"TP/1.1\r\nHost: a\r\nContent-Le", b"ngth: 4\r\n\r\nab", b"cdGET "]);
        let request = read_request(&mut script, &mut buffer).unwrap();
        assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/"));
        assert_eq!(request.body, b"abcd");
        assert_eq!(request.raw_head, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n");
        assert!(request.keep_alive);
        assert_eq!(buffer, b"GET ");
    }

    #[test]
    fn a_client_that_expects_continue_gets_it() {
        let mut script = Script::new(&[b"POST / HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n", b"ab"]);
        assert_eq!(read_request(&mut script, &mut Vec::new()).unwrap().body, b"ab");
        assert_eq!(script.written, b"HTTP/1.1 100 Continue\r\n\r\n");
    }

    #[test]
    fn the_client_decides_whether_the_connection_stays_open() {
        for (head, expected) in [
            ("POST / HTTP/1.1\r\n\r\n", true),
            ("POST / HTTP/1.1\r\nConnection: TE, Close\r\n\r\n", false),
            ("POST / HTTP/1.0\r\n\r\n", false),
        ] {
            let request = read_request(&mut Script::new(&[head.as_bytes()]), &mut Vec::new()).unwrap();
            assert_eq!(request.keep_alive, expected, "{head:?}");
        }
    }

    #[test]
    fn ambiguous_or_endless_framing_is_refused() {
        for (head, expected) in [
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n", 413),
            ("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 413),
            ("POST / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
            ("nonsense\r\n\r\n", 400),
        ] {
            assert_eq!(refused_status(&[head.as_bytes()]), expected, "{head:?}");
        }
        let long = vec![b'a'; 8000];
        let mut pieces: Vec<&[u8]> = vec![b"POST / HTTP/1.1\r\nX: "];
        pieces.extend(std::iter::repeat_n(long.as_slice(), 9));
        assert_eq!(refused_status(&pieces), 431);
    }

    #[test]
    fn content_length_is_added_unless_it_is_given() {
        let mut response = Response { status: 200, headers: Vec::new(), body: b"abc".to_vec() };
        assert_eq!(response.to_bytes(), b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc");
        assert!(response.keeps_alive());
        response.headers.push(("content-length".to_owned(), "9".to_owned()));
        assert_eq!(response.to_bytes(), b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc");
        assert!(!response.keeps_alive());
    }
}
