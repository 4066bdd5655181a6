// The table of what the plugin binds to in a server, and the checks of it. Work on a new server
// series starts here: see "A new server series" in CONTRIBUTING.md.
#include "server_symbols.h"

#include <initializer_list>

namespace psmdb_aws_iam {

constinit ServerBinding server;

namespace {

#define STRING "NSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"
#define TENANT "ERKN5boost8optionalINS_8TenantIdEEE"

enum class Need { kRequired, kOptional };

// One row per function of the server that the shim calls: what a failed check names, whether the
// plugin works without the function, and its mangled names. A row has several names where the
// arguments differ between series; ServerBinding::signature says which was found. Rows for 4.4 to
// 6.0 were seen in servers, rows for 7.0 and newer were read in headers.
struct SymbolRow {
    Symbol symbol;
    Need need;
    const char* what;
    const char* names[3];
};

constexpr SymbolRow kSymbols[] = {
    {Symbol::kRegistryGet,
     Need::kRequired,
     "the registry of SASL mechanisms",
     {// to 7.0: of the service context
      "_ZN5mongo27SASLServerMechanismRegistry3getEPNS_14ServiceContextE",
      // 8.0 and newer: of each service
      "_ZN5mongo27SASLServerMechanismRegistry3getEPNS_7ServiceE"}},
    {Symbol::kMechanismSupportedByConfig,
     Need::kRequired,
     "the check of authenticationMechanisms",
     {"_ZNK5mongo27SASLServerMechanismRegistry27_mechanismSupportedByConfigENS_10StringDataE"}},
    {Symbol::kConstructorAction,
     Need::kRequired,
     "the registration of constructor actions",
     {// to 7.0: on the service context
      "_ZN5mongo14ServiceContext27ConstructorActionRegistererC1E" STRING
      "St6vectorIS7_SaIS7_EESA_St8functionIFvPS0_EESE_",
      // 8.0 and newer: on each service; an action may run more than once
      "_ZN5mongo31ConstructorActionRegistererTypeINS_7ServiceEEC1E" STRING
      "St6vectorIS8_SaIS8_EESB_St8functionIFvPS1_EESF_"}},
    {Symbol::kInitializer,
     Need::kRequired,
     "the registration of initializers",
     {// 5.0 and newer: the function returns nothing
      "_ZN5mongo27GlobalInitializerRegistererC1E" STRING
      "St8functionIFvPNS_18InitializerContextEEES7_IFvPNS_20DeinitializerContextEEESt6vectorIS6_SaIS6_EESI_",
      // 4.4: it returns a Status
      "_ZN5mongo27GlobalInitializerRegistererC1E" STRING
      "St8functionIFNS_6StatusEPNS_18InitializerContextEEES7_IFS8_PNS_20DeinitializerContextEEESt6vectorIS6_SaIS6_"
      "EESJ_"}},
    {Symbol::kParameterConstructor,
     Need::kRequired,
     "the constructor of server parameters",
     {"_ZN5mongo15ServerParameterC1ENS_10StringDataENS_19ServerParameterTypeE",
      "_ZN5mongo15ServerParameterC2ENS_10StringDataENS_19ServerParameterTypeE"}},
    // 6.0 and newer. Before, the constructor of a parameter adds it to the set, and the numbers of
    // the types differ.
    {Symbol::kParameterSetOfNode,
     Need::kOptional,
     "the set of server parameters (6.0 and newer)",
     {"_ZN5mongo18ServerParameterSet19getNodeParameterSetEv"}},
    {Symbol::kParameterSetOfAll,
     Need::kOptional,
     "the set of server parameters (before 6.0)",
     {"_ZN5mongo18ServerParameterSet9getGlobalEv"}},
    {Symbol::kParameterSetAdd,
     Need::kRequired,
     "the registration of server parameters",
     {// to 7.0: a pointer
      "_ZN5mongo18ServerParameterSet3addEPNS_15ServerParameterE",
      // 8.0 and newer: a std::unique_ptr
      "_ZN5mongo18ServerParameterSet3addESt10unique_ptrINS_15ServerParameterESt14default_deleteIS2_EE"}},
    // To 7.0: the lookup in the std::map of a set.
    {Symbol::kParameterSetFind,
     Need::kOptional,
     "the lookup of server parameters",
     {"_ZNKSt8_Rb_treeI" STRING
      "St4pairIKS5_PN5mongo15ServerParameterEESt10_Select1stISB_ESt4lessIS5_ESaISB_EE4findERS7_"}},
    {Symbol::kParameterSetRemove,
     Need::kOptional,
     "the removal of server parameters",
     {"_ZN5mongo18ServerParameterSet6removeERK" STRING}},
    {Symbol::kStatusConstructor,
     Need::kRequired,
     "the constructor of errors",
     {// 6.0 to 8.0: the reason is a std::string
      "_ZN5mongo6StatusC1ENS_10ErrorCodes5ErrorE" STRING,
      // 4.4 and 5.0: the reason is a StringData
      "_ZN5mongo6StatusC1ENS_10ErrorCodes5ErrorENS_10StringDataE",
      // newer: the constructor is inline and calls this
      "_ZN5mongo6Status16_createErrorInfoENS_10ErrorCodes5ErrorE" STRING "St10shared_ptrIKNS_14ErrorExtraInfoEE"}},
    {Symbol::kAppendElements,
     Need::kRequired,
     "the BSON document builder",
     {// 5.0 and newer
      "_ZN5mongo18BSONObjBuilderBaseINS_14BSONObjBuilderENS_10BufBuilderEE14appendElementsERKNS_7BSONObjE",
      // 4.4, with the same arguments
      "_ZN5mongo14BSONObjBuilder14appendElementsERKNS_7BSONObjE"}},
    // To 7.0: the constructor registers the section. 8.0 and newer: it is inline, and a registry
    // takes ownership of the section.
    {Symbol::kSectionConstructor,
     Need::kOptional,
     "the constructor of serverStatus sections",
     {"_ZN5mongo19ServerStatusSectionC1ERK" STRING, "_ZN5mongo19ServerStatusSectionC2ERK" STRING}},
    {Symbol::kSectionRegistryOfProcess,
     Need::kOptional,
     "the registry of serverStatus sections",
     {"_ZN5mongo27ServerStatusSectionRegistry8instanceEv"}},
    {Symbol::kSectionRegistryAdd,
     Need::kOptional,
     "the registration of serverStatus sections",
     {"_ZN5mongo27ServerStatusSectionRegistry10addSectionESt10unique_ptrINS_19ServerStatusSectionESt14default_"
      "deleteIS2_EE"}},
    {Symbol::kDoLog,
     Need::kOptional,
     "the log function",
     {"_ZN5mongo5logv26detail9doLogImplEiRKNS0_11LogSeverityERKNS0_10LogOptionsENS_10StringDataERKNS0_"
      "26TypeErasedAttributeStorageE"}},
    {Symbol::kLogOptionsConstructor,
     Need::kOptional,
     "the options of log lines",
     {"_ZN5mongo5logv210LogOptionsC1ENS0_12LogComponentE"}},
};

// Whether the table has a row for each symbol, in the order of the enumeration: a symbol indexes
// its row.
constexpr bool rowsAreInOrder() {
    for (size_t row = 0; row < sizeof(kSymbols) / sizeof(kSymbols[0]); ++row) {
        if (static_cast<size_t>(kSymbols[row].symbol) != row) {
            return false;
        }
    }
    return sizeof(kSymbols) / sizeof(kSymbols[0]) == static_cast<size_t>(Symbol::kCount);
}
static_assert(rowsAreInOrder());

// A server that exports this has a built-in MONGODB-AWS, and may have a parameter with the name of
// one of the plugin's.
constexpr char kNativeMechanism[] = "_ZTVN5mongo6awsIam13ServerFactoryE";

// What a pure slot of an abstract class holds.
constexpr char kPureVirtual[] = "__cxa_pure_virtual";

// The vtables that are copied.
constexpr char kMechanismVtable[] = "_ZTVN5mongo24SASLPlainServerMechanismE";
constexpr char kFactoryVtable[] = "_ZTVN5mongo18PLAINServerFactoryE";
constexpr char kParameterVtable[] = "_ZTVN5mongo15ServerParameterE";
constexpr char kSectionVtable[] = "_ZTVN5mongo19ServerStatusSectionE";

// How many virtual functions they have in the known series, from the oldest to the newest.
constexpr size_t kMechanismSizes[] = {10, 11, 15};    // 4.4, 5.0 and 6.0, 7.0 and 8.0
constexpr size_t kMechanismSizeWithRequest = 16;      // 8.2, which has makeUserRequest
constexpr size_t kFactorySizes[] = {8};               // all
constexpr size_t kParameterSizes[] = {5, 6, 10, 13};  // 4.4, 5.0, 6.0 to 8.0, 8.2
constexpr size_t kParameterSizeWithDetails = 11;      // 8.0, if it has appendDetails
constexpr size_t kSectionSizes[] = {6};               // all

template <size_t count>
constexpr bool isOneOf(size_t size, const size_t (&sizes)[count]) {
    for (const size_t known : sizes) {
        if (size == known) {
            return true;
        }
    }
    return false;
}

#define MECHANISM_OF_PLAIN "_ZNK5mongo19MakeServerMechanismINS_11PLAINPolicyEE"
#define FACTORY_OF_PLAIN "5mongo17MakeServerFactoryINS_24SASLPlainServerMechanismEE"
#define MECHANISM_BASE "5mongo19ServerMechanismBase"

// A slot that is found by its function alone.
constexpr int kAnywhere = -1;

// The functions that a slot of the copied mechanism vtable may keep. They come from the base class,
// or return constants; any other function of PLAIN would run on an object that is not PLAIN's.
constexpr struct {
    Need need;
    const char* what;
    const char* function;
} kInheritedFunctions[] = {
    {Need::kRequired, "the inherited function getPrincipalName", "_ZNK" MECHANISM_BASE "16getPrincipalNameEv"},
    {Need::kRequired, "the inherited function isAuthorizedToActAs",
     "_ZN" MECHANISM_BASE "19isAuthorizedToActAsENS_10StringDataES1_"},
    {Need::kRequired, "the inherited function setOptions", "_ZN" MECHANISM_BASE "10setOptionsENS_7BSONObjE"},
    // 7.0 and newer; PLAIN's own return constants, as seen in 7.0.28 for macOS
    {Need::kOptional, "the inherited function getExpirationTime", "_ZNK" MECHANISM_BASE "17getExpirationTimeEv"},
    {Need::kOptional, "the constant function currentStep", "_ZNK5mongo24SASLPlainServerMechanism11currentStepEv"},
    {Need::kOptional, "the constant function totalSteps", "_ZNK5mongo24SASLPlainServerMechanism10totalStepsEv"},
    // 7.0 and 8.0
    {Need::kOptional, "the inherited function getUserRequest", "_ZNK" MECHANISM_BASE "14getUserRequestEv"},
    // 8.2
    {Need::kOptional, "the inherited function isClusterMember", "_ZNK" MECHANISM_BASE "15isClusterMemberEPNS_6ClientE"},
    {Need::kOptional, "the inherited function makeUserRequest",
     "_ZNK" MECHANISM_BASE "15makeUserRequestEPNS_16OperationContextE"},
};

// The longest name that measureStringData expects. A smaller word is a length, a larger one an
// address.
constexpr uint64_t kMaxNameLength = 64;

}  // namespace

// Runs the checks in order and remembers the first that fails.
class ServerBinding::Checks {
public:
    Checks(const psmdb_aws_iam_image& image, const CheckReport* report) : _image(image), _report(report) {}

