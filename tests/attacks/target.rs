//! A server under attack, and what has to hold for every attack on it.

use std::time::{Duration, Instant};

use local_sts::{Identity, StsResponse};

use crate::support::aws_client::{self, Conversation, Credentials, SignedLogin, Signer, client_second};
use crate::support::fixture::{Fixture, assert_plain_denial, credentials};
use crate::support::mongod::Builder;
use crate::support::wire::WireClient;

/// MongoDB's error code UserNotFound.
const USER_NOT_FOUND: i32 = 11;

/// What a login may take beyond the time that STS has: two busy cores, and a server that writes its
/// log.
const SLACK: Duration = Duration::from_secs(3);

/// For STSs that keep a login waiting, or whose trouble may pass.
pub const SHORT_TIMEOUT: Duration = Duration::from_millis(700);

/// What reasons say of trouble that may pass, so that STS is asked again as long as the login has
/// time.
const MAY_PASS: [&str; 3] =
    ["was closed before the response", "closed before the response was complete", "STS returned 500"];

/// The longest reason that a line of the log should have.
const LONGEST_REASON: usize = 600;

/// A server whose STS says yes to anything, as the victim: only the plugin's own checks stand in
/// the way.
pub struct Target {
    pub fixture: Fixture,
    /// The victim's keys, with which an attacker signs who could: whatever is refused is not
    /// refused for its signature.
    pub keys: Credentials,
    /// The plain denials so far, which is where the log's reasons are counted from.
    denied: usize,
}

impl Target {
    pub fn start() -> Self {
        Self::start_with(|builder| builder)
    }

    /// Starts mongod with further options.
    pub fn start_with(options: impl FnOnce(Builder) -> Builder) -> Self {
        let fixture = Fixture::start_with(options);
        // A good login opens the way to STS, so that what is asked later can be counted.
        fixture.assert_still_serves("the start");
        fixture.sts.set_response(StsResponse::AcceptAll(fixture.user.clone()));
        let keys = credentials(&fixture.user);
        Self { fixture, keys, denied: 0 }
    }

    /// Asserts that this first message is denied for this reason.
    pub fn refuses_first(&mut self, name: &str, message: &[u8], reason: &str) {
        let asked = self.fixture.sts.request_count();
        let mut client = WireClient::connect(self.fixture.mongod.port()).expect("a connection");
        let reply = client.sasl_start(aws_client::MECHANISM, message).expect("a reply");
        assert_plain_denial(name, &reply);
        assert!(client.logged_in_users().expect("a reply").is_empty(), "{name}");
        self.assert_denied_before_sts(name, asked, reason);
    }

    /// Asserts that what `change` makes of a good second message is denied for this reason, and
    /// that STS is not asked.
    pub fn refuses(&mut self, name: &str, reason: &str, change: impl FnOnce(&mut SignedLogin)) {
        self.refuses_answer(name, reason, |signer| {
            let mut signed = signer.sign();
            change(&mut signed);
            client_second(&signed)
        });
    }

    /// Asserts that what `change` signs instead is denied for this reason, and that STS is not
    /// asked.
    pub fn refuses_signed(&mut self, name: &str, reason: &str, change: impl FnOnce(Signer) -> Signer) {
        self.refuses_answer(name, reason, |signer| client_second(&change(signer).sign()));
    }

    /// Asserts that the answer to a challenge is denied for this reason, and that STS is not asked.
    pub fn refuses_answer(&mut self, name: &str, reason: &str, answer: impl FnOnce(Signer) -> Vec<u8>) {
        let asked = self.fixture.sts.request_count();
        let mut conversation = Conversation::start(self.fixture.mongod.port()).expect("a challenge");
        let message = answer(conversation.signer(&self.keys));
        let reply = conversation.client.sasl_continue(&conversation.conversation_id, &message).expect("a reply");
        assert_plain_denial(name, &reply);
        assert!(conversation.client.logged_in_users().expect("a reply").is_empty(), "{name}");
        self.assert_denied_before_sts(name, asked, reason);
    }

