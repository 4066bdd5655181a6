// Runs when the object is loaded. It registers the mechanism and the parameters in a known server,
// writes one line in an unknown server, and does nothing in any other process.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "facilities.h"
#include "server_process.h"
#include "server_symbols.h"

namespace psmdb_aws_iam {
namespace {

// Set to 1, keeps a server's built-in MONGODB-AWS in place, for operators who compare the two.
constexpr char kKeepNative[] = "PSMDB_AWS_IAM_KEEP_NATIVE";

// To stderr: the server's log does not work yet.
void reportNotRegistered(const char* reason, const char* detail) {
    fprintf(stderr, "psmdb-aws-iam %s: not registered: %s%s\n", psmdb_aws_iam_version(), reason, detail);
}

bool keepsNative() {
    const char* value = getenv(kKeepNative);
    return server.hasNativeMechanism() && value && strcmp(value, "1") == 0;
}

// Runs before the server's static constructors. The server's functions called here do not need
// them.
__attribute__((constructor)) void load() {
    // Child processes inherit LD_PRELOAD, so most processes that load the object are not servers.
    if (!ServerBinding::isServer(thisProcess())) {
        return;
    }
    // With two copies, of a package and of a build, the first in LD_PRELOAD registers.
    if (dlsym(RTLD_DEFAULT, "psmdb_aws_iam_version") != reinterpret_cast<void*>(psmdb_aws_iam_version)) {
        reportNotRegistered("it is in LD_PRELOAD twice", "");
        return;
    }
    const char* problem = server.bind(thisProcess(), nullptr);
    if (!problem) {
        problem = server.measureStringData();
    }
    if (problem) {
        char version[32];
        describeVersion(version, sizeof(version));
        char reason[96];
        snprintf(reason, sizeof(reason), "this server, version %s, is not supported: it differs in: ", version);
        reportNotRegistered(reason, problem);
        return;
    }
    if (keepsNative()) {
        reportNotRegistered(kKeepNative, "=1 keeps the server's built-in MONGODB-AWS");
        return;
    }
    registerInitializers();
    registerMechanism();
}

}  // namespace
}  // namespace psmdb_aws_iam
