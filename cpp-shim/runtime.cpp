// What newer headers of libstdc++ call and the runtimes of older servers lack.
#include "server_types.h"

namespace std {

// For a container of more bytes than there are addresses, which the shim never makes.
void __throw_bad_array_new_length() { __builtin_trap(); }

}  // namespace std