    const psmdb_aws_iam_image& image() const { return _image; }
    const char* firstProblem() const { return _firstProblem; }

    // The address of a symbol, 0 when the image does not export it.
    uint64_t find(const char* name) const {
        uint64_t address = 0;
        return _image.find_symbol(_image.context, name, &address, nullptr) ? address : 0;
    }

    bool check(const char* what, bool ok, const char* found) {
        if (_report) {
            _report->report(_report->context, what, ok, ok ? found : "");
        }
        if (!ok && !_firstProblem) {
            _firstProblem = what;
        }
        return ok;
    }

private:
    const psmdb_aws_iam_image& _image;
    const CheckReport* _report;
    const char* _firstProblem = nullptr;
};

bool ServerBinding::isServer(const psmdb_aws_iam_image& image) {
    const Checks checks(image, nullptr);
    const auto& names = kSymbols[static_cast<size_t>(Symbol::kRegistryGet)].names;
    return checks.find(names[0]) || checks.find(names[1]) || checks.find(kMechanismVtable);
}

const char* ServerBinding::bind(const psmdb_aws_iam_image& image, const CheckReport* report) {
    Checks checks(image, report);
    _hasNativeMechanism = checks.find(kNativeMechanism) != 0;
    findSymbols(checks);
    findSlots(checks);
    checkInheritedFunctions(checks);
    findParameterSlots(checks);
    findSectionSlots(checks);
    return checks.firstProblem();
}

void ServerBinding::findSymbols(Checks& checks) {
    for (const SymbolRow& row : kSymbols) {
        Found& found = _found[static_cast<size_t>(row.symbol)];
        const char* name = "";
        for (int number = 0; number < 3 && row.names[number] && !found.address; ++number) {
            name = row.names[number];
            found = {checks.find(name), number};
        }
        if (found.address || row.need == Need::kRequired) {
            checks.check(row.what, found.address != 0, name);
        }
    }
#define CHECK_RUNTIME(symbol, function) checks.check(function " of the C++ runtime", checks.find(symbol) != 0, symbol);
    PSMDB_AWS_IAM_CXX_RUNTIME(CHECK_RUNTIME)
#undef CHECK_RUNTIME
    // Pairs that come together in each series; a mixture is no known server.
    const bool perService = signature(Symbol::kRegistryGet) == signature::kOfService;
    checks.check("the owner of the registry and of constructor actions",
                 perService == (signature(Symbol::kConstructorAction) == signature::kOnService), "");
    if (hasNativeMechanism()) {
        checks.check("the replacement of the server's own parameters",
                     has(Symbol::kParameterSetFind) && has(Symbol::kParameterSetRemove), "");
    }
    checks.check("the set of server parameters", has(Symbol::kParameterSetOfNode) || has(Symbol::kParameterSetOfAll),
                 "");
}

void ServerBinding::findSlots(Checks& checks) {
    const bool found = _mechanism.find(checks.image(), kMechanismVtable);
    const bool hasRequest =
        _mechanism.contains(checks.find("_ZNK" MECHANISM_BASE "15makeUserRequestEPNS_16OperationContextE"));
    const bool knownSize = hasRequest ? _mechanism.slotCount() == kMechanismSizeWithRequest
                                      : isOneOf(_mechanism.slotCount(), kMechanismSizes);
    checks.check("the vtable of the SASL mechanism PLAIN", found && knownSize, kMechanismVtable);
    const bool factoryFound =
        _factory.find(checks.image(), kFactoryVtable) && isOneOf(_factory.slotCount(), kFactorySizes);
    checks.check("the vtable of the factory of PLAIN", factoryFound, kFactoryVtable);

    auto& mechanism = _slots.mechanism;
    auto& factory = _slots.factory;
    // One row per slot that the plugin replaces: the server's function in it, and the slot's
    // number.
    const struct {
        int* slot;
        const ServerVtable* vtable;
        Need need;
        const char* what;
        int expected;
        const char* function;
    } rows[] = {
        {&mechanism.mechanismName, &_mechanism, Need::kRequired, "the slot of a mechanism's mechanismName", 2,
         MECHANISM_OF_PLAIN "13mechanismNameEv"},
        {&mechanism.properties, &_mechanism, Need::kRequired, "the slot of a mechanism's properties", 3,
         MECHANISM_OF_PLAIN "10propertiesEv"},
        {&mechanism.securityLevel, &_mechanism, Need::kRequired, "the slot of a mechanism's securityLevel", 4,
         MECHANISM_OF_PLAIN "13securityLevelEv"},
        {&mechanism.isInternal, &_mechanism, Need::kRequired, "the slot of a mechanism's isInternalAuthMech", 5,
         MECHANISM_OF_PLAIN "18isInternalAuthMechEv"},
        // 5.0 and newer
        {&mechanism.appendExtraInfo, &_mechanism, Need::kOptional, "the slot of a mechanism's appendExtraInfo",
         kAnywhere, "_ZNK" MECHANISM_BASE "15appendExtraInfoEPNS_14BSONObjBuilderE"},
        {&mechanism.step, &_mechanism, Need::kRequired, "the slot of a mechanism's stepImpl", kAnywhere,
         "_ZN5mongo24SASLPlainServerMechanism8stepImplB5cxx11EPNS_16OperationContextENS_10StringDataE"},
        {&factory.mechanismName, &_factory, Need::kRequired, "the slot of a factory's mechanismName", 2,
         "_ZNK" FACTORY_OF_PLAIN "13mechanismNameEv"},
        {&factory.properties, &_factory, Need::kRequired, "the slot of a factory's properties", 3,
         "_ZNK" FACTORY_OF_PLAIN "10propertiesEv"},
        {&factory.securityLevel, &_factory, Need::kRequired, "the slot of a factory's securityLevel", 4,
         "_ZNK" FACTORY_OF_PLAIN "13securityLevelEv"},
        {&factory.isInternal, &_factory, Need::kRequired, "the slot of a factory's isInternalAuthMech", 5,
         "_ZNK" FACTORY_OF_PLAIN "18isInternalAuthMechEv"},
        {&factory.canMakeForUser, &_factory, Need::kRequired, "the slot of a factory's canMakeMechanismForUser", 6,
         "_ZNK5mongo18PLAINServerFactory23canMakeMechanismForUserEPKNS_4UserE"},
        {&factory.create, &_factory, Need::kRequired, "the slot of a factory's createImpl", 7,
         "_ZN" FACTORY_OF_PLAIN "10createImplE" STRING},
    };
    for (const auto& row : rows) {
        const uint64_t function = checks.find(row.function);
        if (row.expected == kAnywhere) {
            *row.slot = row.vtable->slotOf(function);
        } else {
            // By number: a linker may have folded equal functions, which are then in several slots.
            const bool there = function && row.vtable->slot(static_cast<size_t>(row.expected)) == function;
            *row.slot = there ? row.expected : -1;
        }
        if (*row.slot >= 0 || row.need == Need::kRequired) {
            checks.check(row.what, *row.slot >= 0, row.function);
        }
    }
}

namespace {

// Whether `isAllowed` holds for each function that stays the server's when the plugin replaces the
// destructors and these slots.
template <typename Predicate>
bool allKept(const ServerVtable& vtable, std::initializer_list<int> replaced, Predicate isAllowed) {
    for (size_t slot = ServerVtable::kDestructorSlots; slot < vtable.slotCount(); ++slot) {
        bool isReplaced = false;
        for (const int other : replaced) {
            isReplaced |= other == static_cast<int>(slot);
        }
        if (!isReplaced && !isAllowed(vtable.slot(slot))) {
            return false;
        }
    }
    return true;
}

}  // namespace

// The mechanism vtable only: a factory keeps no function of the server.
void ServerBinding::checkInheritedFunctions(Checks& checks) {
    constexpr size_t kCount = sizeof(kInheritedFunctions) / sizeof(kInheritedFunctions[0]);
    uint64_t known[kCount] = {};
    for (size_t row = 0; row < kCount; ++row) {
        const auto& [need, what, function] = kInheritedFunctions[row];
        known[row] = checks.find(function);
        const bool there = _mechanism.contains(known[row]);
        if (there || need == Need::kRequired) {
            checks.check(what, there, function);
        }
    }
    const auto isKnown = [&](uint64_t function) {
        bool found = false;
        for (const uint64_t other : known) {
            found |= function && function == other;
        }
        return found;
    };
    const auto& ours = _slots.mechanism;
    const bool onlyKnown = allKept(
        _mechanism,
        {ours.mechanismName, ours.properties, ours.securityLevel, ours.isInternal, ours.appendExtraInfo, ours.step},
        isKnown);
    checks.check("the remaining slots of the mechanism vtable", onlyKnown, kMechanismVtable);
}

// The base class of parameters is abstract. Its pure slots are append, setFromString, and in 4.4
// and 5.0 set between them; every other slot has an implementation that parameters of the server
// use too.
void ServerBinding::findParameterSlots(Checks& checks) {
    const bool found = _parameter.find(checks.image(), kParameterVtable);
    const int details = _parameter.slotOf(
        checks.find("_ZN5mongo15ServerParameter13appendDetailsEPNS_16OperationContextEPNS_14BSONObjBuilder" TENANT));
    const bool knownSize = isOneOf(_parameter.slotCount(), kParameterSizes) ||
                           (details == 3 && _parameter.slotCount() == kParameterSizeWithDetails);
    checks.check("the vtable of server parameters", found && knownSize, kParameterVtable);

    const uint64_t pure = checks.find(kPureVirtual);
    int pureSlots[3] = {-1, -1, -1};
    int pureCount = 0;
    for (size_t slot = ServerVtable::kDestructorSlots; slot < _parameter.slotCount(); ++slot) {
        if (pure && _parameter.slot(slot) == pure) {
            if (pureCount < 3) {
                pureSlots[pureCount] = static_cast<int>(slot);
            }
            ++pureCount;
        }
    }
    const auto slotOf = [&](const char* name) { return _parameter.slotOf(checks.find(name)); };
    auto& parameter = _slots.parameter;
    parameter.append = pureSlots[0];
    parameter.set = slotOf("_ZN5mongo15ServerParameter3setERKNS_11BSONElement" TENANT);
    const char* series = "as in 7.0 and newer";
    bool known = false;
    int behindSet = 2;  // how far behind set setFromString is; from 6.0 on, reset is between them
    if (parameter.set >= 0) {
        _parameterArguments = ParameterArguments::kStringData;
        parameter.validate = slotOf("_ZNK5mongo15ServerParameter8validateERKNS_11BSONElement" TENANT);
        parameter.setFromString = pureSlots[1];
        known = pureCount == 2;
    } else {
        _parameterArguments = ParameterArguments::kStringReferences;
        parameter.validate = slotOf("_ZNK5mongo15ServerParameter8validateERKNS_11BSONElementE");
        parameter.set = slotOf("_ZN5mongo15ServerParameter3setERKNS_11BSONElementE");
        const bool pureSet = parameter.set < 0;
        if (pureSet) {
            parameter.set = pureSlots[1];
            behindSet = 1;
        }
        parameter.setFromString = pureSlots[pureSet ? 2 : 1];
        series = pureSet ? "as in 4.4 and 5.0" : "as in 6.0";
        // append takes the arguments of its neighbour appendSupportingRoundtrip, whose name tells
        // them. 4.4 lacks the neighbour and is known by its initializers.
        const int roundtrip = slotOf(
            "_ZN5mongo15ServerParameter25appendSupportingRoundtripEPNS_16OperationContextERNS_"
            "14BSONObjBuilderERK" STRING);
        const bool knownArguments =
            roundtrip == 3 || (roundtrip < 0 && signature(Symbol::kInitializer) == signature::kReturnsStatus);
        known = pureCount == (pureSet ? 3 : 2) && knownArguments;
    }
    known = known && parameter.append == 2 && parameter.setFromString == parameter.set + behindSet;
    checks.check("the slots of a server parameter's functions", known, series);
    const bool implemented =
        allKept(_parameter, {parameter.append, parameter.validate, parameter.set, parameter.setFromString},
                [&](uint64_t function) { return function && function != pure; });
    checks.check("the remaining slots of the server parameter vtable", implemented, kParameterVtable);
}

// Without a section, logins still work; so a difference here is not a failed check.
void ServerBinding::findSectionSlots(Checks& checks) {
    auto& section = _slots.section;
    section.includeByDefault = section.appendSection = -1;
    const bool registersItself = has(Symbol::kSectionConstructor);
    const bool hasRegistry = has(Symbol::kSectionRegistryOfProcess) && has(Symbol::kSectionRegistryAdd);
    if (!_section.find(checks.image(), kSectionVtable) || registersItself == hasRegistry) {
        return;
    }
    const uint64_t pure = checks.find(kPureVirtual);
    const int append =
        _section.slotOf(checks.find("_ZNK5mongo19ServerStatusSection13appendSectionEPNS_16OperationContextERKNS_"
                                    "11BSONElementEPNS_14BSONObjBuilderE"));
    const bool knownSize = isOneOf(_section.slotCount(), kSectionSizes);
    const bool knownSlots = pure && _section.slot(2) == pure && append == 5;
    const bool implemented =
        allKept(_section, {2, append}, [&](uint64_t function) { return function && function != pure; });
    if (knownSize && knownSlots && implemented) {
        section.includeByDefault = 2;
        section.appendSection = append;
        checks.check("the vtable of serverStatus sections", true, kSectionVtable);
    }
}

// Asks the server for a known text; one of the two registers holds its length.
const char* ServerBinding::measureStringData() {
    using MechanismName = abi::StringDataRegisters(const void*);
    const uint64_t function = _factory.slot(static_cast<size_t>(_slots.factory.mechanismName));
    const void* nothing[2] = {};  // the function returns a constant and does not read its object
    const abi::StringDataRegisters registers = reinterpret_cast<MechanismName*>(function)(nothing);
    _lengthFirst = registers.first <= kMaxNameLength;
    const bool oneLength = _lengthFirst != (registers.second <= kMaxNameLength);
    return oneLength && fromRegisters(registers) == "PLAIN" ? nullptr : "the layout of StringData";
}

const char* ServerBinding::abiSeries() const {
    if (signature(Symbol::kRegistryGet) == signature::kOfService) {
        return _mechanism.slotCount() == kMechanismSizeWithRequest ? "8.2" : "8.0";
    }
    if (_parameterArguments == ParameterArguments::kStringData) {
        return "7.0";
    }
    if (has(Symbol::kParameterSetOfNode)) {
        return "6.0";
    }
    return signature(Symbol::kInitializer) == signature::kReturnsStatus ? "4.4" : "5.0";
}

abi::StringDataRegisters ServerBinding::toRegisters(std::string_view text) const {
    const uint64_t data = reinterpret_cast<uint64_t>(text.data());
    return _lengthFirst ? abi::StringDataRegisters{text.size(), data} : abi::StringDataRegisters{data, text.size()};
}

std::string_view ServerBinding::fromRegisters(abi::StringDataRegisters registers) const {
    return _lengthFirst ? std::string_view(reinterpret_cast<const char*>(registers.second), registers.first)
                        : std::string_view(reinterpret_cast<const char*>(registers.first), registers.second);
}

}  // namespace psmdb_aws_iam

int psmdb_aws_iam_check_image(const psmdb_aws_iam_image* image, psmdb_aws_iam_check_report report, void* report_context,
                              int* is_server_out) {
    using psmdb_aws_iam::ServerBinding;
    *is_server_out = ServerBinding::isServer(*image);
    if (!*is_server_out) {
        return 0;
    }
    const psmdb_aws_iam::CheckReport checks = {report, report_context};
    ServerBinding checked;
    return checked.bind(*image, &checks) == nullptr;
}
