// A stand-in for a server with a built-in MONGODB-AWS. Preloaded into a server without one, it
// registers what such a server has, with the same names and at the same time. Its mechanism refuses
// every login, with a reason that tells a test which mechanism was used.
//
//     cc -std=c++20 -O1 -fPIC -shared -DSERVER_SERIES=600 -Wl,--version-script=exports.map
//         stand_in.cpp -o stand_in.so
//
// (cc, not c++: the server has the C++ runtime.)
//
// Environment variables of the server:
//     STAND_IN_SECURITY_LEVEL   the mechanism's security level; 2 unless set
//     STAND_IN_PARAMETER        0 omits the parameter awsStsHost, as the first such servers do
#include <cstdlib>
#include <cstring>
#include <typeinfo>

#include "server.h"

namespace mongo::awsIam {

constexpr char kName[] = "MONGODB-AWS";
constexpr unsigned long kNoPlainText = 2;
constexpr char kRefusal[] = "stand-in refuses every login";

int securityLevelOfThisRun() {
    const char* level = getenv("STAND_IN_SECURITY_LEVEL");
    return level ? atoi(level) : 2;
}

class ServerMechanism final : public ServerMechanismBase {
public:
    using ServerMechanismBase::ServerMechanismBase;
    ~ServerMechanism() override;

    StringData mechanismName() const override { return {kName, sizeof(kName) - 1}; }
    SecurityPropertySet properties() const override { return SecurityPropertySet(kNoPlainText); }
    int securityLevel() const override { return securityLevelOfThisRun(); }
    bool isInternalAuthMech() const override { return false; }

private:
    FailedStep stepImpl(OperationContext*, StringData) override {
        return FailedStep(ErrorCodes::AuthenticationFailed, kRefusal);
    }
};
ServerMechanism::~ServerMechanism() = default;

class ServerFactory final : public ServerFactoryBase {
public:
    ~ServerFactory() override;

    StringData mechanismName() const override { return {kName, sizeof(kName) - 1}; }
    SecurityPropertySet properties() const override { return SecurityPropertySet(kNoPlainText); }
    int securityLevel() const override { return securityLevelOfThisRun(); }
    bool isInternalAuthMech() const override { return false; }
    bool canMakeMechanismForUser(const User*) const override { return true; }

private:
    ServerMechanismBase* createImpl(std::string authenticationDatabase) override {
        return new ServerMechanism(std::move(authenticationDatabase));
    }
};
ServerFactory::~ServerFactory() = default;

}  // namespace mongo::awsIam

namespace {

using namespace mongo;

// As in the server: after the other mechanisms of the same security level.
void addFactory(ServiceContext* serviceContext) {
    auto& registry = SASLServerMechanismRegistry::get(serviceContext);
    auto factory = std::make_unique<awsIam::ServerFactory>();
    if (!registry._mechanismSupportedByConfig(factory->mechanismName())) {
        return;
    }
    auto& factories = registry.external();
    auto place = factories.begin();
    while (place != factories.end() && (*place)->securityLevel() >= factory->securityLevel()) {
        ++place;
    }
    factories.insert(place, std::move(factory));
}

class StsHostParameter final : public ServerParameter {
public:
    StsHostParameter() : ServerParameter({kName, sizeof(kName) - 1}, ServerParameterType::kStartupOnly) {}

    void append(OperationContext*, BSONObjBuilder& builder, const std::string& name) override {
        builder.append(name, _host);
    }
    // Called only for changes at runtime, which the server refuses.
    Status set(const BSONElement&) override { abort(); }
    Status setFromString(const std::string& value) override {
        _host = value;
        return Status::OK();
    }

private:
    static constexpr char kName[] = "awsStsHost";

    std::string _host = "sts.amazonaws.com";
};

InitializerResult addParameter(InitializerContext*) {
    const char* wanted = getenv("STAND_IN_PARAMETER");
    if (!wanted || strcmp(wanted, "0") != 0) {
        auto* parameter = new StsHostParameter();
#if SERVER_SERIES >= 600
        ServerParameterSet::getNodeParameterSet()->add(parameter);
#else
        // The constructor added it.
        static_cast<void>(parameter);
#endif
    }
#if SERVER_SERIES < 500
    return Status::OK();
#endif
}

// Static, like the registrations of the server. Nodes without an edge between them run in any
// order.
const ServiceContext::ConstructorActionRegisterer factoryRegisterer(typeid(awsIam::ServerFactory).name(),
                                                                    {"CreateSASLServerMechanismRegistry"},
                                                                    {"ValidateSASLServerMechanismRegistry"}, addFactory,
                                                                    {});
const GlobalInitializerRegisterer parameterRegisterer("idl_stand_in_sasl_options", addParameter, {},
                                                      {"BeginServerParameterRegistration"},
                                                      {"EndServerParameterRegistration"});

}  // namespace
