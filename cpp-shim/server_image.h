// What the checks read of a server: the running process, or a file.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Addresses are those of the image; 0 stands for none.
struct psmdb_aws_iam_image {
    void* context;
    // The address and, unless size_out is null, the size of an exported symbol. Returns 0 when the
    // image does not export it.
    int (*find_symbol)(void* context, const char* name, uint64_t* address_out, uint64_t* size_out);
    // The 8 bytes at an address after relocation. Returns 0 when the address is not mapped.
    int (*read_word)(void* context, uint64_t address, uint64_t* word_out);
};

// Called once per check, in order. `what` is a noun phrase; `found` is the symbol, or "" when there
// is none.
typedef void (*psmdb_aws_iam_check_report)(void* context, const char* what, int ok, const char* found);

// Returns 1 when the plugin would register in this server, 0 otherwise. One check needs a running
// server and is not made here: the layout of StringData.
int psmdb_aws_iam_check_image(const struct psmdb_aws_iam_image* image, psmdb_aws_iam_check_report report,
                              void* report_context, int* is_server_out);

#ifdef __cplusplus
}  // extern "C"
#endif
