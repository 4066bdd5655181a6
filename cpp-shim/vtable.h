// The plugin's vtables: copies of the server's, with the plugin's functions in some slots.
//
// The other slots keep the server's functions; server_symbols.cpp checks each of them.
#pragma once

#include <stddef.h>

#include "server_image.h"

namespace psmdb_aws_iam {

// A vtable of the server, read only.
class ServerVtable {
public:
    // The destructors come first in every vtable.
    static constexpr size_t kDestructorSlots = 2;

    // Finds the vtable by its mangled name; its size is that of the symbol. False when there is
    // none or its size is not that of 2 to kMaxSlots functions.
    bool find(const psmdb_aws_iam_image& image, const char* symbol);

    size_t slotCount() const { return _slotCount; }
    // The address of the function in a slot, 0 when there is none.
    uint64_t slot(size_t index) const { return index < _slotCount ? _words[kHeaderWords + index] : 0; }
    // The only slot that holds the function, -1 when there is none or more than one.
    int slotOf(uint64_t function) const;
    // Whether any slot holds the function.
    bool contains(uint64_t function) const;

private:
    friend class PluginVtable;
    static constexpr size_t kHeaderWords = 2;  // offset to top, type information
    static constexpr size_t kMaxSlots = 32;

    uint64_t _words[kHeaderWords + kMaxSlots] = {};
    size_t _slotCount = 0;
};

// A vtable that objects of the plugin point to. Lives as long as the process.
class PluginVtable {
public:
    void copyFrom(const ServerVtable& vtable);

    // A negative slot is one that this server lacks; nothing is replaced then.
    template <typename Function>
    void replace(int slot, Function* function) {
        replaceAddress(slot, reinterpret_cast<uint64_t>(function));
    }

    // The first word of an object with this vtable.
    const void* address() const { return &_words[ServerVtable::kHeaderWords]; }

private:
    void replaceAddress(int slot, uint64_t function);

    uint64_t _words[ServerVtable::kHeaderWords + ServerVtable::kMaxSlots] = {};
};

}  // namespace psmdb_aws_iam
