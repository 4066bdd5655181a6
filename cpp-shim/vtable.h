// Our vtables: copies of the server's own, with our functions put into the slots we know.
//
// A slot that we do not know keeps the server's function, so that a server with further virtual
// functions works as long as their defaults fit.
#pragma once

#include <cstddef>

namespace psmdb_aws_iam {

// A vtable of the running server, read only.
class ServerVtable {
public:
    // Looks the vtable up by its mangled name and takes its size from the symbol table. False when
    // there is none or its size is not that of 2 to kMostSlots functions.
    bool find(const char* symbol);

    size_t slotCount() const { return _slotCount; }
    // The function in a slot, null when there is none.
    void* slot(size_t index) const { return index < _slotCount ? _words[kHeaderWords + index] : nullptr; }
    // The only slot that holds the function, -1 when there is none or more than one.
    int slotOf(const void* function) const;
    // Whether any slot holds the function.
    bool holds(const void* function) const;

private:
    friend class OurVtable;
    static constexpr size_t kHeaderWords = 2;  // offset to top, type information
    static constexpr size_t kMostSlots = 32;

    void* const* _words = nullptr;
    size_t _slotCount = 0;
};

// A vtable that objects of ours point to. Lives as long as the process.
class OurVtable {
public:
    void copy(const ServerVtable& from);

    template <typename Function>
    void put(int slot, Function* function) {
        putAddress(slot, reinterpret_cast<void*>(function));
    }

    // What the first word of an object has to be.
    const void* address() const { return &_words[ServerVtable::kHeaderWords]; }

private:
    void putAddress(int slot, void* function);

    void* _words[ServerVtable::kHeaderWords + ServerVtable::kMostSlots] = {};
};

}  // namespace psmdb_aws_iam