    /// Asserts that this login passes the plugin's checks and that STS is asked: the limit is where
    /// it is said to be.
    pub fn asks_sts(&mut self, name: &str, change: impl FnOnce(Signer) -> Signer) {
        let asked = self.fixture.sts.request_count();
        let logged_in = aws_client::login_with(self.fixture.mongod.port(), &self.keys, change);
        assert!(logged_in.is_ok(), "{name}: {:?}", logged_in.err());
        assert_eq!(self.fixture.sts.request_count(), asked + 1, "{name}");
    }

    /// Asserts that the victim's login is denied for this reason, in time, when STS answers so.
    pub fn denies_answer(&mut self, name: &str, answer: StsResponse, timeout: Duration, reason: &str) {
        let asked_again = MAY_PASS.iter().any(|trouble| reason.contains(trouble));
        let timeout = if asked_again { timeout.min(SHORT_TIMEOUT) } else { timeout };
        // Another value drops the kept connections: each answer comes over one of its own.
        let timeout = timeout + Duration::from_millis(u64::try_from(self.denied).unwrap());
        self.fixture.set_parameter("awsStsTimeoutMS", i32::try_from(timeout.as_millis()).unwrap());
        self.fixture.sts.set_response(answer);
        let asked = self.signed_requests();
        self.denies_login(name, timeout, reason);
        let asked = self.signed_requests() - asked;
        assert!(asked == 1 || asked_again && asked > 1, "{name}: STS was asked {asked} times");
    }

    /// How many requests of logins STS has had. In an outage the server sends requests of its own,
    /// without a signature.
    fn signed_requests(&self) -> usize {
        let requests = self.fixture.sts.requests();
        requests.iter().filter(|request| request.header("authorization").is_some()).count()
    }

    /// Asserts that the victim's login is denied for this reason, in time.
    pub fn denies_login(&mut self, name: &str, timeout: Duration, reason: &str) {
        let begun = Instant::now();
        let reply = self.fixture.login(&self.fixture.user).err().unwrap_or_else(|| panic!("{name}: logged in"));
        let took = begun.elapsed();
        assert_plain_denial(name, &reply);
        assert!(took < timeout + SLACK, "{name}: took {took:?} of {timeout:?}");
        self.assert_reason(name, reason);
    }

    /// Asserts that whom STS confirms as this ARN is nobody here: neither the victim nor any other
    /// user.
    pub fn knows_nobody(&mut self, name: &str, identity: &Identity) {
        self.fixture.sts.set_response(StsResponse::AcceptAll(identity.clone()));
        let reply = self.fixture.login(identity).err().unwrap_or_else(|| panic!("{name}: logged in"));
        if reply.get_i32("code").ok() == Some(USER_NOT_FOUND) {
            self.count_unknown_user();
            return;
        }
        assert_plain_denial(name, &reply);
        self.assert_reason(name, "STS returned a principal that cannot log in");
    }

    /// Asserts that the server went on, and lets the right client in.
    pub fn still_serves(self, after: &str) {
        self.fixture.sts.set_response(StsResponse::Verified);
        self.fixture.assert_still_serves(after);
    }

    /// The server's own answer to somebody whom STS has confirmed and who has no user; the plugin
    /// logs it except on 4.4, which does not tell it.
    fn count_unknown_user(&mut self) {
        if !self.fixture.mongod.version().starts_with("4.4") {
            self.denied += 1;
        }
    }

    fn assert_denied_before_sts(&mut self, name: &str, asked: usize, reason: &str) {
        assert_eq!(self.fixture.sts.request_count(), asked, "{name}: STS was asked");
        self.assert_reason(name, reason);
    }

    /// Asserts that the log has one reason more, that it is this one, and that it is one short line
    /// of plain text.
    fn assert_reason(&mut self, name: &str, reason: &str) {
        self.denied += 1;
        let reasons = self.fixture.denial_reasons(self.denied);
        let logged = reasons.last().expect("a reason");
        assert!(logged.contains(reason), "{name}: {logged}");
        assert!(logged.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "{name}: {logged:?}");
        assert!(logged.len() < LONGEST_REASON, "{name}: {logged}");
    }
}
