// Our vtables: copies of the server's own, with our functions put into the slots we know.
//
// A slot that we do not know keeps the server's function, so that a server with further virtual functions works as
// long as their defaults fit.
#pragma once

#include <stddef.h>

#include "server_image.h"

namespace psmdb_aws_iam {

// A vtable of a server, read only.
class ServerVtable {
public:
    // Looks the vtable up by its mangled name and takes its size from the symbol table. False when there is none or
    // its size is not that of 2 to kMostSlots functions.
    bool find(const psmdb_aws_iam_image& image, const char* symbol);

    size_t slotCount() const { return _slotCount; }
    // The address of the function in a slot, 0 when there is none.
    uint64_t slot(size_t index) const { return index < _slotCount ? _words[kHeaderWords + index] : 0; }
    // The only slot that holds the function, -1 when there is none or more than one.
    int slotOf(uint64_t function) const;
    // Whether any slot holds the function.
    bool holds(uint64_t function) const;

private:
    friend class OurVtable;
    static constexpr size_t kHeaderWords = 2;  // offset to top, type information
    static constexpr size_t kMostSlots = 32;

    uint64_t _words[kHeaderWords + kMostSlots] = {};
    size_t _slotCount = 0;
};

// A vtable that objects of ours point to. Lives as long as the process.
class OurVtable {
public:
    void copy(const ServerVtable& from);

    template <typename Function>
    void put(int slot, Function* function) {
        putAddress(slot, reinterpret_cast<uint64_t>(function));
    }

    // What the first word of an object has to be.
    const void* address() const { return &_words[ServerVtable::kHeaderWords]; }

private:
    void putAddress(int slot, uint64_t function);

    uint64_t _words[ServerVtable::kHeaderWords + ServerVtable::kMostSlots] = {};
};

}  // namespace psmdb_aws_iam
