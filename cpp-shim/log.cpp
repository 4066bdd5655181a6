// A line in the server's own structured log.
#include "facilities.h"
#include "server_symbols.h"

namespace psmdb_aws_iam {

void logInfo(LogId id, const std::string& message) {
    if (!server.has(Symbol::kDoLog) || !server.has(Symbol::kLogOptionsConstructor)) {
        return;
    }
    constexpr int kAccessControl = 1;  // mongo::logv2::LogComponent::kAccessControl
    constexpr int kInfo = -1;          // mongo::logv2::LogSeverity::Info
    // mongo::logv2::LogOptions is a few words; more room than it needs, zeroed.
    alignas(16) unsigned char options[256] = {};
    struct {
        const void* data;
        uint64_t size;
    } noAttributes = {};
    server.function<void(void*, int)>(Symbol::kLogOptionsConstructor)(options, kAccessControl);
    using DoLog = void(int, const int&, const void*, StringWords, const void*);
    server.function<DoLog>(Symbol::kDoLog)(static_cast<int>(id), kInfo, options,
                                           server.words({message.data(), message.size()}), &noAttributes);
}

}  // namespace psmdb_aws_iam
