#include "server_process.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace psmdb_aws_iam {
namespace {

int findSymbol(void* /*context*/, const char* name, uint64_t* address_out, uint64_t* size_out) {
    void* address = dlsym(RTLD_DEFAULT, name);
    if (!address) {
        return 0;
    }
    *address_out = reinterpret_cast<uint64_t>(address);
    if (size_out) {
        // Takes a millisecond, since it reads every symbol of the server; asked for vtables only.
        Dl_info where;
        const ElfW(Sym)* entry = nullptr;
        void** entryOut = reinterpret_cast<void**>(const_cast<ElfW(Sym)**>(&entry));
        const bool known = dladdr1(address, &where, entryOut, RTLD_DL_SYMENT) && entry;
        *size_out = known ? entry->st_size : 0;
    }
    return 1;
}

int readWord(void* /*context*/, uint64_t address, uint64_t* word_out) {
    // Addresses come from the symbol table and stay within the symbol's size.
    *word_out = *reinterpret_cast<const uint64_t*>(address);
    return 1;
}

bool isDigit(char c) { return c >= '0' && c <= '9'; }

// The length of a version such as 6.0.5 or 6.0.5-4 that starts here and ends with a NUL, 0 if there
// is none.
size_t versionLength(const char* text, size_t size) {
    size_t at = 0;
    for (int part = 0; part < 3; ++part) {
        const size_t begin = at;
        while (at < size && isDigit(text[at])) {
            ++at;
        }
        if (at == begin || at - begin > 2 || (part == 0 && (text[0] < '4' || at > 1))) {
            return 0;
        }
        if (part < 2 && (at == size || text[at++] != '.')) {
            return 0;
        }
    }
    if (at < size && text[at] == '-') {
        ++at;
        while (at < size && isDigit(text[at])) {
            ++at;
        }
    }
    return at < size && text[at] == '\0' ? at : 0;
}

}  // namespace

const psmdb_aws_iam_image& thisProcess() {
    static constexpr psmdb_aws_iam_image kImage = {nullptr, findSymbol, readWord};
    return kImage;
}

void describeVersion(char* buffer, unsigned long size) {
    snprintf(buffer, size, "unknown");
    const int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    struct stat about;
    if (file < 0 || fstat(file, &about) != 0 || about.st_size <= 0) {
        if (file >= 0) {
            close(file);
        }
        return;
    }
    const size_t length = static_cast<size_t>(about.st_size);
    void* mapped = mmap(nullptr, length, PROT_READ, MAP_PRIVATE, file, 0);
    close(file);
    if (mapped == MAP_FAILED) {
        return;
    }
    const char* text = static_cast<const char*>(mapped);
    for (const char* at = text;
         (at = static_cast<const char*>(memchr(at, '\0', length - static_cast<size_t>(at - text))));) {
        ++at;
        const size_t left = length - static_cast<size_t>(at - text);
        if (const size_t found = versionLength(at, left)) {
            snprintf(buffer, size, "%.*s", static_cast<int>(found), at);
            break;
        }
        if (left == 0) {
            break;
        }
    }
    munmap(mapped, length);
}

}  // namespace psmdb_aws_iam
