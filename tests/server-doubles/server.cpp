// The functions of a server that are not inline in its headers.
#include "server.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <typeinfo>

// A real binary contains its version between zero bytes.
extern "C" __attribute__((used)) const char kVersionString[] = "\0" SERIES_VERSION;

void violation(const std::string& what) {
    fflush(stdout);
    fprintf(stderr, "violation: %s\n", what.c_str());
    _exit(99);
}

std::string json(const std::string& text) {
    std::string out = "\"";
    for (const char c : text) {
        char escaped[8];
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (static_cast<unsigned char>(c) < 0x20) {
            snprintf(escaped, sizeof escaped, "\\u%04x", c);
            out += escaped;
        } else {
            out += c;
        }
    }
    return out + "\"";
}

namespace mongo {

// Status

std::atomic<int> ErrorInfo::alive{0};

ErrorInfo::ErrorInfo(ErrorCodes::Error errorCode, std::string text) : code(errorCode), reason(std::move(text)) {
    ++alive;
}

ErrorInfo::~ErrorInfo() {
    if (count != 0) {
        violation("an error is deleted while it is in use");
    }
    --alive;
}

namespace {
ErrorPointer makeError(ErrorCodes::Error code, std::string reason) {
    if (code == ErrorCodes::OK) {
        return {};
    }
    return ErrorPointer(new ErrorInfo(code, std::move(reason)));
}
}  // namespace

#if STATUS_MAKER
ErrorPointer Status::_createErrorInfo(ErrorCodes::Error code, std::string reason,
                                      std::shared_ptr<const ErrorExtraInfo> extra) {
    if (extra) {
        violation("an error has extra information");
    }
    return makeError(code, std::move(reason));
}
#else
Status::Status(ErrorCodes::Error code, std::string reason) : _error(makeError(code, std::move(reason))) {}
#endif

// BSON

struct ConstSharedBuffer::Holder {
    std::atomic<unsigned> count;
    unsigned size;
    char data[];
};

ConstSharedBuffer::ConstSharedBuffer(const std::string& bytes)
    : _holder(static_cast<Holder*>(malloc(sizeof(Holder) + bytes.size()))) {
    new (_holder) Holder{{1}, static_cast<unsigned>(bytes.size())};
    memcpy(_holder->data, bytes.data(), bytes.size());
}

ConstSharedBuffer::ConstSharedBuffer(const ConstSharedBuffer& other) : _holder(other._holder) {
    if (_holder) {
        ++_holder->count;
    }
}

ConstSharedBuffer::~ConstSharedBuffer() {
    if (_holder && --_holder->count == 0) {
        free(_holder);
    }
}

const char* ConstSharedBuffer::data() const { return _holder->data; }

namespace {

std::int32_t int32At(const char* at) {
    std::int32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

// The size of a value, or -1 for an unknown type.
long valueSize(int type, const char* value, long rest) {
    switch (type) {
        case 0x0a:
            return 0;
        case 0x08:
            return 1;
        case 0x10:
            return 4;
        case 0x01:
        case 0x09:
        case 0x11:
        case 0x12:
            return 8;
        case 0x02:
            return rest < 4 ? -1 : 4 + int32At(value);
        case 0x03:
        case 0x04:
            return rest < 4 ? -1 : int32At(value);
        case 0x05:
            return rest < 4 ? -1 : 5 + int32At(value);
        default:
            return -1;
    }
}

constexpr char kEmptyObject[5] = {5, 0, 0, 0, 0};

}  // namespace

BSONElement::BSONElement(const char* data, const char* end) : _data(data) {
    const auto* zero = static_cast<const char*>(memchr(data + 1, 0, static_cast<size_t>(end - data - 1)));
    if (!zero) {
        violation("the name of a BSON element has no end");
    }
    _fieldNameSize = static_cast<int>(zero - data);
    const long size = valueSize(type(), zero + 1, end - zero - 1);
    if (size < 0 || size > end - zero - 1) {
        violation("a BSON element does not fit into its document");
    }
    _totalSize = static_cast<int>(1 + _fieldNameSize + size);
}

BSONObj::BSONObj() : _objdata(kEmptyObject) {}

std::string BSONObj::bytes() const { return {_objdata, static_cast<size_t>(int32At(_objdata))}; }

std::vector<BSONElement> BSONObj::elements() const {
    const int size = int32At(_objdata);
    if (size < 5 || _objdata[size - 1] != 0) {
        violation("not a BSON document");
    }
    std::vector<BSONElement> found;
    for (const char *at = _objdata + 4, *end = _objdata + size - 1; at < end; at += found.back().size()) {
        found.emplace_back(at, end);
    }
    return found;
}

template <class Derived, class Buffer>
Derived& BSONObjBuilderBase<Derived, Buffer>::appendElements(const BSONObj& object) {
    auto& self = static_cast<Derived&>(*this);
    if (self.guard != Derived().guard) {
        violation("the object appended to is no BSONObjBuilder");
    }
    for (const BSONElement& element : object.elements()) {
        _buffer.bytes.append(element.data(), static_cast<size_t>(element.size()));
    }
    return self;
}
template class BSONObjBuilderBase<BSONObjBuilder, BufBuilder>;

BSONObjBuilder& BSONObjBuilder::append(StringData name, const BSONObj& object) {
    _buffer.bytes += '\x03' + name.toString() + '\0' + object.bytes();
    return *this;
}

BSONObjBuilder& BSONObjBuilder::append(StringData name, StringData text) {
    const auto size = static_cast<std::int32_t>(text.size() + 1);
    _buffer.bytes += '\x02' + name.toString() + '\0';
    _buffer.bytes.append(reinterpret_cast<const char*>(&size), sizeof size);
    _buffer.bytes += text.toString() + '\0';
    return *this;
}

BSONObj BSONObjBuilder::obj() const {
    const auto size = static_cast<std::int32_t>(_buffer.bytes.size() + 5);
    return BSONObj(std::string(reinterpret_cast<const char*>(&size), sizeof size) + _buffer.bytes + '\0');
}

// Initializers

namespace {

struct Node {
    InitializerFunction initializer;
    DeinitializerFunction deinitializer;
    std::set<std::string> prerequisites;
    enum { kNew, kRunning, kDone } state = kNew;
};

struct Graph {
    std::map<std::string, Node> nodes;
    // Dependents and their prerequisites; a dependent may be registered later.
    std::vector<std::pair<std::string, std::string>> dependents;
    bool frozen = false;
};

// A function-local static, since preloaded objects register before static constructors run.
Graph& graph() {
    static Graph instance;
    return instance;
}

void runNode(const std::string& name, const std::string& dependent) {
    const auto found = graph().nodes.find(name);
    if (found == graph().nodes.end()) {
        violation("the initializer " + dependent + " depends on " + name + ", which does not exist");
    }
    Node& node = found->second;
    if (node.state == Node::kRunning) {
        violation("the initializer " + name + " depends on itself");
    }
    if (node.state == Node::kNew) {
        node.state = Node::kRunning;
        for (const std::string& prerequisite : node.prerequisites) {
            runNode(prerequisite, name);
        }
        InitializerContext context;
        if (node.initializer) {
            node.initializer(&context);
        }
        node.state = Node::kDone;
    }
}

}  // namespace

GlobalInitializerRegisterer::GlobalInitializerRegisterer(std::string name, InitializerFunction initializer,
                                                         DeinitializerFunction deinitializer,
                                                         std::vector<std::string> prerequisites,
                                                         std::vector<std::string> dependents) {
    if (graph().frozen || graph().nodes.contains(name)) {
        fprintf(stderr, "Initializer %s is registered %s\n", name.c_str(), graph().frozen ? "too late" : "twice");
        abort();
    }
    for (const std::string& dependent : dependents) {
        graph().dependents.emplace_back(dependent, name);
    }
    graph().nodes[name] = {std::move(initializer), std::move(deinitializer),
                           std::set(prerequisites.begin(), prerequisites.end())};
}

void runInitializers() {
    graph().frozen = true;
    for (const auto& [dependent, prerequisite] : graph().dependents) {
        if (!graph().nodes.contains(dependent)) {
            violation("the initializer " + prerequisite + " comes before " + dependent + ", which does not exist");
        }
        graph().nodes[dependent].prerequisites.insert(prerequisite);
    }
    for (const auto& [name, node] : graph().nodes) {
        runNode(name, "the process");
    }
}

// Actions

template <typename T>
typename ConstructorActions<T>::List& ConstructorActions<T>::list() {
    static List instance;
    return instance;
}

template <typename T>
void ConstructorActions<T>::runConstructors(T* object) {
    for (Action& action : list()) {
        action.constructor(object);
    }
}

template <typename T>
void ConstructorActions<T>::runDestructors(T* object) {
    for (auto action = list().rbegin(); action != list().rend(); ++action) {
        action->destructor(object);
    }
}

// Replaces an empty destructor, as the server does.
#define DEFINE_REGISTERER(SCOPE, NAME, T)                                                                     \
    SCOPE NAME(std::string name, std::vector<std::string> prerequisites, std::vector<std::string> dependents, \
               std::function<void(T*)> constructor, std::function<void(T*)> destructor) {                     \
        if (!destructor) {                                                                                    \
            destructor = [](T*) {};                                                                           \
        }                                                                                                     \
        new (&_registerer) boost::optional<GlobalInitializerRegisterer>(GlobalInitializerRegisterer(          \
            std::move(name),                                                                                  \
            [this, constructor, destructor](InitializerContext*) {                                            \
                auto& list = ConstructorActions<T>::list();                                                   \
                _iterator = list.insert(list.end(), {constructor, destructor});                               \
            },                                                                                                \
            [this](DeinitializerContext*) { ConstructorActions<T>::list().erase(_iterator); },                \
            std::move(prerequisites), std::move(dependents)));                                                \
    }                                                                                                         \
    SCOPE NAME(std::string name, std::vector<std::string> prerequisites, std::function<void(T*)> constructor, \
               std::function<void(T*)> destructor)                                                            \
        : NAME(std::move(name), std::move(prerequisites), std::vector<std::string>(), std::move(constructor), \
               std::move(destructor)) {}                                                                      \
    SCOPE NAME(std::string name, std::function<void(T*)> constructor, std::function<void(T*)> destructor)     \
        : NAME(std::move(name), std::vector<std::string>{"default"}, std::move(constructor), std::move(destructor)) {}

#if REGISTRY_OF_SERVICE
DEFINE_REGISTERER(template <typename T> ConstructorActionRegistererType<T>::, ConstructorActionRegistererType, T)
template class ConstructorActionRegistererType<ServiceContext>;
template class ConstructorActionRegistererType<Service>;
#else
DEFINE_REGISTERER(ServiceContext::ConstructorActionRegisterer::, ConstructorActionRegisterer, ServiceContext)
#endif

ServiceContext::ServiceContext() { ConstructorActions<ServiceContext>::runConstructors(this); }
ServiceContext::~ServiceContext() { ConstructorActions<ServiceContext>::runDestructors(this); }
Service::Service() { ConstructorActions<Service>::runConstructors(this); }
Service::~Service() { ConstructorActions<Service>::runDestructors(this); }

// Mechanisms

StringData ServerMechanismBase::getAuthenticationDatabase() const { return _authenticationDatabase; }
StringData ServerMechanismBase::getPrincipalName() const { return _principalName; }
void ServerMechanismBase::appendExtraInfo(BSONObjBuilder*) const {}
bool ServerMechanismBase::isAuthorizedToActAs(StringData requestedUser, StringData authenticatedUser) {
    return requestedUser == authenticatedUser;
}
Status ServerMechanismBase::setOptions(BSONObj options) {
    if (!options.isEmpty()) {
        violation("setOptions received options");
    }
    return Status::OK();
}
#if HAS_EXPIRATION
boost::optional<Date_t> ServerMechanismBase::getExpirationTime() const { return {}; }
#endif
#if HAS_USER_REQUEST || HAS_MAKE_USER_REQUEST
namespace {
UserRequest userRequestOf(const ServerMechanismBase& mechanism) {
    UserRequest request;
    request.user = mechanism.getPrincipalName().toString();
    request.database = mechanism.getAuthenticationDatabase().toString();
    return request;
}
}  // namespace
#endif
#if HAS_USER_REQUEST
UserRequest ServerMechanismBase::getUserRequest() const { return userRequestOf(*this); }
#endif
#if HAS_MAKE_USER_REQUEST
bool ServerMechanismBase::isClusterMember(Client*) const { return false; }
StatusWith<std::unique_ptr<UserRequest>> ServerMechanismBase::makeUserRequest(OperationContext*) const {
    return std::make_unique<UserRequest>(userRequestOf(*this));
}
#endif

StepResult SASLPlainServerMechanism::stepImpl(OperationContext*, StringData input) {
    const std::string text = input.toString();
    const size_t user = text.find('\0');
    const size_t password = user == std::string::npos ? user : text.find('\0', user + 1);
    if (password == std::string::npos) {
        return Status(ErrorCodes::AuthenticationFailed, "Incorrectly formatted PLAIN client message");
    }
    _principalName = text.substr(user + 1, password - user - 1);
    if (text.substr(password + 1) != "right") {
        return Status(ErrorCodes::AuthenticationFailed, "the password is wrong");
    }
    return std::make_tuple(true, std::string());
}

#if WRONG_INHERITANCE
UserRequest SASLPlainServerMechanism::getUserRequest() const { return ServerMechanismBase::getUserRequest(); }
#endif
#if HAS_STEPS
boost::optional<unsigned> SASLPlainServerMechanism::currentStep() const { return boost::optional<unsigned>(1u); }
boost::optional<unsigned> SASLPlainServerMechanism::totalSteps() const { return boost::optional<unsigned>(1u); }
#endif

bool PLAINServerFactory::canMakeMechanismForUser(const User* user) const { return user != nullptr; }

SASLGlobalParams saslGlobalParams;

SASLServerMechanismRegistry::SASLServerMechanismRegistry(RegistryOwner* owner, std::vector<std::string> enabled)
    : _owner(owner), _enabledMechanisms(std::move(enabled)) {
    if (saslGlobalParams.hasUnknownRegistry) {
        _owner = &_owner;
    }
}

SASLServerMechanismRegistry& SASLServerMechanismRegistry::get(RegistryOwner* owner) {
    if (!owner->registry) {
        violation("the registry is used before it is created");
    }
    return *owner->registry;
}

void SASLServerMechanismRegistry::set(RegistryOwner* owner, std::unique_ptr<SASLServerMechanismRegistry> registry) {
    owner->registry = std::move(registry);
}

std::vector<std::string> SASLServerMechanismRegistry::getMechanismNames() const {
    std::vector<std::string> names;
    for (const auto* list : {&_internalMechs, &_externalMechs}) {
        for (const auto& factory : *list) {
            names.push_back(factory->mechanismName().toString());
        }
    }
    return names;
}

bool SASLServerMechanismRegistry::_mechanismSupportedByConfig(StringData name) const {
    return std::find(_enabledMechanisms.begin(), _enabledMechanisms.end(), name.toString()) != _enabledMechanisms.end();
}

StatusWith<std::unique_ptr<ServerMechanismBase>> SASLServerMechanismRegistry::getServerMechanism(StringData name,
                                                                                                 std::string database) {
    for (const auto& factory : database == "$external" ? _externalMechs : _internalMechs) {
        if (factory->mechanismName() == name) {
            return std::unique_ptr<ServerMechanismBase>(factory->create(std::move(database)));
        }
    }
    return Status(ErrorCodes::MechanismUnavailable,
                  "Unsupported mechanism " + name.toString() + " on authentication database " + database);
}

void SASLServerMechanismRegistry::validate() const {
    const std::vector<std::string> names = getMechanismNames();
    for (const std::string& enabled : _enabledMechanisms) {
        const auto count = std::count(names.begin(), names.end(), enabled);
        if (count == 0) {
            printf("{\"msg\":\"SASL mechanism is not supported\",\"attr\":{\"mechanism\":%s}}\n",
                   json(enabled).c_str());
            fflush(stdout);
            _exit(2);
        }
        if (count > 1) {
            violation(enabled + " is registered twice");
        }
    }
    for (const auto* list : {&_internalMechs, &_externalMechs}) {
        for (size_t i = 0; i < list->size(); ++i) {
            const ServerFactoryBase& factory = *(*list)[i];
            if (!_mechanismSupportedByConfig(factory.mechanismName())) {
                violation(factory.mechanismName().toString() + " is registered and not enabled");
            }
            if (i > 0 && (*list)[i - 1]->securityLevel() < factory.securityLevel()) {
                violation("the factories are not in the order of their security");
            }
        }
    }
}

namespace {

RegistryOwner::ConstructorActionRegisterer createRegistry{
    "CreateSASLServerMechanismRegistry", {"EndStartupOptionStorage"}, [](RegistryOwner* owner) {
        SASLServerMechanismRegistry::set(
            owner, std::make_unique<SASLServerMechanismRegistry>(owner, saslGlobalParams.authenticationMechanisms));
    }};

RegistryOwner::ConstructorActionRegisterer validateRegistry{
    "ValidateSASLServerMechanismRegistry", {"CreateSASLServerMechanismRegistry"}, [](RegistryOwner* owner) {
        SASLServerMechanismRegistry::get(owner).validate();
    }};

RegistryOwner::ConstructorActionRegisterer plainFactory{
    typeid(PLAINServerFactory).name(),
    {"CreateSASLServerMechanismRegistry"},
    {"ValidateSASLServerMechanismRegistry"},
    [](RegistryOwner* owner) { SASLServerMechanismRegistry::get(owner).registerFactory<PLAINServerFactory>(); }};

}  // namespace

// Parameters

ServerParameter::ServerParameter(StringData name, ServerParameterType type) : _name(name.toString()), _type(type) {}

#if TENANTS
#define NAME_TENANT , tenant
#define NO_TENANT boost::optional<TenantId>()
#define AND_NO_TENANT , NO_TENANT
#else
#define NAME_TENANT
#define NO_TENANT
#define AND_NO_TENANT
#endif

void ServerParameter::appendSupportingRoundtrip(OperationContext* context, ParameterBuilder builder,
                                                ParameterName name AND_TENANT) {
    append(context, builder, name NAME_TENANT);
}

Status ServerParameter::validate(const BSONElement& AND_TENANT) const { return Status::OK(); }

Status ServerParameter::set(const BSONElement& value AND_TENANT) {
    if (Status status = validate(value NAME_TENANT); !status.isOK()) {
        return status;
    }
    std::string text;
    switch (value.type()) {
        case 0x02:
            text.assign(value.value() + 4, static_cast<size_t>(int32At(value.value()) - 1));
            break;
        case 0x10:
            text = std::to_string(int32At(value.value()));
            break;
        default:
            return Status(ErrorCodes::BadValue, "the value of " + _name + " cannot be made a text");
    }
    return setFromString(text AND_NO_TENANT);
}

Status ServerParameter::reset(TENANT) { return Status(ErrorCodes::IllegalOperation, _name + " cannot be reset"); }
LogicalTime ServerParameter::getClusterParameterTime(TENANT) const { return {77}; }

// Each of these exists in some series.
#define DEFINE_IS_ENABLED \
    bool ServerParameter::isEnabled() const { return true; }
#define DEFINE_IS_ENABLED_ON_VERSION \
    bool ServerParameter::_isEnabledOnVersion(const multiversion::FeatureCompatibilityVersion&) const { return true; }
#if REGISTRATION_HOOK
bool ServerParameter::isForIncrementalFeatureRollout() const { return false; }
void ServerParameter::warnIfDeprecated(StringData action) {
    if (!(action == "read")) {
        violation("warnIfDeprecated received another text");
    }
}
void ServerParameter::onRegistrationWithProcessGlobalParameterList() {}
void ServerParameter::appendDetails(OperationContext*, BSONObjBuilder*, const boost::optional<TenantId>&) {}
#elif OWNING_SETS || FCV_PARAMETERS
DEFINE_IS_ENABLED_ON_VERSION
#else
DEFINE_IS_ENABLED
#endif

void ServerParameter::checkInherited() {
#if REGISTRATION_HOOK
    onRegistrationWithProcessGlobalParameterList();
    warnIfDeprecated("read");
    BSONObjBuilder details;
    appendDetails(nullptr, &details, NO_TENANT);
    bool good = !isForIncrementalFeatureRollout() && details.obj().isEmpty();
#elif OWNING_SETS || FCV_PARAMETERS
    bool good = _isEnabledOnVersion(multiversion::FeatureCompatibilityVersion::kLatest);
#else
    bool good = isEnabled();
#endif
    good = good && getClusterParameterTime(NO_TENANT).time == 77;
    const Status status = reset(NO_TENANT);
    if (!good || status.code() != ErrorCodes::IllegalOperation || status.reason() != _name + " cannot be reset") {
        violation(_name + " differs from its base class");
    }
}

ServerParameterSet* ServerParameterSet::getNodeParameterSet() {
    static auto* instance = new ServerParameterSet;
    return instance;
}

namespace {
// Set between the two initializers that begin and end the registration of parameters.
bool collecting = false;
}  // namespace

void ServerParameterSet::add(HandedParameter parameter) {
    if (!parameter || !collecting) {
        violation(parameter ? "a parameter is added too early or too late" : "a null parameter is added");
    }
    const std::string name = parameter->name();
    if (!parameters.try_emplace(name, std::move(parameter)).second) {
        fprintf(stderr, "Duplicate server parameter registration for %s\n", name.c_str());
        abort();
    }
}

bool ServerParameterSet::remove(const std::string& name) { return parameters.erase(name) == 1; }

void registerServerParameter(HandedParameter parameter) {
#if REGISTRATION_HOOK
    parameter->onRegistrationWithProcessGlobalParameterList();
#endif
    ServerParameterSet::getNodeParameterSet()->add(std::move(parameter));
}

namespace {

// A parameter of the server.
class Quiet final : public ServerParameter {
public:
    Quiet() : ServerParameter("quiet", ServerParameterType::kStartupAndRuntime) {}
    void append(OperationContext*, ParameterBuilder builder, ParameterName name AND_TENANT) override {
#if TENANTS
        builder->append(name, _value);
#else
        builder.append(name, _value);
#endif
    }
    Status setFromString(ParameterName text AND_TENANT) override {
        _value = StringData(text).toString();
        return _value == "maybe" ? Status(ErrorCodes::BadValue, "either be quiet or not") : Status::OK();
    }

private:
    std::string _value = "false";
};

GlobalInitializerRegisterer defaults("default", nullptr, nullptr, {"EndStartupOptionHandling"});
GlobalInitializerRegisterer beginParameters("BeginServerParameterRegistration",
                                            [](InitializerContext*) { collecting = true; }, nullptr, {});
GlobalInitializerRegisterer endParameters("EndServerParameterRegistration",
                                          [](InitializerContext*) { collecting = false; }, nullptr,
                                          {"BeginServerParameterRegistration"}, {"BeginStartupOptionHandling"});
GlobalInitializerRegisterer beginOptions("BeginStartupOptionHandling", nullptr, nullptr, {});
GlobalInitializerRegisterer endOptions("EndStartupOptionHandling", nullptr, nullptr, {"BeginStartupOptionHandling"});
GlobalInitializerRegisterer endStorage("EndStartupOptionStorage", nullptr, nullptr, {"EndStartupOptionHandling"});
GlobalInitializerRegisterer quiet("ServerParameter_quiet",
                                  [](InitializerContext*) {
#if OWNING_SETS
                                      registerServerParameter(std::make_unique<Quiet>());
#else
        registerServerParameter(new Quiet);
#endif
                                  },
                                  nullptr, {"BeginServerParameterRegistration"}, {"EndServerParameterRegistration"});

}  // namespace

// Sections

#if !SECTION_BUILDER
ServerStatusSection::ServerStatusSection(const std::string& name) : _name(name) { sectionRegistry().addSection(this); }
void ServerStatusSection::addRequiredPrivileges(std::vector<Privilege>*) {}
BSONObj ServerStatusSection::generateSection(OperationContext*, const BSONElement&) const { return BSONObj(); }
void ServerStatusSection::appendSection(OperationContext* context, const BSONElement& element,
                                        BSONObjBuilder* builder) const {
    const BSONObj section = generateSection(context, element);
    if (!section.isEmpty()) {
        builder->append(_name, section);
    }
}
ServerStatusSectionRegistry* ServerStatusSectionRegistry::get() {
    static auto* instance = new ServerStatusSectionRegistry;
    return instance;
}
ServerStatusSectionRegistry& sectionRegistry() { return *ServerStatusSectionRegistry::get(); }
#else
ServerStatusSectionRegistry* ServerStatusSectionRegistry::instance() {
    static auto* instance = new ServerStatusSectionRegistry;
    return instance;
}
ServerStatusSectionRegistry& sectionRegistry() { return *ServerStatusSectionRegistry::instance(); }
#endif

void ServerStatusSectionRegistry::addSection(HandedSection section) {
    if (!section) {
        violation("a null section is added");
    }
#if SECTION_BUILDER
    if (section->role().mask != 1 && section->role().mask != 2 && section->role().mask != 4) {
        violation("a section is added without a role");
    }
#endif
    const std::string name = section->name();
    if (!sections.try_emplace(name, std::move(section)).second) {
        fprintf(stderr, "Duplicate ServerStatusSection %s\n", name.c_str());
        abort();
    }
}

namespace {

// A section of the server.
class Asserts final : public ServerStatusSection {
public:
#if SECTION_BUILDER
    Asserts() : ServerStatusSection("asserts", kShardServer) {}
#else
    Asserts() : ServerStatusSection("asserts") {}
#endif
    bool includeByDefault() const override { return true; }
    BSONObj generateSection(OperationContext*, const BSONElement&) const override {
        return BSONObjBuilder().append("regular", "0").obj();
    }
};

#if SECTION_BUILDER
const bool sectionAdded = (sectionRegistry().addSection(std::make_unique<Asserts>()), true);
#else
const auto* const sectionAdded = new Asserts;
#endif

}  // namespace

// The log

namespace logv2 {

LogOptions::LogOptions(LogComponent of) : component(of) {}
LogOptions::LogOptions(LogComponent of, FatalMode fatal) : component(of), mode(fatal) {}
LogOptions::LogOptions(LogTag with) : component{LogComponent::kDefault}, tag(with) {}

void detail::doLogImpl(std::int32_t id, const LogSeverity& severity, const LogOptions& options, StringData message,
                       const TypeErasedAttributeStorage& attributes) {
    if (attributes.size != 0) {
        violation("a log line has attributes");
    }
    if (severity.severity < -4 || severity.severity > 5) {
        violation("a log line has an unknown severity");
    }
    const char* letter =
        severity.severity > 0 ? "D" : &"I\0W\0E\0F"[2 * (severity.severity ? -severity.severity - 1 : 0)];
    printf("{\"s\":\"%s\",\"c\":\"%s\",\"id\":%d,\"msg\":%s}\n", letter,
           options.component.value == LogComponent::kAccessControl ? "ACCESS" : "-", id,
           json(message.toString()).c_str());
}

}  // namespace logv2
}  // namespace mongo
