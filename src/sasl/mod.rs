//! The `MONGODB-AWS` conversation with the client: a state machine that does no I/O.
//!
//! Source: MongoDB drivers' specification "Authentication", section MONGODB-AWS. Two round trips: the client's nonce
//! is answered with the server's nonce and the STS host; the client's signature over them is answered with nothing,
//! after STS has named the signer. Time and random bytes are arguments.

mod messages;

use crate::denial::Denial;
use crate::secret::Secret;
use crate::sigv4::{self, AmzDate, Authorization, Expected};
use crate::sts::endpoint::StsHost;
use crate::sts::request::IdentityRequest;
use subtle::ConstantTimeEq;

pub use messages::{MAX_CLIENT_FIRST_LENGTH, MAX_CLIENT_SECOND_LENGTH, NONCE_LENGTH};

/// One conversation, used once: a failed or finished one accepts no further message.
#[derive(Debug)]
pub struct Conversation {
    host: StsHost,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing has been received.
    Start,
    /// The nonces are exchanged; they are the 64 bytes that the client has to sign.
    Challenged([u8; 2 * NONCE_LENGTH]),
    /// The second message was taken, or a message was refused.
    Over,
}

/// What comes next after a message of the client's.
#[derive(Debug)]
pub enum Next {
    /// Send these bytes to the client and wait for its second message.
    Reply(Vec<u8>),
    /// Ask STS; its answer decides, and the client is sent an empty final message.
    AskSts(Box<IdentityRequest>),
}

impl Conversation {
    /// Begins a conversation whose client will be told to sign for this host.
    pub fn new(host: StsHost) -> Self {
        Self { host, state: State::Start }
    }

    /// Takes the client's next message.
    ///
    /// `random` fills a buffer with bytes from the operating system's random source; `now` is the server's time in
    /// seconds since 1970-01-01 UTC.
    ///
    /// # Errors
    /// A malformed-message denial for a message that breaks the protocol or comes out of turn, an internal one when
    /// there are no random bytes. The conversation is over then.
    pub fn step(
        &mut self,
        message: &[u8],
        random: impl FnOnce(&mut [u8]) -> Result<(), Denial>,
        now: i64,
    ) -> Result<Next, Denial> {
        // Taken out first, so that a conversation that fails in any way is over.
        match std::mem::replace(&mut self.state, State::Over) {
            State::Start => self.challenge(message, random).map(Next::Reply),
            State::Challenged(nonce) => self.check_second(message, &nonce, now).map(Box::new).map(Next::AskSts),
            State::Over => Err(Denial::malformed("the client sent a message after the conversation was over")),
        }
    }

    fn challenge(
        &mut self,
        message: &[u8],
        random: impl FnOnce(&mut [u8]) -> Result<(), Denial>,
    ) -> Result<Vec<u8>, Denial> {
        let first = messages::ClientFirst::parse(message)?;
        let mut nonce = [0; 2 * NONCE_LENGTH];
        let (clients, servers) = nonce.split_at_mut(NONCE_LENGTH);
        clients.copy_from_slice(&first.nonce);
        random(servers)?;
        // A random source that fails silently leaves the buffer as it was.
        if bool::from(servers.ct_eq(&[0; NONCE_LENGTH])) {
            return Err(Denial::internal("the random source gave no random bytes"));
        }
        let reply = messages::server_first(&nonce, &self.host)?;
        self.state = State::Challenged(nonce);
        Ok(reply)
    }

    fn check_second(
        &self,
        message: &[u8],
        nonce: &[u8; 2 * NONCE_LENGTH],
        now: i64,
    ) -> Result<IdentityRequest, Denial> {
        let second = messages::ClientSecond::parse(message)?;
        let date = AmzDate::parse(second.date)?;
        date.check_skew(now)?;
        if let Some(token) = second.token {
            sigv4::check_token(token)?;
        }
        let expected = Expected { date: &date, region: self.host.region(), with_token: second.token.is_some() };
        let authorization = Authorization::parse(second.authorization, &expected)?;
        Ok(IdentityRequest {
            host: self.host.clone(),
            authorization,
            date,
            token: second.token.map(|token| Secret::new(token.to_owned())),
            nonce: messages::base64(nonce),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::denial::Kind;
    use bson::spec::BinarySubtype;
    use bson::{Binary, rawdoc};

    const NOW: i64 = 1_795_288_380; // 2026-11-21T19:13:00Z
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

    fn challenged() -> Conversation {
        let mut conversation = Conversation::new(StsHost::default());
        assert!(matches!(conversation.step(&client_first(), sevens, NOW), Ok(Next::Reply(_))));
        conversation
    }

    #[test]
    fn miri_the_reply_holds_both_nonces_and_the_host_and_nothing_else() {
        let mut conversation = Conversation::new(StsHost::default());
        let Ok(Next::Reply(reply)) = conversation.step(&client_first(), sevens, NOW) else { panic!("no reply") };
        let nonce = [[1; 32], [7; 32]].concat();
        let nonce = Binary { subtype: BinarySubtype::Generic, bytes: nonce };
        assert_eq!(reply, rawdoc! { "s": nonce, "h": "sts.amazonaws.com" }.into_bytes());
    }

    #[test]
    fn miri_a_good_second_message_becomes_a_question_to_sts() {
        let Ok(Next::AskSts(request)) = challenged().step(&client_second(), sevens, NOW) else { panic!("refused") };
        assert_eq!(request.url(), "https://sts.amazonaws.com/");
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
    fn miri_messages_out_of_turn_end_the_conversation() {
        let mut conversation = Conversation::new(StsHost::default());
        assert!(conversation.step(&client_second(), sevens, NOW).is_err());
        assert!(conversation.step(&client_first(), sevens, NOW).is_err());

        let mut conversation = challenged();
        assert!(conversation.step(&client_first(), sevens, NOW).is_err());
        assert!(conversation.step(&client_second(), sevens, NOW).is_err());

        let mut conversation = challenged();
        assert!(conversation.step(&client_second(), sevens, NOW).is_ok());
        let denial = conversation.step(&client_second(), sevens, NOW).unwrap_err();
        assert_eq!(denial.kind(), Kind::MalformedMessage);
    }

    #[test]
    fn miri_without_random_bytes_there_is_no_challenge() {
        for random in [|_: &mut [u8]| Err(Denial::internal("none")), |_: &mut [u8]| Ok(())] {
            let mut conversation = Conversation::new(StsHost::default());
            let denial = conversation.step(&client_first(), random, NOW).unwrap_err();
            assert_eq!(denial.kind(), Kind::Internal);
        }
    }

    #[test]
    fn miri_a_stale_date_is_refused_before_sts_is_asked() {
        let denial = challenged().step(&client_second(), sevens, NOW + 1000).unwrap_err();
        assert!(denial.reason().contains("1000 seconds behind"), "{denial}");
    }
}
