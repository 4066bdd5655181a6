//! The `MONGODB-AWS` conversation with the client: a state machine that does no I/O.
//!
//! Source: MongoDB drivers' specification "Authentication", section MONGODB-AWS. There are two
//! round trips. In the first, the client sends its nonce, and the server replies with its own nonce
//! and the STS host. In the second, the client sends its signature over both, and the server sends
//! an empty reply once STS has identified the signer. Time and random bytes are arguments.

mod messages;

use crate::denial::{Cause, Denial};
use crate::secret::Secret;
use crate::sigv4::{self, AmzDate, Authorization, Expected};
use crate::sts::endpoint::StsHost;
use crate::sts::request::IdentityRequest;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use subtle::ConstantTimeEq;

pub use messages::{MAX_CLIENT_FIRST_LENGTH, MAX_CLIENT_SECOND_LENGTH, NONCE_LENGTH};

/// Maximum time between the first and the second message. Drivers need it for fetching credentials.
/// The limit keeps a conversation that stays open from outliving an operator's changes.
const MAX_CONVERSATION_AGE: Duration = Duration::from_secs(60);

/// The time at which a message arrived, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The server's time in seconds since 1970-01-01 UTC, to compare with dates.
    pub unix_seconds: i64,
    /// The monotonic clock, to measure durations.
    pub monotonic: Instant,
}

impl Moment {
    /// The current time.
    ///
    /// # Errors
    /// An internal denial if the server's clock is set before 1970.
    pub fn now() -> Result<Self, Denial> {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).ok();
        let unix_seconds = since_1970
            .and_then(|since| i64::try_from(since.as_secs()).ok())
            .ok_or_else(|| Denial::internal("the server's clock is set before 1970"))?;
        Ok(Self { unix_seconds, monotonic: Instant::now() })
    }
}

/// The conversation of one login. A message consumes it, so no message can follow the last one, or
/// one that was denied.
#[derive(Debug)]
pub struct Conversation {
    host: StsHost,
    state: State,
}

#[derive(Debug)]
enum State {
    /// No message has arrived.
    Start,
    /// The nonces were exchanged at this time. The client must sign these 64 bytes.
    Challenged { nonce: [u8; 2 * NONCE_LENGTH], since: Instant },
}

/// The next step after a message of the client.
#[derive(Debug)]
pub enum Next {
    /// Send these bytes to the client, and give its second message to this conversation.
    Reply(Vec<u8>, Conversation),
    /// Send this request to STS. Its response decides; the client gets an empty final message.
    AskSts(Box<IdentityRequest>),
}

impl Conversation {
    /// Starts a conversation in which the client must sign for this host.
    pub fn new(host: StsHost) -> Self {
        Self { host, state: State::Start }
    }

    /// Handles the client's next message.
    ///
    /// `random` fills a buffer with bytes from the operating system's random source; `now` is the
    /// time at which the message arrived.
    ///
    /// # Errors
    /// A malformed-message denial if the message violates the protocol, comes in the wrong order or
    /// more than 60 seconds after the previous one; an internal one if there are no random bytes.
    /// If the second message claims an access key id, the reason names it.
    pub fn step(
        self,
        message: &[u8],
        random: impl FnOnce(&mut [u8]) -> Result<(), Denial>,
        now: Moment,
    ) -> Result<Next, Denial> {
        match self.state {
            State::Start => self.challenge(message, random, now),
            State::Challenged { nonce, since } => {
                let age = now.monotonic.saturating_duration_since(since);
                let second = messages::ClientSecond::parse(message)?;
                self.check_second(&second, &nonce, age, now.unix_seconds)
                    .map(|request| Next::AskSts(Box::new(request)))
                    .map_err(|denial| match sigv4::claimed_access_key_id(second.authorization) {
                        Some(id) => with_claimed_key(denial, id),
                        None => denial,
                    })
            }
        }
    }

    fn challenge(
        self,
        message: &[u8],
        random: impl FnOnce(&mut [u8]) -> Result<(), Denial>,
        now: Moment,
    ) -> Result<Next, Denial> {
        let first = messages::ClientFirst::parse(message)?;
        let mut nonce = [0; 2 * NONCE_LENGTH];
        let (client_nonce, server_nonce) = nonce.split_at_mut(NONCE_LENGTH);
        client_nonce.copy_from_slice(&first.nonce);
        random(server_nonce)?;
        // A random source that fails without an error leaves the buffer unchanged.
        if bool::from(server_nonce.ct_eq(&[0; NONCE_LENGTH])) {
            return Err(Denial::internal("the operating system returned no random bytes"));
        }
        let reply = messages::server_first(&nonce, &self.host)?;
        Ok(Next::Reply(reply, Self { state: State::Challenged { nonce, since: now.monotonic }, ..self }))
    }

    fn check_second(
        &self,
        second: &messages::ClientSecond<'_>,
        nonce: &[u8; 2 * NONCE_LENGTH],
        age: Duration,
        now: i64,
    ) -> Result<IdentityRequest, Denial> {
        let date = AmzDate::parse(second.date)?;
        date.check_skew(now)?;
        if let Some(token) = second.token {
            sigv4::check_token(token)?;
        }
        let expected = Expected { date: &date, region: self.host.region(), with_token: second.token.is_some() };
        let authorization = Authorization::parse(second.authorization, &expected)?;
        if age > MAX_CONVERSATION_AGE {
            let reason = format!(
                "the client's second message arrived {} seconds after the first, and the limit is {} seconds; the client \
                 must log in again",
                age.as_secs(),
                MAX_CONVERSATION_AGE.as_secs(),
            );
            return Err(Denial::new(Cause::ExpiredConversation, reason));
        }
        Ok(IdentityRequest {
            authorization,
            date,
            token: second.token.map(|token| Secret::new(token.to_owned())),
            nonce: messages::base64(nonce),
        })
    }
}

