// Runs the double: starts like a server, then reads commands from stdin.
//
// usage: double [--parameter NAME=VALUE]... [--mechanisms NAME,NAME] [--services N]
//               [--unknown-registry yes]
//
// Each command is one line. Its reply is one line that starts with "= "; log lines come in between.
// Exit status: 0 after "quit", 1 or 2 where a server would refuse to start, 99 for a violation.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <mutex>

#include "server.h"

using namespace mongo;

// As in a real server, the allocator is the program's own. It records every block, so that the
// deletion of any other memory is a violation. Records are inverted, which hides them from leak
// checkers.
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
        blocks[place] = 1;  // a tombstone: searches continue behind it
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

// Calls the functions that a mechanism inherits, which must be the server's.
void checkInherited(ServerMechanismBase& mechanism, const std::string& principal, const std::string& database) {
    const auto check = [](bool good, const char* what) {
        if (!good) {
            violation(std::string("a mechanism differs from its base class in: ") + what);
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

struct Login {
    std::unique_ptr<ServerMechanismBase> mechanism;
    std::string database;
};

std::string step(Login& login, const std::string& payload) {
    ServerMechanismBase& mechanism = *login.mechanism;
    auto result = mechanism.step(&operationContext, payload);
    BSONObjBuilder extra;
    mechanism.appendExtraInfo(&extra);
    const std::string extraInfo = ",\"extraInfo\":\"" + hex(extra.obj().bytes()) + "\"}";
    if (!result.isOK()) {
        std::string reply = failure(result.getStatus());
        reply.pop_back();
        login.mechanism.reset();
        return reply + extraInfo;
    }
    const std::string principal = mechanism.getPrincipalName().toString();
    std::string reply = "{\"ok\":1,\"payload\":\"" + hex(result.getValue()) + "\"";
    checkInherited(mechanism, principal, login.database);
    if (!mechanism.isSuccess()) {
        return reply + ",\"done\":false}";
    }
    reply += ",\"done\":true,\"principal\":" + json(principal) + extraInfo;
    login.mechanism.reset();
    return reply;
}

std::string start(Login& login, SASLServerMechanismRegistry& registry, const std::string& name,
                  const std::string& payload) {
    login.database = name == "PLAIN" ? "admin" : "$external";
    auto made = registry.getServerMechanism(name, login.database);
    if (!made.isOK()) {
        return failure(made.getStatus());
    }
    login.mechanism = std::move(made.getValue());
    ServerMechanismBase& mechanism = *login.mechanism;
    if (!(mechanism.mechanismName() == name) || mechanism.isSuccess()) {
        violation("a new mechanism has another name, or has succeeded");
    }
    checkInherited(mechanism, "", login.database);
    return step(login, payload);
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

// Sets the parameters of the command line, after all parameters are registered.
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

std::string replyTo(const std::vector<std::unique_ptr<RegistryOwner>>& owners, std::vector<Login>& logins,
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
        // That of the last Service: with two of them, it comes from the second run of the actions.
        return start(logins[0], SASLServerMechanismRegistry::get(owners.back().get()),
                     words.size() > 2 ? words[2] : "MONGODB-AWS", unhex(word(1)));
    }
    if (command == "saslContinue") {
        return logins[0].mechanism ? step(logins[0], unhex(word(1)))
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
    std::vector<Login> logins(1);
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
            printf("= %s\n", replyTo(owners, logins, line).c_str());
        }
        free(buffer);
        logins.clear();
    }
#if OWNING_SETS
    // Deletes parameters and sections through their virtual destructors.
    ServerParameterSet::getNodeParameterSet()->parameters.clear();
    sectionRegistry().sections.clear();
#endif
    if (ErrorInfo::alive != 0) {
        violation(std::to_string(ErrorInfo::alive) + " errors are left");
    }
    printf("= {\"quit\":true}\n");
    return 0;
}
