// The table of what the plugin binds to in a server, and the checks of it. For a new series of servers, this is the
// place to begin: see "A new server series" in CONTRIBUTING.md.
#include "server_symbols.h"

#include <string.h>

namespace psmdb_aws_iam {

constinit Server server;

namespace {

#define STRING "NSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"
#define TENANT "ERKN5boost8optionalINS_8TenantIdEEE"

enum class Need { kAlways, kIfThere };

// One row for each function of the server that is called: what it is for, whether the plugin can do without it, and its
// mangled names. Where the names differ, so may the arguments: the comments say between which servers, and
// Server::variant tells which it is. All of it was seen in servers 4.4 to 6.0; what is said of 7.0 and newer was read
// in headers of those series.
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
     {// to 7.0: of the service context
      "_ZN5mongo27SASLServerMechanismRegistry3getEPNS_14ServiceContextE",
      // 8.0 and newer: of each service
      "_ZN5mongo27SASLServerMechanismRegistry3getEPNS_7ServiceE"}},
    {Symbol::kMechanismSupportedByConfig,
     Need::kAlways,
     "the check of authenticationMechanisms",
     {"_ZNK5mongo27SASLServerMechanismRegistry27_mechanismSupportedByConfigENS_10StringDataE"}},
    {Symbol::kConstructorAction,
     Need::kAlways,
     "the registration of actions on the service context",
     {// to 7.0: on the service context
      "_ZN5mongo14ServiceContext27ConstructorActionRegistererC1E" STRING
      "St6vectorIS7_SaIS7_EESA_St8functionIFvPS0_EESE_",
      // 8.0 and newer: on each service, so that an action may run more than once
      "_ZN5mongo31ConstructorActionRegistererTypeINS_7ServiceEEC1E" STRING
      "St6vectorIS8_SaIS8_EESB_St8functionIFvPS1_EESF_"}},
    {Symbol::kInitializer,
     Need::kAlways,
     "the registration of initializers",
     {// 5.0 and newer: the function returns nothing
      "_ZN5mongo27GlobalInitializerRegistererC1E" STRING
      "St8functionIFvPNS_18InitializerContextEEES7_IFvPNS_20DeinitializerContextEEESt6vectorIS6_SaIS6_EESI_",
      // 4.4: it returns a Status
      "_ZN5mongo27GlobalInitializerRegistererC1E" STRING
      "St8functionIFNS_6StatusEPNS_18InitializerContextEEES7_IFS8_PNS_20DeinitializerContextEEESt6vectorIS6_SaIS6_"
      "EESJ_"}},
    {Symbol::kParameterConstructor,
     Need::kAlways,
     "the constructor of server parameters",
     {"_ZN5mongo15ServerParameterC1ENS_10StringDataENS_19ServerParameterTypeE",
      "_ZN5mongo15ServerParameterC2ENS_10StringDataENS_19ServerParameterTypeE"}},
    // 6.0 and newer; before, the constructor of a parameter adds it to the set, and the numbers of the types differ.
    {Symbol::kParameterSetOfNode,
     Need::kIfThere,
     "the set of server parameters, 6.0 and newer",
     {"_ZN5mongo18ServerParameterSet19getNodeParameterSetEv"}},
    {Symbol::kParameterSetOfAll,
     Need::kIfThere,
     "the set of server parameters, before 6.0",
     {"_ZN5mongo18ServerParameterSet9getGlobalEv"}},
    {Symbol::kParameterSetAdd,
     Need::kAlways,
     "the addition of server parameters",
     {// to 7.0: a pointer
      "_ZN5mongo18ServerParameterSet3addEPNS_15ServerParameterE",
      // 8.0 and newer: a std::unique_ptr
      "_ZN5mongo18ServerParameterSet3addESt10unique_ptrINS_15ServerParameterESt14default_deleteIS2_EE"}},
    // The look-up of the std::map that a set holds, to 7.0.
    {Symbol::kParameterSetFind,
     Need::kIfThere,
     "the look-up of server parameters",
     {"_ZNKSt8_Rb_treeI" STRING
      "St4pairIKS5_PN5mongo15ServerParameterEESt10_Select1stISB_ESt4lessIS5_ESaISB_EE4findERS7_"}},
    {Symbol::kParameterSetRemove,
     Need::kIfThere,
     "the removal of server parameters",
     {"_ZN5mongo18ServerParameterSet6removeERK" STRING}},
    {Symbol::kStatusMaker,
     Need::kAlways,
     "the maker of errors",
     {// 6.0 to 8.0: a constructor; the reason is a std::string
      "_ZN5mongo6StatusC1ENS_10ErrorCodes5ErrorE" STRING,
      // 4.4 and 5.0: it is a StringData
      "_ZN5mongo6StatusC1ENS_10ErrorCodes5ErrorENS_10StringDataE",
      // newer: the constructor is inline, over this
      "_ZN5mongo6Status16_createErrorInfoENS_10ErrorCodes5ErrorE" STRING "St10shared_ptrIKNS_14ErrorExtraInfoEE"}},
    {Symbol::kAppendElements,
     Need::kAlways,
     "the builder of BSON documents",
     {// 5.0 and newer
      "_ZN5mongo18BSONObjBuilderBaseINS_14BSONObjBuilderENS_10BufBuilderEE14appendElementsERKNS_7BSONObjE",
      // 4.4, with the same arguments
      "_ZN5mongo14BSONObjBuilder14appendElementsERKNS_7BSONObjE"}},
    // To 7.0: the constructor registers the section. 8.0 and newer: it is inline, and a registry takes the section
    // over.
    {Symbol::kSectionConstructor,
     Need::kIfThere,
     "the constructor of serverStatus sections",
     {"_ZN5mongo19ServerStatusSectionC1ERK" STRING, "_ZN5mongo19ServerStatusSectionC2ERK" STRING}},
    {Symbol::kSectionRegistryOfProcess,
     Need::kIfThere,
     "the registry of serverStatus sections",
     {"_ZN5mongo27ServerStatusSectionRegistry8instanceEv"}},
    {Symbol::kSectionRegistryAdd,
     Need::kIfThere,
     "the addition of serverStatus sections",
     {"_ZN5mongo27ServerStatusSectionRegistry10addSectionESt10unique_ptrINS_19ServerStatusSectionESt14default_"
      "deleteIS2_EE"}},
    {Symbol::kDoLog,
     Need::kIfThere,
     "the log",
     {"_ZN5mongo5logv26detail9doLogImplEiRKNS0_11LogSeverityERKNS0_10LogOptionsENS_10StringDataERKNS0_"
      "26TypeErasedAttributeStorageE"}},
    {Symbol::kLogOptionsConstructor,
     Need::kIfThere,
     "the options of a log line",
     {"_ZN5mongo5logv210LogOptionsC1ENS0_12LogComponentE"}},
};

