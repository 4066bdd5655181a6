// The server's errors, made by the server.
#include "server_symbols.h"

namespace psmdb_aws_iam {
namespace {

// std::shared_ptr<const mongo::ErrorExtraInfo>, always empty. Passed by address, as it is not trivially copyable.
struct NoExtraInfo {
    NoExtraInfo() = default;
    NoExtraInfo(const NoExtraInfo&) = delete;
    ~NoExtraInfo() {}
    void* words[2] = {};
};

}  // namespace

Status::Status(ErrorCode code, const std::string& reason) : error(nullptr) {
    const int number = static_cast<int>(code);
    switch (server.variant(Symbol::kStatusMaker)) {
        case variant::kConstructorOfString:
            server.function<void(Status*, int, std::string)>(Symbol::kStatusMaker)(this, number, reason);
            break;
        case variant::kConstructorOfStringData:
            server.function<void(Status*, int, StringWords)>(Symbol::kStatusMaker)(
                this, number, server.words({reason.data(), reason.size()}));
            break;
        default: {
            // Returns a counted pointer through the hidden first argument: the one word that a Status is.
            NoExtraInfo none;
            server.function<void*(Status*, int, std::string, const NoExtraInfo*)>(Symbol::kStatusMaker)(this, number,
                                                                                                        reason, &none);
        }
    }
}

}  // namespace psmdb_aws_iam
