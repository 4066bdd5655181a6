//! Random messages to a real mongod: SASL commands and what they carry, the connections they come
//! over, and their framing. None logs anybody in that a right message would not, and the server
//! stays as it was.
//!
//! No message has a right signature. STS refuses them in the first half of a run, and in the second
//! confirms whatever reaches it: a login is then held against a second opinion on its message.
//!
//! `make fuzz-wire MESSAGES=300000 SEED=7` sends more of them than the test does. A seed gives the
//! same messages again, but for times and the order in which connections are served.

use std::collections::VecDeque;
use std::io;
use std::ops::AddAssign;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime};
use std::{env, thread};

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, bson, doc};
use local_sts::StsResponse;

use crate::support::aws_client::{MECHANISM, amz_date, client_first, region_of};
use crate::support::fixture::{Fixture, STS_HOST};
use crate::support::process::{descriptors, resident_kib, threads};
use crate::support::wire::{WireClient, binary, is_ok, op_msg};

/// What the ordinary test sends.
const FEW: usize = 6000;

/// Connections at a time.
const ATTACKERS: usize = 4;

/// How much more memory the server may have in use at the end than after the first tenth of the
/// messages. Its allocator keeps pages of its own; a leak of a hundred bytes for each message would
/// be half as much again in a long run.
const GROWTH_ALLOWED_KIB: usize = 12 * 1024;

/// What a server writes when something in it has gone wrong.
const SIGNS_OF_DEFECTS: [&str; 8] = [
    "\"s\":\"F\"",
    "BACKTRACE",
    "nvariant failure",
    "assertion failure",
    "Got signal",
    "terminate()",
    "tripwire",
    "a defect of psmdb-aws-iam",
];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    /// Mostly short, seldom longer than anything that is allowed.
    fn length(&mut self) -> usize {
        match self.below(200) {
            0 => self.below(70_000),
            1..20 => self.below(1500),
            _ => self.below(20),
        }
    }

    /// Changes bytes, or leaves some out, or puts some in.
    fn spoil(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len() + 1);
            let to = at + self.below((bytes.len() - at).min(16) + 1);
            match self.below(6) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 => drop(bytes.drain(at..to)),
                2 => bytes.truncate(at),
                3 => {
                    let again = bytes[at..to].to_vec();
                    bytes.splice(at..at, again);
                }
                4 => {
                    const NUMBERS: [i32; 8] = [0, 1, -1, 4, 5, 127, i32::MAX, i32::MIN];
                    let number = NUMBERS[self.below(NUMBERS.len())].to_le_bytes();
                    let to = (at + 4).min(bytes.len());
                    bytes.splice(at..to, number);
                }
                _ => {
                    let length = self.length();
                    let more = self.bytes(length);
                    bytes.splice(at..at, more);
                }
            }
        }
    }

    /// A text like this one.
    fn spoil_text(&mut self, text: &str) -> String {
        const PIECES: [&str; 20] = [
            "",
            "\0",
            "\r\n",
            "\n",
            " ",
            "\t",
            ",",
            ", ",
            ";",
            "/",
            "=",
            "A",
            "z",
            "0",
            "\u{7f}",
            "é",
            "\u{ff0c}",
            "Signature=",
            "/aws4_request",
            "\r\nX-Evil: 1",
        ];
        let mut chars: Vec<char> = text.chars().collect();
        for _ in 0..=self.below(2) {
            let at = self.below(chars.len() + 1);
            let to = at + self.below((chars.len() - at).min(12) + 1);
            match self.below(6) {
                0 => drop(chars.drain(at..to)),
                1 => drop(chars.splice(to..to, chars[at..to].to_vec())),
                2 if at < chars.len() => {
                    let upper = chars[at].is_ascii_uppercase();
                    chars[at] = if upper { chars[at].to_ascii_lowercase() } else { chars[at].to_ascii_uppercase() };
                }
                3 if self.one_in(20) => chars.extend("x".repeat(self.length()).chars()),
                _ => drop(chars.splice(at..at, self.pick(&PIECES).chars())),
            }
        }
        chars.into_iter().collect()
    }

    /// This text, or now and then one like it.
    fn text(&mut self, text: &str) -> String {
        if self.one_in(12) { self.spoil_text(text) } else { text.to_owned() }
    }

    /// Any value where another type is expected.
    fn value(&mut self) -> Bson {
        match self.below(12) {
            0 => Bson::Null,
            1 => bson!(1),
            2 => bson!(-1_i64),
            3 => bson!(1e300),
            4 => bson!(true),
            5 => bson!({}),
            6 => bson!([]),
            7 => bson!([[[{ "a": 1 }]]]),
            8 => bson!({ "$db": "admin", "r": 1 }),
            9 => Bson::MinKey,
            10 => Bson::Undefined,
            _ => Bson::String("x".repeat(self.length())),
        }
    }

    /// Encodes, and spoils one in so many.
    fn encode(&mut self, document: &Document, spoiled_one_in: usize) -> Vec<u8> {
        let mut bytes = document.to_vec().expect("BSON");
        if self.one_in(spoiled_one_in) {
            self.spoil(&mut bytes);
            if self.one_in(2) && bytes.len() >= 4 {
                // Gets past the first look at the length.
                let length = i32::try_from(bytes.len()).unwrap().to_le_bytes();
                bytes[..4].copy_from_slice(&length);
            }
        }
        bytes
    }
}

