// Runs the double: starts it up as a server does, and answers commands on stdin.
//
// usage: double [--parameter NAME=VALUE]... [--mechanisms NAME,NAME] [--services N] [--unknown-registry yes]
//
// Each command is a line and is answered by one that begins with "= "; lines of the log come between them. Exit
// status: 0 after "quit", 1 or 2 where a server would refuse to start, 99 where something was violated.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <mutex>

#include "server.h"

using namespace mongo;

// The allocator is the server's own, as in a real one, and knows what it has given out: what is deleted must be of it.
// Addresses are kept inverted, so that a leak checker takes no notice of them.
namespace {
constexpr size_t kBlocks = 1 << 18;
std::uintptr_t blocks[kBlocks];
std::mutex blocksMutex;

size_t placeOf(std::uintptr_t key) { return (key >> 4) * 0x9e3779b97f4a7c15ULL >> 46; }

void* allocate(size_t size) {
    void* block = malloc(size ? size : 1);
    if (!block) {
        abort();
    }
    const std::lock_guard lock(blocksMutex);
    const std::uintptr_t key = ~reinterpret_cast<std::uintptr_t>(block);
    size_t place = placeOf(key);
    while (blocks[place] > 1) {
        place = (place + 1) % kBlocks;
    }
    blocks[place] = key;
    return block;
}

void release(void* block) {
    if (!block) {
        return;
    }
    {
        const std::lock_guard lock(blocksMutex);
        const std::uintptr_t key = ~reinterpret_cast<std::uintptr_t>(block);
        size_t place = placeOf(key);
        while (blocks[place] && blocks[place] != key) {
            place = (place + 1) % kBlocks;
        }
        if (!blocks[place]) {
            fprintf(stderr, "violation: memory is deleted twice, or was not made by the server's operator new\n");
            _exit(99);
        }
        blocks[place] = 1;  // was in use: looking goes on after it
    }
    free(block);
}
}  // namespace

void* operator new(size_t size) { return allocate(size); }
void operator delete(void* block) noexcept { release(block); }
void operator delete(void* block, size_t) noexcept { release(block); }

namespace {

#if TENANTS
#define NO_TENANT boost::optional<TenantId>()
#define AND_NO_TENANT , NO_TENANT
#define BUILDER(B) &B
#else
#define NO_TENANT
#define AND_NO_TENANT
#define BUILDER(B) B
#endif

OperationContext operationContext;

std::string hex(const std::string& bytes) {
    std::string out;
    for (const unsigned char c : bytes) {
        char digits[3];
        snprintf(digits, sizeof digits, "%02x", c);
        out += digits;
    }
    return out;
}

std::string unhex(const std::string& digits) {
    std::string out;
    for (size_t i = 0; i + 1 < digits.size(); i += 2) {
        out += static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16));
    }
    return out;
}

std::vector<std::string> split(const std::string& text, char at) {
    std::vector<std::string> parts(1);
    for (const char c : text) {
        if (c == at) {
            parts.emplace_back();
        } else {
            parts.back() += c;
        }
    }
    return parts;
}

std::string failure(const Status& status) {
    return "{\"ok\":0,\"code\":" + std::to_string(status.code()) + ",\"reason\":" + json(status.reason()) + "}";
}

// Parameters

ServerParameter* findParameter(const std::string& name) {
    auto& parameters = ServerParameterSet::getNodeParameterSet()->parameters;
    const auto found = parameters.find(name);
    return found == parameters.end() ? nullptr : &*found->second;
}

std::string valueOf(ServerParameter& parameter) {
    BSONObjBuilder builder, roundtrip;
    const std::string& name = parameter.name();
    parameter.append(&operationContext, BUILDER(builder), name AND_NO_TENANT);
    parameter.appendSupportingRoundtrip(&operationContext, BUILDER(roundtrip), name AND_NO_TENANT);
    const BSONObj object = builder.obj();
    if (object.bytes() != roundtrip.obj().bytes() || object.elements().size() != 1 ||
        object.elements()[0].fieldName() != name) {
        violation(name + " appends something else than its value");
    }
    return hex(object.bytes());
}

