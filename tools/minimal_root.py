#!/usr/bin/env python3
"""Runs commands as an ordinary user on a minimal Debian 12, such as a new contributor's machine.

    tools/minimal_root.py COMMAND [COMMAND ...]

debootstrap creates the system in the cache, with PACKAGES. The commands run in a clone of the last commit, with empty
caches and the default soft limit of OPEN_FILES open files. Rust is this machine's, read-only. pip, cargo and apt-get
use this machine's settings, certificates and environment to reach their registries.

Requires root, for chroot and mounts. Mounts and processes are in separate namespaces and end with them. The system is
removed if all commands succeed; otherwise it is kept until the next run.
"""

import argparse
import os
import pathlib
import resource
import shutil
import subprocess
import sys

import cache
import release_cargo

SUITE = "bookworm"
PACKAGES = "gcc,g++,make,git,python3,python3-pip,ca-certificates"
OPEN_FILES = 1024
USER_ID = 1000
HOME = pathlib.Path("home/user")
RUST = pathlib.Path("opt/rust")
# Time limit for creating the system and for each command.
SECONDS = 2 * 60 * 60

# Settings for reaching registries, below the user's home and below the root; absent files are skipped.
SETTINGS_OF_USER = [".config/pip/pip.conf", ".pip/pip.conf"]
SETTINGS = ["etc/hosts", "etc/pip.conf", "etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt"]
VARIABLES = ("PIP_", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTRIES_", "CARGO_REGISTRY_", "CARGO_SOURCE_")
MORE_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def need_root():
    if os.geteuid() != 0:
        raise cache.ToolError("this needs chroot and mounts: run it as root")
    for program in ("unshare", "chroot", "git", "rustc"):
        if shutil.which(program) is None:
            raise cache.ToolError(f"{program} is missing: install it, then run this again")


def isolated(command):
    """Returns COMMAND in separate namespaces, which end its mounts and processes with it."""
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", *command]


def run(command, what, **options):
    """Runs COMMAND, for at most SECONDS; raises an error that names WHAT failed."""
    cache.say(f"=== {what} ===")
    try:
        status = subprocess.run([str(part) for part in command], timeout=SECONDS, check=False, **options).returncode
    except subprocess.TimeoutExpired as error:
        raise cache.ToolError(f"{what} took longer than {SECONDS} seconds") from error
    if status != 0:
        raise cache.ToolError(f"{what} failed with exit status {status} (see above)")


def debootstrap():
    """The debootstrap command: this machine's, or one unpacked from Debian's package."""
    if shutil.which("debootstrap"):
        return ["debootstrap"], None
    unpacked = cache.unpacked_from_debian(["debian-archive-keyring", "debootstrap"], "debootstrap is missing")
    environment = {**os.environ, "DEBOOTSTRAP_DIR": str(unpacked / "usr/share/debootstrap")}
    environment["PATH"] = f"{unpacked / 'usr/bin'}:{environment['PATH']}"
    keyring = unpacked / "usr/share/keyrings/debian-archive-keyring.gpg"
    options = [f"--keyring={keyring}"] if keyring.exists() else []
    return [unpacked / "usr/sbin/debootstrap", *options], environment


def make_root(root, mirror):
    command, environment = debootstrap()
    command = [*command, "--variant=minbase", f"--include={PACKAGES}", SUITE, root, *([mirror] if mirror else [])]
    run(isolated(command), f"debootstrap {SUITE}, minbase", env=environment, stdout=sys.stderr)
    for name in SETTINGS:
        copy_if_there(pathlib.Path("/") / name, root / name)
    for name in SETTINGS_OF_USER:
        copy_if_there(pathlib.Path.home() / name, root / HOME / name)
    cargo_home = pathlib.Path(os.environ.get("CARGO_HOME") or pathlib.Path.home() / ".cargo")
    copy_if_there(cargo_home / "config.toml", root / HOME / ".cargo/config.toml")
    # For example certificate files.
    for value in network_variables().values():
        if value.startswith("/"):
            copy_if_there(pathlib.Path(value), root / value.lstrip("/"))
    # Other apt settings may refer to programs of this machine.
    settings = subprocess.run(["apt-config", "dump", "Acquire"], stdout=subprocess.PIPE, check=False)
    if settings.returncode == 0:
        (root / "etc/apt/apt.conf.d/90this-machine").write_bytes(settings.stdout)
    (root / RUST).mkdir(parents=True)
    project = root / HOME / "psmdb-aws-iam"
    run(["git", "clone", "--quiet", "--no-hardlinks", release_cargo.ROOT, project], "git clone")
    useradd = ["useradd", "--uid", USER_ID, "--shell", "/bin/bash", "--home-dir", f"/{HOME}", "user"]
    run(["chroot", root, *useradd], "useradd")
    run(["chroot", root, "chown", "--recursive", f"{USER_ID}:{USER_ID}", f"/{HOME}"], "chown")


def copy_if_there(source, copy):
    if not source.is_file():
        return
    # A link in the new system may point outside.
    if not copy.parent.resolve().is_relative_to(cache.folder().resolve()):
        raise cache.ToolError(f"cannot copy {source}: {copy.parent} is a link")
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.unlink(missing_ok=True)
    shutil.copyfile(source, copy)


def network_variables():
    """This machine's environment variables for reaching registries."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(VARIABLES) or name in MORE_VARIABLES or name.lower() in PROXIES
    }


def user_environment():
    path = f"/{RUST}/bin:/usr/local/bin:/usr/bin:/bin"
    user = {"HOME": f"/{HOME}", "USER": "user", "LOGNAME": "user", "SHELL": "/bin/bash", "PATH": path}
    return {**network_variables(), **user}


def inside(root, command):
    """Runs COMMAND in a shell in the system, as its user; called in separate mount and process namespaces."""
    sysroot = release_cargo.output_of(["rustc", "--print", "sysroot"]).strip()
    for mount in (
        ["--bind", "--read-only", sysroot, root / RUST],
        ["--types", "proc", "proc", root / "proc"],
        ["--types", "tmpfs", "tmpfs", root / "dev/shm"],
    ):
        cache.run(["mount", *mount], f"mounting {mount[-1]}", "see above")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, hard))
    shell = ["/bin/bash", "-c", f"cd ~/psmdb-aws-iam && {command}"]
    chroot = shutil.which("chroot")
    os.execve(chroot, [chroot, f"--userspec={USER_ID}:{USER_ID}", str(root), *shell], user_environment())


def main():
    parser = argparse.ArgumentParser(description="Run commands as an ordinary user on a minimal Debian 12.")
    parser.add_argument("--mirror", default="", help="mirror for debootstrap")
    parser.add_argument("--inside", type=pathlib.Path, metavar="ROOT", help=argparse.SUPPRESS)
    parser.add_argument("commands", metavar="COMMAND", nargs="+", help="shell command line")
    arguments = parser.parse_args()
    need_root()
    if arguments.inside:
        inside(arguments.inside, arguments.commands[0])
    root = cache.folder() / "minimal-root"
    with cache.locked("minimal-root"):
        if root.exists():
            shutil.rmtree(root)
        if subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=release_cargo.ROOT, check=False).returncode != 0:
            cache.say("note: uncommitted changes are not tested")
        try:
            make_root(root, arguments.mirror)
            for command in arguments.commands:
                run(isolated([sys.executable, __file__, "--inside", root, command]), f"as a user on {SUITE}: {command}")
        except cache.ToolError as error:
            raise cache.ToolError(f"{error}; the system is kept in {root}") from error
        shutil.rmtree(root)
    print(f"a user on a minimal Debian {SUITE} ran: {', '.join(arguments.commands)}")


if __name__ == "__main__":
    cache.main(main)
