// One MONGODB-AWS login without a mongod: how a server links psmdb-aws-iam in and drives it.
//
//     cc -std=c11 -Iinclude tests/c_abi/conversation.c -Ltarget/release -l:libpsmdb_aws_iam.so -o conversation
//     conversation AWS_STS_HOST AWS_STS_ENDPOINT AWS_STS_CA_FILE
//
// The arguments are values for the parameters of these names. The client's messages are read from standard input, one a
// line, in hexadecimal digits; the replies to it are written to standard output in the same way. The last line is one
// of these:
//
//     authenticated USER_NAME ARN      exit status 0
//     denied CODE REASON               exit status 1
//     refused REASON                   exit status 2: a parameter's value is not allowed
//
// What a real server does besides: it logs the reason and tells the client nothing but "Authentication failed", and it
// looks USER_NAME up in $external.
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "psmdb_aws_iam.h"

enum { kAuthenticated = 0, kDenied = 1, kUnusable = 2 };

// A session token may have 16 KiB; this is room for any message that is not refused for its length.
enum { kMaxMessageLength = 64 * 1024 };

static void print_text(psmdb_aws_iam_bytes text) { fwrite(text.data, 1, text.length, stdout); }

static void print_hex_line(psmdb_aws_iam_bytes bytes) {
    for (size_t i = 0; i < bytes.length; ++i) {
        printf("%02x", bytes.data[i]);
    }
    printf("\n");
}

static int hex_digit(int character) {
    const char* digits = "0123456789abcdef";
    const char* found = character == '\0' ? NULL : strchr(digits, character);
    return found == NULL ? -1 : (int)(found - digits);
}

// Reads one line. Returns false at the end of the input and for a line that is not one of bytes in hexadecimal.
static bool read_message(uint8_t message[kMaxMessageLength], size_t* length_out) {
    size_t length = 0;
    for (;;) {
        const int first = getchar();
        if (first == '\n') {
            *length_out = length;
            return true;
        }
        const int high = hex_digit(first);
        const int low = high < 0 ? -1 : hex_digit(getchar());
        if (low < 0 || length == kMaxMessageLength) {
            return false;
        }
        message[length++] = (uint8_t)(high * 16 + low);
    }
}

// Sets a parameter by its name, as a server does for every parameter in its configuration file.
static bool set_parameter(const char* name, const char* value) {
    const size_t count = psmdb_aws_iam_parameter_count();
    size_t index = 0;
    for (; index < count; ++index) {
        const psmdb_aws_iam_bytes found = psmdb_aws_iam_parameter_name(index);
        if (found.length == strlen(name) && memcmp(found.data, name, found.length) == 0) {
            break;
        }
    }

    psmdb_aws_iam_buffer* reason = NULL;
    const psmdb_aws_iam_result result =
        psmdb_aws_iam_parameter_set(index, (const uint8_t*)value, strlen(value), &reason);
    if (result == PSMDB_AWS_IAM_RESULT_OK) {
        return true;
    }
    printf("refused ");
    if (reason != NULL) {
        print_text(psmdb_aws_iam_buffer_bytes(reason));
        psmdb_aws_iam_buffer_free(reason);
    } else {
        // With an index out of range: this library has no parameter of that name.
        printf("%s: code %u", name, (unsigned)result);
    }
    printf("\n");
    return false;
}

// Gives the client's messages to the conversation until it has ended; returns the exit status.
static int converse(psmdb_aws_iam_conversation* conversation) {
    static uint8_t message[kMaxMessageLength];
    for (;;) {
        size_t length = 0;
        if (!read_message(message, &length)) {
            fprintf(stderr, "conversation: the next line is not a message in hexadecimal\n");
            return kUnusable;
        }
        psmdb_aws_iam_bytes reply;
        const psmdb_aws_iam_result result = psmdb_aws_iam_conversation_step(conversation, message, length, &reply);
        switch (result) {
            case PSMDB_AWS_IAM_RESULT_CONTINUE:
                print_hex_line(reply);
                break;
            case PSMDB_AWS_IAM_RESULT_AUTHENTICATED:
                print_hex_line(reply);
                printf("authenticated ");
                print_text(psmdb_aws_iam_conversation_user_name(conversation));
                printf(" ");
                print_text(psmdb_aws_iam_conversation_arn(conversation));
                printf("\n");
                return kAuthenticated;
            default:
                // Any other code, one that a later version adds included, is a denial.
                printf("denied %u ", (unsigned)result);
                print_text(psmdb_aws_iam_conversation_reason(conversation));
                printf("\n");
                return kDenied;
        }
    }
}

// As a server does with what it does not write to its log.
static void drop_log_lines(void) {
    int32_t id = 0;
    uint8_t is_warning = 0;
    for (psmdb_aws_iam_buffer* line = psmdb_aws_iam_next_log_line(&id, &is_warning); line != NULL;
         line = psmdb_aws_iam_next_log_line(&id, &is_warning)) {
        psmdb_aws_iam_buffer_free(line);
    }
}

int main(int argc, char** argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: conversation AWS_STS_HOST AWS_STS_ENDPOINT AWS_STS_CA_FILE\n");
        return kUnusable;
    }
    // The client waits for each line.
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);

    if (!set_parameter("awsStsHost", argv[1]) || !set_parameter("awsStsEndpoint", argv[2]) ||
        !set_parameter("awsStsCAFile", argv[3])) {
        return kUnusable;
    }
    psmdb_aws_iam_loaded((const uint8_t*)"none", 4);
    psmdb_aws_iam_registered(0, 1);
    psmdb_aws_iam_conversation* conversation = psmdb_aws_iam_conversation_new();
    if (conversation == NULL) {
        fprintf(stderr, "conversation: there is no memory for a login\n");
        return kUnusable;
    }
    const int status = converse(conversation);
    if (status == kAuthenticated) {
        psmdb_aws_iam_conversation_logged_in(conversation);
    }
    psmdb_aws_iam_conversation_free(conversation);
    drop_log_lines();
    return status;
}
