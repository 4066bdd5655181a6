//! Calls of the C ABI in any order, with valid pointers only, under AddressSanitizer.
//!
//! An input is a sequence of calls: the call's number, then its arguments, each taken from the
//! front. Whatever a call gives out is read whole and freed; leaks are found at the end.
#![no_main]

use arbitrary::{Result, Unstructured};
use bson::{Bson, Document, doc};
use libfuzzer_sys::fuzz_target;
use psmdb_aws_iam::ffi::*;
use std::ptr::{null, null_mut};
use std::sync::Once;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Loopback, and a port on which nothing listens: no call leaves the machine.
const NOBODY: &str = "https://127.0.0.1:1";

/// Conversations begun so far, to compare the counters with.
static STARTED: AtomicI64 = AtomicI64::new(0);

/// Logins of one input that ask for STS, at most: each waits for the shortest time that there is.
const MOST_ASKED: usize = 2;

/// So that nobody but the port without a listener is ever asked, and not for long.
const AT_HOME: [(&str, &str); 4] =
    [("awsStsEndpoint", NOBODY), ("awsStsProxy", ""), ("awsStsFallbackHosts", ""), ("awsStsTimeoutMS", "100")];

/// The hosts that an input can choose among: those of the corpus.
const AT_STARTUP: [(&str, &str); 1] =
    [("awsStsFallbackHosts", "sts.amazonaws.com,sts.eu-west-1.amazonaws.com,sts.us-west-2.amazonaws.com")];

static STARTUP: Once = Once::new();

fuzz_target!(|data: &[u8]| {
    STARTUP.call_once(|| {
        set_all(&AT_STARTUP);
        psmdb_aws_iam_registered(0, 1);
    });
    set_all(&AT_HOME);
    set_all(&[("awsStsHost", "sts.amazonaws.com")]);
    let mut conversations: [Slot; 3] = Default::default();
    // An input that ends early ends the sequence.
    let _ = calls(&mut Unstructured::new(data), &mut conversations);
});

/// A place for a conversation, which may be null.
struct Slot {
    conversation: *mut LoginHandle,
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    New,
    Challenged,
    Over,
}

impl Default for Slot {
    fn default() -> Self {
        Self { conversation: null_mut(), state: State::New }
    }
}

impl Slot {
    fn free(&mut self) {
        let conversation = std::mem::replace(&mut self.conversation, null_mut());
        // SAFETY: null or live, and nobody has it any more.
        unsafe { psmdb_aws_iam_conversation_free(conversation) };
        self.state = State::New;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.free();
    }
}

fn calls(input: &mut Unstructured<'_>, conversations: &mut [Slot; 3]) -> Result<()> {
    let (mut calls, mut asked) = (0, 0);
    while !input.is_empty() && calls < 64 {
        calls += 1;
        let (call, which) = (input.arbitrary::<u8>()?, input.arbitrary::<u8>()?);
        let slot = &mut conversations[usize::from(which) % 3];
        let index = usize::from(which);
        match call % 12 {
            0 => {
                slot.free();
                slot.conversation = psmdb_aws_iam_conversation_new();
                assert!(!slot.conversation.is_null());
                STARTED.fetch_add(1, Ordering::Relaxed);
            }
            1 => slot.free(),
            2 => step(slot, text(input)?),
            3 => step(slot, &first(input.arbitrary()?)),
            4 if asked < MOST_ASKED => {
                asked += 1;
                step(slot, &second(text(input)?));
            }
            4 => {}
            5 => impossible(slot.conversation, index, text(input)?),
            6 => look(slot),
            7 => {
                let value = text(input)?;
                // Files are for the target `parameters`.
                if !(index == parameter("awsStsCAFile") && value.starts_with(b"/")) {
                    change(psmdb_aws_iam_parameter_set, index, value);
                }
            }
            8 => {
                let element = text(input)?;
                if !(index == parameter("awsStsCAFile") && element.contains(&b'/')) {
                    change(psmdb_aws_iam_parameter_set_bson, index, element);
                }
            }
            9 => {
                let element = text(input)?;
                if !(index == parameter("awsStsCAFile") && element.contains(&b'/')) {
                    let before = value(index);
                    set(psmdb_aws_iam_parameter_validate_bson, index, element);
                    assert_eq!(value(index), before);
                }
            }
            10 => named(index, text(input)?),
            _ => counters(text(input)?),
        }
    }
    Ok(())
}

/// A length of two bytes, then as many bytes as there are of it.
fn text<'a>(input: &mut Unstructured<'a>) -> Result<&'a [u8]> {
    let length = usize::from(input.arbitrary::<u16>()?).min(input.len());
    input.bytes(length)
}

/// A good first message.
fn first(byte: u8) -> Vec<u8> {
    let nonce = bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![byte; 32] };
    doc! { "r": nonce, "p": 110 }.to_vec().expect("it can be written")
}

