// MongoDB 6.0. Everything here was seen in running servers; this series tests the double itself.
#pragma once

#define SERIES_VERSION "6.0.5"

// mongo::StringData is {data, length}.
#define TEXT_LENGTH_FIRST 0
// Status has an exported constructor.
#define STATUS_MAKER 0
// The ServiceContext owns the registry of mechanisms; a nested class registers actions.
#define REGISTRY_OF_SERVICE 0
// Parameters and sections are passed as plain pointers and never deleted.
#define OWNING_SETS 0
// Functions of parameters take no tenant, and names are std::string.
#define TENANTS 0
// Slot 3 of a section is addRequiredPrivileges; the constructor registers the section.
#define SECTION_BUILDER 0

// Virtual functions in the order of their slots, after the six that mechanisms and factories share.
// clang-format off
#define MECHANISM_SLOTS \
    GET_PRINCIPAL_NAME \
    APPEND_EXTRA_INFO \
    IS_AUTHORIZED \
    SET_OPTIONS \
    STEP_IMPL
// clang-format on
#define HAS_STEPS 0
#define HAS_EXPIRATION 0
#define HAS_USER_REQUEST 0
#define HAS_MAKE_USER_REQUEST 0

// After the two destructors.
// clang-format off
#define PARAMETER_SLOTS \
    APPEND \
    APPEND_SUPPORTING_ROUNDTRIP \
    VALIDATE \
    SET \
    RESET \
    SET_FROM_STRING \
    GET_CLUSTER_PARAMETER_TIME \
    IS_ENABLED
// clang-format on
#define PARAMETER_MEMBERS   \
    bool _testOnly = false; \
    bool _redact = false;
#define PARAMETER_SIZE 48
#define REGISTRATION_HOOK 0