/// The denial with the access key id that the client claimed, also where STS has confirmed nothing:
/// an operator finds the line by it.
pub fn with_claimed_key(denial: Denial, access_key_id: &str) -> Denial {
    denial.with_detail(&format!("the client claimed access key id {access_key_id}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::denial::Kind;
    use bson::spec::BinarySubtype;
    use bson::{Binary, rawdoc};

    /// This many seconds after 2026-11-21T19:13:00Z, by both clocks.
    fn after(seconds: u64) -> Moment {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        let monotonic = *START.get_or_init(Instant::now) + Duration::from_secs(seconds);
        Moment { unix_seconds: 1_795_288_380 + i64::try_from(seconds).unwrap(), monotonic }
    }

    const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261121/us-east-1/sts/aws4_request, \
        SignedHeaders=content-length;content-type;host;x-amz-date;x-mongodb-gs2-cb-flag;x-mongodb-server-nonce, \
        Signature=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn sevens(buffer: &mut [u8]) -> Result<(), Denial> {
        buffer.fill(7);
        Ok(())
    }

    fn client_first() -> Vec<u8> {
        let nonce = Binary { subtype: BinarySubtype::Generic, bytes: vec![1; 32] };
        rawdoc! { "r": nonce, "p": 110 }.into_bytes()
    }

    fn client_second() -> Vec<u8> {
        rawdoc! { "a": AUTHORIZATION, "d": "20261121T191300Z" }.into_bytes()
    }

    fn new() -> Conversation {
        Conversation::new(StsHost::default())
    }

    fn challenged() -> Conversation {
        let Ok(Next::Reply(_, conversation)) = new().step(&client_first(), sevens, after(0)) else {
            panic!("no reply")
        };
        conversation
    }

    #[test]
    fn miri_the_reply_holds_both_nonces_and_the_host_and_nothing_else() {
        let Ok(Next::Reply(reply, _)) = new().step(&client_first(), sevens, after(0)) else { panic!("no reply") };
        let nonce = [[1; 32], [7; 32]].concat();
        let nonce = Binary { subtype: BinarySubtype::Generic, bytes: nonce };
        assert_eq!(reply, rawdoc! { "s": nonce, "h": "sts.amazonaws.com" }.into_bytes());
    }

    #[test]
    fn miri_a_valid_second_message_becomes_a_request_to_sts() {
        let Ok(Next::AskSts(request)) = challenged().step(&client_second(), sevens, after(0)) else { panic!("denied") };
        let headers: Vec<_> = request.headers().iter().map(|(n, v)| format!("{n}: {}", v.expose())).collect();
        let nonce = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBw==";
        assert_eq!(
            headers,
            [
                "Accept: text/xml".to_owned(),
                "Content-Type: application/x-www-form-urlencoded".to_owned(),
                "X-Amz-Date: 20261121T191300Z".to_owned(),
                format!("X-MongoDB-Server-Nonce: {nonce}"),
                "X-MongoDB-GS2-CB-Flag: n".to_owned(),
                format!("Authorization: {AUTHORIZATION}"),
            ]
        );
    }

    #[test]
    fn miri_messages_in_the_wrong_order_are_denied() {
        for (conversation, message) in [(new(), client_second()), (challenged(), client_first())] {
            let denial = conversation.step(&message, sevens, after(0)).unwrap_err();
            assert_eq!(denial.kind(), Kind::MalformedMessage);
        }
    }

    #[test]
    fn miri_without_random_bytes_there_is_no_challenge() {
        for random in [|_: &mut [u8]| Err(Denial::internal("none")), |_: &mut [u8]| Ok(())] {
            let denial = new().step(&client_first(), random, after(0)).unwrap_err();
            assert_eq!(denial.kind(), Kind::Internal);
        }
    }

    #[test]
    fn miri_a_stale_date_is_denied_without_a_request_to_sts() {
        let denial = challenged()
            .step(&client_second(), sevens, Moment { unix_seconds: after(1000).unix_seconds, ..after(0) })
            .unwrap_err();
        assert!(denial.reason().contains("1000 seconds behind"), "{denial}");
        assert!(denial.reason().ends_with("; the client claimed access key id AKIDEXAMPLE"), "{denial}");
    }

    #[test]
    fn miri_a_second_message_later_than_sixty_seconds_is_denied() {
        assert!(challenged().step(&client_second(), sevens, after(60)).is_ok());
        let denial = challenged().step(&client_second(), sevens, after(61)).unwrap_err();
        assert_eq!(denial.cause(), Cause::ExpiredConversation);
        assert!(
            denial.reason().contains("arrived 61 seconds after the first, and the limit is 60 seconds"),
            "{denial}"
        );
        assert!(denial.reason().ends_with("; the client claimed access key id AKIDEXAMPLE"), "{denial}");
        // The server's own clock may be set back or ahead meanwhile.
        let set_back = Moment { unix_seconds: after(0).unix_seconds, ..after(61) };
        let denial = challenged().step(&client_second(), sevens, set_back).unwrap_err();
        assert_eq!(denial.cause(), Cause::ExpiredConversation);
        let set_ahead = Moment { unix_seconds: after(600).unix_seconds, ..after(1) };
        assert!(challenged().step(&client_second(), sevens, set_ahead).is_ok());
    }
}
