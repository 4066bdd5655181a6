// The server's facilities that the plugin takes part in; one file implements each.
#pragma once

#include "psmdb_aws_iam.h"
#include "server_types.h"

namespace psmdb_aws_iam {

// mechanism.cpp: has MONGODB-AWS registered when the server makes its registry of SASL mechanisms,
// if it is enabled.
void registerMechanism();

// parameters.cpp: has the parameters, and the section of serverStatus, registered when the server collects its own
// parameters.
void registerInitializers();
// Whether that has happened. It has when the server makes its registry of SASL mechanisms, unless it has parameters of
// the same names that could not be replaced.
bool parametersAreRegistered();

// server_status.cpp: has the counters shown as the section awsIam of serverStatus, where the server lets us.
void registerServerStatus();

// log.cpp: writes what the plugin has to say to the server's log, as lines of component ACCESS. To be called wherever
// there may be something, on threads of the server's.
void logPending();

inline std::string toString(psmdb_aws_iam_bytes bytes) {
    return std::string(reinterpret_cast<const char*>(bytes.data), bytes.length);
}

}  // namespace psmdb_aws_iam
