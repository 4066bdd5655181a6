#!/usr/bin/env python3
"""Runs cargo so that what it builds does not depend on where: the same sources and compilers give the same bytes.

    tools/release_cargo.py build --release --locked

Panic messages carry the paths of source files, so the folders of this machine are replaced by names of our own. The
compiler's flags are told in the environment, which makes cargo pass over those in configuration files; RUSTFLAGS of
the caller are kept.
"""

import os
import pathlib
import subprocess
import sys

import cache

ROOT = pathlib.Path(__file__).resolve().parent.parent


def output_of(command):
    """The output of COMMAND, run in the repository."""
    try:
        finished = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    except OSError as error:
        raise cache.ToolError(f"{command[0]} does not run ({error.strerror}): install Rust") from error
    if finished.returncode != 0:
        raise cache.ToolError(f"`{' '.join(command)}` failed: see above")
    return finished.stdout


def target_folder():
    """Where cargo puts what it builds."""
    return ROOT / (os.environ.get("CARGO_TARGET_DIR") or "target")


def crates_folders():
    """Where cargo unpacks crates: one folder for each registry, and for each name that it is reached by."""
    home = pathlib.Path(os.environ.get("CARGO_HOME") or pathlib.Path.home() / ".cargo")
    return sorted((home.absolute() / "registry" / "src").glob("*"))


def remappings():
    """Each folder that may be in a path, and what is written instead; of two that fit, the later counts."""
    verbose = output_of(["rustc", "--version", "--verbose"])
    commit = next(line.split()[1] for line in verbose.splitlines() if line.startswith("commit-hash:"))
    yield ROOT, "psmdb-aws-iam"
    yield target_folder(), "target"
    for folder in crates_folders():
        yield folder, "crates"
    # Without Rust's sources on the machine, the compiler writes this by itself.
    sources = pathlib.Path(output_of(["rustc", "--print", "sysroot"]).strip()) / "lib/rustlib/src/rust"
    yield sources, f"/rustc/{commit}"


def main():
    # Unpacks the crates: only then their folder is known.
    output_of(["cargo", "fetch", "--locked", "--quiet"])
    flags = [f"--remap-path-prefix={folder}={name}" for folder, name in remappings()]
    given = os.environ.pop("RUSTFLAGS", "").split()
    if "CARGO_ENCODED_RUSTFLAGS" in os.environ:
        given = os.environ["CARGO_ENCODED_RUSTFLAGS"].split("\x1f")
    os.environ["CARGO_ENCODED_RUSTFLAGS"] = "\x1f".join(flags + given)
    os.execvp("cargo", ["cargo", *sys.argv[1:]])


if __name__ == "__main__":
    cache.main(main)
