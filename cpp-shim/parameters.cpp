// Registers the plugin's parameters with the server. Names, values and checks are behind
// psmdb_aws_iam.h.
#include <stdio.h>
#include <string.h>

#include "facilities.h"
#include "server_symbols.h"

namespace psmdb_aws_iam {
namespace {

constinit PluginVtable parameterVtable;
bool registered = false;

// A server parameter of the plugin. `members` is filled by the server's constructor and larger than
// any series needs.
struct AwsParameter {
    const void* vtable;
    unsigned char members[248];
    size_t index;
    AwsParameter* next;
};

// All of them, for the lifetime of the process.
constinit AwsParameter* parameters = nullptr;

// The result of a change, and the reason why the value was refused.
struct ChangeResult {
    psmdb_aws_iam_result result;
    psmdb_aws_iam_buffer* reason;

    std::string takeReason() {
        const std::string text =
            reason ? toString(psmdb_aws_iam_buffer_bytes(reason)) : std::string("the value was not accepted");
        psmdb_aws_iam_buffer_free(reason);
        reason = nullptr;
        return text;
    }
};

abi::Status toStatus(ChangeResult change) {
    if (change.result == PSMDB_AWS_IAM_RESULT_OK) {
        return abi::Status();
    }
    return abi::Status(abi::ErrorCode::kBadValue, change.takeReason());
}

// --- The virtual functions. The first parameter is the server's `this`.

// 8.0 and newer delete their parameters at exit. The server exports no destructor for the members
// that its constructor made.
void destroyNothing(void*) {}

void appendValue(const AwsParameter* self, void* builder, std::string_view name) {
    psmdb_aws_iam_buffer* value =
        psmdb_aws_iam_parameter_get_bson(self->index, reinterpret_cast<const uint8_t*>(name.data()), name.size());
    if (value) {
        const abi::BSONObj object = {psmdb_aws_iam_buffer_bytes(value).data, nullptr};
        server.function<void*(void*, const abi::BSONObj&)>(Symbol::kAppendElements)(builder, object);
        psmdb_aws_iam_buffer_free(value);
    }
}

void append(const AwsParameter* self, void* /*operationContext*/, void* builder, const std::string& name) {
    appendValue(self, builder, name);
}

void appendStringData(const AwsParameter* self, void* /*operationContext*/, void* builder,
                      abi::StringDataRegisters name, const void* /*tenant*/) {
    appendValue(self, builder, server.fromRegisters(name));
}

size_t lengthOf(const abi::BSONElement& element) {
    return element.totalSize > 0 ? static_cast<size_t>(element.totalSize) : 0;
}

// 7.0 and newer pass a tenant at the end of these two. It is ignored: parameters are per process.
abi::Status validate(const AwsParameter* self, const abi::BSONElement& element) {
    ChangeResult change = {};
    change.result = psmdb_aws_iam_parameter_validate_bson(self->index, element.data, lengthOf(element), &change.reason);
    return toStatus(change);
}

abi::Status set(AwsParameter* self, const abi::BSONElement& element) {
    ChangeResult change = {};
    change.result = psmdb_aws_iam_parameter_set_bson(self->index, element.data, lengthOf(element), &change.reason);
    logPending();
    return toStatus(change);
}

abi::Status setFromText(const AwsParameter* self, std::string_view text) {
    ChangeResult change = {};
    change.result = psmdb_aws_iam_parameter_set(self->index, reinterpret_cast<const uint8_t*>(text.data()), text.size(),
                                                &change.reason);
    return toStatus(change);
}

abi::Status setFromString(AwsParameter* self, const std::string& text) { return setFromText(self, text); }

abi::Status setFromStringData(AwsParameter* self, abi::StringDataRegisters text, const void* /*tenant*/) {
    return setFromText(self, server.fromRegisters(text));
}

// --- Registration.

void* parameterSet() {
    const bool hasNodeSet = server.has(Symbol::kParameterSetOfNode);
    return server.function<void*()>(hasNodeSet ? Symbol::kParameterSetOfNode : Symbol::kParameterSetOfAll)();
}

// libstdc++'s layout of the std::map<std::string, ServerParameter*> in a set of parameters.
struct ParameterMap {
    struct Node {
        uint32_t color;
        Node* parent;
        Node* left;
        Node* right;
        std::string name;
        const void* parameter;
    };
    void* compare;
    uint32_t headerColor;
    Node* root;

