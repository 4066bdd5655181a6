//! One login through the C ABI, where it is called a conversation.

use super::boundary::{bytes, export};
use super::parameters::store;
use super::types::{Bytes, ResultCode};
use crate::login::{Login, Progress};
use crate::sasl::Moment;
use std::time::Instant;

/// One login of one client. Made by psmdb_aws_iam_conversation_new, freed by
/// psmdb_aws_iam_conversation_free, used by one thread at a time.
#[derive(Debug)]
pub struct LoginHandle(Login);

export!(
    /// Begins a login with the parameters in force. It is denied when awsStsHost, a name in
    /// awsStsFallbackHosts or awsStsCAFile changes before it ends. awsIamAllowedAccounts and
    /// awsIamRoleUserFormat apply as they are at its end, the other parameters as they are now.
    /// Null when memory for it could not be prepared.
    pub extern "C" fn psmdb_aws_iam_conversation_new() -> *mut LoginHandle {
        Box::into_raw(Box::new(LoginHandle(Login::new(store(), Instant::now()))))
    }
);

export!(
    /// Gives the client's next message, the payload of saslStart or saslContinue, to the
    /// conversation.
    ///
    /// The second message must come within 60 seconds after the first. It sends a request to STS,
    /// and blocks for awsStsTimeoutMS at most. For PSMDB_AWS_IAM_RESULT_CONTINUE and
    /// PSMDB_AWS_IAM_RESULT_AUTHENTICATED, writes to `*reply_out` the payload for the client, valid
    /// until the conversation is used again or freed. For any other result, `*reply_out` is not
    /// written, and psmdb_aws_iam_conversation_reason returns the reason.
    ///
    /// # Safety
    /// `conversation` is null, or came from psmdb_aws_iam_conversation_new, has not been freed and
    /// is used by no other thread during the call; `message` points to `message_length` readable
    /// bytes or the length is 0; `reply_out` is null or can be written.
    pub unsafe extern "C" fn psmdb_aws_iam_conversation_step(
        conversation: *mut LoginHandle,
        message: *const u8,
        message_length: usize,
        reply_out: *mut Bytes,
    ) -> ResultCode {
        // SAFETY: null or a live conversation of ours that no other thread uses, as the caller
        // promises.
        let conversation = unsafe { conversation.as_mut() };
        // SAFETY: readable for this call, as the caller promises.
        let message = unsafe { bytes(message, message_length) };
        let (Some(LoginHandle(login)), Some(message), false) = (conversation, message, reply_out.is_null()) else {
            return ResultCode::InvalidArgument;
        };
        let progress = login.step(store(), message, Moment::now());
        if matches!(progress, Progress::Continue | Progress::Authenticated) {
            // SAFETY: not null, as just checked, and writable, as the caller promises.
            unsafe { reply_out.write(Bytes::of(login.reply())) };
        }
        progress.into()
    }
);

export!(
    /// The name of the user in $external, such as "arn:aws:iam::123456789012:role/app". Empty
    /// unless the last step returned PSMDB_AWS_IAM_RESULT_AUTHENTICATED. Valid until the
    /// conversation is used again or freed.
    ///
    /// # Safety
    /// As for psmdb_aws_iam_conversation_reason.
    pub unsafe extern "C" fn psmdb_aws_iam_conversation_user_name(conversation: *const LoginHandle) -> Bytes {
        // SAFETY: null or live, as the caller promises.
        read(unsafe { conversation.as_ref() }, |login| login.user().map_or("", |user| user.user_name()).as_bytes())
    }
);

export!(
    /// The ARN that STS returned, with the session name of a role. Empty in the same cases and
    /// valid for the same time as the user name.
    ///
    /// # Safety
    /// As for psmdb_aws_iam_conversation_reason.
    pub unsafe extern "C" fn psmdb_aws_iam_conversation_arn(conversation: *const LoginHandle) -> Bytes {
        // SAFETY: null or live, as the caller promises.
        read(unsafe { conversation.as_ref() }, |login| login.user().map_or("", |user| user.arn()).as_bytes())
    }
);

export!(
    /// What a server adds to its log line about the login: the BSON document {awsId: unique id,
    /// awsArn: ARN}. Empty in the same cases and valid for the same time as the user name.
    ///
    /// # Safety
    /// As for psmdb_aws_iam_conversation_reason.
    pub unsafe extern "C" fn psmdb_aws_iam_conversation_extra_info(conversation: *const LoginHandle) -> Bytes {
        // SAFETY: null or live, as the caller promises.
        read(unsafe { conversation.as_ref() }, Login::extra_info)
    }
);

export!(
    /// The reason why the login failed: one sentence in UTF-8 for the server's log, not for the
    /// client. It holds no secret and no control character. Empty unless the last step denied the
    /// login. Valid until the conversation is used again or freed.
    ///
    /// # Safety
    /// `conversation` is null, or came from psmdb_aws_iam_conversation_new, has not been freed and
    /// is used by no other thread during the call.
    pub unsafe extern "C" fn psmdb_aws_iam_conversation_reason(conversation: *const LoginHandle) -> Bytes {
        // SAFETY: null or live, as the caller promises.
        read(unsafe { conversation.as_ref() }, |login| login.reason().as_bytes())
    }
);

export!(
    /// Says that the server has reported the login of a client that the conversation authenticated.
    /// Later logins with this access key do not wait behind those of unknown keys. Does nothing for
    /// any other conversation.
    ///
    /// # Safety
    /// As for psmdb_aws_iam_conversation_reason.
    pub unsafe extern "C" fn psmdb_aws_iam_conversation_logged_in(conversation: *mut LoginHandle) {
        // SAFETY: null or live and used by no other thread, as the caller promises.
        if let Some(LoginHandle(login)) = unsafe { conversation.as_mut() } {
            login.logged_in();
        }
    }
);

export!(
    /// Ends a conversation at any time and frees it. Does nothing for a null pointer.
    ///
    /// When the server reports logins (see psmdb_aws_iam_registered) and has not reported the one
    /// of a client that the conversation authenticated, it is counted as not reported, and adds a
    /// line for the server's log.
    ///
    /// # Safety
    /// `conversation` is null, or came from psmdb_aws_iam_conversation_new and has not been freed.
    pub unsafe extern "C" fn psmdb_aws_iam_conversation_free(conversation: *mut LoginHandle) {
        if !conversation.is_null() {
            // SAFETY: it came from `Box::into_raw`, and the caller gives it up.
            drop(unsafe { Box::from_raw(conversation) });
        }
    }
);

/// Lends one part of a login; empty for a null pointer.
fn read(conversation: Option<&LoginHandle>, part: impl FnOnce(&Login) -> &[u8]) -> Bytes {
    conversation.map_or(Bytes::EMPTY, |LoginHandle(login)| Bytes::of(part(login)))
}

#[cfg(test)]
#[allow(unsafe_code, reason = "tests of functions with pointers")]
mod tests {
    use super::*;
    use bson::spec::BinarySubtype;
    use bson::{Binary, rawdoc};

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
            psmdb_aws_iam_conversation_logged_in(null);
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
}
