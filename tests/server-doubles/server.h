// A double of a MongoDB server, for series without an available binary: the classes that the plugin
// uses, written from facts about the headers of the series (names, orders and sizes).
// -DSERIES='"series_7_0.h"' selects a series, and -DWRONG_...=1 makes a server that differs from it
// in one respect.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include SERIES

// Ends the process with status 99, for anything that would break or crash a server.
[[noreturn]] void violation(const std::string& what);

namespace boost {

struct none_t {};
inline constexpr none_t none;

// A flag, then the value. An optional scalar is trivially copyable, and so passed in registers.
template <typename T, bool isScalar>
class optional_storage {
public:
    optional_storage() = default;
    explicit optional_storage(T value) { new (_value) T(std::move(value)), _has = true; }
    optional_storage(const optional_storage& other) : _has(other._has) {
        if (_has) {
            new (_value) T(other.value());
        }
    }
    optional_storage& operator=(const optional_storage&) = delete;
    ~optional_storage() {
        if (_has) {
            value().~T();
        }
    }
    bool has() const { return _has; }
    T& value() { return *std::launder(reinterpret_cast<T*>(_value)); }
    const T& value() const { return *std::launder(reinterpret_cast<const T*>(_value)); }

private:
    bool _has = false;
    alignas(T) unsigned char _value[sizeof(T)];
};

template <typename T>
class optional_storage<T, true> {
public:
    optional_storage() = default;
    explicit optional_storage(T value) : _has(true), _value(value) {}
    bool has() const { return _has; }
    const T& value() const { return _value; }

private:
    bool _has = false;
    T _value = {};
};

template <typename T>
class optional : public optional_storage<T, std::is_scalar_v<T>> {
public:
    optional() = default;
    optional(none_t) {}
    explicit optional(T value) : optional_storage<T, std::is_scalar_v<T>>(std::move(value)) {}
};

}  // namespace boost

namespace mongo {

class OperationContext {};
class Client {};
class User {};
class Privilege {};
class FeatureFlag;
class ErrorExtraInfo;
namespace multiversion {
enum class FeatureCompatibilityVersion { kLatest };
}

struct Date_t {
    long long millis = 0;
};
struct LogicalTime {
    unsigned long long time = 0;
};
class TenantId {
    unsigned char _oid[12] = {};
};

class StringData {
public:
    StringData(const char* text) : StringData(text, strlen(text)) {}
    StringData(const std::string& text) : StringData(text.data(), text.size()) {}
#if WRONG_STRING_DATA
    StringData(const char* data, size_t size) : _begin(data), _end(data + size) {}
    const char* data() const { return _begin; }
    size_t size() const { return static_cast<size_t>(_end - _begin); }

private:
    const char *_begin, *_end;
#elif TEXT_LENGTH_FIRST
    StringData(const char* data, size_t size) : _text(data, size) {}
    const char* data() const { return _text.data(); }
    size_t size() const { return _text.size(); }

private:
    std::string_view _text;
#else
    StringData(const char* data, size_t size) : _data(data), _size(size) {}
    const char* data() const { return _data; }
    size_t size() const { return _size; }

private:
    const char* _data;
    size_t _size;
#endif
public:
    std::string toString() const { return {data(), size()}; }
    friend bool operator==(StringData a, StringData b) {
        return a.size() == b.size() && memcmp(a.data(), b.data(), a.size()) == 0;
    }
};
static_assert(sizeof(StringData) == 16 && std::is_trivially_copyable_v<StringData>);

class ErrorCodes {
public:
    enum Error : std::int32_t {
        OK = 0,
        BadValue = 2,
        ProtocolError = 17,
        AuthenticationFailed = 18,
        IllegalOperation = 20,
        InvalidOptions = 72,
        MechanismUnavailable = 334,
    };
};

// The target of Status: reference-counted, with a virtual destructor where STATUS_MAKER is set.
class ErrorInfo {
public:
    ErrorInfo(ErrorCodes::Error errorCode, std::string text);
    ErrorInfo(const ErrorInfo&) = delete;
#if STATUS_MAKER
    virtual
#endif
        ~ErrorInfo();

