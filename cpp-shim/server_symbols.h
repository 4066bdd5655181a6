// What the shim uses of a server: looked up by name, and checked before anything is touched.
#pragma once

#include "server_image.h"
#include "server_types.h"
#include "vtable.h"

namespace psmdb_aws_iam {

// The functions of the server that are called. Each has a row in the table in server_symbols.cpp.
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
    kStatusMaker,
    kAppendElements,
    kSectionConstructor,
    kSectionRegistryOfProcess,
    kSectionRegistryAdd,
    kDoLog,
    kLogOptionsConstructor,
    kCount,
};

// Which of a row's names was found, where that decides how the function is called.
namespace variant {
enum RegistryGet { kOfServiceContext, kOfService };
enum Initializer { kReturnsNothing, kReturnsStatus };
enum ParameterSetAdd { kPointer, kUniquePointer };
enum StatusMaker { kConstructorOfString, kConstructorOfStringData, kMakerOfErrorInfo };
}  // namespace variant

// How the virtual functions of a server parameter take names and values.
enum class ParameterArguments {
    kStringReferences,  // 4.4 to 6.0: const std::string&
    kStringWords,       // 7.0 and newer: mongo::StringData by value, and a tenant at the end
};

// The slots of our own in each vtable; -1 where a server has none.
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

// Is told of every check.
struct CheckReport {
    psmdb_aws_iam_check_report report;
    void* context;
};

class Server {
public:
    // Whether the image is a server at all, known or not. Cheap: three look-ups.
    static bool isServer(const psmdb_aws_iam_image& image);

    // Finds and checks everything. Null when all is there, otherwise the first thing that is missing or different, in
    // words. The report may be null.
    const char* bind(const psmdb_aws_iam_image& image, const CheckReport* report);

    // In the running server only: finds out how it passes texts. Null when it does so in a way that is known.
    const char* measureStringOrder();

    // The function of a symbol. It has been found, unless its row says that a server may lack it.
    template <typename Function>
    Function* function(Symbol symbol) const {
        return reinterpret_cast<Function*>(_found[static_cast<size_t>(symbol)].address);
    }
    bool has(Symbol symbol) const { return _found[static_cast<size_t>(symbol)].address != 0; }
    // Which of a row's names was found, counted from 0.
    int variant(Symbol symbol) const { return _found[static_cast<size_t>(symbol)].variant; }

    // Whether the server has a MONGODB-AWS of its own.
    bool hasNativeMechanism() const { return _hasNativeMechanism; }
    // The form that was found, named after the oldest series of servers that has it, such as "6.0".
    const char* abi() const;
    ParameterArguments parameterArguments() const { return _parameterArguments; }
    const ServerVtable& mechanismVtable() const { return _mechanism; }
    const ServerVtable& factoryVtable() const { return _factory; }
    const ServerVtable& parameterVtable() const { return _parameter; }
    const ServerVtable& sectionVtable() const { return _section; }
    // Whether a serverStatus section can be registered. The plugin works without.
    bool hasSections() const { return _slots.section.appendSection >= 0; }
    const Slots& slots() const { return _slots; }

    // mongo::StringData in the server's own order of registers, and back.
    StringWords words(Text text) const;
    Text text(StringWords words) const;

private:
    class Checks;
    void findSymbols(Checks& checks);
    void findSlots(Checks& checks);
    void findParameterSlots(Checks& checks);
    void findSectionSlots(Checks& checks);

    struct Found {
        uint64_t address;
        int variant;
    };
    Found _found[static_cast<size_t>(Symbol::kCount)] = {};
    ServerVtable _mechanism, _factory, _parameter, _section;
    Slots _slots = {};
    ParameterArguments _parameterArguments = ParameterArguments::kStringReferences;
    bool _hasNativeMechanism = false;
    bool _lengthFirst = false;
};

// The server of this process, bound once by plugin.cpp before anything else of the shim runs.
extern Server server;

}  // namespace psmdb_aws_iam
