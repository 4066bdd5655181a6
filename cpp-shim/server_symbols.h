// What the shim uses of a server: found by name, and checked before anything is registered.
#pragma once

#include <string_view>

#include "server_image.h"
#include "server_types.h"
#include "vtable.h"

namespace psmdb_aws_iam {

// The functions of the server that the shim calls. Each has a row in the table in
// server_symbols.cpp.
enum class Symbol {
    kRegistryGet,
    kMechanismSupportedByConfig,
    kConstructorAction,
    kInitializer,
    kParameterConstructor,
    kParameterSetOfNode,
    kParameterSetOfAll,
    kParameterSetAdd,
    kParameterSetFind,
    kParameterSetRemove,
    kStatusConstructor,
    kAppendElements,
    kSectionConstructor,
    kSectionRegistryOfProcess,
    kSectionRegistryAdd,
    kDoLog,
    kLogOptionsConstructor,
    kCount,
};

// Which of a row's names was found, where the name decides how the function is called.
namespace signature {
enum RegistryGet { kOfServiceContext, kOfService };
enum ConstructorAction { kOnServiceContext, kOnService };
enum Initializer { kReturnsNothing, kReturnsStatus };
enum ParameterSetAdd { kPointer, kUniquePointer };
enum StatusConstructor { kString, kStringData, kErrorInfo };
}  // namespace signature

// How the virtual functions of a server parameter take names and values.
enum class ParameterArguments {
    kStringReferences,  // 4.4 to 6.0: const std::string&
    kStringData,        // 7.0 and newer: mongo::StringData by value, and a tenant at the end
};

// The slots of each vtable that the plugin replaces; -1 where a server has none.
struct Slots {
    struct {
        int mechanismName, properties, securityLevel, isInternal, appendExtraInfo, step;
    } mechanism;
    struct {
        int mechanismName, properties, securityLevel, isInternal, canMakeForUser, create;
    } factory;
    struct {
        int append, validate, set, setFromString;
    } parameter;
    struct {
        int includeByDefault, appendSection;
    } section;
};

// Receives the result of every check.
struct CheckReport {
    psmdb_aws_iam_check_report report;
    void* context;
};

// What was found in one server.
class ServerBinding {
public:
    // Whether the image is a server at all, known or not. Cheap: three lookups.
    static bool isServer(const psmdb_aws_iam_image& image);

    // Finds and checks everything. Null on success, otherwise a noun phrase that names the first
    // thing that is missing or different. The report may be null.
    const char* bind(const psmdb_aws_iam_image& image, const CheckReport* report);

    // In the running server only: measures how it passes StringData. Null when the form is known.
    const char* measureStringData();

    // The function of a symbol, null only if its row is optional.
    template <typename Function>
    Function* function(Symbol symbol) const {
        return reinterpret_cast<Function*>(_found[static_cast<size_t>(symbol)].address);
    }
    bool has(Symbol symbol) const { return _found[static_cast<size_t>(symbol)].address != 0; }
    // Which of a row's names was found, counted from 0: a value of the namespace `signature`.
    int signature(Symbol symbol) const { return _found[static_cast<size_t>(symbol)].signature; }

    // Whether the server has a built-in MONGODB-AWS.
    bool hasNativeMechanism() const { return _hasNativeMechanism; }
    // The oldest series of servers with the ABI that was found, such as "6.0".
    const char* abiSeries() const;
    ParameterArguments parameterArguments() const { return _parameterArguments; }
    const ServerVtable& mechanismVtable() const { return _mechanism; }
    const ServerVtable& factoryVtable() const { return _factory; }
    const ServerVtable& parameterVtable() const { return _parameter; }
    const ServerVtable& sectionVtable() const { return _section; }
    // Whether a serverStatus section can be registered. Logins do not depend on it.
    bool hasSections() const { return _slots.section.appendSection >= 0; }
    const Slots& slots() const { return _slots; }

    // Between text and mongo::StringData in the server's order of registers.
    abi::StringDataRegisters toRegisters(std::string_view text) const;
    std::string_view fromRegisters(abi::StringDataRegisters registers) const;

private:
    class Checks;
    void findSymbols(Checks& checks);
    void findSlots(Checks& checks);
    void checkInheritedFunctions(Checks& checks);
    void findParameterSlots(Checks& checks);
    void findSectionSlots(Checks& checks);

    struct Found {
        uint64_t address;
        int signature;
    };
    Found _found[static_cast<size_t>(Symbol::kCount)] = {};
    ServerVtable _mechanism, _factory, _parameter, _section;
    Slots _slots = {};
    ParameterArguments _parameterArguments = ParameterArguments::kStringReferences;
    bool _hasNativeMechanism = false;
    bool _lengthFirst = false;
};

// The server of this process, bound once by plugin.cpp before the rest of the shim runs.
extern ServerBinding server;

}  // namespace psmdb_aws_iam
