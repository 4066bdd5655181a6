#!/usr/bin/env python3
"""Creates a Python environment from a pinned requirements file, once, and prints the path of its python.

    tools/python_env.py REQUIREMENTS.txt

The environment is in the cache (see cache.py), named after the file's hash and the Python version: a changed
file gives a new one, and a second run is instant. It is a venv; where this Python cannot create one (Debian
without python3-venv), packages go into a plain folder, and the printed python is a small script that puts it
on the path. Run console scripts with `python -m` or `-c`, which works with both; binaries are beside the
python.
"""

import argparse
import hashlib
import importlib.util
import pathlib
import shlex
import shutil
import sys

import cache

ADVICE = "check the network and pip's settings, and that this is CPython 3.10 or newer; then run this again"


def make_venv(target, requirements):
    cache.run(
        [sys.executable, "-m", "venv", target],
        "creating a venv",
        f"remove {target} and try again, or install your system's venv package (on Debian python3-venv)",
    )
    install(target / "bin" / "python", requirements)


def make_folder(target, requirements):
    """Replaces a venv: the same packages, and a bin/python that finds them."""
    cache.need_pip()
    packages = target / "packages"
    install(sys.executable, requirements, "--no-warn-conflicts", "--target", packages)
    python = target / "bin" / "python"
    python.parent.mkdir()
    python.write_text(
        f"#!/bin/sh\nPYTHONPATH={shlex.quote(str(packages))} exec {shlex.quote(sys.executable)} \"$@\"\n",
        encoding="utf-8",
    )
    python.chmod(0o755)
    for program in (packages / "bin").glob("*"):
        # A script would not find the packages; __pycache__ is a folder.
        if program.is_file() and not program.read_bytes().startswith(b"#!"):
            (python.parent / program.name).symlink_to(program)


def install(python, requirements, *options):
    cache.run(
        [python, "-m", "pip", "install", *cache.pip_arguments(), "--require-hashes", "--only-binary", ":all:"]
        + [*options, "--requirement", requirements],
        f"installing {requirements}",
        ADVICE,
    )


def environment(requirements):
    """Returns the python of the environment for REQUIREMENTS; creates it if absent."""
    try:
        digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise cache.ToolError(f"cannot read {requirements} ({error.strerror})") from error
    name = f"python{sys.version_info.major}.{sys.version_info.minor}-{digest}"
    target = cache.folder() / name
    python = target / "bin" / "python"
    # A venv contains its own path, so it cannot be moved; this file marks it as complete.
    complete = target / "complete"

    def ready():
        # A venv's python is a link, which dangles after the system's Python is removed.
        return complete.exists() and python.exists()

    if ready():
        return python
    with cache.locked(name):
        if not ready():
            cache.say(f"installing {requirements}")
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            make = make_venv if importlib.util.find_spec("ensurepip") else make_folder
            make(target, requirements)
            complete.touch()
    return python


def main():
    parser = argparse.ArgumentParser(
        description="Create a cached Python environment from a requirements file and print the path of its python."
    )
    parser.add_argument("requirements", type=pathlib.Path, help="requirements file with pinned versions and hashes")
    print(environment(parser.parse_args().requirements))


if __name__ == "__main__":
    cache.main(main)
