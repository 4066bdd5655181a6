#!/usr/bin/env python3
"""Runs cargo for reproducible builds: the same sources and compilers give the same bytes on any machine.

    tools/release_cargo.py build --release --locked

Panic messages contain paths of source files, so this machine's folders are replaced by fixed names. The compiler's
flags are passed in the environment, which overrides those in configuration files; the caller's RUSTFLAGS are kept.
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
        raise cache.ToolError(f"cannot run {command[0]} ({error.strerror}): install Rust") from error
    if finished.returncode != 0:
        raise cache.ToolError(f"`{' '.join(command)}` failed (see above)")
    return finished.stdout


def target_folder():
    """Cargo's target folder."""
    return ROOT / (os.environ.get("CARGO_TARGET_DIR") or "target")


def crates_folders():
    """The folders where cargo unpacks crates: one per registry, and per name of it."""
    home = pathlib.Path(os.environ.get("CARGO_HOME") or pathlib.Path.home() / ".cargo")
    return sorted((home.absolute() / "registry" / "src").glob("*"))


def remappings():
    """Folders that may be in a path, and their replacements; of two matches, the later wins."""
    verbose = output_of(["rustc", "--version", "--verbose"])
    commit = next(line.split()[1] for line in verbose.splitlines() if line.startswith("commit-hash:"))
    yield ROOT, "psmdb-aws-iam"
    yield target_folder(), "target"
    for folder in crates_folders():
        yield folder, "crates"
    # The compiler's default if Rust's sources are not installed.
    sources = pathlib.Path(output_of(["rustc", "--print", "sysroot"]).strip()) / "lib/rustlib/src/rust"
    yield sources, f"/rustc/{commit}"


def main():
    # Unpacks the crates; before that, their folder is unknown.
    output_of(["cargo", "fetch", "--locked", "--quiet"])
    flags = [f"--remap-path-prefix={folder}={name}" for folder, name in remappings()]
    given = os.environ.pop("RUSTFLAGS", "").split()
    if "CARGO_ENCODED_RUSTFLAGS" in os.environ:
        given = os.environ["CARGO_ENCODED_RUSTFLAGS"].split("\x1f")
    os.environ["CARGO_ENCODED_RUSTFLAGS"] = "\x1f".join(flags + given)
    os.execvp("cargo", ["cargo", *sys.argv[1:]])


if __name__ == "__main__":
    cache.main(main)