    std::atomic<std::uint32_t> count{0};
    const ErrorCodes::Error code;
    const std::string reason;
    std::shared_ptr<const ErrorExtraInfo> extra;

    // How many exist in the process.
    static std::atomic<int> alive;
};
static_assert(sizeof(ErrorInfo) == (STATUS_MAKER ? 64 : 56));

class ErrorPointer {
public:
    ErrorPointer() = default;
    explicit ErrorPointer(ErrorInfo* info) : _info(info) { take(); }
    ErrorPointer(const ErrorPointer& other) : _info(other._info) { take(); }
    ErrorPointer(ErrorPointer&& other) noexcept : _info(std::exchange(other._info, nullptr)) {}
    ErrorPointer& operator=(ErrorPointer other) noexcept {
        std::swap(_info, other._info);
        return *this;
    }
    ~ErrorPointer() {
        if (_info && --_info->count == 0) {
            delete _info;
        }
    }
    const ErrorInfo* get() const { return _info; }

private:
    void take() {
        if (_info) {
            ++_info->count;
        }
    }
    ErrorInfo* _info = nullptr;
};

class Status {
public:
    static Status OK() { return Status(); }
    bool isOK() const { return !_error.get(); }
    ErrorCodes::Error code() const { return isOK() ? ErrorCodes::OK : _error.get()->code; }
    std::string reason() const { return isOK() ? std::string() : _error.get()->reason; }

#if STATUS_MAKER
    // Always inline, so that the program exports no symbol of it.
    __attribute__((always_inline)) inline Status(ErrorCodes::Error code, std::string reason)
        : _error(_createErrorInfo(code, std::move(reason), {})) {}
    static ErrorPointer _createErrorInfo(ErrorCodes::Error code, std::string reason,
                                         std::shared_ptr<const ErrorExtraInfo> extra);
#else
    Status(ErrorCodes::Error code, std::string reason);
#endif

private:
    Status() = default;
    ErrorPointer _error;
};
static_assert(sizeof(Status) == 8);

template <typename T>
class StatusWith {
public:
    StatusWith(Status status) : _status(std::move(status)) {}
    StatusWith(T value) : _status(Status::OK()), _value(std::move(value)) {}
    StatusWith(const StatusWith&) = delete;
    const Status& getStatus() const { return _status; }
    bool isOK() const {
        if (_status.isOK() != _value.has()) {
            violation("a StatusWith has neither an error nor a value, or both");
        }
        return _status.isOK();
    }
    T& getValue() { return _value.value(); }

private:
    Status _status;
    boost::optional<T> _value;
};
using StepResult = StatusWith<std::tuple<bool, std::string>>;
static_assert(sizeof(StepResult) == 56);

// The owner of a document's bytes, null for borrowed bytes.
class ConstSharedBuffer {
public:
    ConstSharedBuffer() = default;
    explicit ConstSharedBuffer(const std::string& bytes);
    ConstSharedBuffer(const ConstSharedBuffer& other);
    ConstSharedBuffer& operator=(const ConstSharedBuffer&) = delete;
    ~ConstSharedBuffer();
    const char* data() const;

private:
    struct Holder;
    Holder* _holder = nullptr;
};

class BSONElement {
public:
    // Reads the element at the start of these bytes.
    BSONElement(const char* data, const char* end);
    int type() const { return static_cast<signed char>(*_data); }
    std::string fieldName() const { return _data + 1; }
    const char* value() const { return _data + 1 + _fieldNameSize; }
    const char* data() const { return _data; }
    int size() const { return _totalSize; }

private:
    const char* _data;
    int _fieldNameSize;
    int _totalSize;
};
static_assert(sizeof(BSONElement) == 16);

class BSONObj {
public:
    BSONObj();
    explicit BSONObj(const std::string& bytes) : _ownedBuffer(bytes) { _objdata = _ownedBuffer.data(); }
    std::string bytes() const;
    bool isEmpty() const { return elements().empty(); }
    // Reads the whole document; anything but BSON is a violation.
    std::vector<BSONElement> elements() const;

private:
    const char* _objdata;
    ConstSharedBuffer _ownedBuffer;
};
static_assert(sizeof(BSONObj) == 16);

class BufBuilder {
public:
    std::string bytes;
};

template <class Derived, class Buffer>
class BSONObjBuilderBase {
public:
    Derived& appendElements(const BSONObj& object);

protected:
    Buffer _buffer;
};

class BSONObjBuilder : public BSONObjBuilderBase<BSONObjBuilder, BufBuilder> {
public:
    BSONObjBuilder& append(StringData name, const BSONObj& object);
    BSONObjBuilder& append(StringData name, StringData text);
    BSONObj obj() const;
    // Detects an object that is overwritten.
    std::uint64_t guard = 0x0b50b501dULL;
};

// Initializers: a graph of named functions.
class InitializerContext {};
class DeinitializerContext {};
using InitializerFunction = std::function<void(InitializerContext*)>;
using DeinitializerFunction = std::function<void(DeinitializerContext*)>;

class GlobalInitializerRegisterer {
public:
    GlobalInitializerRegisterer(std::string name, InitializerFunction initializer,
                                DeinitializerFunction deinitializer = nullptr,
                                std::vector<std::string> prerequisites = {"default"},
                                std::vector<std::string> dependents = {});
};
void runInitializers();

// The objects that own a registry of mechanisms, and the actions that run when one is created.
class Service;
class ServiceContext;
class SASLServerMechanismRegistry;

template <typename T>
struct ConstructorActions {
    struct Action {
        std::function<void(T*)> constructor, destructor;
    };
    using List = std::list<Action>;
    static List& list();
    static void runConstructors(T* object);
    static void runDestructors(T* object);
};

// Objects of this class have to be static: the initializer keeps their address.
#define REGISTERER_MEMBERS(NAME, T)                                                                       \
public:                                                                                                   \
    NAME(std::string name, std::vector<std::string> prerequisites, std::vector<std::string> dependents,   \
         std::function<void(T*)> constructor, std::function<void(T*)> destructor = {});                   \
    NAME(std::string name, std::vector<std::string> prerequisites, std::function<void(T*)> constructor,   \
         std::function<void(T*)> destructor = {});                                                        \
    NAME(std::string name, std::function<void(T*)> constructor, std::function<void(T*)> destructor = {}); \
                                                                                                          \
private:                                                                                                  \
    ConstructorActions<T>::List::iterator _iterator;                                                      \
    boost::optional<GlobalInitializerRegisterer> _registerer;

#if REGISTRY_OF_SERVICE
template <typename T>
class ConstructorActionRegistererType {
    REGISTERER_MEMBERS(ConstructorActionRegistererType, T)
};
#endif

class ServiceContext {
public:
    ServiceContext();
    ~ServiceContext();
#if REGISTRY_OF_SERVICE
    using ConstructorActionRegisterer = ConstructorActionRegistererType<ServiceContext>;
#else
    class ConstructorActionRegisterer {
        REGISTERER_MEMBERS(ConstructorActionRegisterer, ServiceContext)
    };
    std::unique_ptr<SASLServerMechanismRegistry> registry;
#endif
};

class Service {
public:
    Service();
    ~Service();
#if REGISTRY_OF_SERVICE
    using ConstructorActionRegisterer = ConstructorActionRegistererType<Service>;
    std::unique_ptr<SASLServerMechanismRegistry> registry;
#endif
};

#if REGISTRY_OF_SERVICE
using RegistryOwner = Service;
#else
using RegistryOwner = ServiceContext;
#endif

// SASL mechanisms.
class SecurityPropertySet {
public:
    explicit SecurityPropertySet(unsigned long bits) : _bits(bits) {}
    unsigned long bits() const { return _bits; }

private:
    unsigned long _bits;
};

class SaslServerCommonBase {
public:
    virtual ~SaslServerCommonBase() = default;
    virtual StringData mechanismName() const = 0;
    virtual SecurityPropertySet properties() const = 0;
    virtual int securityLevel() const = 0;
    virtual bool isInternalAuthMech() const = 0;
};

struct UserRequest {
    virtual ~UserRequest() = default;
    std::string user, database;
};

#define GET_PRINCIPAL_NAME virtual StringData getPrincipalName() const;
#define GET_EXPIRATION_TIME virtual boost::optional<Date_t> getExpirationTime() const;
#define APPEND_EXTRA_INFO virtual void appendExtraInfo(BSONObjBuilder* builder) const;
#define IS_AUTHORIZED virtual bool isAuthorizedToActAs(StringData requestedUser, StringData authenticatedUser);
#define IS_CLUSTER_MEMBER virtual bool isClusterMember(Client* client) const;
#define SET_OPTIONS virtual Status setOptions(BSONObj options);
#define CURRENT_STEP virtual boost::optional<unsigned> currentStep() const = 0;
#define TOTAL_STEPS virtual boost::optional<unsigned> totalSteps() const = 0;
#define GET_USER_REQUEST virtual UserRequest getUserRequest() const;
#define MAKE_USER_REQUEST \
    virtual StatusWith<std::unique_ptr<UserRequest>> makeUserRequest(OperationContext* context) const;
#define STEP_IMPL virtual StepResult stepImpl(OperationContext* context, StringData input) = 0;

class ServerMechanismBase : public SaslServerCommonBase {
public:
    explicit ServerMechanismBase(std::string authenticationDatabase)
        : _authenticationDatabase(std::move(authenticationDatabase)) {}
    StringData getAuthenticationDatabase() const;
    bool isSuccess() const { return _success; }
    // Takes a step as the server does, and stores the flag that the step returns.
    StatusWith<std::string> step(OperationContext* context, StringData input) {
        StepResult result = stepImpl(context, input);
        if (!result.isOK()) {
            return result.getStatus();
        }
        _success = std::get<0>(result.getValue());
        return std::get<1>(result.getValue());
    }

