//! One login through the C ABI.

use super::boundary::{bytes, export, guard};
use super::parameters::store;
use super::types::{Bytes, ResultCode};
use crate::denial::{Cause, Denial, Kind};
use crate::events::Event;
use crate::login::{Authenticated, Login, Step};
use crate::sasl::Moment;
use std::time::Instant;

/// One login of one client. Made by psmdb_aws_iam_conversation_new, freed by
/// psmdb_aws_iam_conversation_free, used by one thread at a time.
#[derive(Debug)]
pub struct Conversation {
    progress: Progress,
}

#[derive(Debug)]
enum Progress {
    /// The client's next message is awaited; the bytes are the last reply to it.
    Underway { login: Box<Login>, reply: Vec<u8> },
    /// STS has confirmed who the client is.
    Confirmed { who: Authenticated, extra_info: Vec<u8> },
    /// The login has failed, for this reason.
    Denied { reason: String },
}

impl Conversation {
    fn new() -> Self {
        Self {
            progress: Progress::Underway { login: Box::new(Login::new(store(), Instant::now())), reply: Vec::new() },
        }
    }

    /// Takes a message. The progress is `Denied` while the login works on it, so that a panic
    /// leaves it so.
    fn step(&mut self, message: &[u8], take: impl FnOnce(&mut Login, &[u8]) -> Result<Step, Denial>) -> ResultCode {
        const DEFECT: &str = "a defect of psmdb-aws-iam was caught; please report it";
        let denied = Progress::Denied { reason: DEFECT.to_owned() };
        let (code, progress) = match std::mem::replace(&mut self.progress, denied) {
            Progress::Underway { mut login, .. } => match take(&mut login, message) {
                Ok(Step::Continue(reply)) => (ResultCode::Continue, Progress::Underway { login, reply }),
                Ok(Step::Authenticated(who)) => {
                    let extra_info = who.extra_info().into_bytes();
                    store().process().metrics.confirmed.add();
                    (ResultCode::Authenticated, Progress::Confirmed { who, extra_info })
                }
                Err(denial) => {
                    count_denied(denial.cause());
                    (code_of(denial.kind()), Progress::Denied { reason: denial.reason().to_owned() })
                }
            },
            // A finished login answers for nobody any more once it is given another message.
            Progress::Confirmed { .. } | Progress::Denied { .. } => {
                count_denied(Cause::BrokenMessage);
                let reason = "the client sent a message after the conversation was over".to_owned();
                (ResultCode::DeniedMalformed, Progress::Denied { reason })
            }
        };
        self.progress = progress;
        code
    }

    fn reply(&self) -> Bytes {
        match &self.progress {
            Progress::Underway { reply, .. } => Bytes::of(reply),
            _ => Bytes::EMPTY,
        }
    }
}

fn count_denied(cause: Cause) {
    store().process().metrics.denied.add(cause);
}

fn code_of(kind: Kind) -> ResultCode {
    match kind {
        Kind::MalformedMessage => ResultCode::DeniedMalformed,
        Kind::RefusedBySts => ResultCode::DeniedBySts,
        Kind::AccountNotAllowed => ResultCode::DeniedAccount,
        Kind::Throttled => ResultCode::DeniedThrottled,
        Kind::StsUnavailable => ResultCode::DeniedStsUnavailable,
        Kind::Internal => ResultCode::DeniedInternal,
    }
}

export!(
    /// Begins a login with the parameters in force. It is denied when awsStsHost, a name in
    /// awsStsFallbackHosts or awsStsCAFile changes before it ends; awsIamAllowedAccounts and
    /// awsIamRoleUserFormat count as they are at its end, and the other parameters as they are now.
    /// Null when memory for it could not be prepared.
    pub extern "C" fn psmdb_aws_iam_conversation_new() -> *mut Conversation {
        store().process().metrics.started.add();
        Box::into_raw(Box::new(Conversation::new()))
    }
);

