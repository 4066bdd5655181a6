// psmdb-aws-iam: MONGODB-AWS logins, verified by AWS STS. The C ABI.
//
// SPDX-License-Identifier: Apache-2.0
//
// Generated from src/ffi by cbindgen. Do not edit.
//
// One login is one conversation:
//
//     psmdb_aws_iam_conversation *conversation = psmdb_aws_iam_conversation_new();
//     psmdb_aws_iam_bytes reply;
//     switch (psmdb_aws_iam_conversation_step(conversation, payload, payload_length, &reply)) {
//     case PSMDB_AWS_IAM_RESULT_CONTINUE:       // send the reply, step again with the next payload
//     case PSMDB_AWS_IAM_RESULT_AUTHENTICATED:  // look the user up in $external, grant its roles
//     default:                                  // deny; log psmdb_aws_iam_conversation_reason
//     }
//     psmdb_aws_iam_conversation_free(conversation);
//
// Ownership  The caller owns an object that a function returns as a pointer, and frees it once with
//            the function that the object's description names. The library owns
//            psmdb_aws_iam_bytes. No function keeps a pointer that it was given.
// Lengths    Every pointer to bytes comes with a length in bytes; a null pointer with length 0 is
//            empty. No NUL at the end is needed or written, except by psmdb_aws_iam_version.
// Threads    Different threads may use different conversations at the same time. One thread at a
//            time may use a conversation, not always the same. Any thread may read and set
//            parameters at any time.
// Errors     Outputs are written only as each function says. Compare results with the codes that
//            mean success; every other result is a failure.
// Process    The library starts no thread and allocates nothing before the first call. It changes
//            no signal handler, environment variable, locale or logger.
// Blocking   Only the second step of a conversation waits for the network, for awsStsTimeoutMS at
//            most.


#ifndef PSMDB_AWS_IAM_H
#define PSMDB_AWS_IAM_H

#include <stddef.h>
#include <stdint.h>


// The result of a function.
//
// The values that mean success are far from 0 and 1: a result that was zeroed, or never written,
// is a failure.
enum psmdb_aws_iam_result
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Done.
    PSMDB_AWS_IAM_RESULT_OK = 7000,
    // Send the reply to the client and give its next message to the conversation.
    PSMDB_AWS_IAM_RESULT_CONTINUE = 7001,
    // The client has proved who it is: see psmdb_aws_iam_conversation_user_name. Send it an empty
    // reply.
    PSMDB_AWS_IAM_RESULT_AUTHENTICATED = 7002,
    // Denied: the client's message is wrong, and no request was sent to STS; or its conversation
    // has expired, or a clock is wrong.
    PSMDB_AWS_IAM_RESULT_DENIED_MALFORMED = 1,
    // Denied: STS refused the request, or named a principal that cannot log in.
    PSMDB_AWS_IAM_RESULT_DENIED_BY_STS = 2,
    // Denied: STS did not respond in time, or its response was not a valid STS response.
    PSMDB_AWS_IAM_RESULT_DENIED_STS_UNAVAILABLE = 3,
    // Denied: the library could not continue, for example without random bytes.
    PSMDB_AWS_IAM_RESULT_DENIED_INTERNAL = 4,
    // Denied: a defect of the library was caught. Please report it.
    PSMDB_AWS_IAM_RESULT_PANIC = 5,
    // The parameter's value was refused. Nothing has changed.
    PSMDB_AWS_IAM_RESULT_REFUSED_VALUE = 6,
    // A pointer is null, or an index or a length is out of range. Nothing was done.
    PSMDB_AWS_IAM_RESULT_INVALID_ARGUMENT = 7,
    // Denied: STS confirmed the client, but awsIamAllowedAccounts does not list its account.
    PSMDB_AWS_IAM_RESULT_DENIED_ACCOUNT = 8,
    // Denied: STS limits the requests of the client's account.
    PSMDB_AWS_IAM_RESULT_DENIED_THROTTLED = 9,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum psmdb_aws_iam_result psmdb_aws_iam_result;
#else
typedef uint32_t psmdb_aws_iam_result;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Bytes that the caller owns. Read them with psmdb_aws_iam_buffer_bytes, free them with
// psmdb_aws_iam_buffer_free.
typedef struct psmdb_aws_iam_buffer psmdb_aws_iam_buffer;

// One login of one client. Made by psmdb_aws_iam_conversation_new, freed by
// psmdb_aws_iam_conversation_free, used by one thread at a time.
typedef struct psmdb_aws_iam_conversation psmdb_aws_iam_conversation;

