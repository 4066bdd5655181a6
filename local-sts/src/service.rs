//! STS itself, without the network: it takes a request, verifies it, and decides on the reply.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::error::StsError;
use crate::faults::Faults;
use crate::http::{Request, Response};
use crate::identity::Identity;
use crate::response::{self, StsResponse};
use crate::sigv4::{Verifier, claimed_access_key_id};

/// In bytes; longer than real session tokens.
const LONG_TOKEN: usize = 8000;

/// A request as it was received. Its `Debug` output shows neither the signature nor the session
/// token, since both can be used again for some minutes.
#[derive(Clone)]
pub struct RecordedRequest {
    /// The method, such as `POST`.
    pub method: String,
    /// The request target, such as `/`.
    pub target: String,
    /// The header fields in the order and letter case received; U+FFFD replaces what is not UTF-8.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The bytes of the request line and the header fields, including the empty line after them.
    pub raw_head: Vec<u8>,
    /// The name that the client requested in TLS (SNI), if any.
    pub server_name: Option<String>,
}

impl RecordedRequest {
    /// Returns the value of the first header field called `name`; letter case does not matter.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for RecordedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<(&str, &str)> = self
            .headers
            .iter()
            .map(|(name, value)| {
                let secret =
                    ["authorization", "x-amz-security-token"].iter().any(|secret| name.eq_ignore_ascii_case(secret));
                (name.as_str(), if secret { "<redacted>" } else { value.as_str() })
            })
            .collect();
        f.debug_struct("RecordedRequest")
            .field("method", &self.method)
            .field("target", &self.target)
            .field("headers", &headers)
            .field("body", &String::from_utf8_lossy(&self.body))
            .finish_non_exhaustive()
    }
}

/// The result of a request, without secrets; see
/// [`Builder::observer`](crate::Builder::observer).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// When it was decided, on STS's clock.
    pub time: SystemTime,
    /// The access key id that the request claims, verified or not; `None` if there is none in its
    /// proper form.
    pub access_key_id: Option<String>,
    /// The status of the response; `None` if the reply is no HTTP response, as for
    /// [`StsResponse::Raw`] and [`StsResponse::Silence`].
    pub status: Option<u16>,
    /// The error code, if STS itself refused the request, or failed.
    pub error_code: Option<&'static str>,
}

pub(crate) type Observer = Box<dyn Fn(&Outcome) + Send + Sync>;

/// What a connection does after a request.
pub(crate) enum Reply {
    /// Sends a response.
    Response(Response),
    /// Writes bytes and closes.
    Raw(Vec<u8>),
    /// Writes each as a TLS record.
    Records(Vec<Vec<u8>>),
    /// Writes `first`, then `rest` byte by byte with this pause, and closes.
    Slow { first: Vec<u8>, rest: Vec<u8>, pause: Duration },
    /// Writes `first`, then `repeated` so many times, or until the client closes.
    Flood { first: Vec<u8>, repeated: Vec<u8>, times: Option<usize> },
    /// Sends nothing and stays open.
    Silence,
}

/// The arguments of [`Service::new`].
pub(crate) struct Setup {
    pub(crate) host_names: Vec<String>,
    pub(crate) port: u16,
    pub(crate) identities: Vec<Identity>,
    pub(crate) clock_offset: i64,
    pub(crate) record_requests: bool,
    pub(crate) observer: Option<Observer>,
}

pub(crate) struct Service {
    host_names: Vec<String>,
    port: u16,
    clock_offset: i64,
    record_requests: bool,
    observer: Option<Observer>,
    identities: Mutex<HashMap<String, Identity>>,
    response: Mutex<Arc<StsResponse>>,
    pub(crate) faults: Faults,
    requests: Mutex<Vec<RecordedRequest>>,
    request_count: AtomicUsize,
}

impl Service {
    pub(crate) fn new(setup: Setup) -> Self {
        let service = Self {
            host_names: setup.host_names,
            port: setup.port,
            clock_offset: setup.clock_offset,
            record_requests: setup.record_requests,
            observer: setup.observer,
            identities: Mutex::default(),
            response: Mutex::new(Arc::new(StsResponse::Verified)),
            faults: Faults::default(),
            requests: Mutex::default(),
            request_count: AtomicUsize::new(0),
        };
        setup.identities.into_iter().for_each(|identity| service.add_identity(identity));
        service
    }

    pub(crate) fn add_identity(&self, identity: Identity) {
        lock(&self.identities).insert(identity.access_key_id.clone(), identity);
    }

    pub(crate) fn set_response(&self, response: StsResponse) {
        *lock(&self.response) = Arc::new(response);
    }

