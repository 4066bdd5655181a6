// Implements MONGODB-AWS for the server's registry of SASL mechanisms: a factory, and one mechanism
// per login. Every decision about a login is behind psmdb_aws_iam.h.
#include <stdio.h>
#include <string.h>

#include "facilities.h"
#include "server_symbols.h"

namespace psmdb_aws_iam {
namespace {

constexpr std::string_view kName = "MONGODB-AWS";

// mongo::SecurityProperty: bit 0 is mutual authentication, bit 1 is no plain-text password.
constexpr uint64_t kNoPlainText = 2;
// That of SCRAM-SHA-256. Orders mechanisms of the same name only.
constexpr int kSecurityLevel = 2;

constinit PluginVtable mechanismVtable;
constinit PluginVtable factoryVtable;
constinit abi::ServerFactoryBase factory = {};

struct AwsMechanism {
    abi::ServerMechanismBase base;
    psmdb_aws_iam_conversation* conversation;
};

// --- The mechanism's virtual functions. The first parameter is the server's `this`.

void destroy(AwsMechanism* self) {
    psmdb_aws_iam_conversation_free(self->conversation);
    logPending();
    self->~AwsMechanism();
}

void destroyAndDelete(AwsMechanism* self) {
    destroy(self);
    ::operator delete(self);
}

abi::StringDataRegisters mechanismName(const void*) { return server.toRegisters(kName); }

uint64_t properties(const void*) { return kNoPlainText; }

int securityLevel(const void*) { return kSecurityLevel; }

bool isInternal(const void*) { return false; }

// Whether the server calls appendExtraInfo: 4.4 does not, and reports no login in another way.
bool reportsLogins() { return server.slots().mechanism.appendExtraInfo >= 0; }

// Called for the server's log line about a login. After the confirmation of STS, that line reports
// the success.
void appendExtraInfo(AwsMechanism* self, void* builder) {
    psmdb_aws_iam_conversation_logged_in(self->conversation);
    const psmdb_aws_iam_bytes info = psmdb_aws_iam_conversation_extra_info(self->conversation);
    if (info.length > 0) {
        const abi::BSONObj object = {info.data, nullptr};
        server.function<void*(void*, const abi::BSONObj&)>(Symbol::kAppendElements)(builder, object);
    }
}

abi::StepResult step(AwsMechanism* self, void* /*operationContext*/, abi::StringDataRegisters input) {
    const std::string_view message = server.fromRegisters(input);
    psmdb_aws_iam_bytes reply = {};
    const psmdb_aws_iam_result result = psmdb_aws_iam_conversation_step(
        self->conversation, reinterpret_cast<const uint8_t*>(message.data()), message.size(), &reply);
    logPending();
    switch (result) {
        case PSMDB_AWS_IAM_RESULT_CONTINUE:
            return abi::StepResult(false, reinterpret_cast<const char*>(reply.data), reply.length);
        case PSMDB_AWS_IAM_RESULT_AUTHENTICATED:
            self->base.principalName = toString(psmdb_aws_iam_conversation_user_name(self->conversation));
            if (!self->base.principalName.empty()) {
                return abi::StepResult(true, reinterpret_cast<const char*>(reply.data), reply.length);
            }
            break;
        default:
            break;
    }
    const std::string reason = toString(psmdb_aws_iam_conversation_reason(self->conversation));
    return abi::StepResult(std::string(kName) + ": " + (reason.empty() ? "the login failed unexpectedly" : reason));
}

// --- The factory's virtual functions.

// The registry owns the factory, which is static, and ends with the process.
void destroyNothing(void*) {}

bool canMakeForUser(const void*, const void* /*user*/) {
    // Called for users of $external only, and each of them may log in with IAM.
    return true;
}

abi::ServerMechanismBase* create(void* /*self*/, std::string authenticationDatabase) {
    void* memory = ::operator new(sizeof(AwsMechanism));
    auto* mechanism = new (memory) AwsMechanism{
        {mechanismVtable.address(), false, std::string(), authenticationDatabase}, psmdb_aws_iam_conversation_new()};
    return &mechanism->base;
}

// --- Registration.

void fillVtables() {
    const Slots& slots = server.slots();
    mechanismVtable.copyFrom(server.mechanismVtable());
    mechanismVtable.replace(0, destroy);
    mechanismVtable.replace(1, destroyAndDelete);
    mechanismVtable.replace(slots.mechanism.mechanismName, mechanismName);
    mechanismVtable.replace(slots.mechanism.properties, properties);
    mechanismVtable.replace(slots.mechanism.securityLevel, securityLevel);
    mechanismVtable.replace(slots.mechanism.isInternal, isInternal);
    mechanismVtable.replace(slots.mechanism.appendExtraInfo, appendExtraInfo);
    mechanismVtable.replace(slots.mechanism.step, step);

    factoryVtable.copyFrom(server.factoryVtable());
    factoryVtable.replace(0, destroyNothing);
    factoryVtable.replace(1, destroyNothing);
    factoryVtable.replace(slots.factory.mechanismName, mechanismName);
    factoryVtable.replace(slots.factory.properties, properties);
    factoryVtable.replace(slots.factory.securityLevel, securityLevel);
    factoryVtable.replace(slots.factory.isInternal, isInternal);
    factoryVtable.replace(slots.factory.canMakeForUser, canMakeForUser);
    factoryVtable.replace(slots.factory.create, create);
    factory.vtable = factoryVtable.address();
}

// Calls a virtual function of a server's factory.
template <typename Result>
Result callVirtual(const abi::ServerFactoryBase* other, int slot) {
    const auto* functions = static_cast<void* const*>(other->vtable);
    return reinterpret_cast<Result (*)(const void*)>(functions[slot])(other);
}

bool isMongodbAws(const abi::ServerFactoryBase* other) {
    const int slot = server.slots().factory.mechanismName;
    return server.fromRegisters(callVirtual<abi::StringDataRegisters>(other, slot)) == kName;
}

// Removes every other factory of MONGODB-AWS from the list; true if there was one. The factory is
// not destroyed, since the server may hold other pointers to it.
bool removeOthers(std::vector<abi::ServerFactoryBase*>& factories) {
    bool removed = false;
    for (auto place = factories.begin(); place != factories.end();) {
        if (*place != &factory && isMongodbAws(*place)) {
            place = factories.erase(place);
            removed = true;
        } else {
            ++place;
        }
    }
    return removed;
}

void addOnce(std::vector<abi::ServerFactoryBase*>& factories) {
    // The server sorts its lists by descending security level.
    auto place = factories.end();
    for (auto other = factories.begin(); other != factories.end(); ++other) {
        if (*other == &factory) {
            return;
        }
        const int level = callVirtual<int>(*other, server.slots().factory.securityLevel);
        if (place == factories.end() && level < kSecurityLevel) {
            place = other;
        }
    }
    factories.insert(place, &factory);
}

// Makes the plugin's factory the only one of MONGODB-AWS, if the mechanism is enabled. May run more
// than once: for each service of a server (8.0 and newer), and again after the server's built-in
// mechanism.
void ensureRegistered(void* owner) {
    auto* registry = server.function<abi::SASLServerMechanismRegistry*(void*)>(Symbol::kRegistryGet)(owner);
    if (registry->owner != owner) {
        fprintf(stderr, "psmdb-aws-iam: not registered: the registry of SASL mechanisms has an unknown layout\n");
        return;
    }
    using SupportedByConfig = bool(const abi::SASLServerMechanismRegistry*, abi::StringDataRegisters);
    if (!server.function<SupportedByConfig>(Symbol::kMechanismSupportedByConfig)(registry, server.toRegisters(kName))) {
        return;
    }
    if (server.hasNativeMechanism() && !parametersAreRegistered()) {
        // The server's own parameters are in force, so its built-in mechanism has to stay.
        return;
    }
    fillVtables();
    const bool replaced = removeOthers(registry->externalFactories);
    addOnce(registry->externalFactories);
    psmdb_aws_iam_registered(replaced ? 1 : 0, reportsLogins() ? 1 : 0);
    logPending();
}

void registerAction(void* registerer, const char* name, const char* after, std::vector<std::string> before) {
    using Action = std::function<void(void*)>;
    using Names = std::vector<std::string>;
    server.function<void(void*, std::string, Names, Names, Action, Action)>(Symbol::kConstructorAction)(
        registerer, name, Names{after}, before, Action(ensureRegistered), Action());
}

}  // namespace

void registerMechanism() {
    // mongo::ServiceContext::ConstructorActionRegisterer: static, since the server keeps its
    // address.
    alignas(16) static unsigned char registerers[2][2048];
    constexpr char kCreate[] = "CreateSASLServerMechanismRegistry";
    constexpr char kValidate[] = "ValidateSASLServerMechanismRegistry";
    // After the server creates the registry, before it validates that every enabled mechanism
    // exists.
    registerAction(registerers[0], "PsmdbAwsIamServerMechanism", kCreate, {kValidate});
    if (server.hasNativeMechanism()) {
        // The server registers its built-in mechanism between the two as well, in no fixed order.
        registerAction(registerers[1], "PsmdbAwsIamServerMechanismTakeOver", kValidate, {});
    }
}

}  // namespace psmdb_aws_iam
