#include "vtable.h"

#include <dlfcn.h>
#include <link.h>

namespace psmdb_aws_iam {

bool ServerVtable::find(const char* symbol) {
    void* address = dlsym(RTLD_DEFAULT, symbol);
    Dl_info where;
    const ElfW(Sym)* entry = nullptr;
    if (!address ||
        !dladdr1(address, &where, reinterpret_cast<void**>(const_cast<ElfW(Sym)**>(&entry)), RTLD_DL_SYMENT) ||
        !entry || entry->st_size % sizeof(void*) != 0) {
        return false;
    }
    const size_t words = entry->st_size / sizeof(void*);
    if (words < kHeaderWords + 2 || words > kHeaderWords + kMostSlots) {
        return false;
    }
    _words = static_cast<void* const*>(address);
    _slotCount = words - kHeaderWords;
    return true;
}

int ServerVtable::slotOf(const void* function) const {
    int found = -1;
    for (size_t index = 0; function && index < _slotCount; ++index) {
        if (slot(index) == function) {
            if (found >= 0) {
                return -1;
            }
            found = static_cast<int>(index);
        }
    }
    return found;
}

bool ServerVtable::holds(const void* function) const {
    for (size_t index = 0; function && index < _slotCount; ++index) {
        if (slot(index) == function) {
            return true;
        }
    }
    return false;
}

void OurVtable::copy(const ServerVtable& from) {
    for (size_t word = 0; word < ServerVtable::kHeaderWords + from._slotCount; ++word) {
        _words[word] = from._words[word];
    }
}

void OurVtable::putAddress(int slot, void* function) {
    if (slot >= 0 && static_cast<size_t>(slot) < ServerVtable::kMostSlots) {
        _words[ServerVtable::kHeaderWords + static_cast<size_t>(slot)] = function;
    }
}

}  // namespace psmdb_aws_iam
