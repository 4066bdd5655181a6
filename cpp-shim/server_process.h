// The process that the plugin is loaded into.
#pragma once

#include "server_image.h"

namespace psmdb_aws_iam {

// This process as the checks see it. Reads what the loader has mapped; calls nothing.
const psmdb_aws_iam_image& thisProcess();

// The version that this process's program carries in its text, such as "6.0.5", written into the buffer; "unknown" when
// none is found. Reads the program's file: for the one line that says why nothing is registered.
void describeVersion(char* buffer, unsigned long size);

}  // namespace psmdb_aws_iam
