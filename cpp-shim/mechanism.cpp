// MONGODB-AWS as the server's registry of SASL mechanisms wants it: a factory, and a mechanism for
// each login. What a login needs is decided behind psmdb_aws_iam.h.
#include <stdio.h>
#include <string.h>

#include "facilities.h"
#include "server_symbols.h"

namespace psmdb_aws_iam {
namespace {

constexpr char kName[] = "MONGODB-AWS";
constexpr Text kNameText = {kName, sizeof(kName) - 1};

// mongo::SecurityProperty: bit 0 mutual authentication, bit 1 no password in plain text.
constexpr uint64_t kNoPlainText = 2;
// The order of mechanisms of one name only; as SCRAM-SHA-256.
constexpr int kSecurityLevel = 2;

constinit OurVtable mechanismVtable;
constinit OurVtable factoryVtable;
constinit FactoryBase factory = {};

struct Mechanism {
    MechanismBase base;
    psmdb_aws_iam_conversation* conversation;
    // STS has confirmed the client, and the server has not logged it in yet.
    bool awaitsServer;
};

// --- The mechanism's virtual functions. A first parameter `self` is the server's `this`.

void destroy(Mechanism* self) {
    // The server looks the user up after the last step, and does not log why it refuses. It does not tell the plugin
    // either, but for the line about its success, which a server that is told to be quiet leaves out.
    if (self->awaitsServer) {
        psmdb_aws_iam_conversation_not_reported(self->conversation);
        logPending();
    }
    psmdb_aws_iam_conversation_free(self->conversation);
    self->~Mechanism();
}

void destroyAndDelete(Mechanism* self) {
    destroy(self);
    ::operator delete(self);
}

StringWords mechanismName(const void*) { return server.words(kNameText); }

uint64_t properties(const void*) { return kNoPlainText; }

int securityLevel(const void*) { return kSecurityLevel; }

bool isInternal(const void*) { return false; }

// Called for the log line about a login, which for one that STS has confirmed is the line about its success.
void appendExtraInfo(Mechanism* self, void* builder) {
    self->awaitsServer = false;
    psmdb_aws_iam_conversation_logged_in(self->conversation);
    const psmdb_aws_iam_bytes info = psmdb_aws_iam_conversation_extra_info(self->conversation);
    if (info.length > 0) {
        const BsonObject object = {info.data, nullptr};
        server.function<void*(void*, const BsonObject&)>(Symbol::kAppendElements)(builder, object);
    }
}

StepResult step(Mechanism* self, void* /*operationContext*/, StringWords input) {
    const Text message = server.text(input);
    psmdb_aws_iam_bytes reply = {};
    const psmdb_aws_iam_result result = psmdb_aws_iam_conversation_step(
        self->conversation, reinterpret_cast<const uint8_t*>(message.data), message.length, &reply);
    logPending();
    switch (result) {
        case PSMDB_AWS_IAM_RESULT_CONTINUE:
            return StepResult(false, reinterpret_cast<const char*>(reply.data), reply.length);
        case PSMDB_AWS_IAM_RESULT_AUTHENTICATED:
            self->base.principalName = toString(psmdb_aws_iam_conversation_user_name(self->conversation));
            if (!self->base.principalName.empty()) {
                // Servers that do not ask for more information (4.4) do not tell how the login went on either.
                self->awaitsServer = server.slots().mechanism.appendExtraInfo >= 0;
                if (!self->awaitsServer) {
                    psmdb_aws_iam_conversation_logged_in(self->conversation);
                }
                return StepResult(true, reinterpret_cast<const char*>(reply.data), reply.length);
            }
            break;
        default:
            break;
    }
    const std::string reason = toString(psmdb_aws_iam_conversation_reason(self->conversation));
    return StepResult(std::string(kName) + ": " + (reason.empty() ? "the login could not be handled" : reason));
}

// --- The factory's virtual functions.

void keep(void*) {
    // The factory is static: the registry that owns it ends with the process.
}

bool canMakeForUser(const void*, const void* /*user*/) {
    // Asked about users of $external only, and any of them may log in by IAM.
    return true;
}

MechanismBase* create(void* /*self*/, std::string authenticationDatabase) {
    void* memory = ::operator new(sizeof(Mechanism));
    auto* mechanism = new (memory) Mechanism{{mechanismVtable.address(), false, std::string(), authenticationDatabase},
                                             psmdb_aws_iam_conversation_new(),
                                             false};
    return &mechanism->base;
}

// --- Registration.

void fillVtables() {
    const auto& ours = server.slots();
    mechanismVtable.copy(server.mechanismVtable());
    mechanismVtable.put(0, destroy);
    mechanismVtable.put(1, destroyAndDelete);
    mechanismVtable.put(ours.mechanism.mechanismName, mechanismName);
    mechanismVtable.put(ours.mechanism.properties, properties);
    mechanismVtable.put(ours.mechanism.securityLevel, securityLevel);
    mechanismVtable.put(ours.mechanism.isInternal, isInternal);
    mechanismVtable.put(ours.mechanism.appendExtraInfo, appendExtraInfo);
    mechanismVtable.put(ours.mechanism.step, step);

    factoryVtable.copy(server.factoryVtable());
    factoryVtable.put(0, keep);
    factoryVtable.put(1, keep);
    factoryVtable.put(ours.factory.mechanismName, mechanismName);
    factoryVtable.put(ours.factory.properties, properties);
    factoryVtable.put(ours.factory.securityLevel, securityLevel);
    factoryVtable.put(ours.factory.isInternal, isInternal);
    factoryVtable.put(ours.factory.canMakeForUser, canMakeForUser);
    factoryVtable.put(ours.factory.create, create);
    factory.vtable = factoryVtable.address();
}

// Calls a virtual function of a factory of the server's.
template <typename Result>
Result ask(const FactoryBase* other, int slot) {
    const auto* functions = static_cast<void* const*>(other->vtable);
    return reinterpret_cast<Result (*)(const void*)>(functions[slot])(other);
}

bool isMongodbAws(const FactoryBase* other) {
    const Text name = server.text(ask<StringWords>(other, server.slots().factory.mechanismName));
    return name.length == kNameText.length && memcmp(name.data, kNameText.data, name.length) == 0;
}

// Takes every other mechanism of our name out of the list; true if there was one. It is not destroyed: it is the
// server's, and the server may know it by another way.
bool removeOthers(std::vector<FactoryBase*>& factories) {
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

void addOnce(std::vector<FactoryBase*>& factories) {
    // The server keeps its lists by descending security level.
    auto place = factories.end();
    for (auto other = factories.begin(); other != factories.end(); ++other) {
        if (*other == &factory) {
            return;
        }
        const int level = ask<int>(*other, server.slots().factory.securityLevel);
        if (place == factories.end() && level < kSecurityLevel) {
            place = other;
        }
    }
    factories.insert(place, &factory);
}

// Sees to it that MONGODB-AWS, if it is enabled, is ours. May run more than once: for each service of a server (8.0 and
// newer), and again after a server's own mechanism has been registered.
void serve(void* owner) {
    auto* registry = server.function<Registry*(void*)>(Symbol::kRegistryGet)(owner);
    if (registry->owner != owner) {
        fprintf(stderr, "psmdb-aws-iam: not registered: the registry of SASL mechanisms has an unknown form\n");
        return;
    }
    using SupportedByConfig = bool(const Registry*, StringWords);
    if (!server.function<SupportedByConfig>(Symbol::kMechanismSupportedByConfig)(registry, server.words(kNameText))) {
        return;
    }
    if (server.hasNativeMechanism() && !parametersAreRegistered()) {
        // With its own parameters in force, the server's own mechanism is the one to serve.
        return;
    }
    fillVtables();
    const bool tookOver = removeOthers(registry->externalFactories);
    addOnce(registry->externalFactories);
    psmdb_aws_iam_registered(tookOver ? 1 : 0);
    logPending();
}

void registerAction(void* registerer, const char* name, const char* after, std::vector<std::string> before) {
    using Action = std::function<void(void*)>;
    using Names = std::vector<std::string>;
    server.function<void(void*, std::string, Names, Names, Action, Action)>(Symbol::kConstructorAction)(
        registerer, name, Names{after}, before, Action(serve), Action());
}

}  // namespace

void registerMechanism() {
    // mongo::ServiceContext::ConstructorActionRegisterer is a list position and an initializer; it has to stay.
    alignas(16) static unsigned char registerers[2][2048];
    constexpr char kCreate[] = "CreateSASLServerMechanismRegistry";
    constexpr char kValidate[] = "ValidateSASLServerMechanismRegistry";
    // After the registry is made and before the server checks that every enabled mechanism is there.
    registerAction(registerers[0], "PsmdbAwsIamServerMechanism", kCreate, {kValidate});
    if (server.hasNativeMechanism()) {
        // The server's own comes between the two as well, before ours or after it.
        registerAction(registerers[1], "PsmdbAwsIamServerMechanismTakeOver", kValidate, {});
    }
}

}  // namespace psmdb_aws_iam
