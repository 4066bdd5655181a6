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

// log.cpp: writes an informational line of component ACCESS to the server's log. The id is the
// plugin's own, see LogId.
enum class LogId : int {
    kMechanismRegistered = 88000001,
    kNoLoginSeen = 88000002,
    kNativeTakenOver = 88000003,
};
void logInfo(LogId id, const std::string& message);
// Writes what the plugin has to say besides, with ids from 88000004 on.
void logPending();

inline std::string toString(psmdb_aws_iam_bytes bytes) {
    return std::string(reinterpret_cast<const char*>(bytes.data), bytes.length);
}

}  // namespace psmdb_aws_iam