// Bytes that the library owns. They are valid until the object that they came from is used again
// or freed; names and versions are valid forever. No NUL follows them. When there are none, length
// is 0 and data is not null.
typedef struct {
    // The first byte.
    const uint8_t *data;
    // The number of bytes.
    size_t length;
} psmdb_aws_iam_bytes;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The bytes of a buffer, valid until it is freed. Empty for a null pointer.
//
// # Safety
// `buffer` is null, or came from a function of this library and has not been freed.
psmdb_aws_iam_bytes psmdb_aws_iam_buffer_bytes(const psmdb_aws_iam_buffer *buffer);

// Frees a buffer. Does nothing for a null pointer.
//
// # Safety
// `buffer` is null, or came from a function of this library and has not been freed.
void psmdb_aws_iam_buffer_free(psmdb_aws_iam_buffer *buffer);

// The version of the library as a NUL-terminated string, such as "0.1.0".
const char *psmdb_aws_iam_version(void);

// Begins a login with the parameters in force. It is denied when awsStsHost, a name in
// awsStsFallbackHosts or awsStsCAFile changes before it ends. awsIamAllowedAccounts and
// awsIamRoleUserFormat apply as they are at its end, the other parameters as they are now.
// Null when memory for it could not be prepared.
psmdb_aws_iam_conversation *psmdb_aws_iam_conversation_new(void);

// Gives the client's next message, the payload of saslStart or saslContinue, to the
// conversation.
//
// The second message must come within 60 seconds after the first. It sends a request to STS,
// and blocks for awsStsTimeoutMS at most. For PSMDB_AWS_IAM_RESULT_CONTINUE and
// PSMDB_AWS_IAM_RESULT_AUTHENTICATED, writes to `*reply_out` the payload for the client, valid
// until the conversation is used again or freed. For any other result, `*reply_out` is not
// written, and psmdb_aws_iam_conversation_reason returns the reason.
//
// # Safety
// `conversation` is null, or came from psmdb_aws_iam_conversation_new, has not been freed and
// is used by no other thread during the call; `message` points to `message_length` readable
// bytes or the length is 0; `reply_out` is null or can be written.
psmdb_aws_iam_result psmdb_aws_iam_conversation_step(psmdb_aws_iam_conversation *conversation,
                                                     const uint8_t *message,
                                                     size_t message_length,
                                                     psmdb_aws_iam_bytes *reply_out);

// The name of the user in $external, such as "arn:aws:iam::123456789012:role/app". Empty
// unless the last step returned PSMDB_AWS_IAM_RESULT_AUTHENTICATED. Valid until the
// conversation is used again or freed.
//
// # Safety
// As for psmdb_aws_iam_conversation_reason.
psmdb_aws_iam_bytes psmdb_aws_iam_conversation_user_name(const psmdb_aws_iam_conversation *conversation);

// The ARN that STS returned, with the session name of a role. Empty in the same cases and
// valid for the same time as the user name.
//
// # Safety
// As for psmdb_aws_iam_conversation_reason.
psmdb_aws_iam_bytes psmdb_aws_iam_conversation_arn(const psmdb_aws_iam_conversation *conversation);

// What a server adds to its log line about the login: the BSON document {awsId: unique id,
// awsArn: ARN}. Empty in the same cases and valid for the same time as the user name.
//
// # Safety
// As for psmdb_aws_iam_conversation_reason.
psmdb_aws_iam_bytes psmdb_aws_iam_conversation_extra_info(const psmdb_aws_iam_conversation *conversation);

// The reason why the login failed: one sentence in UTF-8 for the server's log, not for the
// client. It holds no secret and no control character. Empty unless the last step denied the
// login. Valid until the conversation is used again or freed.
//
// # Safety
// `conversation` is null, or came from psmdb_aws_iam_conversation_new, has not been freed and
// is used by no other thread during the call.
psmdb_aws_iam_bytes psmdb_aws_iam_conversation_reason(const psmdb_aws_iam_conversation *conversation);

// Says that the server has reported the login of a client that the conversation authenticated.
// Later logins with this access key do not wait behind those of unknown keys. Does nothing for
// any other conversation.
//
// # Safety
// As for psmdb_aws_iam_conversation_reason.
void psmdb_aws_iam_conversation_logged_in(psmdb_aws_iam_conversation *conversation);

// Ends a conversation at any time and frees it. Does nothing for a null pointer.
//
// When the server reports logins (see psmdb_aws_iam_registered) and has not reported the one
// of a client that the conversation authenticated, it is counted as not reported, and adds a
// line for the server's log.
//
// # Safety
// `conversation` is null, or came from psmdb_aws_iam_conversation_new and has not been freed.
void psmdb_aws_iam_conversation_free(psmdb_aws_iam_conversation *conversation);

// The number of parameters. An index from 0 up to this number identifies a parameter.
size_t psmdb_aws_iam_parameter_count(void);

