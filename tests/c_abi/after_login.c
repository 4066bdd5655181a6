// Logins one after another, and a pause after each in which somebody else looks at what this process still holds of it.
//
//     after_login AWS_STS_ENDPOINT AWS_STS_CA_FILE
//
// Standard input and output carry frames: a length of four bytes, the least significant first, and so many bytes. The
// client's messages come in, the replies go out. After a login the reply is "authenticated" or "denied" instead, the
// conversation is freed by then, and the next frame begins another one. The end of the input ends the program, with
// exit status 0.
//
// The program clears its own copies of what it read, so that whatever is found belongs to the library.
#define _DEFAULT_SOURCE
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "psmdb_aws_iam.h"

enum { kMaxFrameLength = 64 * 1024 };

// Returns false at the end of the input.
static bool read_all(void* into, size_t length) {
    for (size_t done = 0; done < length;) {
        const ssize_t amount = read(STDIN_FILENO, (uint8_t*)into + done, length - done);
        if (amount <= 0) {
            return false;
        }
        done += (size_t)amount;
    }
    return true;
}

static bool write_all(const void* from, size_t length) {
    for (size_t done = 0; done < length;) {
        const ssize_t amount = write(STDOUT_FILENO, (const uint8_t*)from + done, length - done);
        if (amount <= 0) {
            return false;
        }
        done += (size_t)amount;
    }
    return true;
}

static bool write_frame(const void* from, size_t length) {
    const uint8_t header[4] = {(uint8_t)length, (uint8_t)(length >> 8), (uint8_t)(length >> 16),
                               (uint8_t)(length >> 24)};
    return write_all(header, sizeof header) && write_all(from, length);
}

static bool set_parameter(const char* name, const char* value) {
    for (size_t index = 0; index < psmdb_aws_iam_parameter_count(); ++index) {
        const psmdb_aws_iam_bytes found = psmdb_aws_iam_parameter_name(index);
        if (found.length == strlen(name) && memcmp(found.data, name, found.length) == 0) {
            return psmdb_aws_iam_parameter_set(index, (const uint8_t*)value, strlen(value), NULL) ==
                   PSMDB_AWS_IAM_RESULT_OK;
        }
    }
    return false;
}

int main(int argc, char** argv) {
    static uint8_t message[kMaxFrameLength];
    if (argc != 3 || !set_parameter("awsStsEndpoint", argv[1]) || !set_parameter("awsStsCAFile", argv[2]) ||
        !set_parameter("awsStsTimeoutMS", "1000")) {
        return 2;
    }
    psmdb_aws_iam_conversation* conversation = NULL;
    uint8_t header[4];
    while (read_all(header, sizeof header)) {
        const size_t length = header[0] | (size_t)header[1] << 8 | (size_t)header[2] << 16 | (size_t)header[3] << 24;
        if (length > sizeof message || !read_all(message, length)) {
            return 2;
        }
        if (conversation == NULL) {
            conversation = psmdb_aws_iam_conversation_new();
        }
        psmdb_aws_iam_bytes reply;
        const psmdb_aws_iam_result result = psmdb_aws_iam_conversation_step(conversation, message, length, &reply);
        explicit_bzero(message, sizeof message);
        if (result == PSMDB_AWS_IAM_RESULT_CONTINUE) {
            if (!write_frame(reply.data, reply.length)) {
                return 2;
            }
            continue;
        }
        psmdb_aws_iam_conversation_free(conversation);
        conversation = NULL;
        const char* verdict = result == PSMDB_AWS_IAM_RESULT_AUTHENTICATED ? "authenticated" : "denied";
        if (!write_frame(verdict, strlen(verdict))) {
            return 2;
        }
    }
    return 0;
}
