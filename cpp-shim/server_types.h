// The server's types as they lie in memory, and the C++ runtime that the shim shares with the
// server.
//
// Sources: the exported symbols and vtables of stock servers 4.4 to 6.0 for x86_64; headers of 7.0 and newer, where
// these have the same layout.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <new>
#include <string>
#include <vector>

#if !defined(__x86_64__) || !defined(_GLIBCXX_USE_CXX11_ABI) || !_GLIBCXX_USE_CXX11_ABI
#error "the shim knows servers for x86_64 built with libstdc++ and its C++11 ABI"
#endif

// The shim links no C++ library. What the headers of the standard library leave to it is taken from
// the server, which exports its runtime. The references are weak, so that the object loads in
// processes that have no C++ runtime; the shim never gets as far as using one there. In a server their presence is
// checked (kRuntime in server_symbols.cpp).
__asm__(
    ".weak _Znwm\n"                            // operator new(size_t)
    ".weak _ZdlPv\n"                           // operator delete(void*)
    ".weak _ZdlPvm\n"                          // operator delete(void*, size_t)
    ".weak _ZSt17__throw_bad_allocv\n"         // std::__throw_bad_alloc()
    ".weak _ZSt19__throw_logic_errorPKc\n"     // std::__throw_logic_error(char const*)
    ".weak _ZSt20__throw_length_errorPKc\n");  // std::__throw_length_error(char const*)

namespace psmdb_aws_iam {

static_assert(sizeof(std::string) == 32 && sizeof(std::vector<std::string>) == 24 &&
                  sizeof(std::function<void(void*)>) == 32,
              "the server's libstdc++ has these sizes");

// mongo::StringData: a pointer and a length, in an order that is measured on the running server
// (server_symbols.cpp), passed in two registers.
struct StringWords {
    uint64_t first;
    uint64_t second;
};

// Text that belongs to somebody else.
struct Text {
    const char* data;
    size_t length;
};

// mongo::ErrorCodes::Error, the two that are used.
enum class ErrorCode : int { kBadValue = 2, kAuthenticationFailed = 18 };

// mongo::Status: one pointer, null for OK. Not trivially copyable there, so that it is returned
// through a hidden pointer; here it can only be made in place, and whoever receives it owns the
// error.
struct Status {
    Status() : error(nullptr) {}
    Status(ErrorCode code,
           const std::string& reason);  // by the server's own constructor, see server_symbols.cpp
    Status(const Status&) = delete;
    Status& operator=(const Status&) = delete;
    ~Status() {}

    void* error;
};
static_assert(sizeof(Status) == 8, "one pointer");

// mongo::StatusWith<std::tuple<bool, std::string>>, what a step of a mechanism returns.
struct StepResult {
    // The step went well; `done` says whether it was the last.
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
struct BsonObject {
    const void* data;
    void* holder;
};
static_assert(sizeof(BsonObject) == 16, "two pointers");

// mongo::BSONElement.
struct BsonElement {
    const uint8_t* data;
    int32_t fieldNameSize;
    int32_t totalSize;
};
static_assert(sizeof(BsonElement) == 16, "a pointer and two lengths");

// mongo::ServerMechanismBase, as far as it has members.
struct MechanismBase {
    const void* vtable;
    bool success;
    std::string principalName;
    std::string authenticationDatabase;
};
static_assert(offsetof(MechanismBase, success) == 8 && offsetof(MechanismBase, principalName) == 16 &&
                  offsetof(MechanismBase, authenticationDatabase) == 48 && sizeof(MechanismBase) == 80,
              "seen in servers 4.4 to 6.0");

// mongo::ServerFactoryBase has no members.
struct FactoryBase {
    const void* vtable;
};

// mongo::SASLServerMechanismRegistry.
struct Registry {
    void* owner;  // the service context; 8.0 and newer: the service
    std::vector<FactoryBase*> internalFactories;
    std::vector<FactoryBase*> externalFactories;
    std::vector<std::string> enabledMechanisms;
};
static_assert(offsetof(Registry, externalFactories) == 32 && sizeof(Registry) == 80, "seen in servers 4.4 to 6.0");

}  // namespace psmdb_aws_iam
