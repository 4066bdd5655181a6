// The plugin's settings as server parameters. Names, values and checks are behind psmdb_aws_iam.h.
#include "facilities.h"
#include "server_symbols.h"

namespace psmdb_aws_iam {
namespace {

constinit OurVtable parameterVtable;

// A server parameter of ours. The server's part is made by its own constructor, in more room than
// it needs.
struct Parameter {
    const void* vtable;
    unsigned char members[248];
    size_t index;
};

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

void keep(void*) {
    // Parameters live as long as the process.
}

void append(const Parameter* self, void* /*operationContext*/, void* builder, const std::string& name) {
    psmdb_aws_iam_buffer* value =
        psmdb_aws_iam_parameter_get_bson(self->index, reinterpret_cast<const uint8_t*>(name.data()), name.size());
    if (value) {
        const BsonObject object = {psmdb_aws_iam_buffer_bytes(value).data, nullptr};
        server.function<void*(void*, const BsonObject&)>(Symbol::kAppendElements)(builder, object);
        psmdb_aws_iam_buffer_free(value);
    }
}

size_t lengthOf(const BsonElement& element) {
    return element.totalSize > 0 ? static_cast<size_t>(element.totalSize) : 0;
}

Status validate(const Parameter* self, const BsonElement& element) {
    Outcome outcome = {};
    outcome.result =
        psmdb_aws_iam_parameter_validate_bson(self->index, element.data, lengthOf(element), &outcome.reason);
    return toStatus(outcome);
}

Status set(Parameter* self, const BsonElement& element) {
    Outcome outcome = {};
    outcome.result = psmdb_aws_iam_parameter_set_bson(self->index, element.data, lengthOf(element), &outcome.reason);
    return toStatus(outcome);
}

Status setFromString(Parameter* self, const std::string& text) {
    Outcome outcome = {};
    outcome.result = psmdb_aws_iam_parameter_set(self->index, reinterpret_cast<const uint8_t*>(text.data()),
                                                 text.size(), &outcome.reason);
    return toStatus(outcome);
}

// --- Registration.

void addParameters(void* /*initializerContext*/) {
    const auto& ours = server.slots().parameter;
    parameterVtable.copy(server.parameterVtable());
    parameterVtable.put(0, keep);
    parameterVtable.put(1, keep);
    parameterVtable.put(ours.append, append);
    parameterVtable.put(ours.validate, validate);
    parameterVtable.put(ours.set, set);
    parameterVtable.put(ours.setFromString, setFromString);

    // mongo::ServerParameterType::kStartupAndRuntime; 6.0 put another type in front.
    const bool hasNodeSet = server.has(Symbol::kParameterSetOfNode);
    const int startupAndRuntime = hasNodeSet ? 3 : 2;
    for (size_t index = 0; index < psmdb_aws_iam_parameter_count(); ++index) {
        const psmdb_aws_iam_bytes name = psmdb_aws_iam_parameter_name(index);
        auto* parameter = new (::operator new(sizeof(Parameter))) Parameter{};
        server.function<void(void*, StringWords, int)>(Symbol::kParameterConstructor)(
            parameter, server.words({reinterpret_cast<const char*>(name.data), name.length}), startupAndRuntime);
        parameter->vtable = parameterVtable.address();
        parameter->index = index;
        if (hasNodeSet) {
            void* set = server.function<void*()>(Symbol::kParameterSetOfNode)();
            server.function<void(void*, void*)>(Symbol::kParameterSetAdd)(set, parameter);
        }
    }
}

Status addParametersWithStatus(void* initializerContext) {
    addParameters(initializerContext);
    return Status();
}

template <typename Returned>
void registerInitializer(Returned function(void*)) {
    using Initializer = std::function<Returned(void*)>;
    using Names = std::vector<std::string>;
    // mongo::GlobalInitializerRegisterer has no members, but it is an object.
    alignas(16) static unsigned char registerer[256];
    server.function<void(void*, std::string, Initializer, Initializer, Names, Names)>(Symbol::kInitializer)(
        registerer, "PsmdbAwsIamServerParameters", Initializer(function), Initializer(),
        Names{"BeginServerParameterRegistration"}, Names{"EndServerParameterRegistration"});
}

}  // namespace

void registerParameters() {
    if (server.variant(Symbol::kInitializer) == 0) {
        registerInitializer<void>(addParameters);
    } else {
        registerInitializer<Status>(addParametersWithStatus);
    }
}

}  // namespace psmdb_aws_iam
