#!/usr/bin/env python3
"""Runs commands as an ordinary user on a minimal Debian 12: what a newcomer's machine has, and nothing else.

    tools/minimal_root.py COMMAND [COMMAND ...]

debootstrap makes the system in the cache, with PACKAGES. The commands run there in a clone of the last commit, with
empty caches and the default soft limit of OPEN_FILES open files. Rust is this machine's, read-only. pip, cargo
and apt-get reach their registries as they do on this machine: by its settings, certificates and environment.

It needs root, for chroot and mounts. The mounts are in a mount namespace of their own and end with it, and so do all
processes. The system is removed when all commands succeed; when one fails it is kept, and the next run removes it.
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
# How long the making of the system and each command may take.
SECONDS = 2 * 60 * 60

# How this machine reaches registries, below the user's home and below the root; absent files are left out.
SETTINGS_OF_USER = [".config/pip/pip.conf", ".pip/pip.conf"]
SETTINGS = ["etc/hosts", "etc/pip.conf", "etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt"]
VARIABLES = ("PIP_", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTRIES_", "CARGO_REGISTRY_", "CARGO_SOURCE_")
MORE_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def need_root():
    if os.geteuid() != 0:
        raise cache.ToolError("a root file system of its own needs chroot and mounts: run this as root")
    for program in ("unshare", "chroot", "git", "rustc"):
        if shutil.which(program) is None:
            raise cache.ToolError(f"no {program}: install it, then run this again")


def isolated(command):
    """Returns COMMAND in namespaces of its own, so that its mounts and processes end with it."""
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", *command]


def run(command, what, **options):
    """Runs COMMAND, for SECONDS at most; says what failed."""
    cache.say(f"=== {what} ===")
    try:
        status = subprocess.run([str(part) for part in command], timeout=SECONDS, check=False, **options).returncode
    except subprocess.TimeoutExpired as error:
        raise cache.ToolError(f"{what} took longer than {SECONDS} seconds") from error
    if status != 0:
        raise cache.ToolError(f"{what} failed with exit status {status}: see above")


def debootstrap():
    """The command that makes a Debian system: this machine's, or one unpacked from Debian's package."""
    if shutil.which("debootstrap"):
        return ["debootstrap"], None
    unpacked = cache.unpacked_from_debian(["debian-archive-keyring", "debootstrap"], "no debootstrap")
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
    # Files of certificates, for example.
    for value in network_variables().values():
        if value.startswith("/"):
            copy_if_there(pathlib.Path(value), root / value.lstrip("/"))
    # apt's settings may name programs of this machine: only how it downloads is taken.
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
    # A link of the new system may lead out of it.
    if not copy.parent.resolve().is_relative_to(cache.folder().resolve()):
        raise cache.ToolError(f"{source} cannot be copied: {copy.parent} is a link")
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.unlink(missing_ok=True)
    shutil.copyfile(source, copy)


def network_variables():
    """How this machine reaches registries, as far as its environment says."""
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
    """Runs COMMAND by a shell in the system, as its user; called in a mount and process namespace of its own."""
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
    parser = argparse.ArgumentParser(description="Runs commands as an ordinary user on a minimal Debian 12.")
    parser.add_argument("--mirror", default="", help="where debootstrap downloads from, if not from its default")
    parser.add_argument("--inside", type=pathlib.Path, metavar="ROOT", help=argparse.SUPPRESS)
    parser.add_argument("commands", metavar="COMMAND", nargs="+", help="a line for the shell")
    arguments = parser.parse_args()
    need_root()
    if arguments.inside:
        inside(arguments.inside, arguments.commands[0])
    root = cache.folder() / "minimal-root"
    with cache.locked("minimal-root"):
        if root.exists():
            shutil.rmtree(root)
        if subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=release_cargo.ROOT, check=False).returncode != 0:
            cache.say("note: what is not committed is not tested")
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
