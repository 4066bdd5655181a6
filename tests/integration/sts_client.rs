//! The side of a login that asks STS, in this process and without a server: what it counts, and
//! whom it blames.

use std::thread;
use std::time::{Duration, Instant};

use bson::Document;
use local_sts::{Failures, LocalSts, ServiceError, StsResponse};
use psmdb_aws_iam::events::Event;
use psmdb_aws_iam::login::{Login, Progress};
use psmdb_aws_iam::parameters;
use psmdb_aws_iam::sasl::Moment;
use psmdb_aws_iam::settings::Store;
use psmdb_aws_iam::sts::health::Outcome;
use tempfile::TempDir;

use crate::support::aws_client::{Credentials, Signer, client_first, client_second};

const FIRST: &str = "sts.us-east-1.amazonaws.com";
const SECOND: &str = "sts.us-east-2.amazonaws.com";

/// Settings with a second host that stands in for the first. Both are the same STS.
struct Client {
    store: Store,
    sts: LocalSts,
    _folder: TempDir,
}

impl Client {
    fn new(timeout: Duration) -> Self {
        let sts =
            LocalSts::builder().host_name(FIRST).host_name(SECOND).record_requests(false).start().expect("an STS");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, sts.ca_pem()).expect("a file for the CA");
        let client = Self { store: Store::default(), sts, _folder: folder };
        let endpoint = client.sts.endpoint();
        for (name, value) in [
            ("awsStsCAFile", ca_file.display().to_string()),
            ("awsStsTimeoutMS", timeout.as_millis().to_string()),
            ("awsStsHost", FIRST.to_owned()),
            ("awsStsEndpoint", endpoint.clone()),
            ("awsStsFallbackHosts", format!("{SECOND}={endpoint}")),
        ] {
            let parameter = parameters::find(name).expect("it exists");
            client.store.set_text(parameter, &value).expect("it is good");
        }
        client
    }

    /// Logs in with a key that nobody has; returns the reason of the denial.
    fn forge(&self, access_key_id: &str) -> String {
        let mut login = Login::new(&self.store, Instant::now());
        assert_eq!(login.step(&self.store, &client_first(&[1; 32]), Moment::now()), Progress::Continue);
        let challenge = login.reply();
        let challenge = Document::from_reader(challenge).expect("BSON");
        let (host, nonce) = (challenge.get_str("h").unwrap(), challenge.get_binary_generic("s").unwrap());
        let signed = Signer::new(&Credentials::new(access_key_id, "no-secret"), host, nonce).sign_by_hand();
        let progress = login.step(&self.store, &client_second(&signed), Moment::now());
        assert!(matches!(progress, Progress::Denied(_)), "nobody has this key");
        login.reason().to_owned()
    }

    fn counted(&self, of: fn(&psmdb_aws_iam::metrics::Metrics) -> &psmdb_aws_iam::metrics::Counter) -> usize {
        usize::try_from(of(&self.store.process().metrics).get()).unwrap()
    }

    /// Both hosts are one STS, so that the constant request reaches neither when a login does not.
    fn assert_outage_begins(&self) {
        let until = Instant::now() + Duration::from_secs(20);
        let began = loop {
            if let Some(event) = self.store.process().events.pop() {
                break event;
            }
            assert!(Instant::now() < until, "no outage began");
            thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(began, Event::OutageBegan { hosts: format!("{FIRST}, {SECOND}") });
    }
}

#[test]
fn an_sts_that_ends_every_answer_early_is_not_reached() {
    let client = Client::new(Duration::from_millis(1500));
    client.forge("AKIANOBODY");
    thread::sleep(Duration::from_millis(1000));
    client.sts.set_cut(Some(200));
    client.forge("AKIANOBODY");
    client.assert_outage_begins();
}

