// MongoDB 7.0, from its headers.
#pragma once

#define SERIES_VERSION "7.0.14"

// mongo::StringData is {data, length}.
#define TEXT_LENGTH_FIRST 0
// Status has an exported constructor.
#define STATUS_MAKER 0
// The ServiceContext owns the registry of mechanisms; a nested class registers actions.
#define REGISTRY_OF_SERVICE 0
// Parameters and sections are passed as plain pointers and never deleted.
#define OWNING_SETS 0
// Functions of parameters end with a tenant; builders are pointers and names StringData.
#define TENANTS 1
// Slot 3 of a section is addRequiredPrivileges; the constructor registers the section.
#define SECTION_BUILDER 0

// Virtual functions in the order of their slots, after the six that mechanisms and factories share.
// clang-format off
#define MECHANISM_SLOTS \
    GET_PRINCIPAL_NAME \
    GET_EXPIRATION_TIME \
    APPEND_EXTRA_INFO \
    IS_AUTHORIZED \
    SET_OPTIONS \
    CURRENT_STEP \
    TOTAL_STEPS \
    GET_USER_REQUEST \
    STEP_IMPL
// clang-format on
#define HAS_STEPS 1
#define HAS_EXPIRATION 1
#define HAS_USER_REQUEST 1
#define HAS_MAKE_USER_REQUEST 0

// After the two destructors. -DFCV_PARAMETERS=1 builds the other form that the last one may have.
#if FCV_PARAMETERS
#define LAST_OF_PARAMETER IS_ENABLED_ON_VERSION
#else
#define LAST_OF_PARAMETER IS_ENABLED
#endif
// clang-format off
#define PARAMETER_SLOTS \
    APPEND \
    APPEND_SUPPORTING_ROUNDTRIP \
    VALIDATE \
    SET \
    RESET \
    SET_FROM_STRING \
    GET_CLUSTER_PARAMETER_TIME \
    LAST_OF_PARAMETER
// clang-format on
#define PARAMETER_MEMBERS   \
    bool _testOnly = false; \
    bool _redact = false;
#define PARAMETER_SIZE 48
#define REGISTRATION_HOOK 0