/// A message, and the payload in it that may end a conversation.
struct Message {
    bytes: Vec<u8>,
    second: Vec<u8>,
    /// One that nobody may who is not logged in.
    needs_login: bool,
}

/// What became of some messages.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    sent: usize,
    connections: usize,
    challenges: usize,
    /// Logins that STS confirmed, though it knew nothing, and that were right but for their
    /// signature.
    logins: usize,
    /// Messages that are right but for their signature and whose replies were not read.
    unread: usize,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.connections += other.connections;
        self.challenges += other.challenges;
        self.logins += other.logins;
        self.unread += other.unread;
    }
}

/// One attacker, who has one connection at a time.
struct Attacker<'a> {
    random: Random,
    fixture: &'a Fixture,
    sts_says_yes: bool,
    tally: Tally,
    /// The last messages, for whoever has to find out what went wrong.
    last: VecDeque<Vec<u8>>,
}

impl Attacker<'_> {
    fn attack(&mut self, messages: usize) {
        while self.tally.sent < messages {
            let mut client = WireClient::connect(self.fixture.mongod.port()).expect("a connection");
            self.tally.connections += 1;
            for _ in 0..=self.random.below(40) {
                if !self.exchange(&mut client) {
                    break;
                }
            }
            if self.random.one_in(3) {
                self.break_off(client);
            }
        }
    }

    /// Sends some messages at once and reads what comes back; false when the connection is over.
    fn exchange(&mut self, client: &mut WireClient) -> bool {
        let mut messages = Vec::new();
        for _ in 0..=self.random.below(3) {
            self.make(&mut messages);
        }
        let mut whole = Vec::new();
        for message in &messages {
            whole.extend(&message.bytes);
            self.remember(&message.bytes);
        }
        if client.send_raw(&whole).is_err() {
            self.leave_unread(&messages);
            return false;
        }
        for (at, message) in messages.iter().enumerate() {
            let over = match client.receive() {
                Ok(reply) => self.look_at(message, &reply),
                Err(error) => {
                    assert!(!is_timeout(&error), "no reply: {error}");
                    self.leave_unread(&messages[at..at + 1]);
                    true
                }
            };
            if over {
                self.leave_unread(&messages[at + 1..]);
                return false;
            }
        }
        true
    }

    fn leave_unread(&mut self, messages: &[Message]) {
        self.tally.unread += messages.iter().filter(|message| is_right_but_for_its_signature(&message.second)).count();
    }

    /// Checks a reply; true when it has logged somebody in.
    fn look_at(&mut self, message: &Message, reply: &Document) -> bool {
        assert!(!message.needs_login || !is_ok(reply), "a stranger was served: {reply}");
        let conversation = reply.get_document("speculativeAuthenticate").unwrap_or(reply);
        if !is_ok(reply) || !conversation.contains_key("conversationId") {
            return false;
        }
        let done = conversation.get("done");
        self.tally.challenges += usize::from(done == Some(&bson!(false)));
        if done == Some(&bson!(false)) {
            return false;
        }
        assert!(self.sts_says_yes, "a login that STS did not confirm: {reply}");
        assert!(is_right_but_for_its_signature(&message.second), "logged in by {}", hex::encode(&message.second));
        self.tally.logins += 1;
        true
    }

    fn remember(&mut self, bytes: &[u8]) {
        self.tally.sent += 1;
        self.last.truncate(7);
        self.last.push_front(bytes[..bytes.len().min(4096)].to_vec());
    }

    /// Makes the next message, or the messages of a whole login.
    fn make(&mut self, messages: &mut Vec<Message>) {
        match self.random.below(20) {
            0..8 => {
                messages.push(self.start());
                if self.random.one_in(12) {
                    messages.push(self.other());
                }
                messages.push(self.go_on());
                if self.random.one_in(8) {
                    messages.push(self.go_on());
                }
            }
            8..12 => messages.push(self.start()),
            12..15 => messages.push(self.go_on()),
            15..17 => {
                messages.push(self.hello());
                messages.push(self.go_on());
            }
            _ => messages.push(self.other()),
        }
    }

    fn start(&mut self) -> Message {
        let payload = self.first();
        let mut command = doc! { "saslStart": 1, "mechanism": MECHANISM, "payload": self.payload(&payload) };
        if self.random.one_in(10) {
            command.insert("options", doc! { "skipEmptyExchange": self.random.one_in(2) });
        }
        if self.random.one_in(10) {
            const MECHANISMS: [&str; 12] = [
                "",
                "MONGODB-AWS\0",
                "mongodb-aws",
                "MONGODB-AWS ",
                "MONGODB-AWS,PLAIN",
                "PLAIN",
                "GSSAPI",
                "SCRAM-SHA-1",
                "SCRAM-SHA-256",
                "SCRAM-SHA-256",
                "MONGODB-X509",
                "MONGODB-OIDC",
            ];
            command.insert("mechanism", self.random.pick(&MECHANISMS));
        }
        self.command(command, Vec::new())
    }

    fn go_on(&mut self) -> Message {
        let second = if self.random.one_in(20) { self.first() } else { self.second() };
        let mut command = doc! { "saslContinue": 1, "conversationId": 1, "payload": self.payload(&second) };
        if self.random.one_in(20) {
            let id = [bson!(0), bson!(2), bson!(-1), bson!(1_i64), bson!(1.0), bson!("1"), bson!(i32::MAX)];
            command.insert("conversationId", id[self.random.below(id.len())].clone());
        }
        self.command(command, second)
    }

    fn hello(&mut self) -> Message {
        let payload = self.first();
        let mut start = doc! { "saslStart": 1, "mechanism": MECHANISM, "payload": self.payload(&payload) };
        start.insert("db", self.database());
        self.bend(&mut start);
        let inner = if self.random.one_in(30) { self.random.value() } else { start.into() };
        let name = self.random.pick(&["hello", "isMaster", "ismaster"]);
        let mut command = doc! { name: 1, "speculativeAuthenticate": inner };
        if self.random.one_in(4) {
            command.insert("saslSupportedMechs", format!("$external.{}", self.random.text("team/alice")));
        }
        self.command(command, Vec::new())
    }

    /// A command that is no step of a conversation.
    fn other(&mut self) -> Message {
        let (command, needs_login) = match self.random.below(10) {
            0 => (doc! { "ping": 1 }, false),
            1 => (doc! { "logout": 1 }, false),
            2 => (doc! { "connectionStatus": 1 }, false),
            3 => (doc! { "authenticate": 1, "mechanism": MECHANISM, "user": "team/alice" }, false),
            4 => (
                doc! { "saslStart": 1, "mechanism": "SCRAM-SHA-256", "payload": binary(b"n,,n=admin,r=abcdef") },
                false,
            ),
            5 => (doc! { "find": "items" }, true),
            6 => (doc! { "getParameter": 1, "awsStsHost": 1 }, true),
            7 => (doc! { "setParameter": 1, "awsStsHost": "sts.eu-west-1.amazonaws.com" }, true),
            8 => (doc! { "serverStatus": 1 }, true),
            _ => (doc! { "usersInfo": 1 }, true),
        };
        let mut message = self.command(command, Vec::new());
        message.needs_login = needs_login;
        message
    }

    fn database(&mut self) -> String {
        if self.random.one_in(20) {
            return self.random.spoil_text("$external");
        }
        let usual = self.random.below(10) > 0;
        if usual { "$external" } else { self.random.pick(&["admin", "test", "local", "", "a.b", "$", "\0"]) }.to_owned()
    }

    /// Changes a command here and there.
    fn bend(&mut self, command: &mut Document) {
        if self.random.one_in(25) {
            let fields: Vec<_> = command.keys().cloned().collect();
            let field = fields[self.random.below(fields.len())].clone();
            if self.random.one_in(2) {
                command.remove(&field);
            } else {
                let value = self.random.value();
                command.insert(field, value);
            }
        }
        if self.random.one_in(25) {
            const FIELDS: [&str; 9] = [
                "payload",
                "db",
                "user",
                "autoAuthorize",
                "conversationId",
                "options",
                "principal",
                "digestPassword",
                "mechanism",
            ];
            let value = self.random.value();
            command.insert(self.random.pick(&FIELDS), value);
        }
    }

    fn command(&mut self, mut command: Document, second: Vec<u8>) -> Message {
        self.bend(&mut command);
        command.insert("$db", self.database());
        let body = self.random.encode(&command, 60);
        Message { bytes: op_msg(&body), second, needs_login: false }
    }

    /// A payload as it may stand in a command.
    fn payload(&mut self, bytes: &[u8]) -> Bson {
        use base64::Engine;
        match self.random.below(40) {
            0 => self.random.value(),
            1 => Bson::String(self.random.spoil_text(&base64::prelude::BASE64_STANDARD.encode(bytes))),
            // The server takes this too.
            2 | 3 => Bson::String(base64::prelude::BASE64_STANDARD.encode(bytes)),
            4 => {
                let subtype = BinarySubtype::from([1, 2, 4, 5, 6, 128, 255][self.random.below(7)]);
                Bson::Binary(Binary { subtype, bytes: bytes.to_vec() })
            }
            _ => binary(bytes),
        }
    }

    /// A client's first message.
    fn first(&mut self) -> Vec<u8> {
        match self.random.below(12) {
            0 => {
                let length = self.random.length();
                self.random.bytes(length)
            }
            1 => {
                let length = 24 + self.random.below(16);
                let mut message = doc! { "r": binary(&self.random.bytes(length)), "p": 110 };
                match self.random.below(4) {
                    0 => drop(message.insert("p", self.random.value())),
                    1 => drop(message.insert("r", self.random.value())),
                    2 => drop(message.insert("x", self.random.value())),
                    _ => {}
                }
                self.random.encode(&message, 4)
            }
            2 => {
                let mut bytes = client_first(&[7; 32]);
                self.random.spoil(&mut bytes);
                bytes
            }
            _ => client_first(&self.random.bytes(32).try_into().unwrap()),
        }
    }

    /// A client's second message: right at times, but for its signature.
    fn second(&mut self) -> Vec<u8> {
        if self.random.one_in(20) {
            let length = self.random.length();
            return self.random.bytes(length);
        }
        let seconds = match self.random.below(20) {
            0 => 1000,
            1 => 86_400,
            _ => self.random.below(60) as u64,
        };
        let date = amz_date(SystemTime::now() - Duration::from_secs(seconds));
        let with_token = self.random.one_in(3);
        let mut headers = vec!["host", "x-amz-date", "x-mongodb-gs2-cb-flag", "x-mongodb-server-nonce"];
        if with_token != self.random.one_in(30) {
            headers.insert(2, "x-amz-security-token");
        }
        if !self.random.one_in(4) {
            headers.splice(0..0, ["content-length", "content-type"]);
        }
        match self.random.below(40) {
            0 => drop(headers.remove(self.random.below(headers.len()))),
            1 => headers.insert(self.random.below(headers.len()), "x-amz-content-sha256"),
            2 => headers.insert(self.random.below(headers.len()), headers[self.random.below(headers.len())]),
            3 => headers.reverse(),
            _ => {}
        }
        let key = self.random.pick(&["AKIAIOSFODNN7EXAMPLE", &*self.fixture.user.access_key_id]);
        let kind = if with_token != self.random.one_in(30) { "ASIA" } else { "AKIA" };
        let key = &key.replacen("AKIA", kind, 1);
        let region = self.random.text(region_of(STS_HOST));
        let scope = format!("{}/{}/{region}/sts/aws4_request", self.random.text(key), self.random.text(&date[..8]));
        let signature = hex::encode(self.random.bytes(32));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}, SignedHeaders={}, Signature={}",
            self.random.text(&scope),
            self.random.text(&headers.join(";")),
            self.random.text(&signature)
        );
        let mut message = doc! { "a": self.random.text(&authorization), "d": self.random.text(&date) };
        if with_token {
            let token = "FwoGZXIvYXdzEXAMPLE".repeat(1 + self.random.length() / 19);
            message.insert("t", self.random.text(&token));
        }
        if self.random.one_in(30) {
            let field = self.random.pick(&["a", "d", "t", "o", "p", "r", "", "arn"]);
            message.insert(field, self.random.value());
        }
        self.random.encode(&message, 15)
    }

    /// Ends a connection by bytes that are not a message, or not a whole one, or not one that is
    /// answered.
    fn break_off(&mut self, mut client: WireClient) {
        let mut bytes = self.start().bytes;
        let field = |bytes: &mut Vec<u8>, at: usize, value: i32| drop(bytes.splice(at..at + 4, value.to_le_bytes()));
        match self.random.below(12) {
            0 => bytes.truncate(self.random.below(bytes.len())),
            1 => {
                let lengths = [0, 15, 16, 20, 21, -1, i32::MIN, i32::MAX, 48_000_001, 1 << 20];
                field(&mut bytes, 0, lengths[self.random.below(lengths.len())]);
            }
            // Other kinds of messages, among them compressed ones.
            2 => field(&mut bytes, 12, [0, 1, 1000, 2001, 2004, 2010, 2012, -1][self.random.below(8)]),
            // Bits that ask for a checksum, for no reply, for more replies, and such that mean
            // nothing.
            3 => field(&mut bytes, 16, 1 << self.random.below(31)),
            4 => bytes[20] = [1, 2, 255][self.random.below(3)],
            5 => {
                // Two bodies, or a body and a sequence of documents.
                let mut section = bytes[20..].to_vec();
                section[0] = if self.random.one_in(2) { 0 } else { 1 };
                bytes.extend(section);
                let length = i32::try_from(bytes.len()).unwrap();
                field(&mut bytes, 0, length);
            }
            6 => {
                let start = doc! { "saslStart": 1, "mechanism": MECHANISM, "payload": binary(&self.first()) };
                let hello = doc! { "isMaster": 1, "speculativeAuthenticate": start, "db": "$external" };
                bytes = op_query(&self.random.encode(&hello, 4));
            }
            7 => {
                let length = self.random.length();
                bytes = self.random.bytes(length);
            }
            8 => {
                self.random.spoil(&mut bytes);
            }
            9 => {
                // A whole login, of which nobody waits for the end.
                let more = self.go_on();
                bytes.extend(&more.bytes);
                self.leave_unread(&[more]);
            }
            10 => bytes.clear(),
            _ => bytes.truncate(16 + self.random.below(8)),
        }
        self.remember(&bytes);
        if client.send_raw(&bytes).is_ok() && self.random.one_in(2) {
            match client.read_to_end() {
                Err(error) if is_timeout(&error) => panic!("the server did not close a broken connection"),
                _ => {}
            }
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// The message that drivers begin with when they do not know the server: the only one of its kind
/// that is still served.
fn op_query(document: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    let length = i32::try_from(16 + 4 + 11 + 8 + document.len()).unwrap();
    for field in [length, 1, 0, 2004, 0] {
        message.extend(field.to_le_bytes());
    }
    message.extend(b"admin.$cmd\0");
    message.extend([0_i32.to_le_bytes(), (-1_i32).to_le_bytes()].concat());
    message.extend(document);
    message
}

/// A second opinion: whether a driver could have sent this second message just now.
fn is_right_but_for_its_signature(payload: &[u8]) -> bool {
    let Ok(document) = Document::from_reader(payload) else { return false };
    let text = |name| document.get_str(name).ok();
    let (Some(header), Some(date)) = (text("a"), text("d")) else { return false };
    let token = text("t");
    // No other field, none twice, no byte more.
    let exact = document.to_vec().is_ok_and(|again| again == payload);
    let fields = document.len() == 2 + usize::from(token.is_some());
    let token_fits =
        token.is_none_or(|t| !t.is_empty() && t.len() <= 16_384 && t.bytes().all(|b| b.is_ascii_graphic()));
    // A minute for the time that the message was under way.
    let now = SystemTime::now();
    let date_fits = (0..=15 * 60 + 60).any(|seconds| {
        let by = Duration::from_secs(seconds);
        amz_date(now - by) == date || amz_date(now + by) == date
    });
    let Some(key) = header.strip_prefix("AWS4-HMAC-SHA256 Credential=").and_then(|rest| rest.split('/').next()) else {
        return false;
    };
    let key_fits = (1..=128).contains(&key.len())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !key.starts_with(if token.is_some() { "AKIA" } else { "ASIA" });
    let Some((before, signature)) = header.split_at_checked(header.len().saturating_sub(64)) else { return false };
    let signature_fits = signature.len() == 64 && signature.bytes().all(|b| b"0123456789abcdef".contains(&b));
    let forms = ["", "content-length;", "content-type;", "content-length;content-type;"].map(|optional| {
        let token = if token.is_some() { "x-amz-security-token;" } else { "" };
        let headers = format!("{optional}host;x-amz-date;{token}x-mongodb-gs2-cb-flag;x-mongodb-server-nonce");
        let scope = format!("{key}/{}/us-east-1/sts/aws4_request", date.get(..8).unwrap_or_default());
        format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={headers}, Signature=")
    });
    let header_fits = forms.iter().any(|form| form == before);
    exact && fields && token_fits && date_fits && key_fits && signature_fits && header_fits
}

/// Sends so many messages from all attackers at once.
fn attack(fixture: &Fixture, seed: u64, messages: usize, sts_says_yes: bool) -> Tally {
    let mut whole = Tally::default();
    thread::scope(|scope| {
        let attackers: Vec<_> = (0..ATTACKERS as u64)
            .map(|number| {
                scope.spawn(move || {
                    let random = Random(seed ^ (number << 56));
                    let mut attacker =
                        Attacker { random, fixture, sts_says_yes, tally: Tally::default(), last: VecDeque::new() };
                    let attack = AssertUnwindSafe(|| attacker.attack(messages / ATTACKERS));
                    if let Err(panic) = catch_unwind(attack) {
                        eprintln!("seed {seed}, attacker {number}, after {:?}", attacker.tally);
                        for message in &attacker.last {
                            eprintln!("before that: {}", hex::encode(message));
                        }
                        resume_unwind(panic);
                    }
                    attacker.tally
                })
            })
            .collect();
        for attacker in attackers {
            whole += attacker.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    });
    whole
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    memory_kib: usize,
    threads: usize,
    files: usize,
}

impl Held {
    fn by(pid: u32) -> Self {
        Self { memory_kib: resident_kib(pid), threads: threads(pid), files: descriptors(pid) }
    }

    /// Nothing is left of thousands of connections: no more but what the server does for itself,
    /// and the connections to STS that are kept.
    fn is_no_more_than(self, before: Self) -> bool {
        self.threads <= before.threads + ATTACKERS && self.files <= before.files + 2 * ATTACKERS
    }

    /// Looks until no more is held than before: connections are closed some time after their
    /// clients have gone.
    fn when_no_more_than(before: Self, pid: u32) -> Self {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let now = Self::by(pid);
            if now.is_no_more_than(before) || Instant::now() > until {
                return now;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// How the plugin's own counters say that logins went.
fn counters(fixture: &Fixture) -> Document {
    let status = fixture.mongod.run_as_admin("admin", doc! { "serverStatus": 1 });
    status.get_document("awsIam").and_then(|section| section.get_document("logins")).expect("counters").clone()
}

fn confirmed(fixture: &Fixture) -> usize {
    usize::try_from(counters(fixture).get_i64("confirmed").expect("a number")).expect("it is not negative")
}

fn set<T: FromStr>(name: &str) -> Option<T> {
    let value = env::var(name).ok().filter(|value| !value.is_empty())?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is not a number: {value}")))
}

#[test]
fn random_messages_log_nobody_in_and_leave_the_server_as_it_was() {
    let messages = set("PSMDB_AWS_IAM_WIRE_MESSAGES").unwrap_or(FEW);
    let seed = set("PSMDB_AWS_IAM_WIRE_SEED").unwrap_or_else(|| {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).expect("random bytes");
        u64::from_le_bytes(seed)
    });
    println!("seed {seed}");
    let fixture = Fixture::start();
    let pid = fixture.mongod.pid();
    fixture.assert_still_serves("the start");
    let at_start = Held::by(pid);
    let begun = Instant::now();

    let mut whole = Tally::default();
    let mut warm = at_start;
    // The first tenth, so that each buffer has been as long as it gets before memory is compared,
    // and the rest.
    for (round, part) in [messages / 20, messages * 9 / 20].into_iter().enumerate() {
        let seed = seed.rotate_left(u32::try_from(round).unwrap() * 16);
        fixture.sts.set_response(StsResponse::Verified);
        let (asked, before) = (fixture.sts.request_count(), confirmed(&fixture));
        let refused = attack(&fixture, seed, part, false);
        assert_ne!(fixture.sts.request_count(), asked, "no message came as far as STS");
        assert_eq!(confirmed(&fixture), before, "a login without a right signature, seed {seed}");
        whole += refused;

        fixture.sts.set_response(StsResponse::AcceptAll(fixture.user.clone()));
        let answered = attack(&fixture, !seed, part, true);
        let logins = confirmed(&fixture) - before;
        let right = answered.logins..=answered.logins + answered.unread;
        assert!(logins > 0 && right.contains(&logins), "{logins} logins and not {right:?}, seed {seed}");
        whole += answered;
        if round == 0 {
            warm = Held::when_no_more_than(at_start, pid);
        }
    }
    let took = begun.elapsed();

    fixture.sts.set_response(StsResponse::Verified);
    fixture.assert_still_serves("random messages");
    let after = Held::when_no_more_than(at_start, pid);
    println!("{whole:?} in {took:?}, {} questions to STS", fixture.sts.request_count());
    println!("at the start {at_start:?}, warm {warm:?}, after {after:?}");
    assert!(after.is_no_more_than(at_start), "seed {seed}: {at_start:?}, {after:?}");
    let growth = after.memory_kib.saturating_sub(warm.memory_kib);
    assert!(growth <= GROWTH_ALLOWED_KIB, "seed {seed}: {growth} KiB more");

    let counters = counters(&fixture);
    assert_eq!(counters.get_document("denied").unwrap().get_i64("internal").unwrap(), 0, "{counters}");
    let written = [fixture.mongod.log_text(), fixture.mongod.stderr_text(), fixture.mongod.stdout_text()].concat();
    for sign in SIGNS_OF_DEFECTS {
        let line = written.lines().find(|line| line.contains(sign));
        assert!(line.is_none(), "seed {seed}: {}", line.unwrap_or_default());
    }
    // 4.4 words it the other way.
    let succeeded = |line: &&str| {
        (line.contains("\"Authentication succeeded\"") || line.contains("\"Successful authentication\""))
            && line.contains(&format!("\"mechanism\":\"{MECHANISM}\""))
    };
    let let_in = written.lines().filter(succeeded).count();
    assert!(let_in <= confirmed(&fixture), "seed {seed}: {let_in} were let in, more than were confirmed");
}
