// MongoDB 8.0, from its headers.
#pragma once

#define SERIES_VERSION "8.0.4"

// mongo::StringData holds a std::string_view, which libstdc++ lays out as {length, data}.
#define TEXT_LENGTH_FIRST 1
// Status exports only the static function that makes its target.
#define STATUS_MAKER 1
// Each Service owns a registry of mechanisms; a template registers actions.
#define REGISTRY_OF_SERVICE 1
// Parameters and sections are passed as unique_ptr, and the server deletes them.
#define OWNING_SETS 1
// Functions of parameters end with a tenant; builders are pointers and names StringData.
#define TENANTS 1
// Slot 3 of a section is checkAuthForOperation; a section is added to a registry, with a role.
#define SECTION_BUILDER 1

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
    IS_ENABLED_ON_VERSION
// clang-format on
#define PARAMETER_MEMBERS                                               \
    mutable std::mutex _mutex;                                          \
    bool _testOnly = false, _redact = false, _isOmittedInFtdc = false;  \
    FeatureFlag* _featureFlag = nullptr;                                \
    boost::optional<multiversion::FeatureCompatibilityVersion> _minFCV; \
    enum class State { kEnabled, kDisabled } _state = State::kEnabled;
#define PARAMETER_SIZE 120
#define REGISTRATION_HOOK 0
