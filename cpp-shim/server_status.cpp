// The counters as a section of serverStatus. What is counted is behind psmdb_aws_iam.h.
#include "facilities.h"
#include "server_symbols.h"

namespace psmdb_aws_iam {
namespace {

constexpr char kSectionName[] = "awsIam";

constinit OurVtable sectionVtable;

// mongo::ServerStatusSection. To 7.0 it ends with the name; more room than any needs.
struct Section {
    const void* vtable;
    std::string name;
    uint8_t role;  // 8.0 and newer: mongo::ClusterRole
    unsigned char more[87];
};
static_assert(offsetof(Section, name) == 8 && offsetof(Section, role) == 40);

constexpr uint8_t kShardServer = 1;  // what a mongod is, in a replica set too

// --- The virtual functions. A first parameter `self` is the server's `this`.

void destroy(Section* self) { self->~Section(); }

// 8.0 and newer own their sections; before, a section lives as long as the process.
void destroyAndDelete(Section* self) {
    destroy(self);
    ::operator delete(self);
}

bool includeByDefault(const Section*) { return true; }

void appendSection(const Section*, void* /*operationContext*/, const BsonElement& /*options*/, void* builder) {
    psmdb_aws_iam_buffer* status =
        psmdb_aws_iam_server_status(reinterpret_cast<const uint8_t*>(kSectionName), sizeof(kSectionName) - 1);
    if (status) {
        const BsonObject object = {psmdb_aws_iam_buffer_bytes(status).data, nullptr};
        server.function<void*(void*, const BsonObject&)>(Symbol::kAppendElements)(builder, object);
        psmdb_aws_iam_buffer_free(status);
    }
}

}  // namespace

void registerServerStatus() {
    if (!server.hasSections()) {
        return;
    }
    sectionVtable.copy(server.sectionVtable());
    sectionVtable.put(0, destroy);
    sectionVtable.put(1, destroyAndDelete);
    sectionVtable.put(server.slots().section.includeByDefault, includeByDefault);
    sectionVtable.put(server.slots().section.appendSection, appendSection);

    void* memory = ::operator new(sizeof(Section));
    if (server.has(Symbol::kSectionConstructor)) {
        // Makes the name and registers the object, whose functions are not called before the server runs.
        auto* section = static_cast<Section*>(memory);
        const std::string name = kSectionName;
        server.function<void(void*, const std::string&)>(Symbol::kSectionConstructor)(section, name);
        section->vtable = sectionVtable.address();
        return;
    }
    auto* section = new (memory) Section{sectionVtable.address(), kSectionName, kShardServer, {}};
    void* registry = server.function<void*()>(Symbol::kSectionRegistryOfProcess)();
    // A std::unique_ptr by value: the address of one, which the server empties.
    server.function<void(void*, Section**)>(Symbol::kSectionRegistryAdd)(registry, &section);
}

}  // namespace psmdb_aws_iam
