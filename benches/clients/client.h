// Shared by both clients: clocks, lines of text and reports.
#pragma once

#include <sys/resource.h>
#include <time.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

namespace client {

[[noreturn]] inline void die(const std::string& why) {
    std::cerr << why << "\n";
    std::exit(1);
}

inline int64_t nanoseconds(clockid_t clock) {
    timespec now{};
    clock_gettime(clock, &now);
    return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

inline int64_t wallTime() { return nanoseconds(CLOCK_MONOTONIC); }

// CPU time of all threads of this process; STS runs in another process.
struct Cpu {
    int64_t all = 0;
    int64_t kernel = 0;  // the share of system calls

    static Cpu now() {
        rusage usage{};
        getrusage(RUSAGE_SELF, &usage);
        return {nanoseconds(CLOCK_PROCESS_CPUTIME_ID),
                int64_t{usage.ru_stime.tv_sec} * 1'000'000'000 + int64_t{usage.ru_stime.tv_usec} * 1000};
    }

    void addSince(const Cpu& begin) {
        const Cpu end = now();
        all += end.all - begin.all;
        kernel += end.kernel - begin.kernel;
    }
};

inline std::string readLine() {
    std::string line;
    if (!std::getline(std::cin, line)) {
        std::exit(0);
    }
    return line;
}

// Writes the time of each verification, then the total CPU time and the kernel's share, in nanoseconds.
inline void report(const std::vector<int64_t>& times, const Cpu& cpu) {
    for (const int64_t time : times) {
        std::cout << time << "\n";
    }
    std::cout << "cpu " << cpu.all << " " << cpu.kernel << std::endl;
}

}  // namespace client
