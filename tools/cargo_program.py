#!/usr/bin/env python3
"""Installs a program from crates.io into the cache, once, and prints its path.

    tools/cargo_program.py cargo-mutants 27.1.0

cargo builds it with the dependencies that its own Cargo.lock names. It lies in the cache (see cache.py) under its
name and version; nothing is installed for the user or the system.
"""

import argparse

import cache


def program(name, version):
    """Returns the path of the program NAME, installing the crate of that name when it is absent."""
    target = cache.folder() / f"{name}-{version}"
    binary = target / "bin" / name
    if binary.exists():
        return binary
    with cache.locked(target.name):
        if not binary.exists():
            cache.say(f"installing {name} {version}: a few minutes")
            with cache.built_apart(target) as building:
                cache.run(
                    ["cargo", "install", "--quiet", "--locked", "--no-track", "--root", building]
                    + ["--version", f"={version}", name],
                    f"the installation of {name} {version}",
                    "check the network and cargo's settings; then run this again",
                )
    return binary


def main():
    parser = argparse.ArgumentParser(description="Installs a program from crates.io into the cache and prints its path.")
    parser.add_argument("name", help="name of the crate and of its program")
    parser.add_argument("version", help="its exact version")
    arguments = parser.parse_args()
    print(program(arguments.name, arguments.version))


if __name__ == "__main__":
    cache.main(main)
