#include "vtable.h"

namespace psmdb_aws_iam {

bool ServerVtable::find(const psmdb_aws_iam_image& image, const char* symbol) {
    uint64_t address = 0;
    uint64_t size = 0;
    if (!image.find_symbol(image.context, symbol, &address, &size) || size % sizeof(uint64_t) != 0) {
        return false;
    }
    const uint64_t words = size / sizeof(uint64_t);
    if (words < kHeaderWords + 2 || words > kHeaderWords + kMaxSlots) {
        return false;
    }
    for (uint64_t word = 0; word < words; ++word) {
        if (!image.read_word(image.context, address + word * sizeof(uint64_t), &_words[word])) {
            return false;
        }
    }
    _slotCount = words - kHeaderWords;
    return true;
}

int ServerVtable::slotOf(uint64_t function) const {
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

bool ServerVtable::contains(uint64_t function) const {
    for (size_t index = 0; function && index < _slotCount; ++index) {
        if (slot(index) == function) {
            return true;
        }
    }
    return false;
}

void PluginVtable::copyFrom(const ServerVtable& vtable) {
    for (size_t word = 0; word < ServerVtable::kHeaderWords + vtable._slotCount; ++word) {
        _words[word] = vtable._words[word];
    }
}

void PluginVtable::replaceAddress(int slot, uint64_t function) {
    if (slot >= 0 && static_cast<size_t>(slot) < ServerVtable::kMaxSlots) {
        _words[ServerVtable::kHeaderWords + static_cast<size_t>(slot)] = function;
    }
}

}  // namespace psmdb_aws_iam
