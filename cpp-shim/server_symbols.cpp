#include "server_symbols.h"

#include <dlfcn.h>
#include <string.h>

namespace psmdb_aws_iam {

constinit Server server;

namespace {

#define STRING "NSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"

enum class Need { kAlways, kIfThere };

// One row for each function of the server that is called: what it is for, whether the plugin can do
// without it, and its mangled names. Where the names differ, so do the arguments: the comment says
// between which servers, and Server::variant tells which it is.
struct SymbolRow {
    Symbol symbol;
    Need need;
    const char* what;
    const char* names[3];
};

constexpr SymbolRow kSymbols[] = {
    {Symbol::kRegistryGet,
     Need::kAlways,
     "the registry of SASL mechanisms",
     {"_ZN5mongo27SASLServerMechanismRegistry3getEPNS_14ServiceContextE"}},
    {Symbol::kMechanismSupportedByConfig,
     Need::kAlways,
     "the check of authenticationMechanisms",
     {"_ZNK5mongo27SASLServerMechanismRegistry27_mechanismSupportedByConfigENS_10StringDataE"}},
    {Symbol::kConstructorAction,
     Need::kAlways,
     "the registration of actions on the service context",
     {"_ZN5mongo14ServiceContext27ConstructorActionRegistererC1E" STRING
      "St6vectorIS7_SaIS7_EESA_St8functionIFvPS0_EESE_"}},
    {Symbol::kInitializer,
     Need::kAlways,
     "the registration of initializers",
     {// 5.0 and newer: the function returns nothing
      "_ZN5mongo27GlobalInitializerRegistererC1E" STRING
      "St8functionIFvPNS_18InitializerContextEEES7_IFvPNS_20DeinitializerContextEEESt6vectorIS6_"
      "SaIS6_EESI_",
      // 4.4: it returns a Status
      "_ZN5mongo27GlobalInitializerRegistererC1E" STRING
      "St8functionIFNS_6StatusEPNS_18InitializerContextEEES7_IFS8_PNS_"
      "20DeinitializerContextEEESt6vectorIS6_SaIS6_"
      "EESJ_"}},
    {Symbol::kParameterConstructor,
     Need::kAlways,
     "the constructor of server parameters",
     {"_ZN5mongo15ServerParameterC1ENS_10StringDataENS_19ServerParameterTypeE"}},
    // 6.0 and newer; before, the constructor of a parameter adds it to the set, and the numbers of
    // the types differ.
    {Symbol::kParameterSetOfNode,
     Need::kIfThere,
     "the set of server parameters",
     {"_ZN5mongo18ServerParameterSet19getNodeParameterSetEv"}},
    {Symbol::kParameterSetAdd,
     Need::kAlways,
     "the addition of server parameters",
     {"_ZN5mongo18ServerParameterSet3addEPNS_15ServerParameterE"}},
    {Symbol::kStatusConstructor,
     Need::kAlways,
     "the constructor of errors",
     {// 6.0: the reason is a std::string
      "_ZN5mongo6StatusC1ENS_10ErrorCodes5ErrorE" STRING,
      // 4.4 and 5.0: it is a StringData
      "_ZN5mongo6StatusC1ENS_10ErrorCodes5ErrorENS_10StringDataE"}},
    {Symbol::kAppendElements,
     Need::kAlways,
     "the builder of BSON documents",
     {// 5.0 and newer
      "_ZN5mongo18BSONObjBuilderBaseINS_14BSONObjBuilderENS_10BufBuilderEE14appendElementsERKNS_"
      "7BSONObjE",
      // 4.4, with the same arguments
      "_ZN5mongo14BSONObjBuilder14appendElementsERKNS_7BSONObjE"}},
    {Symbol::kDoLog,
     Need::kIfThere,
     "the log",
     {"_ZN5mongo5logv26detail9doLogImplEiRKNS0_11LogSeverityERKNS0_10LogOptionsENS_"
      "10StringDataERKNS0_"
      "26TypeErasedAttributeStorageE"}},
    {Symbol::kLogOptionsConstructor,
     Need::kIfThere,
     "the options of a log line",
     {"_ZN5mongo5logv210LogOptionsC1ENS0_12LogComponentE"}},
};
static_assert(sizeof(kSymbols) / sizeof(kSymbols[0]) == static_cast<size_t>(Symbol::kCount), "one row for each");

// A process that exports one of these is a server, whether it is known or not.
constexpr const char* kServerMarkers[] = {
    kSymbols[0].names[0],
    // 8.0 and newer
    "_ZN5mongo27SASLServerMechanismRegistry3getEPNS_7ServiceE",
};

// A server that exports this has a MONGODB-AWS of its own.
constexpr char kNativeMechanism[] = "_ZTVN5mongo6awsIam13ServerFactoryE";

// The vtables that are copied.
constexpr char kMechanismVtable[] = "_ZTVN5mongo24SASLPlainServerMechanismE";
constexpr char kFactoryVtable[] = "_ZTVN5mongo18PLAINServerFactoryE";
constexpr char kParameterVtable[] = "_ZTVN5mongo15ServerParameterE";

// One row for each slot of ours in the first two: where it has to be, or kAnywhere, and the
// function of the server's that has to be in it.
constexpr int kAnywhere = -1;
struct SlotRow {
    int* slot;
    const ServerVtable* vtable;
    Need need;
    int expected;
    const char* function;
};

#define MECHANISM_OF_PLAIN "_ZNK5mongo19MakeServerMechanismINS_11PLAINPolicyEE"
#define FACTORY_OF_PLAIN "5mongo17MakeServerFactoryINS_24SASLPlainServerMechanismEE"

// How mongo::StringData's own words look for a short text: one is a small number, the other an
// address.
constexpr uint64_t kLongestName = 64;

}  // namespace

bool Server::isThisProcess() { return dlsym(RTLD_DEFAULT, kSymbols[0].names[0]) != nullptr; }

const char* Server::bind() {
    if (dlsym(RTLD_DEFAULT, kNativeMechanism)) {
        return "it has a mechanism MONGODB-AWS of its own";
    }
    using Check = const char* (Server::*)();
    for (Check check :
         {&Server::findSymbols, &Server::findSlots, &Server::findParameterSlots, &Server::measureStringOrder}) {
        if (const char* problem = (this->*check)()) {
            return problem;
        }
    }
    return nullptr;
}

const char* Server::findSymbols() {
    for (const SymbolRow& row : kSymbols) {
        Found& found = _found[static_cast<size_t>(row.symbol)];
        for (int variant = 0; variant < 3 && row.names[variant] && !found.address; ++variant) {
            found = {dlsym(RTLD_DEFAULT, row.names[variant]), variant};
        }
        if (!found.address && row.need == Need::kAlways) {
            return row.what;
        }
    }
    return nullptr;
}

const char* Server::findSlots() {
    if (!_mechanism.find(kMechanismVtable) || !_factory.find(kFactoryVtable)) {
        return "the virtual functions of the SASL mechanism PLAIN";
    }
    auto& mechanism = _slots.mechanism;
    auto& factory = _slots.factory;
    const SlotRow rows[] = {
        {&mechanism.mechanismName, &_mechanism, Need::kAlways, 2, MECHANISM_OF_PLAIN "13mechanismNameEv"},
        {&mechanism.properties, &_mechanism, Need::kAlways, 3, MECHANISM_OF_PLAIN "10propertiesEv"},
        {&mechanism.securityLevel, &_mechanism, Need::kAlways, 4, MECHANISM_OF_PLAIN "13securityLevelEv"},
        {&mechanism.isInternal, &_mechanism, Need::kAlways, 5, MECHANISM_OF_PLAIN "18isInternalAuthMechEv"},
        // 5.0 and newer
        {&mechanism.appendExtraInfo, &_mechanism, Need::kIfThere, kAnywhere,
         "_ZNK5mongo19ServerMechanismBase15appendExtraInfoEPNS_14BSONObjBuilderE"},
        {&mechanism.step, &_mechanism, Need::kAlways, kAnywhere,
         "_ZN5mongo24SASLPlainServerMechanism8stepImplB5cxx11EPNS_16OperationContextENS_"
         "10StringDataE"},
        {&factory.mechanismName, &_factory, Need::kAlways, 2, "_ZNK" FACTORY_OF_PLAIN "13mechanismNameEv"},
        {&factory.properties, &_factory, Need::kAlways, 3, "_ZNK" FACTORY_OF_PLAIN "10propertiesEv"},
        {&factory.securityLevel, &_factory, Need::kAlways, 4, "_ZNK" FACTORY_OF_PLAIN "13securityLevelEv"},
        {&factory.isInternal, &_factory, Need::kAlways, 5, "_ZNK" FACTORY_OF_PLAIN "18isInternalAuthMechEv"},
        {&factory.canMakeForUser, &_factory, Need::kAlways, 6,
         "_ZNK5mongo18PLAINServerFactory23canMakeMechanismForUserEPKNS_4UserE"},
        {&factory.create, &_factory, Need::kAlways, 7, "_ZN" FACTORY_OF_PLAIN "10createImplE" STRING},
    };
    for (const SlotRow& row : rows) {
        const void* function = dlsym(RTLD_DEFAULT, row.function);
        if (row.expected == kAnywhere) {
            *row.slot = row.vtable->slotOf(function);
        } else {
            // Compared in place: a linker may have folded equal functions, which are then in
            // several slots.
            const bool there = function && row.vtable->slot(static_cast<size_t>(row.expected)) == function;
            *row.slot = there ? row.expected : -1;
        }
        if (*row.slot < 0 && row.need == Need::kAlways) {
            return "the order of the virtual functions of the SASL mechanism PLAIN";
        }
    }
    // Slots that keep the server's function must have that of the base class: one of PLAIN's own would run on an object
    // that is not PLAIN's.
    for (const char* kept : {"_ZNK5mongo19ServerMechanismBase16getPrincipalNameEv",
                             "_ZN5mongo19ServerMechanismBase19isAuthorizedToActAsENS_10StringDataES1_",
                             "_ZN5mongo19ServerMechanismBase10setOptionsENS_7BSONObjE"}) {
        if (!_mechanism.holds(dlsym(RTLD_DEFAULT, kept))) {
            return "the virtual functions that the SASL mechanism PLAIN inherits";
        }
    }
    return nullptr;
}

// The base class of parameters is abstract, and its pure slots are known by their order: the first
// is append, the last setFromString, and set stands between them where it is pure (4.4, 5.0).
const char* Server::findParameterSlots() {
    static constexpr char kDifferent[] = "the virtual functions of server parameters";
    const void* pure = dlsym(RTLD_DEFAULT, "__cxa_pure_virtual");
    if (!pure || !_parameter.find(kParameterVtable)) {
        return kDifferent;
    }
    int pureSlots[3] = {-1, -1, -1};
    int pureCount = 0;
    for (size_t slot = 2; slot < _parameter.slotCount(); ++slot) {
        if (_parameter.slot(slot) == pure) {
            if (pureCount == 3) {
                return kDifferent;
            }
            pureSlots[pureCount++] = static_cast<int>(slot);
        }
    }
    const auto slotOf = [this](const char* name) { return _parameter.slotOf(dlsym(RTLD_DEFAULT, name)); };
    auto& parameter = _slots.parameter;
    parameter.append = pureSlots[0];
    parameter.validate = slotOf("_ZNK5mongo15ServerParameter8validateERKNS_11BSONElementE");
    parameter.set = slotOf("_ZN5mongo15ServerParameter3setERKNS_11BSONElementE");
    // The arguments of append are those of appendSupportingRoundtrip beside it, which has a name to
    // tell them by; 4.4 has only the older ones, and is known by its initializers.
    const int roundtrip = slotOf(
        "_ZN5mongo15ServerParameter25appendSupportingRoundtripEPNS_16OperationContextERNS_"
        "14BSONObjBuilderERK" STRING);
    const bool knownArguments = roundtrip == 3 || (roundtrip < 0 && variant(Symbol::kInitializer) == 1);
    if (parameter.set >= 0 && pureCount == 2) {
        parameter.setFromString = pureSlots[1];
    } else if (parameter.set < 0 && pureCount == 3) {
        parameter.set = pureSlots[1];
        parameter.setFromString = pureSlots[2];
    } else {
        return kDifferent;
    }
    return parameter.append == 2 && knownArguments ? nullptr : kDifferent;
}

// Asks the server for a text that is known and looks in which half its length comes.
const char* Server::measureStringOrder() {
    using MechanismName = StringWords(const void*);
    void* function = _factory.slot(static_cast<size_t>(_slots.factory.mechanismName));
    const void* nothing[2] = {};  // the function returns a constant and does not read its object
    const StringWords words = reinterpret_cast<MechanismName*>(function)(nothing);
    _lengthFirst = words.first <= kLongestName;
    const Text name = text(words);
    constexpr char kPlain[] = "PLAIN";
    if (words.first <= kLongestName && words.second <= kLongestName) {
        return "the form of texts";
    }
    return name.length == sizeof(kPlain) - 1 && memcmp(name.data, kPlain, name.length) == 0 ? nullptr
                                                                                            : "the form of texts";
}

StringWords Server::words(Text text) const {
    const uint64_t data = reinterpret_cast<uint64_t>(text.data);
    return _lengthFirst ? StringWords{text.length, data} : StringWords{data, text.length};
}

Text Server::text(StringWords words) const {
    return _lengthFirst ? Text{reinterpret_cast<const char*>(words.second), words.first}
                        : Text{reinterpret_cast<const char*>(words.first), words.second};
}

Status::Status(ErrorCode code, const std::string& reason) : error(nullptr) {
    const int number = static_cast<int>(code);
    if (server.variant(Symbol::kStatusConstructor) == 0) {
        server.function<void(Status*, int, std::string)>(Symbol::kStatusConstructor)(this, number, reason);
    } else {
        const StringWords words = server.words({reason.data(), reason.size()});
        server.function<void(Status*, int, StringWords)>(Symbol::kStatusConstructor)(this, number, words);
    }
}

}  // namespace psmdb_aws_iam
