//! One login, from its first message until the server drops it: the conversation, the request to
//! STS, the user's name, and what is counted.

use crate::denial::{Cause, Denial, Kind};
use crate::events::Event;
use crate::metrics::Metrics;
use crate::sasl::{self, Conversation, Moment, Next};
use crate::settings::{Settings, Store};
use crate::sts::hosts::Host;
use crate::sts::request::IdentityRequest;
use bson::raw::{RawDocumentBuf, cstr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The reason of a login that a panic ended.
const DEFECT: &str = "a defect of psmdb-aws-iam was caught; please report it";

/// One login. It reaches STS with the settings that were in force when it began, since the client
/// signs for the host that it was given then. Whether the client is let in is decided by the
/// settings in force at the end.
#[derive(Debug)]
pub struct Login {
    settings: Arc<Settings>,
    host: Arc<Host>,
    state: State,
    /// The time that its messages took until now.
    spent: Duration,
}

/// How far a login is. There is no way back: a login that is confirmed or denied takes no further
/// message.
#[derive(Debug)]
enum State {
    /// It waits for the client's next message; `reply` answers the last one.
    Underway { conversation: Conversation, reply: Vec<u8> },
    /// STS has confirmed the client. `is_reported`: the server has reported the login as
    /// successful.
    Confirmed { user: Authenticated, extra_info: Vec<u8>, is_reported: bool },
    /// It has failed for this reason.
    Denied { reason: String },
}

/// What a message led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Send [`Login::reply`] to the client and wait for its next message.
    Continue,
    /// The client is [`Login::user`]; send an empty reply.
    Authenticated,
    /// The login has failed; the log gets [`Login::reason`].
    Denied(Kind),
}

/// The user that a client has proved to be. Only a login that STS confirmed makes one.
#[derive(Debug)]
pub struct Authenticated {
    user_name: String,
    arn: String,
    user_id: String,
    access_key_id: String,
    account: String,
}

impl Login {
    /// Begins a login now, with the settings in force.
    pub fn new(store: &Store, now: Instant) -> Self {
        store.process().metrics.started.add();
        let settings = store.current();
        let host = settings.sts().host_for_login(now);
        let conversation = Conversation::new(host.name().clone());
        let state = State::Underway { conversation, reply: Vec::new() };
        Self { settings, host, state, spent: Duration::ZERO }
    }

    /// Takes the client's next message. `now` is when it came, or the reason why that is unknown.
    /// The second message makes it send a request to STS, and blocks for awsStsTimeoutMS at most.
    /// `store` is the one that the login began with.
    pub fn step(&mut self, store: &Store, message: &[u8], now: Result<Moment, Denial>) -> Progress {
        self.advance(|login, conversation| login.take(store, conversation, message, now?))
    }

    /// Leads from one state to the next, and counts it. The login is denied while `take` runs, so
    /// that a panic leaves it denied for good.
    fn advance(&mut self, take: impl FnOnce(&Self, Conversation) -> Result<State, Denial>) -> Progress {
        let process = Arc::clone(self.settings.sts().process());
        let metrics = &process.metrics;
        let before = std::mem::replace(&mut self.state, State::Denied { reason: DEFECT.to_owned() });
        let result = match before {
            State::Underway { conversation, .. } => {
                let panic = CountPanic(metrics);
                let begun = Instant::now();
                let result = take(self, conversation);
                self.spent += begun.elapsed();
                std::mem::forget(panic);
                if !matches!(result, Ok(State::Underway { .. })) {
                    metrics.login_latency.add(self.spent);
                }
                result
            }
            State::Confirmed { .. } | State::Denied { .. } => {
                Err(Denial::malformed("the client sent a message after the conversation had ended"))
            }
        };
        let (state, progress) = match result {
            Ok(state @ State::Confirmed { .. }) => {
                metrics.confirmed.add();
                (state, Progress::Authenticated)
            }
            Ok(state) => (state, Progress::Continue),
            Err(denial) => {
                metrics.denied.add(denial.cause());
                (State::Denied { reason: denial.reason().to_owned() }, Progress::Denied(denial.kind()))
            }
        };
        self.state = state;
        if !process.registration.reports_logins() {
            // Then the confirmation of STS is all there is to know.
            self.logged_in();
        }
        progress
    }