#[test]
fn an_sts_that_sends_an_answer_byte_by_byte_is_not_reached() {
    let client = Client::new(Duration::from_millis(600));
    client.forge("AKIANOBODY");
    thread::sleep(Duration::from_millis(1000));
    client.sts.set_drip(Some(Duration::from_millis(50)));
    for _ in 0..3 {
        client.forge("AKIANOBODY");
    }
    client.assert_outage_begins();
}

#[test]
fn only_an_error_code_of_sts_answers_the_constant_request() {
    let client = Client::new(Duration::from_secs(1));
    let settings = client.store.current();
    let check = || settings.sts().check(settings.sts().first_host());
    assert_eq!(check(), Outcome::Reached);
    client.sts.set_failures(Failures::all(ServiceError::ServiceUnavailable));
    assert_eq!(check(), Outcome::NotReached);
    client.sts.set_failures(None);
    let html = || vec![("Content-Type".to_owned(), "text/html".to_owned())];
    for status in [200, 301, 403, 429, 431] {
        client.sts.set_response(StsResponse::Fixed { status, headers: html(), body: b"<html>blocked</html>".to_vec() });
        assert_eq!(check(), Outcome::NotReached, "{status}");
    }
    client.sts.set_response(StsResponse::Raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()));
    assert_eq!(check(), Outcome::NotReached);
    client.sts.set_response(StsResponse::Verified);
    assert_eq!(check(), Outcome::Reached);
    let Client { sts: gone, .. } = client;
    drop(gone);
    assert_eq!(check(), Outcome::NotReached);
}

#[test]
fn what_is_sent_is_counted_and_nothing_else() {
    let client = Client::new(Duration::from_secs(3));
    client.forge("AKIANOBODY");
    // A kept connection has a third of the time, and the same question goes over a new one then.
    client.sts.set_processing_time(Duration::from_millis(1300));
    client.forge("AKIANOBODY");
    let (requests, retries) = (client.counted(|m| &m.sts_requests), client.counted(|m| &m.sts_retries));
    assert_eq!((requests, retries), (client.sts.request_count(), client.sts.request_count() - 2));
    assert!(retries > 0);

    let client = Client::new(Duration::from_secs(3));
    client.sts.set_failures(Failures::all(ServiceError::Throttling).retry_after(1));
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| client.forge("AKIANOBODY"));
        }
    });
    let (requests, retries) = (client.counted(|m| &m.sts_requests), client.counted(|m| &m.sts_retries));
    assert_eq!(requests, client.sts.request_count());
    assert!(requests - retries <= 20, "{retries} of {requests} requests of 20 logins asked again");
    assert_eq!(client.counted(|m| &m.sts_throttled), requests);
}

/// Whoever claims to be of a throttled account stands beside those whom STS has confirmed, not
/// before them.
#[test]
fn strangers_do_not_stand_before_confirmed_callers_of_a_throttled_account() {
    use psmdb_aws_iam::sts::gate::Gate;
    const KEY: &str = "AKIAABCDEFGH2345WXYZ";
    let (gate, now) = (Gate::default(), Instant::now());
    let stranger = gate.caller("AKIAABCDEFGH2666WXYZ", now);
    gate.remember(KEY, "123456789012", now);
    let victim = gate.caller(KEY, now);
    // Both are throttled; only the strangers are many.
    gate.throttled(&victim, None, now);
    gate.throttled(&stranger, Some(Duration::from_secs(4)), now);
    let enter = |caller, seconds| gate.enter(caller, Instant::now() + Duration::from_secs(seconds)).map(drop);
    thread::scope(|scope| {
        let (enter, stranger) = (&enter, &stranger);
        let crowd: Vec<_> = (0..50).map(|_| scope.spawn(move || enter(stranger, 5))).collect();
        thread::sleep(Duration::from_millis(100));
        for _ in 0..20 {
            assert_eq!(enter(&victim, 1), Ok(()));
        }
        assert!(crowd.iter().all(|thread| !thread.is_finished()));
    });
}