    MECHANISM_SLOTS

protected:
    bool _success = false;
    std::string _principalName;
    std::string _authenticationDatabase;
};
static_assert(sizeof(ServerMechanismBase) == 80);

class ServerFactoryBase : public SaslServerCommonBase {
public:
    virtual bool canMakeMechanismForUser(const User* user) const = 0;
    ServerMechanismBase* create(std::string authenticationDatabase) {
        ServerMechanismBase* made = createImpl(std::move(authenticationDatabase));
        if (!(made->mechanismName() == mechanismName())) {
            violation("a factory makes a mechanism of another name");
        }
        return made;
    }

protected:
    virtual ServerMechanismBase* createImpl(std::string authenticationDatabase) = 0;
};
static_assert(sizeof(ServerFactoryBase) == 8);

template <typename Policy>
class MakeServerMechanism : public ServerMechanismBase {
public:
    using ServerMechanismBase::ServerMechanismBase;
    using policy_type = Policy;
    StringData mechanismName() const override { return Policy::getName(); }
    SecurityPropertySet properties() const override { return Policy::getProperties(); }
    int securityLevel() const override { return Policy::securityLevel(); }
    bool isInternalAuthMech() const override { return Policy::isInternalAuthMech(); }
};

template <typename Mechanism>
class MakeServerFactory : public ServerFactoryBase {
public:
    using policy_type = typename Mechanism::policy_type;
    StringData mechanismName() const override { return policy_type::getName(); }
    SecurityPropertySet properties() const override { return policy_type::getProperties(); }
    int securityLevel() const override { return policy_type::securityLevel(); }
    bool isInternalAuthMech() const override { return policy_type::isInternalAuthMech(); }

protected:
    Mechanism* createImpl(std::string authenticationDatabase) override {
        return new Mechanism(std::move(authenticationDatabase));
    }
};

struct PLAINPolicy {
    static StringData getName() { return "PLAIN"; }
    static SecurityPropertySet getProperties() { return SecurityPropertySet(0); }
    static int securityLevel() { return 0; }
    static bool isInternalAuthMech() { return true; }
};

// Accepts the password "right".
class SASLPlainServerMechanism : public MakeServerMechanism<PLAINPolicy> {
public:
    using MakeServerMechanism<PLAINPolicy>::MakeServerMechanism;
    StepResult stepImpl(OperationContext* context, StringData input) override;
#if WRONG_INHERITANCE
    UserRequest getUserRequest() const override;
#endif
#if HAS_STEPS
    boost::optional<unsigned> currentStep() const override;
    boost::optional<unsigned> totalSteps() const override;
#endif
};

class PLAINServerFactory : public MakeServerFactory<SASLPlainServerMechanism> {
public:
    static constexpr bool isInternal = true;
    bool canMakeMechanismForUser(const User* user) const override;
};

class SASLServerMechanismRegistry {
public:
    SASLServerMechanismRegistry(RegistryOwner* owner, std::vector<std::string> enabled);
    static SASLServerMechanismRegistry& get(RegistryOwner* owner);
    static void set(RegistryOwner* owner, std::unique_ptr<SASLServerMechanismRegistry> registry);
    std::vector<std::string> getMechanismNames() const;
    StatusWith<std::unique_ptr<ServerMechanismBase>> getServerMechanism(StringData name, std::string database);
    bool _mechanismSupportedByConfig(StringData name) const;