    fn take(&self, store: &Store, conversation: Conversation, message: &[u8], now: Moment) -> Result<State, Denial> {
        #[cfg(feature = "panic-on-demand")]
        assert!(message != PANIC_ON_DEMAND, "a panic on demand");
        match conversation.step(message, fill_random, now)? {
            Next::Reply(reply, conversation) => Ok(State::Underway { conversation, reply }),
            Next::AskSts(request) => {
                let user = self
                    .ask_sts(store, &request)
                    .map_err(|denial| sasl::with_claimed_key(denial, request.authorization.claimed_access_key_id()))?;
                let extra_info = user.extra_info().into_bytes();
                Ok(State::Confirmed { user, extra_info, is_reported: false })
            }
        }
    }

    fn ask_sts(&self, store: &Store, request: &IdentityRequest) -> Result<Authenticated, Denial> {
        let access_key_id = request.authorization.claimed_access_key_id();
        let Self { settings, host, .. } = self;
        settings.check_trust_unchanged(&store.current())?;
        let identity = settings.sts().ask(host, request)?;
        // What was changed during the request counts too.
        let current = store.current();
        settings.check_trust_unchanged(&current)?;
        current.check_account(&identity.principal)?;
        Ok(Authenticated {
            user_name: current.user_name(&identity.principal),
            arn: identity.arn,
            user_id: identity.user_id,
            access_key_id: access_key_id.to_owned(),
            account: identity.principal.account,
        })
    }

    /// The reply to the client's last message; empty unless the login is underway.
    pub fn reply(&self) -> &[u8] {
        match &self.state {
            State::Underway { reply, .. } => reply,
            _ => &[],
        }
    }

    /// Who the client is; none unless STS has confirmed it.
    pub fn user(&self) -> Option<&Authenticated> {
        match &self.state {
            State::Confirmed { user, .. } => Some(user),
            _ => None,
        }
    }

    /// What the server adds to its log line about the login, a BSON document:
    /// [`Authenticated::extra_info`]. Empty unless STS has confirmed the client.
    pub fn extra_info(&self) -> &[u8] {
        match &self.state {
            State::Confirmed { extra_info, .. } => extra_info,
            _ => &[],
        }
    }

    /// Why the login failed; empty unless it has.
    pub fn reason(&self) -> &str {
        match &self.state {
            State::Denied { reason } => reason,
            _ => "",
        }
    }

    /// Records that the server has reported a confirmed login as successful. Does nothing for any
    /// other.
    pub fn logged_in(&mut self) {
        if let State::Confirmed { user, is_reported, .. } = &mut self.state
            && !std::mem::replace(is_reported, true)
        {
            let sts = self.settings.sts();
            sts.process().registration.mark_login_reported();
            sts.remember(&user.access_key_id, &user.account);
        }
    }
}

impl Drop for Login {
    /// The server looks the user up after the last message, and neither logs nor reports why it
    /// refuses one. So a confirmed login that ends without a report is counted, and gets a line in
    /// the log.
    fn drop(&mut self) {
        if let State::Confirmed { user, is_reported: false, .. } = &self.state {
            let (sts, process) = (self.settings.sts(), self.settings.sts().process());
            process.metrics.not_reported.add();
            // A server that runs with quiet reports no login: then all that STS confirms may have
            // succeeded.
            if !process.registration.has_reported_login() {
                sts.remember(&user.access_key_id, &user.account);
            }
            let (arn, user_name) = (user.arn.clone(), user.user_name.clone());
            process.events.push(Event::NotReported { arn, user_name });
        }
    }
}

/// Counts a login that a panic ends: it is dropped by the panic, and forgotten otherwise.
struct CountPanic<'a>(&'a Metrics);