// The name of a parameter, such as "awsStsHost"; valid forever. Empty for an index out of
// range.
psmdb_aws_iam_bytes psmdb_aws_iam_parameter_name(size_t index);

// Sets a parameter from text, as a command line or a configuration file gives it. Applies from
// the next login on.
//
// After the first call of psmdb_aws_iam_registered, psmdb_aws_iam_parameter_set_bson or
// psmdb_aws_iam_parameter_validate_bson, the values in force then limit awsStsHost,
// awsStsFallbackHosts, awsStsCAFile and awsIamAllowedAccounts: another value than one of those
// is refused.
//
// For a value that is not allowed, returns PSMDB_AWS_IAM_RESULT_REFUSED_VALUE and, unless
// `reason_out` is null, writes to `*reason_out` a new buffer with one sentence that says what
// is allowed. The caller frees it. Otherwise `*reason_out` is not written. May read a file.
// May be called by any thread at any time.
//
// # Safety
// `text` points to `text_length` readable bytes or the length is 0; `reason_out` is null or
// can be written.
psmdb_aws_iam_result psmdb_aws_iam_parameter_set(size_t index,
                                                 const uint8_t *text,
                                                 size_t text_length,
                                                 psmdb_aws_iam_buffer **reason_out);

// Sets a parameter from a BSON element: its type byte, its NUL-terminated name and its value.
// The element's name does not matter. Otherwise the same as psmdb_aws_iam_parameter_set.
//
// # Safety
// `element` points to `element_length` readable bytes or the length is 0; `reason_out` is null
// or can be written.
psmdb_aws_iam_result psmdb_aws_iam_parameter_set_bson(size_t index,
                                                      const uint8_t *element,
                                                      size_t element_length,
                                                      psmdb_aws_iam_buffer **reason_out);

// Checks whether psmdb_aws_iam_parameter_set_bson would accept the element. Changes nothing.
//
// # Safety
// As for psmdb_aws_iam_parameter_set_bson.
psmdb_aws_iam_result psmdb_aws_iam_parameter_validate_bson(size_t index,
                                                           const uint8_t *element,
                                                           size_t element_length,
                                                           psmdb_aws_iam_buffer **reason_out);

// The value of a parameter as text, in a new buffer that the caller frees. Null for an index
// out of range.
psmdb_aws_iam_buffer *psmdb_aws_iam_parameter_get(size_t index);

// The value of a parameter as a BSON document of one element with the given name, in a new
// buffer that the caller frees. Null for an index out of range, and for a name that is not
// UTF-8 or holds a NUL.
//
// # Safety
// `name` points to `name_length` readable bytes or the length is 0.
psmdb_aws_iam_buffer *psmdb_aws_iam_parameter_get_bson(size_t index, const uint8_t *name, size_t name_length);

// Says which server the plugin is in, before any conversation. `abi` is UTF-8 text that names
// the form of the server's internals, such as "6.0". A second call changes nothing.
//
// # Safety
// `abi` points to `abi_length` readable bytes or the length is 0.
void psmdb_aws_iam_loaded(const uint8_t *abi, size_t abi_length);

// Says that the mechanism is registered.
//
// With `replaced_native` other than 0, it replaced the server's own mechanism. The first call
// of each kind adds a line for the server's log. From now on a change of a parameter does,
// too, and the values in force limit further changes: see psmdb_aws_iam_parameter_set.
//
// With `reports_logins` other than 0, the server reports each login that succeeds:
// psmdb_aws_iam_conversation_logged_in is called. Without, and without this call, a login
// counts as successful when STS confirms it.
void psmdb_aws_iam_registered(uint8_t replaced_native, uint8_t reports_logins);

// The counters since the process began, for a server's status report: a BSON document of one
// element, which is a document and has the given name, in a new buffer that the caller frees.
// Null for a name that is not UTF-8 or holds a NUL. May be called by any thread at any time;
// does not block.
//
// # Safety
// `name` points to `name_length` readable bytes or the length is 0.
psmdb_aws_iam_buffer *psmdb_aws_iam_server_status(const uint8_t *name, size_t name_length);

// Takes the next line for the server's log: returns its text in a new buffer that the caller
// frees, and writes its number to `*log_id_out` and to `*is_warning_out` 1 for a warning, 0
// for information. Returns null and writes nothing when there is no line, or an argument is
// null. May be called by any thread at any time, and costs little: call it after each step of
// a conversation, until it returns null.
//
// # Safety
// `log_id_out` and `is_warning_out` are null or can be written.
psmdb_aws_iam_buffer *psmdb_aws_iam_next_log_line(int32_t *log_id_out, uint8_t *is_warning_out);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* PSMDB_AWS_IAM_H */
