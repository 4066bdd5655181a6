#!/usr/bin/env python3
"""Packs the release build into target/packages: a .deb, a .rpm, and an SBOM each for the object and the command.

`make packages` builds first. packaging/nfpm.yaml lists the contents of the packages; this script collects them:

- the object and the command, without symbols;
- manual pages and completions, written by the command;
- licences and notices of the crates, from their folders, and the SBOMs: see shipped.py.

All timestamps are the time of the last commit, or SOURCE_DATE_EPOCH: builds are reproducible.
"""

import datetime
import email.utils
import gzip
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import cache
import python_env
import release_cargo
import shipped

ROOT = release_cargo.ROOT
PACKAGING = ROOT / "packaging"
OBJECT = "libpsmdb_aws_iam.so"
COMMAND = "psmdb-aws-iam"
INSTALLED = {OBJECT: f"/usr/lib/psmdb-aws-iam/{OBJECT}", COMMAND: f"/usr/bin/{COMMAND}"}
# The Cargo package that each is built from, which names its SBOM.
BUILT_FROM = {OBJECT: shipped.OBJECT, COMMAND: shipped.COMMAND}


def folder():
    """The output folder."""
    return release_cargo.target_folder() / "packages"


def moment():
    """The timestamp of all files in the packages, in seconds since 1970."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        if not given.isdecimal():
            raise cache.ToolError(f"SOURCE_DATE_EPOCH must be a number of seconds since 1970, not {given!r}")
        return int(given)
    if not (ROOT / ".git").exists():
        raise cache.ToolError(
            "this is not a git repository, so the release time is unknown: set SOURCE_DATE_EPOCH"
        )
    return int(release_cargo.output_of(["git", "log", "-1", "--format=%ct"]))


def tool(command, **options):
    """Runs a program of binutils or of ours; returns its output."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        finished = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=False, **options)
    except OSError as error:
        raise cache.ToolError(
            f"cannot run {command[0]} ({error.strerror}): install it (strip and readelf are in binutils)"
        ) from error
    if finished.returncode != 0:
        raise cache.ToolError(f"`{' '.join(map(str, command))}` failed (see above)")
    return finished.stdout


def newest_symbols(files, prefix):
    """The newest version PREFIX_x.y of symbols that FILES need, as "x.y"."""
    text = b"".join(tool(["readelf", "--version-info", "--wide", path]) for path in files).decode()
    versions = set(re.findall(rf"Name: {prefix}_([0-9.]+)\b", text))
    if not versions:
        raise cache.ToolError(
            f"{', '.join(map(str, files))} need no {prefix}_x.y symbol: check how they were built"
        )
    return max(versions, key=lambda version: [int(part) for part in version.split(".")])


def write_compressed(path, content):
    # Without a name and a time in the gzip header.
    with open(path, "wb") as raw, gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=raw, mtime=0) as file:
        file.write(content)


def collect_programs(stage):
    release = release_cargo.target_folder() / "release"
    for name in INSTALLED:
        if not (release / name).is_file():
            raise cache.ToolError(f"{release / name} is missing: run `make packages`, which builds it")
        tool(["strip", "-o", stage / name, release / name])
    command = release / COMMAND
    tool([command, "manual", stage / "man"])
    for page in (stage / "man").iterdir():
        write_compressed(page.with_name(page.name + ".gz"), page.read_bytes())
    (stage / "completions").mkdir()
    for shell in ("bash", "zsh", "fish"):
        (stage / "completions" / f"{COMMAND}.{shell}").write_bytes(tool([command, "completions", shell]))


def debian_changelog(version, seconds):
    """The changelog of the Debian package."""
    maintainer = re.search(r"^maintainer: (.*)$", (PACKAGING / "nfpm.yaml").read_text(encoding="utf-8"), re.MULTILINE)
    time = email.utils.format_datetime(datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc))
    change = f"  * Version {version}: see changelog.gz."
    return f"{COMMAND} ({version}-1) unstable; urgency=medium\n\n{change}\n\n -- {maintainer[1]}  {time}\n"


def collect_documents(stage, seconds):
    """Collects the documents; returns the packaged crates, this project first."""
    parts = {name: shipped.crates(package) for name, package in BUILT_FROM.items()}
    crates = {key: crate for part in parts.values() for key, crate in part.items()}
    shipped.need_added_texts_of(crates)
    library = shipped.standard_library()
    write_compressed(stage / "THIRD-PARTY-NOTICES.gz", shipped.notices(crates, library).encode())
    write_compressed(stage / "changelog.gz", (ROOT / "CHANGELOG.md").read_bytes())
    for document in (PACKAGING / "copyright", ROOT / "LICENSE", ROOT / "SECURITY.md"):
        shutil.copy(document, stage)
    # Uncompressed, to keep the links between them working.
    (stage / "docs").mkdir()
    for page in (ROOT / "docs").glob("*.md"):
        shutil.copy(page, stage / "docs")
    shutil.copytree(PACKAGING / "systemd", stage / "systemd")
    time = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    for name, part in parts.items():
        files = [(INSTALLED[name], hashlib.sha256((stage / name).read_bytes()).hexdigest())]
        bill = shipped.bill_of_materials(part, library, files, time)
        (stage / f"{BUILT_FROM[name]}.cdx.json").write_text(bill, encoding="utf-8")
    version = next(iter(crates.values())).version
    write_compressed(stage / "changelog.Debian.gz", debian_changelog(version, seconds).encode())
    return crates


def nfpm():
    python = python_env.environment(ROOT / "tools" / "requirements-packages.txt")
    return python.parent / "nfpm"


def main():
    os.umask(0o022)
    seconds = moment()
    packages = folder()
    packages.mkdir(parents=True, exist_ok=True)
    for old in packages.iterdir():
        if old.is_file():
            old.unlink()
    with tempfile.TemporaryDirectory(prefix=".stage-", dir=packages) as temporary:
        stage = pathlib.Path(temporary)
        collect_programs(stage)
        crates = collect_documents(stage, seconds)
        version = next(iter(crates.values())).version
        licences = shipped.licence_field(crates)
        if f"\nlicense: {licences}\n" not in (PACKAGING / "nfpm.yaml").read_text(encoding="utf-8"):
            raise cache.ToolError(f"write `license: {licences}` into packaging/nfpm.yaml: the packaged code has these")
        programs = [stage / name for name in INSTALLED]
        environment = {
            **os.environ,
            "SOURCE_DATE_EPOCH": str(seconds),
            "VERSION": version,
            "GLIBC": newest_symbols(programs, "GLIBC"),
            "GCC": newest_symbols(programs, "GCC"),
        }
        names = {"deb": f"{COMMAND}_{version}-1_amd64.deb", "rpm": f"{COMMAND}-{version}-1.x86_64.rpm"}
        for packager, name in names.items():
            command = [nfpm(), "package", "--config", PACKAGING / "nfpm.yaml", "--packager", packager]
            made = subprocess.run(
                [*command, "--target", packages / name], cwd=stage, env=environment, stdout=subprocess.PIPE, check=False
            )
            if made.returncode != 0:
                raise cache.ToolError(f"cannot build {name} (see above); packaging/nfpm.yaml lists its contents")
        for name in BUILT_FROM.values():
            shutil.copy(stage / f"{name}.cdx.json", packages / f"{name}-{version}.cdx.json")
    made = sorted(path for path in packages.iterdir() if path.is_file())
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in made)
    (packages / "SHA256SUMS").write_text(sums, encoding="ascii")
    for path in made:
        print(path)


if __name__ == "__main__":
    cache.main(main)
