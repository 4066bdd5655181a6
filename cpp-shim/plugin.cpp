// What happens when the object is loaded: in a server that is known, the mechanism and the parameters are registered;
// in a server that is not, one line says so; in any other process, nothing at all.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "facilities.h"
#include "server_process.h"
#include "server_symbols.h"

namespace psmdb_aws_iam {
namespace {

// An operator's way to leave a server's own MONGODB-AWS in place, for as long as it is compared with this one.
constexpr char kKeepNative[] = "PSMDB_AWS_IAM_KEEP_NATIVE";

// The server's log is not there yet.
void sayNotRegistered(const char* because, const char* detail) {
    fprintf(stderr, "psmdb-aws-iam %s: not registered: %s%s\n", psmdb_aws_iam_version(), because, detail);
}

bool keepsNative() {
    const char* value = getenv(kKeepNative);
    return server.hasNativeMechanism() && value && strcmp(value, "1") == 0;
}

// Runs before the server's own constructors. What is called of the server here does not depend on them.
__attribute__((constructor)) void load() {
    // The object is inherited by every child that runs with the same environment, so that most processes it is loaded
    // into are not servers.
    if (!Server::isServer(thisProcess())) {
        return;
    }
    // With two copies, as of a package and of a build, the first in LD_PRELOAD serves.
    if (dlsym(RTLD_DEFAULT, "psmdb_aws_iam_version") != reinterpret_cast<void*>(psmdb_aws_iam_version)) {
        sayNotRegistered("it is in LD_PRELOAD twice", "");
        return;
    }
    const char* problem = server.bind(thisProcess(), nullptr);
    if (!problem) {
        problem = server.measureStringOrder();
    }
    if (problem) {
        char version[32];
        describeVersion(version, sizeof(version));
        char because[96];
        snprintf(because, sizeof(because), "this server, version %s, is not supported: it differs in: ", version);
        sayNotRegistered(because, problem);
        return;
    }
    if (keepsNative()) {
        sayNotRegistered("the server keeps its own MONGODB-AWS, as this environment variable wants: ", kKeepNative);
        return;
    }
    registerInitializers();
    registerMechanism();
}

}  // namespace
}  // namespace psmdb_aws_iam