    template <typename Factory>
    void registerFactory() {
        if (_mechanismSupportedByConfig(Factory::policy_type::getName())) {
            (Factory::isInternal ? _internalMechs : _externalMechs).push_back(std::make_unique<Factory>());
        }
    }
    // Stops the server when an enabled mechanism has no factory.
    void validate() const;

    const std::vector<std::unique_ptr<ServerFactoryBase>>& internalMechs() const { return _internalMechs; }
    const std::vector<std::unique_ptr<ServerFactoryBase>>& externalMechs() const { return _externalMechs; }

private:
    void* _owner;
    std::vector<std::unique_ptr<ServerFactoryBase>> _internalMechs;
    std::vector<std::unique_ptr<ServerFactoryBase>> _externalMechs;
    std::vector<std::string> _enabledMechanisms;
};
static_assert(sizeof(SASLServerMechanismRegistry) == 80);

struct SASLGlobalParams {
    std::vector<std::string> authenticationMechanisms;
    std::string hostName, serviceName, authdPath;
    bool hasUnknownRegistry = false;  // test only: gives the registry an unknown layout
};
extern SASLGlobalParams saslGlobalParams;

// Server parameters.
enum class ServerParameterType { kReadOnly, kRuntimeOnly, kStartupOnly, kStartupAndRuntime, kClusterWide };

#if TENANTS
#define TENANT [[maybe_unused]] const boost::optional<TenantId>& tenant
#define AND_TENANT , TENANT
using ParameterName = StringData;
using ParameterBuilder = BSONObjBuilder*;
#else
#define TENANT
#define AND_TENANT
using ParameterName = const std::string&;
using ParameterBuilder = BSONObjBuilder&;
#endif

#define APPEND \
    virtual void append(OperationContext* context, ParameterBuilder builder, ParameterName name AND_TENANT) = 0;
#define APPEND_SUPPORTING_ROUNDTRIP                                                             \
    virtual void appendSupportingRoundtrip(OperationContext* context, ParameterBuilder builder, \
                                           ParameterName name AND_TENANT);
#define APPEND_DETAILS virtual void appendDetails(OperationContext* context, BSONObjBuilder* builder AND_TENANT);
#define VALIDATE virtual Status validate(const BSONElement& value AND_TENANT) const;
#define SET virtual Status set(const BSONElement& value AND_TENANT);
#define RESET virtual Status reset(TENANT);
#define SET_FROM_STRING virtual Status setFromString(ParameterName text AND_TENANT) = 0;
#define GET_CLUSTER_PARAMETER_TIME virtual LogicalTime getClusterParameterTime(TENANT) const;
#define IS_ENABLED virtual bool isEnabled() const;
#define IS_ENABLED_ON_VERSION \
    virtual bool _isEnabledOnVersion(const multiversion::FeatureCompatibilityVersion& version) const;
#define IS_FOR_INCREMENTAL_FEATURE_ROLLOUT virtual bool isForIncrementalFeatureRollout() const;
#define WARN_IF_DEPRECATED virtual void warnIfDeprecated(StringData action);
#define ON_REGISTRATION virtual void onRegistrationWithProcessGlobalParameterList();

class ServerParameter {
public:
    // Does not register the object.
    ServerParameter(StringData name, ServerParameterType type);
    virtual ~ServerParameter() = default;
    PARAMETER_SLOTS

