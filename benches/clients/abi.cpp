// Uses the plugin as a server does, through its C ABI.
//
//   abi PLUGIN AWS_STS_HOST AWS_STS_ENDPOINT AWS_STS_CA_FILE
//
// Standard input contains rounds. A round begins with a line with the number of logins, and a line with the client's
// first message in hexadecimal. The program writes one reply per login and reads one second message per login, so the
// client signs outside the measured time. Then it writes its report. The first login of a round is not measured,
// because it may open a connection.
#include <dlfcn.h>

#include <cstring>

#include "client.h"
#include "psmdb_aws_iam.h"

namespace {

using client::die;

template <typename Function>
Function* find(void* object, const char* name) {
    void* found = dlsym(object, name);
    if (found == nullptr) {
        die(std::string("no such function: ") + name);
    }
    return reinterpret_cast<Function*>(found);
}

struct Abi {
    explicit Abi(void* object)
        : conversationNew(find<decltype(psmdb_aws_iam_conversation_new)>(object, "psmdb_aws_iam_conversation_new")),
          step(find<decltype(psmdb_aws_iam_conversation_step)>(object, "psmdb_aws_iam_conversation_step")),
          userName(
              find<decltype(psmdb_aws_iam_conversation_user_name)>(object, "psmdb_aws_iam_conversation_user_name")),
          reason(find<decltype(psmdb_aws_iam_conversation_reason)>(object, "psmdb_aws_iam_conversation_reason")),
          conversationFree(find<decltype(psmdb_aws_iam_conversation_free)>(object, "psmdb_aws_iam_conversation_free")),
          parameterCount(find<decltype(psmdb_aws_iam_parameter_count)>(object, "psmdb_aws_iam_parameter_count")),
          parameterName(find<decltype(psmdb_aws_iam_parameter_name)>(object, "psmdb_aws_iam_parameter_name")),
          parameterSet(find<decltype(psmdb_aws_iam_parameter_set)>(object, "psmdb_aws_iam_parameter_set")),
          nextLogLine(find<decltype(psmdb_aws_iam_next_log_line)>(object, "psmdb_aws_iam_next_log_line")),
          bufferFree(find<decltype(psmdb_aws_iam_buffer_free)>(object, "psmdb_aws_iam_buffer_free")) {}

    decltype(psmdb_aws_iam_conversation_new)* conversationNew;
    decltype(psmdb_aws_iam_conversation_step)* step;
    decltype(psmdb_aws_iam_conversation_user_name)* userName;
    decltype(psmdb_aws_iam_conversation_reason)* reason;
    decltype(psmdb_aws_iam_conversation_free)* conversationFree;
    decltype(psmdb_aws_iam_parameter_count)* parameterCount;
    decltype(psmdb_aws_iam_parameter_name)* parameterName;
    decltype(psmdb_aws_iam_parameter_set)* parameterSet;
    decltype(psmdb_aws_iam_next_log_line)* nextLogLine;
    decltype(psmdb_aws_iam_buffer_free)* bufferFree;
};

void setParameter(const Abi& abi, const char* name, const std::string& value) {
    for (size_t index = 0; index < abi.parameterCount(); ++index) {
        const psmdb_aws_iam_bytes found = abi.parameterName(index);
        if (found.length == strlen(name) && memcmp(found.data, name, found.length) == 0) {
            const auto* text = reinterpret_cast<const uint8_t*>(value.data());
            if (abi.parameterSet(index, text, value.size(), nullptr) != PSMDB_AWS_IAM_RESULT_OK) {
                die(std::string(name) + " is refused");
            }
            return;
        }
    }
    die(std::string("no such parameter: ") + name);
}

std::vector<uint8_t> fromHex(const std::string& text) {
    std::vector<uint8_t> bytes;
    for (size_t at = 0; at + 1 < text.size(); at += 2) {
        bytes.push_back(static_cast<uint8_t>(std::stoi(text.substr(at, 2), nullptr, 16)));
    }
    return bytes;
}

void printHexLine(psmdb_aws_iam_bytes bytes) {
    static const char* digits = "0123456789abcdef";
    for (size_t at = 0; at < bytes.length; ++at) {
        std::cout << digits[bytes.data[at] >> 4] << digits[bytes.data[at] & 15];
    }
    std::cout << "\n";
}

// What a server does after each step.
void drainLog(const Abi& abi) {
    int32_t id = 0;
    uint8_t isWarning = 0;
    while (psmdb_aws_iam_buffer* line = abi.nextLogLine(&id, &isWarning)) {
        abi.bufferFree(line);
    }
}

void round(const Abi& abi, size_t logins, const std::vector<uint8_t>& first) {
    std::vector<psmdb_aws_iam_conversation*> conversations(logins);
    std::vector<psmdb_aws_iam_bytes> replies(logins);
    std::vector<int64_t> times(logins);

    // First messages.
    client::Cpu cpu;
    client::Cpu begunCpu;
    for (size_t i = 0; i < logins; ++i) {
        if (i == 1) {
            begunCpu = client::Cpu::now();
        }
        const int64_t begun = client::wallTime();
        conversations[i] = abi.conversationNew();
        const auto result = abi.step(conversations[i], first.data(), first.size(), &replies[i]);
        drainLog(abi);
        times[i] = client::wallTime() - begun;
        if (result != PSMDB_AWS_IAM_RESULT_CONTINUE) {
            die("the first message is refused");
        }
    }
    cpu.addSince(begunCpu);
    for (const psmdb_aws_iam_bytes reply : replies) {
        printHexLine(reply);
    }
    std::cout.flush();

    std::vector<std::vector<uint8_t>> messages;
    for (size_t i = 0; i < logins; ++i) {
        messages.push_back(fromHex(client::readLine()));
    }

    // Second messages.
    for (size_t i = 0; i < logins; ++i) {
        if (i == 1) {
            begunCpu = client::Cpu::now();
        }
        const int64_t begun = client::wallTime();
        const auto result = abi.step(conversations[i], messages[i].data(), messages[i].size(), &replies[i]);
        drainLog(abi);
        if (result != PSMDB_AWS_IAM_RESULT_AUTHENTICATED || abi.userName(conversations[i]).length == 0) {
            const psmdb_aws_iam_bytes reason = abi.reason(conversations[i]);
            die("denied: " + std::string(reinterpret_cast<const char*>(reason.data), reason.length));
        }
        abi.conversationFree(conversations[i]);
        times[i] += client::wallTime() - begun;
    }
    cpu.addSince(begunCpu);
    times.erase(times.begin());
    client::report(times, cpu);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 5) {
        die("usage: abi PLUGIN AWS_STS_HOST AWS_STS_ENDPOINT AWS_STS_CA_FILE");
    }
    void* object = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (object == nullptr) {
        die(dlerror());
    }
    const Abi abi(object);
    setParameter(abi, "awsStsHost", argv[2]);
    setParameter(abi, "awsStsEndpoint", argv[3]);
    setParameter(abi, "awsStsCAFile", argv[4]);
    for (;;) {
        const size_t logins = std::stoul(client::readLine());
        round(abi, logins, fromHex(client::readLine()));
    }
}