std::string setParameter(const std::string& name, const std::function<Status(ServerParameter&)>& set) {
    ServerParameter* parameter = findParameter(name);
    if (!parameter) {
        return failure(Status(ErrorCodes::InvalidOptions, "attempted to set unrecognized parameter " + name));
    }
    if (!parameter->allowedToChangeAtRuntime()) {
        return failure(Status(ErrorCodes::IllegalOperation, "not allowed to change [" + name + "] at runtime"));
    }
    const Status status = set(*parameter);
    return status.isOK() ? "{\"ok\":1}" : failure(status);
}

Status validateAndSet(ServerParameter& parameter, const BSONElement& value) {
    const Status status = parameter.validate(value AND_NO_TENANT);
    return status.isOK() ? parameter.set(value AND_NO_TENANT) : status;
}

// Mechanisms

// The part of the vtable that a mechanism leaves to the server must be the server's.
void checkInherited(ServerMechanismBase& mechanism, const std::string& principal, const std::string& database) {
    const auto check = [](bool good, const char* what) {
        if (!good) {
            violation(std::string("a mechanism does not answer as its base class does: ") + what);
        }
    };
    check(mechanism.getPrincipalName() == principal, "getPrincipalName");
    check(mechanism.getAuthenticationDatabase() == database, "getAuthenticationDatabase");
    check(mechanism.isAuthorizedToActAs("a", "a") && !mechanism.isAuthorizedToActAs("a", "b"), "isAuthorizedToActAs");
    check(mechanism.setOptions(BSONObj()).isOK(), "setOptions");
#if HAS_EXPIRATION
    check(!mechanism.getExpirationTime().has(), "getExpirationTime");
#endif
#if HAS_STEPS
    check(mechanism.currentStep().has() && mechanism.currentStep().value() == 1, "currentStep");
    check(mechanism.totalSteps().has() && mechanism.totalSteps().value() == 1, "totalSteps");
#endif
#if HAS_USER_REQUEST
    const UserRequest request = mechanism.getUserRequest();
    check(request.user == principal && request.database == database, "getUserRequest");
#endif
#if HAS_MAKE_USER_REQUEST
    Client client;
    check(!mechanism.isClusterMember(&client), "isClusterMember");
    auto request = mechanism.makeUserRequest(&operationContext);
    check(request.isOK() && request.getValue()->user == principal && request.getValue()->database == database,
          "makeUserRequest");
#endif
}

struct Conversation {
    std::unique_ptr<ServerMechanismBase> mechanism;
    std::string database;
};

std::string step(Conversation& conversation, const std::string& payload) {
    ServerMechanismBase& mechanism = *conversation.mechanism;
    auto result = mechanism.step(&operationContext, payload);
    BSONObjBuilder extra;
    mechanism.appendExtraInfo(&extra);
    const std::string extraInfo = ",\"extraInfo\":\"" + hex(extra.obj().bytes()) + "\"}";
    if (!result.isOK()) {
        std::string answer = failure(result.getStatus());
        answer.pop_back();
        conversation.mechanism.reset();
        return answer + extraInfo;
    }
    const std::string principal = mechanism.getPrincipalName().toString();
    std::string answer = "{\"ok\":1,\"payload\":\"" + hex(result.getValue()) + "\"";
    checkInherited(mechanism, principal, conversation.database);
    if (!mechanism.isSuccess()) {
        return answer + ",\"done\":false}";
    }
    answer += ",\"done\":true,\"principal\":" + json(principal) + extraInfo;
    conversation.mechanism.reset();
    return answer;
}

std::string start(Conversation& conversation, SASLServerMechanismRegistry& registry, const std::string& name,
                  const std::string& payload) {
    conversation.database = name == "PLAIN" ? "admin" : "$external";
    auto made = registry.getServerMechanism(name, conversation.database);
    if (!made.isOK()) {
        return failure(made.getStatus());
    }
    conversation.mechanism = std::move(made.getValue());
    ServerMechanismBase& mechanism = *conversation.mechanism;
    if (!(mechanism.mechanismName() == name) || mechanism.isSuccess()) {
        violation("a mechanism begins with another name, or with success");
    }
    checkInherited(mechanism, "", conversation.database);
    return step(conversation, payload);
}