/// A second message that is good for this moment and the global host, with these bytes for a token,
/// if any.
fn second(token: &[u8]) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let now = time::OffsetDateTime::from_unix_timestamp(now as i64).expect("before 9999");
    let day = format!("{:04}{:02}{:02}", now.year(), u8::from(now.month()), now.day());
    let with_token = if token.is_empty() { "" } else { "x-amz-security-token;" };
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{day}/us-east-1/sts/aws4_request, \
         SignedHeaders=host;x-amz-date;{with_token}x-mongodb-gs2-cb-flag;x-mongodb-server-nonce, Signature={}",
        "0".repeat(64)
    );
    let date = format!("{day}T{:02}{:02}{:02}Z", now.hour(), now.minute(), now.second());
    let mut message = doc! { "a": authorization, "d": date };
    if !token.is_empty() {
        message.insert("t", String::from_utf8_lossy(token).into_owned());
    }
    message.to_vec().expect("it can be written")
}

fn step(slot: &mut Slot, message: &[u8]) {
    const UNWRITTEN: &[u8] = b"unwritten";
    let mut reply = Bytes { data: UNWRITTEN.as_ptr(), length: UNWRITTEN.len() };
    // SAFETY: null or live, the message is a slice and the reply a variable.
    let code =
        unsafe { psmdb_aws_iam_conversation_step(slot.conversation, message.as_ptr(), message.len(), &raw mut reply) };
    if slot.conversation.is_null() {
        assert_eq!(code, ResultCode::InvalidArgument);
        return;
    }
    match code {
        ResultCode::Continue => {
            assert!(slot.state == State::New);
            slot.state = State::Challenged;
            let reply = Document::from_reader(read(reply)).expect("the reply is BSON");
            assert_eq!(reply.get_binary_generic("s").expect("it has the nonces").len(), 64);
            assert!(reply.get_str("h").is_ok() && reply.len() == 2);
        }
        ResultCode::DeniedMalformed | ResultCode::DeniedStsUnavailable => {
            // Only a second message makes it ask, and nobody answers.
            assert!(code == ResultCode::DeniedMalformed || slot.state == State::Challenged);
            assert_eq!(read(reply), UNWRITTEN);
            slot.state = State::Over;
        }
        code => panic!("{code:?}"),
    }
    look(slot);
}

/// Reads everything that a conversation has.
fn look(slot: &Slot) {
    for part in
        [psmdb_aws_iam_conversation_user_name, psmdb_aws_iam_conversation_arn, psmdb_aws_iam_conversation_extra_info]
    {
        // SAFETY: null or live.
        assert_eq!(read(unsafe { part(slot.conversation) }), b"", "nobody has confirmed anyone");
    }
    // SAFETY: null or live.
    let reason = str::from_utf8(read(unsafe { psmdb_aws_iam_conversation_reason(slot.conversation) })).expect("UTF-8");
    assert_eq!(reason.is_empty(), slot.state != State::Over);
    assert!(!reason.contains(char::is_control), "{reason:?}");
}

/// Null, and lengths that no object has: nothing is done, and nothing written.
fn impossible(conversation: *mut LoginHandle, index: usize, text: &[u8]) {
    let mut reply = Bytes { data: null(), length: 0 };
    let mut buffer = null_mut();
    for (data, length) in [(null(), text.len().max(1)), (text.as_ptr(), usize::MAX), (text.as_ptr(), 1 << 63)] {
        // SAFETY: such pointers and lengths are refused before anything is read.
        unsafe {
            let step = psmdb_aws_iam_conversation_step(conversation, data, length, &raw mut reply);
            assert_eq!(step, ResultCode::InvalidArgument);
            for change in
                [psmdb_aws_iam_parameter_set, psmdb_aws_iam_parameter_set_bson, psmdb_aws_iam_parameter_validate_bson]
            {
                assert_eq!(change(index, data, length, &raw mut buffer), ResultCode::InvalidArgument);
            }
            assert!(psmdb_aws_iam_parameter_get_bson(index, data, length).is_null());
            assert!(psmdb_aws_iam_server_status(data, length).is_null());
            psmdb_aws_iam_loaded(data, length);
            // Nobody is ever confirmed, so that there is nothing to report.
            psmdb_aws_iam_conversation_logged_in(conversation);
        }
    }
    // SAFETY: a null output is refused; a null buffer is empty.
    unsafe {
        let step = psmdb_aws_iam_conversation_step(conversation, text.as_ptr(), text.len(), null_mut());
        assert_eq!(step, ResultCode::InvalidArgument);
        assert_eq!(read(psmdb_aws_iam_buffer_bytes(null())), b"");
        psmdb_aws_iam_buffer_free(null_mut());
    }
    assert!(reply.data.is_null() && buffer.is_null());
}

