// The process that loads the plugin.
#pragma once

#include "server_image.h"

namespace psmdb_aws_iam {

// The image of this process. Reads what the loader has mapped; calls nothing.
const psmdb_aws_iam_image& thisProcess();

// Writes the version in the text of this process's program, such as "6.0.5", or "unknown" into the
// buffer. Reads the program's file, so it is called for an unsupported server only.
void describeVersion(char* buffer, unsigned long size);

}  // namespace psmdb_aws_iam
