// Registers the counters as a section of serverStatus. The counters are behind psmdb_aws_iam.h.
#include "facilities.h"
#include "server_symbols.h"

namespace psmdb_aws_iam {
namespace {

constexpr char kSectionName[] = "awsIam";

constinit PluginVtable sectionVtable;

// A mongo::ServerStatusSection of the plugin. To 7.0 it ends with the name; `more` is for newer
// ones.
struct AwsSection {
    const void* vtable;
    std::string name;
    uint8_t role;  // 8.0 and newer: mongo::ClusterRole
    unsigned char more[87];
};
static_assert(offsetof(AwsSection, name) == 8 && offsetof(AwsSection, role) == 40);

constexpr uint8_t kShardServer = 1;  // the role of a mongod, in a replica set too

// --- The virtual functions. The first parameter is the server's `this`.

void destroy(AwsSection* self) { self->~AwsSection(); }

// Called by 8.0 and newer; before, a section lives as long as the process.
void destroyAndDelete(AwsSection* self) {
    destroy(self);
    ::operator delete(self);
}

bool includeByDefault(const AwsSection*) { return true; }

void appendSection(const AwsSection*, void* /*operationContext*/, const abi::BSONElement& /*options*/, void* builder) {
    psmdb_aws_iam_buffer* status =
        psmdb_aws_iam_server_status(reinterpret_cast<const uint8_t*>(kSectionName), sizeof(kSectionName) - 1);
    if (status) {
        const abi::BSONObj object = {psmdb_aws_iam_buffer_bytes(status).data, nullptr};
        server.function<void*(void*, const abi::BSONObj&)>(Symbol::kAppendElements)(builder, object);
        psmdb_aws_iam_buffer_free(status);
    }
}

}  // namespace

void registerServerStatus() {
    if (!server.hasSections()) {
        return;
    }
    sectionVtable.copyFrom(server.sectionVtable());
    sectionVtable.replace(0, destroy);
    sectionVtable.replace(1, destroyAndDelete);
    sectionVtable.replace(server.slots().section.includeByDefault, includeByDefault);
    sectionVtable.replace(server.slots().section.appendSection, appendSection);

    void* memory = ::operator new(sizeof(AwsSection));
    if (server.has(Symbol::kSectionConstructor)) {
        // Registers the object, whose functions the server calls only once it runs.
        auto* section = static_cast<AwsSection*>(memory);
        const std::string name = kSectionName;
        server.function<void(void*, const std::string&)>(Symbol::kSectionConstructor)(section, name);
        section->vtable = sectionVtable.address();
        return;
    }
    auto* section = new (memory) AwsSection{sectionVtable.address(), kSectionName, kShardServer, {}};
    void* registry = server.function<void*()>(Symbol::kSectionRegistryOfProcess)();
    // A std::unique_ptr by value is passed by address, and the server empties it.
    server.function<void(void*, AwsSection**)>(Symbol::kSectionRegistryAdd)(registry, &section);
}

}  // namespace psmdb_aws_iam
