//! One login, from its first message to its verdict: the conversation, the question to STS, the user's name.

use crate::denial::Denial;
use crate::sasl::{Conversation, Moment, Next};
use crate::settings::{Settings, Store};
use crate::sts::hosts::Host;
use bson::raw::{RawDocumentBuf, cstr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A login under way. It reaches STS with the settings that were in force when it began, since the client signs for the
/// host that it was told then. Whether STS's answer lets the client in is decided by the settings in force at its end.
#[derive(Debug)]
pub struct Login {
    settings: Arc<Settings>,
    host: Arc<Host>,
    conversation: Conversation,
    /// What its messages took until now.
    spent: Duration,
}

/// What to tell the client after one of its messages.
#[derive(Debug)]
pub enum Step {
    /// Send this reply and wait for the next message.
    Continue(Vec<u8>),
    /// The client is this user; send an empty reply.
    Authenticated(Authenticated),
}

/// Who logged in. There is no other way to make one than a login that STS confirmed.
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
        let settings = store.current();
        let host = settings.sts().host_for_login(now);
        let conversation = Conversation::new(host.name().clone());
        Self { settings, host, conversation, spent: Duration::ZERO }
    }

    /// Takes the client's next message, which came at this moment. The second one blocks while STS is asked, at most
    /// for awsStsTimeoutMS. `store` is the one that the login began with.
    ///
    /// # Errors
    /// Why the login is denied. It accepts no further message then.
    pub fn step(&mut self, store: &Store, message: &[u8], now: Moment) -> Result<Step, Denial> {
        let begun = Instant::now();
        let result = self.take(store, message, now).map_err(|denial| match self.conversation.claimed_access_key_id() {
            // Also where STS was not asked, or has confirmed the client: it is how its operator finds the line.
            Some(id) => denial.with_detail(&format!("the client claimed access key id {id}")),
            None => denial,
        });
        self.spent += begun.elapsed();
        if !matches!(result, Ok(Step::Continue(_))) {
            store.process().metrics.login_latency.add(self.spent);
        }
        result
    }

    fn take(&mut self, store: &Store, message: &[u8], now: Moment) -> Result<Step, Denial> {
        #[cfg(feature = "panic-on-demand")]
        assert!(message != PANIC_ON_DEMAND, "a panic on demand");
        match self.conversation.step(message, fill_random, now)? {
            Next::Reply(reply) => Ok(Step::Continue(reply)),
            Next::AskSts(request) => {
                let access_key_id = request.authorization.claimed_access_key_id();
                let Self { settings, host, .. } = self;
                settings.check_trust_unchanged(&store.current())?;
                let identity = settings.sts().ask(host, &request)?;
                // What was changed while STS was asked counts too.
                let current = store.current();
                settings.check_trust_unchanged(&current)?;
                current.check_account(&identity.principal)?;
                Ok(Step::Authenticated(Authenticated {
                    user_name: current.user_name(&identity.principal),
                    arn: identity.arn,
                    user_id: identity.user_id,
                    access_key_id: access_key_id.to_owned(),
                    account: identity.principal.account,
                }))
            }
        }
    }
}

impl Authenticated {
    /// The name of the user in `$external`.
    pub fn user_name(&self) -> &str {
        &self.user_name
    }

    /// The ARN that STS answered.
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// The unique id that STS answered.
    pub fn user_id(&self) -> &str {
        &self.user_id
    }

    /// The access key id that STS has confirmed.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// The account, 12 digits.
    pub fn account(&self) -> &str {
        &self.account
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
    getrandom::fill(buffer).map_err(|error| Denial::internal(format!("no random bytes: {error}")))
}