impl Drop for CountPanic<'_> {
    fn drop(&mut self) {
        self.0.denied.add(Cause::Internal);
    }
}

impl Authenticated {
    /// The name of the user in `$external`.
    pub fn user_name(&self) -> &str {
        &self.user_name
    }

    /// The ARN in the response of STS.
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// What the server adds to its log line about the login: `{awsId: unique id, awsArn: ARN}`.
    pub fn extra_info(&self) -> RawDocumentBuf {
        let mut document = RawDocumentBuf::new();
        document.append(cstr!("awsId"), self.user_id.as_str());
        document.append(cstr!("awsArn"), self.arn.as_str());
        document
    }
}

/// The message that makes a build for tests panic.
#[cfg(feature = "panic-on-demand")]
pub const PANIC_ON_DEMAND: &[u8] = b"panic on demand";

fn fill_random(buffer: &mut [u8]) -> Result<(), Denial> {
    getrandom::fill(buffer)
        .map_err(|error| Denial::internal(format!("the operating system returned no random bytes: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::spec::BinarySubtype;
    use bson::{Binary, rawdoc};

    fn first_message() -> Vec<u8> {
        let nonce = Binary { subtype: BinarySubtype::Generic, bytes: vec![1; 32] };
        rawdoc! { "r": nonce, "p": 110 }.into_bytes()
    }

    /// A good second message for the global host.
    fn second_message(unix_seconds: i64) -> Vec<u8> {
        let at = bson::DateTime::from_millis(unix_seconds * 1000).try_to_rfc3339_string().unwrap();
        let date = format!("{}Z", at[..19].replace(['-', ':'], ""));
        let day = &date[..8];
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{day}/us-east-1/sts/aws4_request, SignedHeaders=content-length;\
             content-type;host;x-amz-date;x-mongodb-gs2-cb-flag;x-mongodb-server-nonce, Signature={}",
            "0".repeat(64)
        );
        rawdoc! { "a": authorization, "d": date }.into_bytes()
    }

    /// What STS's confirmation of this user makes of a login.
    fn confirmed() -> State {
        let user = Authenticated {
            user_name: "arn:aws:iam::123456789012:role/app".to_owned(),
            arn: "arn:aws:sts::123456789012:assumed-role/app/session".to_owned(),
            user_id: "AROAEXAMPLE:session".to_owned(),
            access_key_id: "ASIAEXAMPLE".to_owned(),
            account: "123456789012".to_owned(),
        };
        let extra_info = user.extra_info().into_bytes();
        State::Confirmed { user, extra_info, is_reported: false }
    }

    fn denied(store: &Store, cause: Cause) -> i64 {
        store.process().metrics.denied.of_cause(cause)
    }

    fn not_reported(store: &Store) -> (i64, Option<Event>) {
        (store.process().metrics.not_reported.get(), store.process().events.pop())
    }

    fn knows_key(store: &Store) -> bool {
        store.current().sts().is_known("ASIAEXAMPLE")
    }

    #[test]
    fn miri_a_panic_denies_the_login_for_good_and_is_counted_once() {
        let store = Store::default();
        let mut login = Login::new(&store, Instant::now());
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            login.advance(|_, _| panic!("for the test"));
        }));
        assert!(panic.is_err());
        assert_eq!(login.reason(), DEFECT);
        assert_eq!(denied(&store, Cause::Internal), 1);
        let progress = login.step(&store, &first_message(), Moment::now());
        assert_eq!(progress, Progress::Denied(Kind::MalformedMessage));
        assert!(login.user().is_none() && login.reply().is_empty());
        assert_eq!((denied(&store, Cause::Internal), denied(&store, Cause::BrokenMessage)), (1, 1));
    }

    #[test]
    fn a_login_that_is_over_takes_no_further_message() {
        let store = Store::default();
        store.process().registration.mark_registered(true);
        let now = Moment::now().unwrap();
        let step = |login: &mut Login, message: &[u8]| login.step(&store, message, Ok(now));
        for messages in [[second_message(now.unix_seconds)].as_slice(), &[first_message(), first_message()]] {
            let mut login = Login::new(&store, Instant::now());
            for message in &messages[1..] {
                assert_eq!(step(&mut login, message), Progress::Continue);
            }
            assert_eq!(step(&mut login, &messages[0]), Progress::Denied(Kind::MalformedMessage));
            for message in [first_message(), second_message(now.unix_seconds)] {
                assert_eq!(step(&mut login, &message), Progress::Denied(Kind::MalformedMessage));
                assert_eq!(login.reason(), "the client sent a message after the conversation had ended");
                assert!(login.reply().is_empty());
            }
        }

        let mut login = Login::new(&store, Instant::now());
        assert_eq!(login.advance(|_, _| Ok(confirmed())), Progress::Authenticated);
        assert!(login.user().is_some());
        assert_eq!(step(&mut login, &first_message()), Progress::Denied(Kind::MalformedMessage));
        assert!(login.user().is_none() && login.extra_info().is_empty());
        login.logged_in();
        drop(login);
        assert!(!knows_key(&store));
        assert_eq!(not_reported(&store), (0, None));
    }

    #[test]
    fn a_conversation_ends_after_sixty_seconds() {
        let store = Store::default();
        let mut login = Login::new(&store, Instant::now());
        let begun = Moment::now().unwrap();
        assert_eq!(login.step(&store, &first_message(), Ok(begun)), Progress::Continue);
        // Made for the date of the signature: the age is measured by the monotonic clock.
        let late = Moment { monotonic: begun.monotonic + Duration::from_millis(60_001), ..begun };
        let progress = login.step(&store, &second_message(begun.unix_seconds), Ok(late));
        assert_eq!(progress, Progress::Denied(Kind::MalformedMessage));
        let reason = login.reason();
        assert!(reason.contains("and the limit is 60 seconds; the client must log in again"), "{reason}");
        assert_eq!(denied(&store, Cause::ExpiredConversation), 1);
    }

    #[test]
    fn miri_a_confirmed_login_is_remembered_once_the_server_reports_it() {
        let store = Store::default();
        store.process().registration.mark_registered(true);
        let mut login = Login::new(&store, Instant::now());
        login.advance(|_, _| Ok(confirmed()));
        assert_eq!((login.extra_info().is_empty(), login.reason()), (false, ""));
        assert!(!knows_key(&store));
        login.logged_in();
        assert!(knows_key(&store));
        drop(login);
        assert_eq!(not_reported(&store), (0, None));
        assert_eq!((store.process().metrics.started.get(), store.process().metrics.confirmed.get()), (1, 1));
    }

    #[test]
    fn miri_a_confirmed_login_without_a_report_is_counted_and_logged_when_it_ends() {
        let store = Store::default();
        store.process().registration.mark_registered(true);
        store.process().registration.mark_login_reported();
        let mut login = Login::new(&store, Instant::now());
        login.advance(|_, _| Ok(confirmed()));
        drop(login);
        let (count, event) = not_reported(&store);
        assert!(matches!(event, Some(Event::NotReported { .. })));
        assert_eq!(count, 1);
        assert!(!knows_key(&store));
    }

    #[test]
    fn miri_a_server_that_has_never_reported_a_login_may_be_quiet() {
        let store = Store::default();
        store.process().registration.mark_registered(true);
        let mut login = Login::new(&store, Instant::now());
        login.advance(|_, _| Ok(confirmed()));
        drop(login);
        assert_eq!(store.process().metrics.not_reported.get(), 1);
        assert!(knows_key(&store));
    }

    #[test]
    fn miri_without_reports_a_confirmed_login_counts_as_successful() {
        let store = Store::default();
        let mut login = Login::new(&store, Instant::now());
        login.advance(|_, _| Ok(confirmed()));
        assert!(knows_key(&store));
        drop(login);
        assert_eq!(not_reported(&store), (0, None));
    }
}
