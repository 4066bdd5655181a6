#!/usr/bin/env python3
"""Cargo's runner (.cargo/config.toml): runs test programs with limits, and all others unchanged.

    tools/cargo_runner.py PROGRAM [ARGUMENT ...]

A test program, and each server it starts, may have OPEN_FILES open files. It is killed, with all processes it started,
when one of its tests runs longer than $PSMDB_AWS_IAM_TEST_SECONDS (600 by default), or the whole program longer than
six times that. The error names the test.
"""

import contextlib
import os
import pathlib
import re
import resource
import select
import signal
import subprocess
import sys
import time

import cache

# Tests have hundreds of connections, with both ends and a proxy in one process.
OPEN_FILES = 4096
TEST_SECONDS = 600
PROGRAM_FACTOR = 6
# When Rust's test harness first reports a running test.
NOTICE_SECONDS = 60
STILL_RUNNING = re.compile(r"test (\S+) has been running for over ")
# With one thread, the name is printed before the test runs, and the result follows without it.
ENDED = re.compile(r"test (\S+)(?: - should panic)? \.\.\. |^(?:\x1b\[\d+m)?(?:ok|FAILED)\b")


def is_test(program, arguments):
    """Whether PROGRAM is a test program, from the folder that cargo or rustdoc put it into."""
    folder = pathlib.Path(program).parent.name
    return (folder == "deps" and "--bench" not in arguments) or is_doctest(program)


def is_doctest(program):
    return pathlib.Path(program).parent.name.startswith("rustdoctest")


def raise_open_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
        raise cache.ToolError(
            f"the tests need {OPEN_FILES} open files, and this user's hard limit is {hard}: raise it (in "
            f"/etc/security/limits.conf `hard nofile {OPEN_FILES}`, or with `docker run --ulimit nofile={OPEN_FILES}`)"
        )
    if soft != resource.RLIM_INFINITY and soft < OPEN_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, hard))


def test_seconds():
    given = os.environ.get("PSMDB_AWS_IAM_TEST_SECONDS") or str(TEST_SECONDS)
    if not re.fullmatch("[1-9][0-9]*", given):
        raise cache.ToolError(f"PSMDB_AWS_IAM_TEST_SECONDS must be a whole number of seconds, not {given!r}")
    return int(given)


class Clock:
    """Tracks, from a test program's output, which tests run long, and their deadlines."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.program_deadline = time.monotonic() + seconds * PROGRAM_FACTOR
        self.deadlines = {}
        self._line = b""

    def read(self, output):
        *lines, self._line = (self._line + output).split(b"\n")
        for line in lines:
            self._read_line(line.decode("utf-8", "replace"))

    def _read_line(self, line):
        for ended in ENDED.finditer(line):
            if ended[1] is None:
                self.deadlines.clear()
            self.deadlines.pop(ended[1], None)
        running = STILL_RUNNING.search(line)
        if running:
            self.deadlines[running[1]] = time.monotonic() + max(self.seconds - NOTICE_SECONDS, 0)

    def next_deadline(self):
        return min([self.program_deadline, *self.deadlines.values()])

    def overdue(self):
        """Describes what has run too long, or None."""
        now = time.monotonic()
        names = sorted(name for name, deadline in self.deadlines.items() if deadline <= now)
        if names:
            return f"{', '.join(names)} ran longer than {self.seconds} seconds"
        if self.program_deadline <= now:
            return f"the tests ran longer than {self.seconds * PROGRAM_FACTOR} seconds in all"
        return None


def run(command, seconds):
    """Runs a test program and returns its exit status, as subprocess does."""
    if sys.stdout.isatty():
        command = [*command, "--color=always"]
    # A separate session, to kill all its processes together.
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as child:

        def kill(*_):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, kill)
        clock = Clock(seconds)
        while True:
            wait = max(clock.next_deadline() - time.monotonic(), 0)
            if select.select([child.stdout], [], [], min(wait, 1))[0]:
                output = os.read(child.stdout.fileno(), 1 << 16)
                if not output:
                    break
                sys.stdout.buffer.write(output)
                sys.stdout.flush()
                clock.read(output)
            elif child.poll() is not None:
                # A leftover process still has the output open.
                break
            overdue = clock.overdue()
            if overdue:
                kill()
                raise cache.ToolError(f"{pathlib.Path(command[0]).name}: {overdue}: stopped")
        return child.wait()


def main():
    command = sys.argv[1:]
    if not is_test(command[0], command[1:]):
        os.execv(command[0], command)
    if is_doctest(command[0]):
        # rustdoc sets this only without a runner.
        os.environ.setdefault("RUSTDOC_DOCTEST_BIN_PATH", command[0])
    raise_open_files()
    status = run(command, test_seconds())
    if status < 0:
        # Lets cargo report the signal.
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


if __name__ == "__main__":
    cache.main(main)
