// What the shim uses of the running server: looked up by name, and checked before anything is
// touched.
#pragma once

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
    kParameterSetAdd,
    kStatusConstructor,
    kAppendElements,
    kDoLog,
    kLogOptionsConstructor,
    kCount,
};

// The slots of our own in each vtable; -1 where this server has none.
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
};

class Server {
public:
    // Whether this process is a server at all, known or not. Cheap: one look-up.
    static bool isThisProcess();

    // Finds and checks everything. Null when all is there, otherwise what is missing or different,
    // in words.
    const char* bind();

    // The function of a symbol. It has been found, unless its row says that a server may lack it.
    template <typename Function>
    Function* function(Symbol symbol) const {
        return reinterpret_cast<Function*>(_found[static_cast<size_t>(symbol)].address);
    }
    bool has(Symbol symbol) const { return _found[static_cast<size_t>(symbol)].address != nullptr; }
    // Which of a row's alternatives was found, counted from 0.
    int variant(Symbol symbol) const { return _found[static_cast<size_t>(symbol)].variant; }

    const ServerVtable& mechanismVtable() const { return _mechanism; }
    const ServerVtable& factoryVtable() const { return _factory; }
    const ServerVtable& parameterVtable() const { return _parameter; }
    const Slots& slots() const { return _slots; }

    // mongo::StringData in the server's own order of registers, and back.
    StringWords words(Text text) const;
    Text text(StringWords words) const;

private:
    const char* findSymbols();
    const char* findSlots();
    const char* findParameterSlots();
    const char* measureStringOrder();

    struct Found {
        void* address;
        int variant;
    };
    Found _found[static_cast<size_t>(Symbol::kCount)] = {};
    ServerVtable _mechanism, _factory, _parameter;
    Slots _slots = {};
    bool _lengthFirst = false;
};

// The server of this process, bound once by plugin.cpp before anything else of the shim runs.
extern Server server;

}  // namespace psmdb_aws_iam