export!(
    /// Gives the client's next message, the payload of saslStart or saslContinue, to the
    /// conversation.
    ///
    /// The second message must come within 60 seconds after the first. It makes it ask STS, and
    /// blocks for at most awsStsTimeoutMS. With PSMDB_AWS_IAM_RESULT_CONTINUE and
    /// PSMDB_AWS_IAM_RESULT_AUTHENTICATED, `*reply_out` is the payload for the client, valid until
    /// the conversation is used again or freed; with any other result it is not written, and
    /// psmdb_aws_iam_conversation_reason says why.
    ///
    /// # Safety
    /// `conversation` is null or came from psmdb_aws_iam_conversation_new, has not been freed and
    /// is used by no other thread now; `message` points to `message_length` readable bytes or the
    /// length is 0; `reply_out` is null or can be written.
    pub unsafe extern "C" fn psmdb_aws_iam_conversation_step(
        conversation: *mut Conversation,
        message: *const u8,
        message_length: usize,
        reply_out: *mut Bytes,
    ) -> ResultCode {
        // Two boundaries: the inner one's panic is counted too.
        let code = guard(|| {
            // SAFETY: null or a live conversation of ours that no other thread uses, as the caller
            // promises.
            let conversation = unsafe { conversation.as_mut() };
            // SAFETY: readable for this call, as the caller promises.
            let message = unsafe { bytes(message, message_length) };
            let (Some(conversation), Some(message), false) = (conversation, message, reply_out.is_null()) else {
                return ResultCode::InvalidArgument;
            };
            let code = conversation.step(message, |login, message| login.step(store(), message, Moment::now()?));
            if matches!(code, ResultCode::Continue | ResultCode::Authenticated) {
                // SAFETY: not null, as just checked, and writable, as the caller promises.
                unsafe { reply_out.write(conversation.reply()) };
            }
            code
        });
        if code == ResultCode::Panic {
            count_denied(Cause::Internal);
        }
        code
    }
);

/// Reads one part of a conversation; empty for a null pointer and for a conversation without this part.
fn part(conversation: Option<&Conversation>, part: fn(&Progress) -> Option<&[u8]>) -> Bytes {
    conversation.and_then(|conversation| part(&conversation.progress)).map_or(Bytes::EMPTY, Bytes::of)
}

fn confirmed(progress: &Progress) -> Option<&Authenticated> {
    match progress {
        Progress::Confirmed { who, .. } => Some(who),
        _ => None,
    }
}

export!(
    /// The name of the user in $external, such as "arn:aws:iam::123456789012:role/app". Empty
    /// unless the last step answered PSMDB_AWS_IAM_RESULT_AUTHENTICATED. Valid until the
    /// conversation is used again or freed.
    ///
    /// # Safety
    /// As psmdb_aws_iam_conversation_reason.
    pub unsafe extern "C" fn psmdb_aws_iam_conversation_user_name(conversation: *const Conversation) -> Bytes {
        // SAFETY: null or live, as the caller promises.
        part(unsafe { conversation.as_ref() }, |p| confirmed(p).map(|who| who.user_name().as_bytes()))
    }
);

export!(
    /// The ARN that STS answered, with the session name of a role. Empty and valid as the user
    /// name.
    ///
    /// # Safety
    /// As psmdb_aws_iam_conversation_reason.
    pub unsafe extern "C" fn psmdb_aws_iam_conversation_arn(conversation: *const Conversation) -> Bytes {
        // SAFETY: null or live, as the caller promises.
        part(unsafe { conversation.as_ref() }, |p| confirmed(p).map(|who| who.arn().as_bytes()))
    }
);

export!(
    /// What a server adds to its log line about the login: the BSON document {awsId: unique id,
    /// awsArn: ARN}. Empty and valid as the user name.
    ///
    /// # Safety
    /// As psmdb_aws_iam_conversation_reason.
    pub unsafe extern "C" fn psmdb_aws_iam_conversation_extra_info(conversation: *const Conversation) -> Bytes {
        // SAFETY: null or live, as the caller promises.
        part(unsafe { conversation.as_ref() }, |progress| match progress {
            Progress::Confirmed { extra_info, .. } => Some(extra_info),
            _ => None,
        })
    }
);

