// Writes lines to the server's structured log.
#include "facilities.h"
#include "server_symbols.h"

namespace psmdb_aws_iam {

namespace {

// mongo::logv2::LogSeverity
constexpr int kInfo = -1;
constexpr int kWarning = -2;

void write(int id, int severity, const std::string& message) {
    if (!server.has(Symbol::kDoLog) || !server.has(Symbol::kLogOptionsConstructor)) {
        return;
    }
    constexpr int kAccessControl = 1;  // mongo::logv2::LogComponent::kAccessControl
    // mongo::logv2::LogOptions is a few words; this is more than it needs, zeroed.
    alignas(16) unsigned char options[256] = {};
    struct {
        const void* data;
        uint64_t size;
    } noAttributes = {};
    server.function<void(void*, int)>(Symbol::kLogOptionsConstructor)(options, kAccessControl);
    using DoLog = void(int, const int&, const void*, abi::StringDataRegisters, const void*);
    server.function<DoLog>(Symbol::kDoLog)(id, severity, options, server.toRegisters(message), &noAttributes);
}

}  // namespace

void logPending() {
    int32_t id = 0;
    uint8_t isWarning = 0;
    while (psmdb_aws_iam_buffer* line = psmdb_aws_iam_next_log_line(&id, &isWarning)) {
        write(id, isWarning != 0 ? kWarning : kInfo, toString(psmdb_aws_iam_buffer_bytes(line)));
        psmdb_aws_iam_buffer_free(line);
    }
}

}  // namespace psmdb_aws_iam