type Set = unsafe extern "C" fn(usize, *const u8, usize, *mut *mut Buffer) -> ResultCode;

/// Sets a parameter, and those back that say where STS is.
fn change(how: Set, index: usize, text: &[u8]) {
    let before = value(index);
    let (code, reason) = set(how, index, text);
    match code {
        ResultCode::Ok => assert!(reason.is_none()),
        ResultCode::RefusedValue => {
            assert_eq!(value(index), before);
            assert!(!reason.expect("a refusal has a reason").is_empty());
        }
        ResultCode::InvalidArgument => assert!(index >= psmdb_aws_iam_parameter_count() && reason.is_none()),
        code => panic!("{code:?}"),
    }
    set_all(&AT_HOME);
}

fn set_all(values: &[(&str, &str)]) {
    for (name, value) in values {
        assert_eq!(set(psmdb_aws_iam_parameter_set, parameter(name), value.as_bytes()), (ResultCode::Ok, None));
    }
}

fn set(how: Set, index: usize, text: &[u8]) -> (ResultCode, Option<String>) {
    let mut reason = null_mut();
    // SAFETY: the text is a slice and the reason a variable.
    let code = unsafe { how(index, text.as_ptr(), text.len(), &raw mut reason) };
    // A caller may not want the reason.
    // SAFETY: the same, and null is allowed.
    unsafe { assert_eq!(how(index, text.as_ptr(), text.len(), null_mut()), code) };
    (code, take(reason).map(|reason| String::from_utf8(reason).expect("a reason is UTF-8")))
}

/// A parameter under any name.
fn named(index: usize, name: &[u8]) {
    // SAFETY: the name is a slice.
    let found = take(unsafe { psmdb_aws_iam_parameter_get_bson(index, name.as_ptr(), name.len()) });
    let good = is_key(name) && index < psmdb_aws_iam_parameter_count();
    assert_eq!(found.is_some(), good);
    assert_eq!(read(psmdb_aws_iam_parameter_name(index)).is_empty(), index >= psmdb_aws_iam_parameter_count());
    if let Some(found) = found {
        let shown = match only(&found, name) {
            Bson::String(text) => text,
            Bson::Int32(number) => number.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(Some(shown.into_bytes()), value(index));
    }
}

/// The counters under any name: every conversation is counted, and none is ever confirmed.
fn counters(name: &[u8]) {
    // SAFETY: the name is a slice.
    let found = take(unsafe { psmdb_aws_iam_server_status(name.as_ptr(), name.len()) });
    assert_eq!(found.is_some(), is_key(name));
    let Some(found) = found else { return };
    let Bson::Document(status) = only(&found, name) else { panic!("not a document") };
    let logins = status.get_document("logins").expect("it has logins");
    assert_eq!(logins.get("started"), Some(&Bson::Int64(STARTED.load(Ordering::Relaxed))));
    assert_eq!(logins.get("confirmed"), Some(&Bson::Int64(0)));
    let internal = logins.get_document("denied").expect("it has denials").get("internal");
    assert_eq!(internal, Some(&Bson::Int64(0)), "a panic was caught");
}

fn is_key(name: &[u8]) -> bool {
    str::from_utf8(name).is_ok() && !name.contains(&0)
}

/// The value of a document's only element, which has this name.
fn only(document: &[u8], name: &[u8]) -> Bson {
    let document = Document::from_reader(document).expect("it is BSON");
    let mut elements = document.into_iter();
    let (Some((key, value)), None) = (elements.next(), elements.next()) else { panic!("not one element") };
    assert_eq!(key.as_bytes(), name);
    value
}

fn value(index: usize) -> Option<Vec<u8>> {
    let value = take(psmdb_aws_iam_parameter_get(index));
    assert_eq!(value.is_some(), index < psmdb_aws_iam_parameter_count());
    value
}

fn parameter(name: &str) -> usize {
    let named = |index: &usize| read(psmdb_aws_iam_parameter_name(*index)) == name.as_bytes();
    (0..psmdb_aws_iam_parameter_count()).find(named).expect("it exists")
}

/// Reads a buffer and frees it.
fn take(buffer: *mut Buffer) -> Option<Vec<u8>> {
    if buffer.is_null() {
        return None;
    }
    // SAFETY: it came from the library, is read before it is freed, and nobody has it afterwards.
    unsafe {
        let bytes = read(psmdb_aws_iam_buffer_bytes(buffer)).to_vec();
        psmdb_aws_iam_buffer_free(buffer);
        Some(bytes)
    }
}

/// Bytes that the library lends; every caller is done with them before it makes the next call with
/// the same object.
fn read<'a>(bytes: Bytes) -> &'a [u8] {
    assert!(!bytes.data.is_null());
    // SAFETY: not null, and what the library lends is live until its object is used again or freed.
    unsafe { std::slice::from_raw_parts(bytes.data, bytes.length) }
}
