// What the shim takes from the C++ runtime of the server.
#pragma once

// The shim links no C++ library: the server exports what the headers of the standard library call.
// A row declares a symbol weak, so that the object also loads in processes without a C++ runtime,
// and adds it to the checks of a server. runtime.cpp has what older servers lack.
#define PSMDB_AWS_IAM_CXX_RUNTIME(ROW)                                             \
    ROW("_Znwm", "operator new(size_t)")                                           \
    ROW("_ZdlPv", "operator delete(void*)")                                        \
    ROW("_ZdlPvm", "operator delete(void*, size_t)")                               \
    ROW("_ZSt17__throw_bad_allocv", "std::__throw_bad_alloc()")                    \
    ROW("_ZSt19__throw_logic_errorPKc", "std::__throw_logic_error(const char*)")   \
    ROW("_ZSt20__throw_length_errorPKc", "std::__throw_length_error(const char*)") \
    ROW("__cxa_pure_virtual", "__cxa_pure_virtual()")

#define PSMDB_AWS_IAM_DECLARE_WEAK(symbol, function) ".weak " symbol "\n"
__asm__(PSMDB_AWS_IAM_CXX_RUNTIME(PSMDB_AWS_IAM_DECLARE_WEAK));
#undef PSMDB_AWS_IAM_DECLARE_WEAK
