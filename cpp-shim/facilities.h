// The server's facilities that the plugin extends; one file implements each.
#pragma once

#include "psmdb_aws_iam.h"
#include "server_types.h"

namespace psmdb_aws_iam {

// mechanism.cpp: registers MONGODB-AWS, if it is enabled, when the server creates its registry of
// SASL mechanisms.
void registerMechanism();

// parameters.cpp: registers the parameters and the serverStatus section when the server collects
// its own parameters.
void registerInitializers();
// Whether the parameters are registered. They are when the server creates its registry of SASL
// mechanisms, unless the server has parameters of the same names that could not be replaced.
bool parametersAreRegistered();

// server_status.cpp: registers the counters as the section awsIam of serverStatus, if the server
// has the form that the plugin knows.
void registerServerStatus();

// log.cpp: writes the plugin's pending lines to the server's log, as component ACCESS. Call it on
// the server's threads after anything that may log.
void logPending();

inline std::string toString(psmdb_aws_iam_bytes bytes) {
    return std::string(reinterpret_cast<const char*>(bytes.data), bytes.length);
}

}  // namespace psmdb_aws_iam