std::string factories(const SASLServerMechanismRegistry& registry) {
    std::string out;
    const User user;
    for (const auto* list : {&registry.internalMechs(), &registry.externalMechs()}) {
        for (const auto& factory : *list) {
            const std::unique_ptr<ServerMechanismBase> made(factory->create("$external"));
            if (made->properties().bits() != factory->properties().bits() ||
                made->securityLevel() != factory->securityLevel() ||
                made->isInternalAuthMech() != factory->isInternalAuthMech()) {
                violation("a mechanism has other properties than its factory");
            }
            out += std::string(out.empty() ? "" : ",") + "{\"name\":" + json(factory->mechanismName().toString()) +
                   ",\"list\":\"" + (list == &registry.internalMechs() ? "internal" : "external") +
                   "\",\"properties\":" + std::to_string(factory->properties().bits()) +
                   ",\"securityLevel\":" + std::to_string(factory->securityLevel()) +
                   ",\"internal\":" + (factory->isInternalAuthMech() ? "true" : "false") +
                   ",\"forUser\":" + (factory->canMakeMechanismForUser(&user) ? "true" : "false") + "}";
        }
    }
    return "[" + out + "]";
}

// Sections

std::string serverStatus() {
    const BSONObj request = BSONObjBuilder().append("serverStatus", "1").obj();
    const BSONElement element = request.elements()[0];
    std::string out;
    for (const auto& [name, section] : sectionRegistry().sections) {
        BSONObjBuilder builder;
#if SECTION_BUILDER
        const bool allowed = section->checkAuthForOperation(&operationContext).isOK();
#else
        std::vector<Privilege> privileges;
        section->addRequiredPrivileges(&privileges);
        const bool allowed = privileges.empty();
#endif
        section->appendSection(&operationContext, element, &builder);
        out += (out.empty() ? "" : ",") + json(name) +
               ":{\"byDefault\":" + (section->includeByDefault() ? "true" : "false") +
               ",\"allowed\":" + (allowed ? "true" : "false") + ",\"bson\":\"" + hex(builder.obj().bytes()) + "\"}";
    }
    return "{" + out + "}";
}

// The process

struct Options {
    std::vector<std::pair<std::string, std::string>> parameters;
    size_t services = 1;
} options;

// What a server does with the parameters that it is started with, after all of them are registered.
GlobalInitializerRegisterer storeOptions("ServerOptions_Store",
                                         [](InitializerContext*) {
                                             for (const auto& [name, text] : options.parameters) {
                                                 ServerParameter* parameter = findParameter(name);
                                                 if (!parameter || !parameter->allowedToChangeAtStartup()) {
                                                     fprintf(stderr, "Unknown --setParameter '%s'\n", name.c_str());
                                                     _exit(1);
                                                 }
                                                 const Status status = parameter->setFromString(text AND_NO_TENANT);
                                                 if (!status.isOK()) {
                                                     fprintf(stderr, "Bad value for parameter \"%s\": %d %s\n",
                                                             name.c_str(), status.code(), status.reason().c_str());
                                                     _exit(1);
                                                 }
                                             }
                                         },
                                         nullptr, {"EndStartupOptionHandling"}, {"EndStartupOptionStorage"});

bool readOptions(int count, char** words) {
    for (int i = 1; i < count; i += 2) {
        const std::string name = words[i];
        const std::string value = i + 1 < count ? words[i + 1] : "";
        if (name == "--parameter" && value.find('=') != std::string::npos) {
            options.parameters.emplace_back(value.substr(0, value.find('=')), value.substr(value.find('=') + 1));
        } else if (name == "--mechanisms") {
            saslGlobalParams.authenticationMechanisms = split(value, ',');
        } else if (name == "--unknown-registry") {
            saslGlobalParams.hasUnknownRegistry = value == "yes";
        } else if (name == "--services" && REGISTRY_OF_SERVICE) {
            options.services = static_cast<size_t>(std::stoi(value));
        } else {
            fprintf(stderr, "not understood: %s %s\n", name.c_str(), value.c_str());
            return false;
        }
    }
    return true;
}

