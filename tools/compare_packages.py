#!/usr/bin/env python3
"""Builds the packages of the last commit twice, in different environments, and compares them byte by byte.

The second build uses another folder with a longer name, and another target folder, cargo home, time zone and umask.
Uncommitted changes are not built.
"""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import cache
import release_cargo


def linked(source, copy):
    """Hard-links a file if possible, because there are many crates."""
    try:
        os.link(source, copy)
    except OSError:
        shutil.copy2(source, copy)


def cargo_home(at):
    """Makes a cargo home at AT with the existing downloads; cargo unpacks the crates again."""
    home = pathlib.Path(os.environ.get("CARGO_HOME") or pathlib.Path.home() / ".cargo")
    for part in ("index", "cache"):
        if (home / "registry" / part).is_dir():
            # Cargo writes to the index files, so they are copied.
            copy = linked if part == "cache" else shutil.copy2
            shutil.copytree(home / "registry" / part, at / "registry" / part, copy_function=copy)
    at.mkdir(parents=True, exist_ok=True)
    for name in ("config.toml", "config"):
        if (home / name).is_file():
            shutil.copy2(home / name, at / name)


def build(folder, umask, **changed):
    """Builds in a clone at FOLDER; returns the files' names and hashes."""
    began = time.monotonic()
    cache.run(["git", "clone", "--quiet", release_cargo.ROOT, folder], "git clone", "see above")
    environment = {**os.environ, **{name: str(value) for name, value in changed.items()}}
    made = subprocess.run(
        ["make", "packages"], cwd=folder, env=environment, umask=umask, stdout=sys.stderr, check=False
    )
    if made.returncode != 0:
        raise cache.ToolError(f"`make packages` failed in {folder} (see above)")
    packages = folder / environment.get("CARGO_TARGET_DIR", "target") / "packages"
    cache.say(f"built in {folder}, in {time.monotonic() - began:.0f} s")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in packages.iterdir() if path.is_file()}


def main():
    for variable in ("CARGO_TARGET_DIR", "SOURCE_DATE_EPOCH"):
        os.environ.pop(variable, None)
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="psmdb-aws-iam-"))
    first = build(scratch / "one", 0o022, TZ="UTC")
    home = scratch / "home of another" / ".cargo"
    cargo_home(home)
    folder = scratch / "another folder with a longer name"
    second = build(folder, 0o077, TZ="Asia/Tokyo", LC_ALL="C", CARGO_HOME=home, CARGO_TARGET_DIR="built")
    if not first or first.keys() != second.keys():
        raise cache.ToolError(f"the builds in {scratch} have different files: {sorted(first)} and {sorted(second)}")
    differing = [name for name in first if first[name] != second[name]]
    if differing:
        raise cache.ToolError(
            f"the builds in {scratch} differ: {', '.join(differing)}: compare them with diffoscope, "
            "or unpack them and compare their files"
        )
    for name, sha256 in sorted(first.items()):
        print(f"identical: {sha256}  {name}")
    shutil.rmtree(scratch)


if __name__ == "__main__":
    cache.main(main)