    pub(crate) fn requests(&self) -> Vec<RecordedRequest> {
        lock(&self.requests).clone()
    }

    pub(crate) fn request_count(&self) -> usize {
        self.request_count.load(Ordering::SeqCst)
    }

    /// Returns the time on STS's clock.
    fn now(&self) -> SystemTime {
        let offset = Duration::from_secs(self.clock_offset.unsigned_abs());
        if self.clock_offset < 0 { SystemTime::now() - offset } else { SystemTime::now() + offset }
    }

    /// Returns the response to bytes that are no HTTP request.
    pub(crate) fn not_a_request(&self, status: u16, message: &'static str) -> Response {
        response::error(None, &StsError::new(status, "InvalidRequest", message), self.now())
    }

    /// Records `request`, decides on the reply, and calls the observer. `server_name` is the name
    /// requested in TLS; `is_first` says whether it is the first request of its connection.
    pub(crate) fn handle(&self, request: &Request, server_name: Option<&str>, is_first: bool) -> Reply {
        let now = self.now();
        self.record(request, server_name);
        self.faults.delay();
        let mode = Arc::clone(&lock(&self.response));
        let mut error_code = None;
        let mut refuse = |error: &StsError, retry_after: Option<u64>| {
            error_code = Some(error.code);
            let mut response = response::error(Some(request), error, now);
            response.headers.extend(retry_after.map(|seconds| ("Retry-After".to_owned(), seconds.to_string())));
            Reply::Response(response)
        };
        let failed = self.faults.failure().map(|(error, retry_after)| refuse(&error, retry_after));
        let reply = failed.unwrap_or_else(|| match &*mode {
            StsResponse::OncePerConnection { silent: true } if !is_first => Reply::Silence,
            StsResponse::OncePerConnection { silent: false } if !is_first => Reply::Raw(Vec::new()),
            StsResponse::ShortTokensOnly { closes: true } if has_long_token(request) => Reply::Raw(Vec::new()),
            StsResponse::ShortTokensOnly { closes: false } if has_long_token(request) => {
                let headers = vec![("Content-Type".to_owned(), "text/html".to_owned())];
                Reply::Response(Response { status: 431, headers, body: b"<html>431</html>".to_vec() })
            }
            StsResponse::Verified | StsResponse::OncePerConnection { .. } | StsResponse::ShortTokensOnly { .. } => {
                let verifier = Verifier { host_names: &self.host_names, port: self.port, now };
                let identity_of = |id: &str| lock(&self.identities).get(id).cloned();
                match verifier.verify(request, identity_of) {
                    Ok(identity) => match self.faults.charge(&identity.account, Instant::now()) {
                        None => Reply::Response(response::success(request, &identity, now)),
                        Some((error, retry_after)) => refuse(&error, retry_after),
                    },
                    Err(error) => refuse(&error, None),
                }
            }
            StsResponse::AcceptAll(identity) => Reply::Response(response::success(request, identity, now)),
            StsResponse::Fixed { status, headers, body } => {
                Reply::Response(Response { status: *status, headers: headers.clone(), body: body.clone() })
            }
            StsResponse::Raw(bytes) => Reply::Raw(bytes.clone()),
            StsResponse::RawRecords(records) => Reply::Records(records.clone()),
            StsResponse::Silence => Reply::Silence,
            StsResponse::Slow { first, rest, pause } => {
                Reply::Slow { first: first.clone(), rest: rest.clone(), pause: *pause }
            }
            StsResponse::Flood { first, repeated, times } => {
                Reply::Flood { first: first.clone(), repeated: repeated.clone(), times: *times }
            }
        });
        if let Some(observer) = &self.observer {
            let status = match &reply {
                Reply::Response(response) => Some(response.status),
                _ => None,
            };
            observer(&Outcome { time: now, access_key_id: claimed_access_key_id(request), status, error_code });
        }
        reply
    }

    /// Keeps `request`, unless that is switched off, before it counts it: a counted request can be
    /// inspected.
    fn record(&self, request: &Request, server_name: Option<&str>) {
        if self.record_requests {
            let Request { method, target, headers, body, raw_head, .. } = request.clone();
            let server_name = server_name.map(str::to_owned);
            lock(&self.requests).push(RecordedRequest { method, target, headers, body, raw_head, server_name });
        }
        self.request_count.fetch_add(1, Ordering::SeqCst);
    }
}

fn has_long_token(request: &Request) -> bool {
    request.values("x-amz-security-token").any(|token| token.len() > LONG_TOKEN)
}

/// Locks, also after a thread panicked: what is protected is never left half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