std::string answer(const std::vector<std::unique_ptr<RegistryOwner>>& owners, std::vector<Conversation>& conversations,
                   const std::string& line) {
    const std::vector<std::string> words = split(line, ' ');
    const std::string& command = words[0];
    const auto word = [&words](size_t i) { return i < words.size() ? words[i] : std::string(); };
    if (command == "getParameter") {
        ServerParameter* parameter = findParameter(word(1));
        return parameter ? "{\"ok\":1,\"bson\":\"" + valueOf(*parameter) + "\"}"
                         : failure(Status(ErrorCodes::InvalidOptions, "no option found to get"));
    }
    if (command == "getParameters") {
        std::string out;
        for (const auto& [name, parameter] : ServerParameterSet::getNodeParameterSet()->parameters) {
            parameter->checkInherited();
            out += (out.empty() ? "" : ",") + json(name) + ":\"" + valueOf(*parameter) + "\"";
        }
        return "{" + out + "}";
    }
    if (command == "setParameter") {
        // The text may have spaces.
        const size_t at = std::min(line.size(), command.size() + word(1).size() + 2);
        return setParameter(word(1), [text = line.substr(at)](ServerParameter& parameter) {
            return parameter.setFromString(text AND_NO_TENANT);
        });
    }
    if (command == "setParameterBson") {
        const BSONObj object(unhex(word(2)));
        return setParameter(word(1), [&object](ServerParameter& parameter) {
            return validateAndSet(parameter, object.elements().at(0));
        });
    }
    if (command == "mechanisms") {
        std::string out;
        for (const auto& owner : owners) {
            std::string names;
            for (const std::string& name : SASLServerMechanismRegistry::get(owner.get()).getMechanismNames()) {
                names += (names.empty() ? "" : ",") + json(name);
            }
            out += (out.empty() ? "[" : ",[") + names + "]";
        }
        return "[" + out + "]";
    }
    if (command == "factories") {
        return factories(SASLServerMechanismRegistry::get(owners[0].get()));
    }
    if (command == "saslStart") {
        // The last Service's: where there are two, one of them is a second run of the actions.
        return start(conversations[0], SASLServerMechanismRegistry::get(owners.back().get()),
                     words.size() > 2 ? words[2] : "MONGODB-AWS", unhex(word(1)));
    }
    if (command == "saslContinue") {
        return conversations[0].mechanism ? step(conversations[0], unhex(word(1)))
                                          : failure(Status(ErrorCodes::ProtocolError, "no SASL session"));
    }
    return command == "serverStatus" ? serverStatus() : "{\"ok\":0,\"reason\":\"no such command\"}";
}

}  // namespace

int main(int count, char** words) {
    setvbuf(stdout, nullptr, _IOLBF, 0);
    if (!readOptions(count, words)) {
        return 1;
    }
    runInitializers();
    std::vector<Conversation> conversations(1);
    {
        std::vector<std::unique_ptr<RegistryOwner>> owners;
#if REGISTRY_OF_SERVICE
        const ServiceContext serviceContext;
#endif
        for (size_t i = 0; i < options.services; ++i) {
            owners.push_back(std::make_unique<RegistryOwner>());
        }
        printf("= {\"version\":\"%s\"}\n", SERIES_VERSION);
        char* buffer = nullptr;
        size_t capacity = 0;
        for (ssize_t length; (length = getline(&buffer, &capacity, stdin)) > 0;) {
            const std::string line(buffer, static_cast<size_t>(buffer[length - 1] == '\n' ? length - 1 : length));
            if (line == "quit") {
                break;
            }
            printf("= %s\n", answer(owners, conversations, line).c_str());
        }
        free(buffer);
        conversations.clear();
    }
#if OWNING_SETS
    // Deletes parameters and sections, through their own virtual functions.
    ServerParameterSet::getNodeParameterSet()->parameters.clear();
    sectionRegistry().sections.clear();
#endif
    if (ErrorInfo::alive != 0) {
        violation(std::to_string(ErrorInfo::alive) + " errors are left");
    }
    printf("= {\"quit\":true}\n");
    return 0;
}