    const void* header() const { return &headerColor; }
    // Null when there is no parameter of this name.
    const Node* find(const std::string& name) const {
        const auto* node = server.function<const Node*(const ParameterMap*, const std::string&)>(
            Symbol::kParameterSetFind)(this, name);
        return node == header() ? nullptr : node;
    }
};
static_assert(offsetof(ParameterMap::Node, name) == 0x20 && offsetof(ParameterMap::Node, parameter) == 0x40);

// The offset of the map differs between servers. A candidate must have the form of a map and
// contain a parameter that every server has.
const ParameterMap* findParameterMap(const void* set) {
    constexpr size_t kOffsets[] = {0, 0x20};  // 4.4 and 5.0, 6.0
    for (const size_t offset : kOffsets) {
        const auto* map = reinterpret_cast<const ParameterMap*>(static_cast<const char*>(set) + offset);
        if (map->headerColor != 0 || !map->root || map->root->parent != map->header()) {
            continue;
        }
        const std::string common = "authenticationMechanisms";
        const ParameterMap::Node* node = map->find(common);
        if (node && node->name == common) {
            return map;
        }
    }
    return nullptr;
}

// Removes the server's parameters that have the names of the plugin's. False when the set has an
// unknown layout.
bool removeNativeParameters() {
    void* set = parameterSet();
    const ParameterMap* map = findParameterMap(set);
    if (!map) {
        return false;
    }
    for (size_t index = 0; index < psmdb_aws_iam_parameter_count(); ++index) {
        const std::string name = toString(psmdb_aws_iam_parameter_name(index));
        if (map->find(name)) {
            // Removed from the set, not destroyed.
            server.function<void(void*, const std::string&)>(Symbol::kParameterSetRemove)(set, name);
        }
    }
    return true;
}

void addToSet(AwsParameter* parameter) {
    void* set = parameterSet();
    if (server.signature(Symbol::kParameterSetAdd) == signature::kUniquePointer) {
        // A std::unique_ptr by value is passed by address, and the server empties it.
        AwsParameter* uniquePointer = parameter;
        server.function<void(void*, AwsParameter**)>(Symbol::kParameterSetAdd)(set, &uniquePointer);
    } else {
        server.function<void(void*, AwsParameter*)>(Symbol::kParameterSetAdd)(set, parameter);
    }
}

void addParameters() {
    if (server.hasNativeMechanism() && !removeNativeParameters()) {
        fprintf(stderr, "psmdb-aws-iam: not registered: the set of server parameters has an unknown layout\n");
        return;
    }
    const auto& slots = server.slots().parameter;
    parameterVtable.copyFrom(server.parameterVtable());
    parameterVtable.replace(0, destroyNothing);
    parameterVtable.replace(1, destroyNothing);
    parameterVtable.replace(slots.validate, validate);
    parameterVtable.replace(slots.set, set);
    if (server.parameterArguments() == ParameterArguments::kStringData) {
        parameterVtable.replace(slots.append, appendStringData);
        parameterVtable.replace(slots.setFromString, setFromStringData);
    } else {
        parameterVtable.replace(slots.append, append);
        parameterVtable.replace(slots.setFromString, setFromString);
    }

    // mongo::ServerParameterType::kStartupAndRuntime; 6.0 inserted a type before it.
    const bool addsItself = !server.has(Symbol::kParameterSetOfNode);
    const int startupAndRuntime = addsItself ? 2 : 3;
    for (size_t index = 0; index < psmdb_aws_iam_parameter_count(); ++index) {
        const psmdb_aws_iam_bytes name = psmdb_aws_iam_parameter_name(index);
        auto* parameter = new (::operator new(sizeof(AwsParameter))) AwsParameter{};
        server.function<void(void*, abi::StringDataRegisters, int)>(Symbol::kParameterConstructor)(
            parameter, server.toRegisters({reinterpret_cast<const char*>(name.data), name.length}), startupAndRuntime);
        parameter->vtable = parameterVtable.address();
        parameter->index = index;
        parameter->next = parameters;
        parameters = parameter;
        if (!addsItself) {
            addToSet(parameter);
        }
    }
    registered = true;
}

void initialize(void* /*initializerContext*/) {
    const char* series = server.abiSeries();
    psmdb_aws_iam_loaded(reinterpret_cast<const uint8_t*>(series), strlen(series));
    addParameters();
    registerServerStatus();
}

abi::Status initializeWithStatus(void* initializerContext) {
    initialize(initializerContext);
    return abi::Status();
}

template <typename Result>
void registerInitializer(Result function(void*)) {
    using Initializer = std::function<Result(void*)>;
    using Names = std::vector<std::string>;
    // mongo::GlobalInitializerRegisterer, which has no members.
    alignas(16) static unsigned char registerer[256];
    // Among the server's parameters. If one of those may have the name of one of the plugin's:
    // after all of them, and before the server reads the options that set parameters.
    const bool last = server.hasNativeMechanism();
    server.function<void(void*, std::string, Initializer, Initializer, Names, Names)>(Symbol::kInitializer)(
        registerer, "PsmdbAwsIam", Initializer(function), Initializer(),
        Names{last ? "EndServerParameterRegistration" : "BeginServerParameterRegistration"},
        Names{last ? "BeginStartupOptionHandling" : "EndServerParameterRegistration"});
}

}  // namespace

bool parametersAreRegistered() { return registered; }

void registerInitializers() {
    if (server.signature(Symbol::kInitializer) == signature::kReturnsNothing) {
        registerInitializer<void>(initialize);
    } else {
        registerInitializer<abi::Status>(initializeWithStatus);
    }
}

}  // namespace psmdb_aws_iam
