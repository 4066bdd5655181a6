"""Shared by the scripts in this folder: the cache folder, its locks, and errors for users."""

import contextlib
import fcntl
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

# Debian's name for the folder of libraries for this kind of machine.
MULTIARCH = "x86_64-linux-gnu"


class ToolError(Exception):
    """An error that the user can fix: the text says what failed and what to do."""


def say(text):
    """Progress goes to stderr; stdout contains only the result, for scripts."""
    print(text, file=sys.stderr, flush=True)


def folder():
    """The cache folder, created when absent."""
    named = os.environ.get("PSMDB_AWS_IAM_CACHE")
    if named:
        path = pathlib.Path(named)
    else:
        path = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
        path = path / "psmdb-aws-iam"
    path = path.absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ToolError(
            f"cannot create the cache folder {path} ({error.strerror}): set PSMDB_AWS_IAM_CACHE to a writable folder"
        ) from error
    return path


@contextlib.contextmanager
def locked(name):
    """Holds the lock file NAME.lock of the cache; a concurrent run waits."""
    with open(folder() / f"{name}.lock", "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{name}: waiting for another run to finish")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def built_apart(target):
    """A temporary folder that is renamed to TARGET when the block succeeds, so TARGET is complete or absent.

    The caller holds TARGET's lock, so leftovers of killed runs can be removed.
    """
    for left in target.parent.glob(f".{target.name}-*"):
        shutil.rmtree(left, ignore_errors=True)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield temporary
        # mkdtemp makes it private; the cache contains ordinary files.
        temporary.chmod(0o755)
        os.rename(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def run(command, what, advice):
    """Runs COMMAND with its output on stderr."""
    try:
        finished = subprocess.run([str(part) for part in command], stdout=sys.stderr, check=False)
    except OSError as error:
        raise ToolError(f"{what} failed: {command[0]}: {error.strerror}; {advice}") from error
    if finished.returncode != 0:
        raise ToolError(f"{what} failed (see above); {advice}")


def pip_arguments():
    """Options of every pip call: quiet and non-interactive."""
    return ["--quiet", "--disable-pip-version-check", "--no-input"]


def need_pip():
    """Checks early that this Python has pip."""
    found = subprocess.run(
        [sys.executable, "-m", "pip", "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    )
    if found.returncode != 0:
        raise ToolError(f"{sys.executable} has no pip: install it (on Debian: apt-get install python3-pip)")


def unpacked_from_debian(packages, why):
    """Unpacks Debian PACKAGES, with the dependencies that this system lacks, into the cache; returns the folder.

    Nothing is installed, so root is not needed. apt-get verifies its downloads. WHY starts the error message.
    """
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise ToolError(
                f"{why}, and this system has no {program}: install your system's equivalents of Debian's "
                f"{', '.join(packages)}, then run this again"
            )
    name = f"debian-{'+'.join(packages)}"
    target = folder() / name
    with locked(name):
        if not target.is_dir():
            say(f"{why}: unpacking Debian's {', '.join(packages)} into {target}")
            with built_apart(target) as building, tempfile.TemporaryDirectory(dir=building) as scratch:
                for deb in downloaded_from_debian(packages, pathlib.Path(scratch)):
                    run(["dpkg-deb", "--extract", deb, building], f"unpacking {deb.name}", "see above")
    return target


def downloaded_from_debian(packages, scratch):
    """Downloads PACKAGES and their missing dependencies, with package lists in SCRATCH."""
    options = {
        "Dir::State": scratch / "state",
        "Dir::State::status": "/var/lib/dpkg/status",
        "Dir::Cache": scratch / "cache",
        "Debug::NoLocking": 1,
        # As root, apt-get switches to the user _apt, who cannot write here.
        "APT::Sandbox::User": "root",
    }
    archives = scratch / "cache" / "archives"
    for created in (scratch / "state" / "lists" / "partial", archives / "partial"):
        created.mkdir(parents=True)
    apt_get = ["apt-get", "-qq", *(f"--option={name}={value}" for name, value in options.items())]
    advice = f"check the network and apt's sources, or install {' '.join(packages)}, then run this again"
    run([*apt_get, "update"], "apt-get update", advice)
    install = ["install", "--yes", "--download-only", "--no-install-recommends", *packages]
    run([*apt_get, *install], "apt-get install --download-only", advice)
    return sorted(archives.glob("*.deb"))


def library_folders(unpacked):
    """The folders of shared libraries in a folder that unpacked_from_debian returned."""
    return [path for path in (unpacked / "usr" / "lib" / MULTIARCH, unpacked / "lib" / MULTIARCH) if path.is_dir()]


def main(function):
    """Runs a script's FUNCTION; prints a ToolError as one line and exits with status 1."""
    try:
        function()
    except ToolError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
