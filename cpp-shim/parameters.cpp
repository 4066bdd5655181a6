// The plugin's settings as server parameters. Names, values and checks are behind psmdb_aws_iam.h.
#include <stdio.h>
#include <string.h>

#include "facilities.h"
#include "server_symbols.h"

namespace psmdb_aws_iam {
namespace {

constinit OurVtable parameterVtable;
bool registered = false;

// A server parameter of ours. The server's part is made by its own constructor, in more room than
// it needs.
struct Parameter {
    const void* vtable;
    unsigned char members[248];
    size_t index;
    Parameter* next;
};

// All of them, for as long as the process lives.
constinit Parameter* parameters = nullptr;

// Turns the answer to a change into the server's Status.
struct Outcome {
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

Status toStatus(Outcome outcome) {
    if (outcome.result == PSMDB_AWS_IAM_RESULT_OK) {
        return Status();
    }
    return Status(ErrorCode::kBadValue, outcome.takeReason());
}

// --- The virtual functions. A first parameter `self` is the server's `this`.

// Also for 8.0 and newer, which own their parameters and delete them when they end. What the server's constructor made
// is the server's to take apart, and it exports no way to.
void keep(void*) {}

void appendValue(const Parameter* self, void* builder, Text name) {
    psmdb_aws_iam_buffer* value =
        psmdb_aws_iam_parameter_get_bson(self->index, reinterpret_cast<const uint8_t*>(name.data), name.length);
    if (value) {
        const BsonObject object = {psmdb_aws_iam_buffer_bytes(value).data, nullptr};
        server.function<void*(void*, const BsonObject&)>(Symbol::kAppendElements)(builder, object);
        psmdb_aws_iam_buffer_free(value);
    }
}

void append(const Parameter* self, void* /*operationContext*/, void* builder, const std::string& name) {
    appendValue(self, builder, {name.data(), name.size()});
}

void appendByWords(const Parameter* self, void* /*operationContext*/, void* builder, StringWords name,
                   const void* /*tenant*/) {
    appendValue(self, builder, server.text(name));
}

size_t lengthOf(const BsonElement& element) {
    return element.totalSize > 0 ? static_cast<size_t>(element.totalSize) : 0;
}

// The tenant that 7.0 and newer pass at the end of these two is not looked at: the parameters are the process's.
Status validate(const Parameter* self, const BsonElement& element) {
    Outcome outcome = {};
    outcome.result =
        psmdb_aws_iam_parameter_validate_bson(self->index, element.data, lengthOf(element), &outcome.reason);
    return toStatus(outcome);
}

Status set(Parameter* self, const BsonElement& element) {
    Outcome outcome = {};
    outcome.result = psmdb_aws_iam_parameter_set_bson(self->index, element.data, lengthOf(element), &outcome.reason);
    logPending();
    return toStatus(outcome);
}

Status setFromText(const Parameter* self, Text text) {
    Outcome outcome = {};
    outcome.result = psmdb_aws_iam_parameter_set(self->index, reinterpret_cast<const uint8_t*>(text.data), text.length,
                                                 &outcome.reason);
    return toStatus(outcome);
}

Status setFromString(Parameter* self, const std::string& text) { return setFromText(self, {text.data(), text.size()}); }

Status setFromWords(Parameter* self, StringWords text, const void* /*tenant*/) {
    return setFromText(self, server.text(text));
}

// --- Registration.

void* parameterSet() {
    const bool hasNodeSet = server.has(Symbol::kParameterSetOfNode);
    return server.function<void*()>(hasNodeSet ? Symbol::kParameterSetOfNode : Symbol::kParameterSetOfAll)();
}

// The std::map<std::string, ServerParameter*> in a set of parameters, as libstdc++ lays it out.
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
    // Null when there is no such name.
    const Node* find(const std::string& name) const {
        const auto* node = server.function<const Node*(const ParameterMap*, const std::string&)>(
            Symbol::kParameterSetFind)(this, name);
        return node == header() ? nullptr : node;
    }
};
static_assert(offsetof(ParameterMap::Node, name) == 0x20 && offsetof(ParameterMap::Node, parameter) == 0x40);

// Where the map is differs between servers. It is taken for one only if it looks like one, and knows a parameter that
// every server has.
const ParameterMap* findParameterMap(const void* set) {
    constexpr size_t kOffsets[] = {0, 0x20};  // 4.4 and 5.0, 6.0
    for (const size_t offset : kOffsets) {
        const auto* map = reinterpret_cast<const ParameterMap*>(static_cast<const char*>(set) + offset);
        if (map->headerColor != 0 || !map->root || map->root->parent != map->header()) {
            continue;
        }
        const std::string known = "authenticationMechanisms";
        const ParameterMap::Node* node = map->find(known);
        if (node && node->name == known) {
            return map;
        }
    }
    return nullptr;
}

// Makes room for our parameters in a server that has one of the same name. False when it cannot be seen whether it has.
bool removeNativeParameters() {
    void* set = parameterSet();
    const ParameterMap* map = findParameterMap(set);
    if (!map) {
        return false;
    }
    for (size_t index = 0; index < psmdb_aws_iam_parameter_count(); ++index) {
        const std::string name = toString(psmdb_aws_iam_parameter_name(index));
        if (map->find(name)) {
            // Taken out of the set, and not destroyed.
            server.function<void(void*, const std::string&)>(Symbol::kParameterSetRemove)(set, name);
        }
    }
    return true;
}

void addToSet(Parameter* parameter) {
    void* set = parameterSet();
    if (server.variant(Symbol::kParameterSetAdd) == variant::kUniquePointer) {
        // A std::unique_ptr by value: the address of one, which the server empties.
        Parameter* handedOver = parameter;
        server.function<void(void*, Parameter**)>(Symbol::kParameterSetAdd)(set, &handedOver);
    } else {
        server.function<void(void*, Parameter*)>(Symbol::kParameterSetAdd)(set, parameter);
    }
}

void addParameters() {
    if (server.hasNativeMechanism() && !removeNativeParameters()) {
        fprintf(stderr, "psmdb-aws-iam: not registered: the set of server parameters has an unknown form\n");
        return;
    }
    const auto& ours = server.slots().parameter;
    parameterVtable.copy(server.parameterVtable());
    parameterVtable.put(0, keep);
    parameterVtable.put(1, keep);
    parameterVtable.put(ours.validate, validate);
    parameterVtable.put(ours.set, set);
    if (server.parameterArguments() == ParameterArguments::kStringWords) {
        parameterVtable.put(ours.append, appendByWords);
        parameterVtable.put(ours.setFromString, setFromWords);
    } else {
        parameterVtable.put(ours.append, append);
        parameterVtable.put(ours.setFromString, setFromString);
    }

    // mongo::ServerParameterType::kStartupAndRuntime; 6.0 put another type in front.
    const bool addsItself = !server.has(Symbol::kParameterSetOfNode);
    const int startupAndRuntime = addsItself ? 2 : 3;
    for (size_t index = 0; index < psmdb_aws_iam_parameter_count(); ++index) {
        const psmdb_aws_iam_bytes name = psmdb_aws_iam_parameter_name(index);
        auto* parameter = new (::operator new(sizeof(Parameter))) Parameter{};
        server.function<void(void*, StringWords, int)>(Symbol::kParameterConstructor)(
            parameter, server.words({reinterpret_cast<const char*>(name.data), name.length}), startupAndRuntime);
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
    const char* abi = server.abi();
    psmdb_aws_iam_loaded(reinterpret_cast<const uint8_t*>(abi), strlen(abi));
    addParameters();
    registerServerStatus();
}

Status initializeWithStatus(void* initializerContext) {
    initialize(initializerContext);
    return Status();
}

template <typename Returned>
void registerInitializer(Returned function(void*)) {
    using Initializer = std::function<Returned(void*)>;
    using Names = std::vector<std::string>;
    // mongo::GlobalInitializerRegisterer has no members, but it is an object.
    alignas(16) static unsigned char registerer[256];
    // Among the server's own parameters; where one of those may have the name of one of ours, after all of them, and
    // before the options that set them are read.
    const bool last = server.hasNativeMechanism();
    server.function<void(void*, std::string, Initializer, Initializer, Names, Names)>(Symbol::kInitializer)(
        registerer, "PsmdbAwsIam", Initializer(function), Initializer(),
        Names{last ? "EndServerParameterRegistration" : "BeginServerParameterRegistration"},
        Names{last ? "BeginStartupOptionHandling" : "EndServerParameterRegistration"});
}

}  // namespace

bool parametersAreRegistered() { return registered; }

void registerInitializers() {
    if (server.variant(Symbol::kInitializer) == variant::kReturnsNothing) {
        registerInitializer<void>(initialize);
    } else {
        registerInitializer<Status>(initializeWithStatus);
    }
}

}  // namespace psmdb_aws_iam