export!(
    /// Why the login failed: one sentence in UTF-8 for the server's log, not for the client. It
    /// holds no secret and no control character. Empty unless the last step denied the login. Valid
    /// until the conversation is used again or freed.
    ///
    /// # Safety
    /// `conversation` is null or came from psmdb_aws_iam_conversation_new, has not been freed and
    /// is used by no other thread now.
    pub unsafe extern "C" fn psmdb_aws_iam_conversation_reason(conversation: *const Conversation) -> Bytes {
        // SAFETY: null or live, as the caller promises.
        part(unsafe { conversation.as_ref() }, |progress| match progress {
            Progress::Denied { reason } => Some(reason.as_bytes()),
            _ => None,
        })
    }
);

export!(
    /// Says of a conversation that authenticated a client that the server has logged it in, or that
    /// the server never reports whether it did. Later logins with this access key do not wait among
    /// those of strangers. Nothing happens for any other conversation.
    ///
    /// # Safety
    /// `conversation` is null or live, and no other thread uses it during the call.
    pub unsafe extern "C" fn psmdb_aws_iam_conversation_logged_in(conversation: *const Conversation) {
        // SAFETY: null or live, as the caller promises.
        let conversation = unsafe { conversation.as_ref() };
        if let Some(who) = conversation.and_then(|conversation| confirmed(&conversation.progress)) {
            let process = store().process();
            process.server.login_reported();
            store().current().sts().remember(who.access_key_id(), who.account());
        }
    }
);

export!(
    /// Says of a conversation that authenticated a client that the server has not reported the
    /// login, for want of such a user perhaps. It is counted, and is a line for the server's log.
    /// Nothing happens for any other conversation.
    ///
    /// # Safety
    /// `conversation` is null or live, and no other thread uses it during the call.
    pub unsafe extern "C" fn psmdb_aws_iam_conversation_not_reported(conversation: *const Conversation) {
        // SAFETY: null or live, as the caller promises.
        let conversation = unsafe { conversation.as_ref() };
        if let Some(who) = conversation.and_then(|conversation| confirmed(&conversation.progress)) {
            let process = store().process();
            process.metrics.not_reported.add();
            // A server that runs with quiet reports no login: then all that STS confirms may have
            // succeeded.
            if !process.server.reports_logins() {
                store().current().sts().remember(who.access_key_id(), who.account());
            }
            let (arn, user_name) = (who.arn().to_owned(), who.user_name().to_owned());
            process.events.push(Event::NotReported { arn, user_name });
        }
    }
);

export!(
    /// Ends a conversation, finished or not, and frees it. Nothing happens for a null pointer.
    ///
    /// # Safety
    /// `conversation` is null or came from psmdb_aws_iam_conversation_new and has not been freed.
    pub unsafe extern "C" fn psmdb_aws_iam_conversation_free(conversation: *mut Conversation) {
        if !conversation.is_null() {
            // SAFETY: it came from `Box::into_raw`, and the caller gives it up.
            drop(unsafe { Box::from_raw(conversation) });
        }
    }
);

#[cfg(test)]
#[allow(unsafe_code, reason = "tests of functions with pointers")]
mod tests {
    use super::*;
    use bson::spec::BinarySubtype;
    use bson::{Binary, rawdoc};
    use std::time::Duration;