// Whether row N is that of symbol N, so that a symbol's number finds its row.
constexpr bool rowsAreInOrder() {
    for (size_t row = 0; row < sizeof(kSymbols) / sizeof(kSymbols[0]); ++row) {
        if (static_cast<size_t>(kSymbols[row].symbol) != row) {
            return false;
        }
    }
    return sizeof(kSymbols) / sizeof(kSymbols[0]) == static_cast<size_t>(Symbol::kCount);
}
static_assert(rowsAreInOrder());

// A server that exports this has a MONGODB-AWS of its own, and may have a parameter of the name of one of ours.
constexpr char kNativeMechanism[] = "_ZTVN5mongo6awsIam13ServerFactoryE";

// What the shim needs of the C++ runtime, which it shares with the server: see server_types.h.
constexpr const char* kRuntime[] = {
    "_Znwm",                          // operator new(size_t)
    "_ZdlPv",                         // operator delete(void*)
    "_ZdlPvm",                        // operator delete(void*, size_t)
    "_ZSt17__throw_bad_allocv",       // std::__throw_bad_alloc()
    "_ZSt19__throw_logic_errorPKc",   // std::__throw_logic_error(char const*)
    "_ZSt20__throw_length_errorPKc",  // std::__throw_length_error(char const*)
};

// The vtables that are copied.
constexpr char kMechanismVtable[] = "_ZTVN5mongo24SASLPlainServerMechanismE";
constexpr char kFactoryVtable[] = "_ZTVN5mongo18PLAINServerFactoryE";
constexpr char kParameterVtable[] = "_ZTVN5mongo15ServerParameterE";
constexpr char kSectionVtable[] = "_ZTVN5mongo19ServerStatusSectionE";

// How many virtual functions they have in the servers that are known, from the oldest to the newest. A function more is
// one that nobody has looked at: of PLAIN's own it would run on objects that are not PLAIN's.
constexpr size_t kMechanismSizes[] = {10, 11, 15};    // 4.4, 5.0 and 6.0, 7.0 and 8.0
constexpr size_t kMechanismSizeWithRequest = 16;      // 8.2, which has makeUserRequest
constexpr size_t kFactorySizes[] = {8};               // all
constexpr size_t kParameterSizes[] = {5, 6, 10, 13};  // 4.4, 5.0, 6.0 to 8.0, 8.2
constexpr size_t kParameterSizeWithDetails = 11;      // 8.0, if it has appendDetails

