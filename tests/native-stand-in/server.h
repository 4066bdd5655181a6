// The server's classes that the stand-in uses. Names and arguments yield the symbols that the
// server exports, and virtual functions have the order of the series. The server has the function
// bodies, so an object built with this header works in a server of that series only.
//
// This file uses nothing of the plugin, so that both do not share a mistake about the server.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

// 404, 500 or 600.
#if SERVER_SERIES != 404 && SERVER_SERIES != 500 && SERVER_SERIES != 600
#error "SERVER_SERIES must be 404, 500 or 600"
#endif

namespace mongo {

class BSONObjBuilder;
class DeinitializerContext;
class InitializerContext;
class OperationContext;
class User;

class StringData {
public:
    StringData(const char* data, size_t size) : _data(data), _size(size) {}
    StringData(const std::string& text) : StringData(text.data(), text.size()) {}

private:
    const char* _data;
    size_t _size;
};

class BSONObj {
public:
    BSONObj(const BSONObj&);
    ~BSONObj();

private:
    const char* _data;
    void* _holder;
};

class BSONElement;

#if SERVER_SERIES >= 500
template <class Derived, class B>
class BSONObjBuilderBase {
public:
    Derived& append(StringData fieldName, StringData value);
};
class BufBuilder;
class BSONObjBuilder : public BSONObjBuilderBase<BSONObjBuilder, BufBuilder> {};
#else
class BSONObjBuilder {
public:
    BSONObjBuilder& append(StringData fieldName, StringData value);
};
#endif

class ErrorCodes {
public:
    enum Error : int { AuthenticationFailed = 18 };
};

class Status {
public:
#if SERVER_SERIES >= 600
    Status(ErrorCodes::Error code, std::string reason);
#else
    Status(ErrorCodes::Error code, const char* reason);
#endif
    static Status OK() { return Status(); }
    Status(const Status&) = delete;
    ~Status() {}  // the receiver owns the error

private:
    Status() : _error(nullptr) {}

    void* _error;
};

// StatusWith<std::tuple<bool, std::string>>, with an error only.
class FailedStep {
public:
    FailedStep(ErrorCodes::Error code, const char* reason) : _status(code, reason), _hasValue(false) {}
    FailedStep(const FailedStep&) = delete;
    ~FailedStep() {}

private:
    Status _status;
    bool _hasValue;
    alignas(8) unsigned char _value[40];
};
static_assert(sizeof(FailedStep) == 56);

// --- Initializers.

#if SERVER_SERIES >= 500
using InitializerResult = void;
#else
using InitializerResult = Status;
#endif

class GlobalInitializerRegisterer {
public:
    GlobalInitializerRegisterer(std::string name, std::function<InitializerResult(InitializerContext*)> initializer,
                                std::function<InitializerResult(DeinitializerContext*)> deinitializer,
                                std::vector<std::string> prerequisites, std::vector<std::string> dependents);

private:
    unsigned char _room[256];
};

class ServiceContext {
public:
    class ConstructorActionRegisterer {
    public:
        ConstructorActionRegisterer(std::string name, std::vector<std::string> prerequisites,
                                    std::vector<std::string> dependents,
                                    std::function<void(ServiceContext*)> constructor,
                                    std::function<void(ServiceContext*)> destructor);

    private:
        alignas(16) unsigned char _room[2048];
    };
};

// --- Server parameters.

#if SERVER_SERIES >= 600
enum class ServerParameterType { kReadOnly, kRuntimeOnly, kStartupOnly, kStartupAndRuntime };
#else
enum class ServerParameterType { kRuntimeOnly, kStartupOnly, kStartupAndRuntime };
#endif

class ServerParameter {
public:
    ServerParameter(StringData name, ServerParameterType type);
    virtual ~ServerParameter() {}

    virtual void append(OperationContext* operationContext, BSONObjBuilder& builder, const std::string& name) = 0;
#if SERVER_SERIES >= 500
    virtual void appendSupportingRoundtrip(OperationContext* operationContext, BSONObjBuilder& builder,
                                           const std::string& name);
#endif
#if SERVER_SERIES >= 600
    virtual Status validate(const BSONElement& value) const;
    virtual Status set(const BSONElement& value);
    virtual Status reset();
    virtual Status setFromString(const std::string& value) = 0;
    virtual long long getClusterParameterTime() const;  // a LogicalTime, which is one word
    virtual bool isEnabled() const;
#else
    virtual Status set(const BSONElement& value) = 0;
    virtual Status setFromString(const std::string& value) = 0;
#endif

private:
    unsigned char _room[248];
};

#if SERVER_SERIES >= 600
class ServerParameterSet {
public:
    static ServerParameterSet* getNodeParameterSet();
    void add(ServerParameter* parameter);
};
#endif

// --- SASL mechanisms.

class SecurityPropertySet {
public:
    explicit SecurityPropertySet(unsigned long bits) : _bits(bits) {}

private:
    unsigned long _bits;
};

class ServerMechanismBase {
public:
    explicit ServerMechanismBase(std::string authenticationDatabase)
        : _authenticationDatabase(std::move(authenticationDatabase)) {}
    virtual ~ServerMechanismBase() {}

    virtual StringData mechanismName() const = 0;
    virtual SecurityPropertySet properties() const = 0;
    virtual int securityLevel() const = 0;
    virtual bool isInternalAuthMech() const = 0;
    virtual StringData getPrincipalName() const;
#if SERVER_SERIES >= 500
    virtual void appendExtraInfo(BSONObjBuilder* builder) const;
#endif
    virtual bool isAuthorizedToActAs(StringData requestedUser, StringData authenticatedUser);
    virtual Status setOptions(BSONObj options);

private:
    virtual FailedStep stepImpl(OperationContext* operationContext, StringData input) = 0;

    bool _success = false;
    std::string _principalName;
    std::string _authenticationDatabase;
};
static_assert(sizeof(ServerMechanismBase) == 80);

class ServerFactoryBase {
public:
    virtual ~ServerFactoryBase() {}

    virtual StringData mechanismName() const = 0;
    virtual SecurityPropertySet properties() const = 0;
    virtual int securityLevel() const = 0;
    virtual bool isInternalAuthMech() const = 0;
    virtual bool canMakeMechanismForUser(const User* user) const = 0;

private:
    virtual ServerMechanismBase* createImpl(std::string authenticationDatabase) = 0;
};

class SASLServerMechanismRegistry {
public:
    using Factories = std::vector<std::unique_ptr<ServerFactoryBase>>;

    static SASLServerMechanismRegistry& get(ServiceContext* serviceContext);
    bool _mechanismSupportedByConfig(StringData name) const;
    Factories& external() { return _external; }

private:
    ServiceContext* _serviceContext;
    Factories _internal;
    Factories _external;
    std::vector<std::string> _enabledMechanisms;
};
static_assert(sizeof(SASLServerMechanismRegistry) == 80);

}  // namespace mongo