    fn text(bytes: Bytes) -> String {
        // SAFETY: the tests read each value before they use its conversation again.
        let bytes = unsafe { std::slice::from_raw_parts(bytes.data, bytes.length) };
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn first_message() -> Vec<u8> {
        let nonce = Binary { subtype: BinarySubtype::Generic, bytes: vec![1; 32] };
        rawdoc! { "r": nonce, "p": 110 }.into_bytes()
    }

    #[test]
    fn a_first_message_is_answered_and_a_wrong_second_one_denied() {
        // SAFETY: each pointer is live and used by this thread only.
        unsafe {
            let conversation = psmdb_aws_iam_conversation_new();
            let mut reply = Bytes::EMPTY;
            let message = first_message();
            let step = psmdb_aws_iam_conversation_step(conversation, message.as_ptr(), message.len(), &raw mut reply);
            assert_eq!(step, ResultCode::Continue);
            assert!(reply.length > 64);
            assert_eq!(text(psmdb_aws_iam_conversation_reason(conversation)), "");

            reply = Bytes::EMPTY;
            let step = psmdb_aws_iam_conversation_step(conversation, message.as_ptr(), message.len(), &raw mut reply);
            assert_eq!(step, ResultCode::DeniedMalformed);
            assert_eq!(reply.length, 0);
            assert!(text(psmdb_aws_iam_conversation_reason(conversation)).contains("second message"));
            for part in [psmdb_aws_iam_conversation_user_name, psmdb_aws_iam_conversation_arn] {
                assert_eq!(text(part(conversation)), "");
            }
            assert_eq!(text(psmdb_aws_iam_conversation_extra_info(conversation)), "");
            psmdb_aws_iam_conversation_free(conversation);
        }
    }

    #[test]
    fn miri_null_pointers_are_harmless() {
        // SAFETY: null is allowed everywhere.
        unsafe {
            let null = std::ptr::null_mut();
            let mut reply = Bytes::EMPTY;
            let step = psmdb_aws_iam_conversation_step(null, std::ptr::null(), 0, &raw mut reply);
            assert_eq!(step, ResultCode::InvalidArgument);
            for part in [
                psmdb_aws_iam_conversation_user_name,
                psmdb_aws_iam_conversation_arn,
                psmdb_aws_iam_conversation_extra_info,
                psmdb_aws_iam_conversation_reason,
            ] {
                assert_eq!(text(part(null)), "");
            }
            psmdb_aws_iam_conversation_free(null);

            let live = psmdb_aws_iam_conversation_new();
            for (message, length, out) in [
                (std::ptr::null(), 1, &raw mut reply),
                ([0].as_ptr(), usize::MAX, &raw mut reply),
                ([0].as_ptr(), 1, std::ptr::null_mut()),
            ] {
                let step = psmdb_aws_iam_conversation_step(live, message, length, out);
                assert_eq!(step, ResultCode::InvalidArgument);
            }
            psmdb_aws_iam_conversation_free(live);
        }
    }

    #[test]
    fn miri_a_panic_denies_the_login_for_good() {
        let mut conversation = Conversation::new();
        let code = guard(|| conversation.step(b"", |_, _| panic!("for the test")));
        assert_eq!(code, ResultCode::Panic);
        assert!(matches!(&conversation.progress, Progress::Denied { reason } if reason.contains("defect")));
        let message = first_message();
        let step = |login: &mut Login, message: &[u8]| login.step(store(), message, Moment::now()?);
        assert_eq!(conversation.step(&message, step), ResultCode::DeniedMalformed);
    }

    #[test]
    fn miri_no_failure_has_the_code_of_a_success() {
        for (kind, name) in Kind::ALL {
            assert!((code_of(kind) as u32) < 7000, "{name}");
        }
    }

    #[test]
    fn a_conversation_ends_after_sixty_seconds() {
        let mut conversation = Conversation::new();
        let begun = Moment::now().unwrap();
        let first = conversation.step(&first_message(), |login, message| login.step(store(), message, begun));
        assert_eq!(first, ResultCode::Continue);
        // Made for the date of the signature: the age is measured by the monotonic clock.
        let late = Moment { monotonic: begun.monotonic + Duration::from_millis(60_001), ..begun };
        let second = second_message(begun.unix_seconds);
        let step = |login: &mut Login, message: &[u8]| login.step(store(), message, late);
        assert_eq!(conversation.step(&second, step), ResultCode::DeniedMalformed);
        let Progress::Denied { reason } = &conversation.progress else { panic!("not denied") };
        assert!(reason.contains("and must come within 60; the client must log in again"), "{reason}");
        assert_eq!(store().process().metrics.denied.of_cause(Cause::ExpiredConversation), 1);
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
}
