// Makes errors with the server's own constructor of Status.
#include "server_symbols.h"

namespace psmdb_aws_iam::abi {
namespace {

// std::shared_ptr<const mongo::ErrorExtraInfo>, always empty. It is not trivially copyable, and so
// passed by address.
struct NoExtraInfo {
    NoExtraInfo() = default;
    NoExtraInfo(const NoExtraInfo&) = delete;
    ~NoExtraInfo() {}
    void* pointers[2] = {};
};

}  // namespace

Status::Status(ErrorCode code, const std::string& reason) : error(nullptr) {
    const int number = static_cast<int>(code);
    switch (server.signature(Symbol::kStatusConstructor)) {
        case signature::kString:
            server.function<void(Status*, int, std::string)>(Symbol::kStatusConstructor)(this, number, reason);
            break;
        case signature::kStringData:
            server.function<void(Status*, int, StringDataRegisters)>(Symbol::kStatusConstructor)(
                this, number, server.toRegisters(reason));
            break;
        default: {
            // Returns a counted pointer through the hidden first argument: the one word of a
            // Status.
            NoExtraInfo none;
            server.function<void*(Status*, int, std::string, const NoExtraInfo*)>(Symbol::kStatusConstructor)(
                this, number, reason, &none);
        }
    }
}

}  // namespace psmdb_aws_iam::abi