    const std::string& name() const { return _name; }
    bool allowedToChangeAtStartup() const {
        return _type == ServerParameterType::kStartupOnly || _type == ServerParameterType::kStartupAndRuntime;
    }
    bool allowedToChangeAtRuntime() const {
        return _type == ServerParameterType::kRuntimeOnly || _type == ServerParameterType::kStartupAndRuntime;
    }
    // Calls the functions that the plugin inherits in this series; any difference is a violation.
    void checkInherited();

private:
    std::string _name;
    ServerParameterType _type;
    PARAMETER_MEMBERS
};
static_assert(sizeof(ServerParameter) == PARAMETER_SIZE);

#if OWNING_SETS
using HandedParameter = std::unique_ptr<ServerParameter>;
#else
using HandedParameter = ServerParameter*;
#endif

class ServerParameterSet {
public:
    static ServerParameterSet* getNodeParameterSet();
    void add(HandedParameter parameter);
    bool remove(const std::string& name);

    std::map<std::string, HandedParameter> parameters;
};
void registerServerParameter(HandedParameter parameter);

// Sections of serverStatus.
struct ClusterRole {
    std::uint8_t mask = 0;
};
inline constexpr ClusterRole kShardServer{1};

class ServerStatusSection {
public:
#if SECTION_BUILDER
    ServerStatusSection(std::string name, ClusterRole role) : _name(std::move(name)), _role(role) {}
    ClusterRole role() const { return _role; }
#else
    explicit ServerStatusSection(const std::string& name);
#endif
    virtual ~ServerStatusSection() = default;
    virtual bool includeByDefault() const = 0;
#if SECTION_BUILDER
    virtual Status checkAuthForOperation(OperationContext*) const { return Status::OK(); }
    virtual BSONObj generateSection(OperationContext*, const BSONElement&) const { return BSONObj(); }
    virtual void appendSection(OperationContext* context, const BSONElement& element, BSONObjBuilder* builder) const {
        const BSONObj section = generateSection(context, element);
        if (!section.isEmpty()) {
            builder->append(_name, section);
        }
    }
#else
    virtual void addRequiredPrivileges(std::vector<Privilege>* privileges);
    virtual BSONObj generateSection(OperationContext* context, const BSONElement& element) const;
    virtual void appendSection(OperationContext* context, const BSONElement& element, BSONObjBuilder* builder) const;
#endif
    const std::string& name() const { return _name; }

private:
    const std::string _name;
#if SECTION_BUILDER
    const ClusterRole _role;
#endif
};
static_assert(sizeof(ServerStatusSection) == (SECTION_BUILDER ? 48 : 40));

#if OWNING_SETS
using HandedSection = std::unique_ptr<ServerStatusSection>;
#else
using HandedSection = ServerStatusSection*;
#endif

class ServerStatusSectionRegistry {
public:
#if SECTION_BUILDER
    static ServerStatusSectionRegistry* instance();
#else
    static ServerStatusSectionRegistry* get();
#endif
    void addSection(HandedSection section);

    std::map<std::string, HandedSection> sections;
};
ServerStatusSectionRegistry& sectionRegistry();

// The log: one JSON line on stdout for each call.
namespace logv2 {

enum class FatalMode { kAssert };
class LogTag {
public:
    std::uint64_t tags = 0;
};
class LogSeverity {
public:
    int severity;
};
class LogComponent {
public:
    enum Value { kDefault, kAccessControl };
    Value value;
};
class LogOptions {
public:
    LogOptions(LogComponent component);
    LogOptions(LogComponent component, FatalMode mode);
    LogOptions(LogTag tag);
    LogComponent component;
    LogTag tag;
    FatalMode mode = FatalMode::kAssert;
};
class TypeErasedAttributeStorage {
public:
    const void* data = nullptr;
    std::size_t size = 0;
};

namespace detail {
void doLogImpl(std::int32_t id, const LogSeverity& severity, const LogOptions& options, StringData message,
               const TypeErasedAttributeStorage& attributes);
}
}  // namespace logv2

}  // namespace mongo

// Makes a text a JSON string.
std::string json(const std::string& text);
