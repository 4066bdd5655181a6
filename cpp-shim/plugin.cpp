// What happens when the object is loaded: in a server that is known, the mechanism and the
// parameters are registered; in a server that is not, one line says so; in any other process,
// nothing at all.
#include <dlfcn.h>
#include <stdio.h>

#include "facilities.h"
#include "server_symbols.h"

namespace psmdb_aws_iam {
namespace {

// Runs before the server's own constructors. What is called of the server here does not depend on
// them.
__attribute__((constructor)) void load() {
    // The object is inherited by every child that runs with the same environment, so that most
    // processes it is loaded into are not servers.
    if (!Server::isThisProcess()) {
        return;
    }
    // With two copies, as of a package and of a build, the first in LD_PRELOAD serves.
    if (dlsym(RTLD_DEFAULT, "psmdb_aws_iam_version") != reinterpret_cast<void*>(psmdb_aws_iam_version)) {
        fprintf(stderr, "psmdb-aws-iam %s: not registered: it is in LD_PRELOAD twice\n", psmdb_aws_iam_version());
        return;
    }
    if (const char* problem = server.bind()) {
        fprintf(stderr,
                "psmdb-aws-iam %s: not registered: this server is not supported, because it "
                "differs in: %s\n",
                psmdb_aws_iam_version(), problem);
        return;
    }
    registerParameters();
    registerMechanism();
}

}  // namespace
}  // namespace psmdb_aws_iam
