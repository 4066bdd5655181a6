// The memory layouts of the server's types, under the server's names.
//
// Sources: the exported symbols and vtables of stock servers 4.4 to 6.0 for x86_64; headers of 7.0
// and newer, where these have the same layout.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <new>
#include <string>
#include <vector>

#include "cxx_runtime.h"

#if !defined(__x86_64__) || !defined(_GLIBCXX_USE_CXX11_ABI) || !_GLIBCXX_USE_CXX11_ABI
#error "the shim knows servers for x86_64 built with libstdc++ and its C++11 ABI"
#endif

namespace psmdb_aws_iam::abi {

static_assert(sizeof(std::string) == 32 && sizeof(std::vector<std::string>) == 24 &&
                  sizeof(std::function<void(void*)>) == 32,
              "sizes in the server's libstdc++");

// mongo::StringData as an argument or a result: a pointer and a length in two registers. The order
// depends on the server and is measured, see ServerBinding::toRegisters.
struct StringDataRegisters {
    uint64_t first;
    uint64_t second;
};

// mongo::ErrorCodes::Error, the two values that the shim uses.
enum class ErrorCode : int { kBadValue = 2, kAuthenticationFailed = 18 };

// mongo::Status: one pointer, null for OK. It is not trivially copyable in the server, and so
// returned through a hidden pointer. Made in place only; the receiver owns the error.
struct Status {
    Status() : error(nullptr) {}
    // By the server's own constructor, see status.cpp.
    Status(ErrorCode code, const std::string& reason);
    Status(const Status&) = delete;
    Status& operator=(const Status&) = delete;
    ~Status() {}

    void* error;
};
static_assert(sizeof(Status) == 8, "one pointer");

// mongo::StatusWith<std::tuple<bool, std::string>>: what a step of a mechanism returns.
struct StepResult {
    // The step succeeded; `isDone` is set on the last one.
    StepResult(bool isDone, const char* data, size_t length) : hasValue(true), reply(data, length), done(isDone) {}
    // The login is denied.
    explicit StepResult(const std::string& reason)
        : status(ErrorCode::kAuthenticationFailed, reason), hasValue(false), noReply(), done(false) {}
    StepResult(const StepResult&) = delete;
    StepResult& operator=(const StepResult&) = delete;
    ~StepResult() {}

    Status status;
    bool hasValue;
    union {
        std::string reply;
        char noReply;
    };
    bool done;
};
static_assert(offsetof(StepResult, hasValue) == 8 && offsetof(StepResult, reply) == 16 &&
                  offsetof(StepResult, done) == 48 && sizeof(StepResult) == 56,
              "seen in servers 4.4 to 6.0");

// mongo::BSONObj. Without a holder the data is borrowed.
struct BSONObj {
    const void* data;
    void* holder;
};
static_assert(sizeof(BSONObj) == 16, "two pointers");

// mongo::BSONElement.
struct BSONElement {
    const uint8_t* data;
    int32_t fieldNameSize;
    int32_t totalSize;
};
static_assert(sizeof(BSONElement) == 16, "a pointer and two lengths");

// mongo::ServerMechanismBase.
struct ServerMechanismBase {
    const void* vtable;
    bool success;
    std::string principalName;
    std::string authenticationDatabase;
};
static_assert(offsetof(ServerMechanismBase, success) == 8 && offsetof(ServerMechanismBase, principalName) == 16 &&
                  offsetof(ServerMechanismBase, authenticationDatabase) == 48 && sizeof(ServerMechanismBase) == 80,
              "seen in servers 4.4 to 6.0");

// mongo::ServerFactoryBase, which has no members.
struct ServerFactoryBase {
    const void* vtable;
};

// mongo::SASLServerMechanismRegistry.
struct SASLServerMechanismRegistry {
    void* owner;  // the service context; 8.0 and newer: the service
    std::vector<ServerFactoryBase*> internalFactories;
    std::vector<ServerFactoryBase*> externalFactories;
    std::vector<std::string> enabledMechanisms;
};
static_assert(offsetof(SASLServerMechanismRegistry, externalFactories) == 32 &&
                  sizeof(SASLServerMechanismRegistry) == 80,
              "seen in servers 4.4 to 6.0");

}  // namespace psmdb_aws_iam::abi