constexpr size_t kSectionSizes[] = {6};  // all

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

// A slot that is known by its function only.
constexpr int kAnywhere = -1;

// How mongo::StringData's own words look for a short text: one is a small number, the other an address.
constexpr uint64_t kLongestName = 64;

}  // namespace

// Runs the checks one after the other and remembers the first that fails.
class Server::Checks {
public:
    Checks(const psmdb_aws_iam_image& image, const CheckReport* report) : _image(image), _report(report) {}

    const psmdb_aws_iam_image& image() const { return _image; }
    const char* firstProblem() const { return _firstProblem; }

    // The address of a symbol, 0 when it is not there.
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

bool Server::isServer(const psmdb_aws_iam_image& image) {
    const Checks checks(image, nullptr);
    const auto& names = kSymbols[static_cast<size_t>(Symbol::kRegistryGet)].names;
    return checks.find(names[0]) || checks.find(names[1]) || checks.find(kMechanismVtable);
}

const char* Server::bind(const psmdb_aws_iam_image& image, const CheckReport* report) {
    Checks checks(image, report);
    _hasNativeMechanism = checks.find(kNativeMechanism) != 0;
    findSymbols(checks);
    findSlots(checks);
    findParameterSlots(checks);
    findSectionSlots(checks);
    return checks.firstProblem();
}

void Server::findSymbols(Checks& checks) {
    for (const SymbolRow& row : kSymbols) {
        Found& found = _found[static_cast<size_t>(row.symbol)];
        const char* by = "";
        for (int number = 0; number < 3 && row.names[number] && !found.address; ++number) {
            by = row.names[number];
            found = {checks.find(by), number};
        }
        if (found.address || row.need == Need::kAlways) {
            checks.check(row.what, found.address != 0, by);
        }
    }
    for (const char* name : kRuntime) {
        checks.check("the C++ runtime", checks.find(name) != 0, name);
    }
    // The pairs that one series has and another has not; a mixture is none that is known.
    const bool perService = variant(Symbol::kRegistryGet) == variant::kOfService;
    checks.check("the registry and its actions belong together",
                 perService == (variant(Symbol::kConstructorAction) == 1), "");
    if (hasNativeMechanism()) {
        checks.check("the replacement of a server parameter of its own",
                     has(Symbol::kParameterSetFind) && has(Symbol::kParameterSetRemove), "");
    }
    checks.check("one set of server parameters", has(Symbol::kParameterSetOfNode) || has(Symbol::kParameterSetOfAll),
                 "");
}

void Server::findSlots(Checks& checks) {
    const bool found = _mechanism.find(checks.image(), kMechanismVtable);
    const bool hasRequest =
        _mechanism.holds(checks.find("_ZNK5mongo19ServerMechanismBase15makeUserRequestEPNS_16OperationContextE"));
    const bool knownSize = hasRequest ? _mechanism.slotCount() == kMechanismSizeWithRequest
                                      : isOneOf(_mechanism.slotCount(), kMechanismSizes);
    checks.check("the virtual functions of the SASL mechanism PLAIN", found && knownSize, kMechanismVtable);
    const bool factoryFound =
        _factory.find(checks.image(), kFactoryVtable) && isOneOf(_factory.slotCount(), kFactorySizes);
    checks.check("the virtual functions of the factory of PLAIN", factoryFound, kFactoryVtable);

    auto& mechanism = _slots.mechanism;
    auto& factory = _slots.factory;
    // One row for each slot of ours: the function of the server's that has to be in it, and where.
    const struct {
        int* slot;
        const ServerVtable* vtable;
        Need need;
        const char* what;
        int expected;
        const char* function;
    } rows[] = {
        {&mechanism.mechanismName, &_mechanism, Need::kAlways, "the place of a mechanism's name", 2,
         MECHANISM_OF_PLAIN "13mechanismNameEv"},
        {&mechanism.properties, &_mechanism, Need::kAlways, "the place of a mechanism's properties", 3,
         MECHANISM_OF_PLAIN "10propertiesEv"},
        {&mechanism.securityLevel, &_mechanism, Need::kAlways, "the place of a mechanism's security level", 4,
         MECHANISM_OF_PLAIN "13securityLevelEv"},
        {&mechanism.isInternal, &_mechanism, Need::kAlways, "the place of a mechanism's being internal", 5,
         MECHANISM_OF_PLAIN "18isInternalAuthMechEv"},
        // 5.0 and newer
        {&mechanism.appendExtraInfo, &_mechanism, Need::kIfThere, "the place of a mechanism's information for the log",
         kAnywhere, "_ZNK5mongo19ServerMechanismBase15appendExtraInfoEPNS_14BSONObjBuilderE"},
        {&mechanism.step, &_mechanism, Need::kAlways, "the place of a mechanism's step", kAnywhere,
         "_ZN5mongo24SASLPlainServerMechanism8stepImplB5cxx11EPNS_16OperationContextENS_10StringDataE"},
        {&factory.mechanismName, &_factory, Need::kAlways, "the place of a factory's name", 2,
         "_ZNK" FACTORY_OF_PLAIN "13mechanismNameEv"},
        {&factory.properties, &_factory, Need::kAlways, "the place of a factory's properties", 3,
         "_ZNK" FACTORY_OF_PLAIN "10propertiesEv"},
        {&factory.securityLevel, &_factory, Need::kAlways, "the place of a factory's security level", 4,
         "_ZNK" FACTORY_OF_PLAIN "13securityLevelEv"},
        {&factory.isInternal, &_factory, Need::kAlways, "the place of a factory's being internal", 5,
         "_ZNK" FACTORY_OF_PLAIN "18isInternalAuthMechEv"},
        {&factory.canMakeForUser, &_factory, Need::kAlways, "the place of a factory's choice of users", 6,
         "_ZNK5mongo18PLAINServerFactory23canMakeMechanismForUserEPKNS_4UserE"},
        {&factory.create, &_factory, Need::kAlways, "the place of a factory's making of mechanisms", 7,
         "_ZN" FACTORY_OF_PLAIN "10createImplE" STRING},
    };
    for (const auto& row : rows) {
        const uint64_t function = checks.find(row.function);
        if (row.expected == kAnywhere) {
            *row.slot = row.vtable->slotOf(function);
        } else {
            // Compared in place: a linker may have folded equal functions, which are then in several slots.
            const bool there = function && row.vtable->slot(static_cast<size_t>(row.expected)) == function;
            *row.slot = there ? row.expected : -1;
        }
        if (*row.slot >= 0 || row.need == Need::kAlways) {
            checks.check(row.what, *row.slot >= 0, row.function);
        }
    }
    // Slots that keep the server's function must have that of the base class: one of PLAIN's own would run on an object
    // that is not PLAIN's.
    const struct {
        const char* what;
        const char* function;
    } kept[] = {
        {"the name of a mechanism's principal, inherited", "_ZNK5mongo19ServerMechanismBase16getPrincipalNameEv"},
        {"who may act as whom, inherited", "_ZN5mongo19ServerMechanismBase19isAuthorizedToActAsENS_10StringDataES1_"},
        {"the options of a mechanism, inherited", "_ZN5mongo19ServerMechanismBase10setOptionsENS_7BSONObjE"},
    };
    for (const auto& row : kept) {
        checks.check(row.what, _mechanism.holds(checks.find(row.function)), row.function);
    }
}

// The base class of parameters is abstract, and its pure slots are known by their order: the first is append, the last
// setFromString, and set stands between them where it is pure (4.4, 5.0).
void Server::findParameterSlots(Checks& checks) {
    const bool found = _parameter.find(checks.image(), kParameterVtable);
    const int details = _parameter.slotOf(
        checks.find("_ZN5mongo15ServerParameter13appendDetailsEPNS_16OperationContextEPNS_14BSONObjBuilder" TENANT));
    const bool knownSize = isOneOf(_parameter.slotCount(), kParameterSizes) ||
                           (details == 3 && _parameter.slotCount() == kParameterSizeWithDetails);
    checks.check("the virtual functions of server parameters", found && knownSize, kParameterVtable);

    const uint64_t pure = checks.find("__cxa_pure_virtual");
    int pureSlots[3] = {-1, -1, -1};
    int pureCount = 0;
    for (size_t slot = 2; slot < _parameter.slotCount(); ++slot) {
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
    // 7.0 and newer, by the function that every parameter has and none is without.
    parameter.set = slotOf("_ZN5mongo15ServerParameter3setERKNS_11BSONElement" TENANT);
    if (parameter.set >= 0) {
        _parameterArguments = ParameterArguments::kStringWords;
        parameter.validate = slotOf("_ZNK5mongo15ServerParameter8validateERKNS_11BSONElement" TENANT);
        parameter.setFromString = pureSlots[1];
        checks.check("the places of a server parameter's functions", pureCount == 2 && parameter.append == 2,
                     "as in 7.0 and newer");
        return;
    }
    _parameterArguments = ParameterArguments::kStringReferences;
    parameter.validate = slotOf("_ZNK5mongo15ServerParameter8validateERKNS_11BSONElementE");
    parameter.set = slotOf("_ZN5mongo15ServerParameter3setERKNS_11BSONElementE");
    const bool pureSet = parameter.set < 0;
    if (pureSet) {
        parameter.set = pureSlots[1];
    }
    parameter.setFromString = pureSlots[pureSet ? 2 : 1];
    // The arguments of append are those of appendSupportingRoundtrip beside it, which has a name to tell them by; 4.4
    // has only the older ones, and is known by its initializers.
    const int roundtrip = slotOf(
        "_ZN5mongo15ServerParameter25appendSupportingRoundtripEPNS_16OperationContextERNS_14BSONObjBuilderERK" STRING);
    const bool knownArguments =
        roundtrip == 3 || (roundtrip < 0 && variant(Symbol::kInitializer) == variant::kReturnsStatus);
    checks.check("the places of a server parameter's functions",
                 pureCount == (pureSet ? 3 : 2) && parameter.append == 2 && knownArguments,
                 pureSet ? "as in 4.4 and 5.0" : "as in 6.0");
}

// Where anything is missing there is no section, and logins work all the same.
void Server::findSectionSlots(Checks& checks) {
    auto& section = _slots.section;
    section.includeByDefault = section.appendSection = -1;
    const bool registersItself = has(Symbol::kSectionConstructor);
    const bool isTakenOver = has(Symbol::kSectionRegistryOfProcess) && has(Symbol::kSectionRegistryAdd);
    if (!_section.find(checks.image(), kSectionVtable) || registersItself == isTakenOver) {
        return;
    }
    const uint64_t pure = checks.find("__cxa_pure_virtual");
    const int append =
        _section.slotOf(checks.find("_ZNK5mongo19ServerStatusSection13appendSectionEPNS_16OperationContextERKNS_"
                                    "11BSONElementEPNS_14BSONObjBuilderE"));
    // One pure function, which is ours to give; another would end the server when it is called.
    const bool knownSize = isOneOf(_section.slotCount(), kSectionSizes);
    if (knownSize && pure && _section.slotOf(pure) == 2 && append == 5) {
        section.includeByDefault = 2;
        section.appendSection = append;
        checks.check("the virtual functions of serverStatus sections", true, kSectionVtable);
    }
}

// Asks the server for a text that is known and looks in which half its length comes.
const char* Server::measureStringOrder() {
    using MechanismName = StringWords(const void*);
    constexpr char kPlain[] = "PLAIN";
    const uint64_t function = _factory.slot(static_cast<size_t>(_slots.factory.mechanismName));
    const void* nothing[2] = {};  // the function returns a constant and does not read its object
    const StringWords words = reinterpret_cast<MechanismName*>(function)(nothing);
    // One half is a small number and the other an address, or it is not such a text.
    const bool oneLength = (words.first <= kLongestName) != (words.second <= kLongestName);
    _lengthFirst = words.first <= kLongestName;
    const Text name = text(words);
    const bool known = oneLength && name.length == sizeof(kPlain) - 1 && memcmp(name.data, kPlain, name.length) == 0;
    return known ? nullptr : "the form of texts";
}

const char* Server::abi() const {
    if (variant(Symbol::kRegistryGet) == variant::kOfService) {
        return _mechanism.slotCount() == kMechanismSizeWithRequest ? "8.2" : "8.0";
    }
    if (_parameterArguments == ParameterArguments::kStringWords) {
        return "7.0";
    }
    if (has(Symbol::kParameterSetOfNode)) {
        return "6.0";
    }
    return variant(Symbol::kInitializer) == variant::kReturnsStatus ? "4.4" : "5.0";
}

StringWords Server::words(Text text) const {
    const uint64_t data = reinterpret_cast<uint64_t>(text.data);
    return _lengthFirst ? StringWords{text.length, data} : StringWords{data, text.length};
}

Text Server::text(StringWords words) const {
    return _lengthFirst ? Text{reinterpret_cast<const char*>(words.second), words.first}
                        : Text{reinterpret_cast<const char*>(words.first), words.second};
}

}  // namespace psmdb_aws_iam

int psmdb_aws_iam_check_image(const psmdb_aws_iam_image* image, psmdb_aws_iam_check_report report, void* report_context,
                              int* is_server_out) {
    using psmdb_aws_iam::Server;
    *is_server_out = Server::isServer(*image);
    if (!*is_server_out) {
        return 0;
    }
    const psmdb_aws_iam::CheckReport checks = {report, report_context};
    Server checked;
    return checked.bind(*image, &checks) == nullptr;
}
