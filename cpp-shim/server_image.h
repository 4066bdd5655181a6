// A server as the checks see it: the running process, or a file that is only read.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Addresses are the image's own; 0 means: not there.
struct psmdb_aws_iam_image {
    void* context;
    // The address and, unless size_out is null, the size of an exported symbol; returns 0 when it is not exported.
    int (*find_symbol)(void* context, const char* name, uint64_t* address_out, uint64_t* size_out);
    // The 8 bytes at an address as they are after relocation; returns 0 when the address is not mapped.
    int (*read_word)(void* context, uint64_t address, uint64_t* word_out);
};

// Called once for each check, in order. `found` is the symbol it was found by, "" where nothing was found.
typedef void (*psmdb_aws_iam_check_report)(void* context, const char* what, int ok, const char* found);

// Returns 1 when the plugin would register in this server, 0 otherwise. What can only be measured in a running server
// is not among the checks: the order in which it passes the two halves of a text.
int psmdb_aws_iam_check_image(const struct psmdb_aws_iam_image* image, psmdb_aws_iam_check_report report,
                              void* report_context, int* is_server_out);

#ifdef __cplusplus
}  // extern "C"
#endif
