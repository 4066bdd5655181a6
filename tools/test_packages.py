#!/usr/bin/env python3
"""Installs the packages of target/packages, runs tests with the installed files, and removes the packages.

    tools/test_packages.py COMMAND...

COMMAND runs the integration tests, with PSMDB_AWS_IAM_PLUGIN and PSMDB_AWS_IAM_COMMAND set to the installed files, and
names of tests appended. `make test-packages` builds the packages and calls this.

As root on Debian or Ubuntu, dpkg installs the .deb on this machine, where it must not be installed yet, and rpm
installs the .rpm into an empty folder; both are removed, and no file may remain. Otherwise the .deb is unpacked into a
folder, the tests run with these files, the .rpm is only read, and a line says so. dpkg is required; if rpm is missing,
Debian's is unpacked into the cache.
"""

import functools
import gzip
import hashlib
import json
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile

import cache
import packages
import release_cargo

NAME = packages.COMMAND
# Where packages put files, and where dpkg keeps its database.
WATCHED = ["/bin", "/etc", "/lib", "/lib64", "/opt", "/sbin", "/usr", "/var/lib"]
# Cargo's folders, which are below one of those on some machines.
BUILDERS = {os.environ.get(name, "").rstrip("/") for name in ("CARGO_HOME", "RUSTUP_HOME")} | {str(cache.folder())}
# Files that other programs may write meanwhile.
OF_OTHERS = re.compile(
    r"/__pycache__(/|$)|^/var/lib/dpkg/[^/]*(-old|lock[^/]*)$|^/etc/ld\.so\.cache$|^/var/lib/systemd/"
)
# Tests of an installed object: hardening, no effect on other programs, logins.
TESTS = ["hardening::", "logins::", "preload::"]
# Files of only one of the packages, and folders that differ in the .rpm.
ONLY_DEB = f"/usr/share/doc/{NAME}/changelog.Debian.gz"
ONLY_RPM = f"/usr/share/doc/{NAME}/LICENSE"
ZSH_FOLDERS = {"/usr/share/zsh/vendor-completions/": "/usr/share/zsh/site-functions/"}


class Failure(cache.ToolError):
    """A package has a defect."""


def need(right, text):
    if not right:
        raise Failure(text)


def output(command, **options):
    """The output of COMMAND, including standard error; its failure fails the test."""
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    if command[0] in ("rpm", "rpmdb", "rpmkeys"):
        environment |= rpm_environment()
    finished = subprocess.run(
        [str(part) for part in command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        **options,
    )
    text = finished.stdout.decode("utf-8", "replace")
    need(finished.returncode == 0, f"`{' '.join(map(str, command))}` exited with {finished.returncode}:\n{text}")
    return text


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def is_root():
    return os.geteuid() == 0


def need_tools():
    for program in ("dpkg", "dpkg-deb"):
        if not shutil.which(program):
            raise cache.ToolError(f"{program} is missing: run this on Debian or Ubuntu")
    rpm_environment()


@functools.cache
def rpm_environment():
    """Environment variables for rpm: none, or the paths of Debian's unpacked package."""
    if shutil.which("rpm"):
        return {}
    unpacked = cache.unpacked_from_debian(["rpm"], "rpm is missing")
    return {
        "PATH": f"{unpacked / 'usr/bin'}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": ":".join(str(path) for path in cache.library_folders(unpacked)),
        "RPM_CONFIGDIR": str(unpacked / "usr/lib/rpm"),
    }


def files_of_deb(deb):
    """The regular files of the package as {path: (mode, sha256)}; checks all entries."""
    files = {}
    process = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE, check=True)
    times = set()
    with tempfile.TemporaryFile() as file:
        file.write(process.stdout)
        file.seek(0)
        with tarfile.open(fileobj=file) as archive:
            for entry in archive:
                path = "/" + entry.name.removeprefix("./").strip("/")
                need(
                    entry.uid == entry.gid == 0, f"{path} in {deb.name} belongs to {entry.uid}:{entry.gid}, not to root"
                )
                need(path == "/" or path.startswith("/usr"), f"{path} in {deb.name} is outside /usr")
                times.add(int(entry.mtime))
                if entry.isdir():
                    need(entry.mode == 0o755, f"{path} in {deb.name} has mode {entry.mode:o}, not 755")
                else:
                    need(entry.isreg(), f"{path} in {deb.name} is not a regular file")
                    files[path] = (entry.mode, sha256(archive.extractfile(entry).read()))
    need(times == {packages.moment()}, f"timestamps in {deb.name} are {times}, not the time of the last commit")
    programs = set(packages.INSTALLED.values())
    for path, (mode, _) in files.items():
        wanted = 0o755 if path in programs else 0o644
        need(mode == wanted, f"{path} in {deb.name} has mode {mode:o}, not {wanted:o}")
    need(programs <= files.keys(), f"{deb.name} lacks one of {programs}")
    return files


def check_control(deb):
    def field(name):
        return output(["dpkg-deb", "--field", deb, name]).strip()

    need(field("Package") == NAME, f"{deb.name} is the package {field('Package')}")
    need(field("Architecture") == "amd64", f"{deb.name} is for {field('Architecture')}")
    depends = field("Depends")
    for package in ("libc6 (>= ", "libgcc-s1 (>= ", "ca-certificates"):
        need(package in depends, f"{deb.name} depends on {depends}, without {package.split()[0]}")
    with tempfile.TemporaryDirectory() as folder:
        output(["dpkg-deb", "--control", deb, folder])
        control = sorted(os.listdir(folder))
    need(
        control == ["control", "md5sums"],
        f"{deb.name} has scripts or configuration files: {control}",
    )


def check_rpm(rpm, files):
    """The .rpm has the same contents as the .deb, and correct checksums."""
    # `rpm --checksig` runs rpmkeys by its installed path.
    output(["rpmkeys", "--checksig", "--nosignature", rpm])

    def query(*options):
        return output(["rpm", "--query", "--package", *options, rpm])

    need(query("--scripts").strip() == "", f"{rpm.name} has scripts")
    need(query("--configfiles").strip() == "", f"{rpm.name} has configuration files")
    needed = query("--requires")
    for library in ("libc.so.6(GLIBC_", "libgcc_s.so.1(GCC_", "ca-certificates"):
        need(library in needed, f"{rpm.name} does not require {library}:\n{needed}")
    need(
        query("--queryformat", "%{NAME} %{ARCH}").strip() == f"{NAME} x86_64",
        f"{rpm.name} is for another package or architecture",
    )
    listed = {}
    for line in query(
        "--queryformat", r"[%{FILENAMES}|%{FILEMODES}|%{FILEDIGESTS}|%{FILEUSERNAME}|%{FILEGROUPNAME}\n]"
    ).split("\n"):
        if line:
            path, mode, digest, user, group = line.split("|")
            need(user == group == "root", f"{path} in {rpm.name} belongs to {user}:{group}, not to root")
            if stat.S_ISREG(int(mode)):
                listed[path] = (stat.S_IMODE(int(mode)), digest)
    expected = {ONLY_RPM: (0o644, sha256((release_cargo.ROOT / "LICENSE").read_bytes()))}
    for path, described in files.items():
        if path == ONLY_DEB:
            continue
        for debian, other in ZSH_FOLDERS.items():
            path = path.replace(debian, other)
        expected[path] = described
    need(
        listed == expected,
        f"{rpm.name} and the .deb differ in: {sorted(set(listed.items()) ^ set(expected.items()))}",
    )
    return expected


def check_documents(root, bills):
    """Checks the files installed below ROOT, except the programs. BILLS are the SBOMs by Cargo package."""
    share = root / "usr/share"
    for page in (f"{NAME}.1", f"{NAME}-check-server.1"):
        text = gzip.decompress((share / "man/man1" / f"{page}.gz").read_bytes())
        need(b"\n.TH " in b"\n" + text, f"{page} is not a manual page")
    script = share / "bash-completion/completions" / NAME
    completes = output(["bash", "-c", 'source "$1" && complete -p "$2"', "bash", script, NAME])
    need(NAME in completes, f"bash does not complete {NAME}: {completes}")
    for server in ("mongod", "mongos"):
        example = share / "doc" / NAME / "examples" / f"{server}.service.d" / f"{NAME}.conf"
        setting = f"\n[Service]\nEnvironment=LD_PRELOAD={packages.INSTALLED[packages.OBJECT]}\n"
        need(setting in example.read_text(encoding="utf-8"), f"{example} does not preload the installed object")

    notices = gzip.decompress((share / "doc" / NAME / "THIRD-PARTY-NOTICES.gz").read_bytes()).decode()
    lock = (release_cargo.ROOT / "Cargo.lock").read_text(encoding="utf-8")
    listed = {}
    for package, beside in bills.items():
        bill_file = share / NAME / f"{package}.cdx.json"
        need(bill_file.read_bytes() == beside.read_bytes(), f"{bill_file} is not {beside.name}")
        bill = json.loads(bill_file.read_text(encoding="utf-8"))
        for file in bill["metadata"]["component"]["components"]:
            listed[file["name"]] = package
            content = (root / file["name"].lstrip("/")).read_bytes()
            need(
                file["hashes"][0]["content"] == sha256(content),
                f"{bill_file} has a wrong hash for {file['name']}",
            )
        crates = [component for component in bill["components"] if "hashes" in component]
        need(len(crates) > 50, f"{bill_file} has only {len(crates)} crates")
        for crate in crates:
            named = f"{crate['name']} {crate['version']}"
            need(
                f"\n{named}: {crate['licenses'][0]['expression']}\n" in notices,
                f"the notices lack the licence of {named}",
            )
            need(crate["hashes"][0]["content"] in lock, f"the hash of {named} is not in Cargo.lock")
    wanted = {path: packages.BUILT_FROM[name] for name, path in packages.INSTALLED.items()}
    need(listed == wanted, f"the SBOMs describe {listed}, not {wanted}")


def check_programs(root):
    """Checks the object and the command below ROOT."""
    own_paths = [str(path).encode() for path in (release_cargo.ROOT, *release_cargo.crates_folders())]
    for path in packages.INSTALLED.values():
        file = root / path.lstrip("/")
        sections = output(["readelf", "--wide", "--sections", file])
        need(" .symtab " not in sections and " .debug" not in sections, f"{file} is not stripped")
        found = [own.decode() for own in own_paths if own in file.read_bytes()]
        need(not found, f"{file} contains paths of this machine: {found}")
    command = root / packages.INSTALLED[NAME].lstrip("/")
    version = output([command, "--version"]).strip()
    wanted = re.search(
        r'^version = "(.*)"$', (release_cargo.ROOT / "Cargo.toml").read_text(encoding="utf-8"), re.MULTILINE
    )
    need(version == f"{NAME} {wanted[1]}", f"{command} --version says {version!r}")
    mongod = os.environ.get("PSMDB_AWS_IAM_MONGOD_6_0_5") or cache.folder() / "mongod-6.0.5/bin/mongod"
    output([command, "check-server", mongod])


def run_tests(command, root):
    environment = {
        **os.environ,
        "PSMDB_AWS_IAM_PLUGIN": str(root / packages.INSTALLED[packages.OBJECT].lstrip("/")),
        "PSMDB_AWS_IAM_COMMAND": str(root / packages.INSTALLED[NAME].lstrip("/")),
    }
    finished = subprocess.run([*command, "--", *TESTS], cwd=release_cargo.ROOT, env=environment, check=False)
    need(finished.returncode == 0, "the tests with the installed files failed (see above)")


def snapshot():
    """The state of all files in WATCHED."""
    seen = {}
    for top in WATCHED:
        for folder, folders, names in os.walk(top):
            folders[:] = [name for name in folders if f"{folder}/{name}" not in BUILDERS]
            for name in folders + names:
                path = f"{folder}/{name}"
                if OF_OTHERS.search(path):
                    continue
                try:
                    found = os.lstat(path)
                except FileNotFoundError:
                    continue
                # Times of folders, and dpkg's database, change in any case.
                settled = stat.S_ISREG(found.st_mode) and not path.startswith("/var/lib/")
                content = (found.st_size, found.st_mtime_ns) if settled else None
                seen[path] = (found.st_mode, found.st_uid, found.st_gid, content)
    return seen


def need_unchanged(before, after, what):
    changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    need(not changed, f"{what} left or changed {len(changed)} files: {', '.join(changed[:20])}")


def is_known():
    """Whether the package is installed, or removed and not purged."""
    return subprocess.run(["dpkg-query", "--show", NAME], capture_output=True, check=False).returncode == 0


def on_this_machine(deb, files, test):
    """Installs DEB with dpkg, calls TEST with the root folder, removes DEB, and checks for leftovers."""
    # From a package or installed by hand: dpkg would overwrite and finally remove these.
    place = pathlib.Path(packages.INSTALLED[packages.OBJECT]).parent
    there = [path for path in [str(place), *files] if os.path.lexists(path)]
    if is_known() or there:
        raise cache.ToolError(
            f"{NAME} is installed on this machine: remove it ({', '.join(there)}), or run this as an ordinary user"
        )
    # All packages and their states.
    listed = ["dpkg-query", "--show", "--showformat", "${Package} ${Version} ${db:Status-Abbrev}\n"]
    before, packages_before = snapshot(), output(listed)
    try:
        # Container images may exclude documentation.
        output(["dpkg", "--path-include=/usr/share/*", "--install", deb])
        test(pathlib.Path("/"))
        differing = output(["dpkg", "--verify", NAME])
        need(differing == "", f"dpkg --verify finds changed files:\n{differing}")
        output(["dpkg", "--remove", NAME])
        need_unchanged(before, snapshot(), f"dpkg --remove {NAME}")
    finally:
        # The package has no configuration files, so nothing remains to be purged after a removal.
        if is_known():
            subprocess.run(["dpkg", "--purge", NAME], stdout=sys.stderr, check=False)
    need(output(listed) == packages_before, f"dpkg --remove {NAME} changed the list of packages")


def rpm_in_a_folder(rpm, files):
    """Installs RPM into an empty folder and removes it."""
    with tempfile.TemporaryDirectory() as folder:

        def run(*options, program="rpm"):
            return output([program, "--root", folder, "--define", "_dbpath /rpmdb", *options])

        run("--initdb", program="rpmdb")
        # An empty folder has no C library.
        run("--install", "--nodeps", rpm)
        run("--verify", "--nodeps", NAME)
        root = pathlib.Path(folder)
        for path, (mode, digest) in files.items():
            file = root / path.lstrip("/")
            right = stat.S_IMODE(file.stat().st_mode) == mode and sha256(file.read_bytes()) == digest
            need(right, f"{path} differs from {rpm.name} after the installation")
        run("--erase", NAME)
        left = [path for path in root.rglob("*") if NAME in path.name or not path.is_dir()]
        left = [str(path.relative_to(root)) for path in left if path.relative_to(root).parts[0] != "rpmdb"]
        need(not left, f"rpm --erase left {left}")


def one(pattern):
    found = sorted(packages.folder().glob(pattern))
    if len(found) != 1:
        raise cache.ToolError(f"{packages.folder()} has {len(found)} files {pattern}, not one: run `make packages`")
    return found[0]


def main():
    command = sys.argv[1:]
    if not command:
        raise cache.ToolError("the test command is missing: see `make test-packages`")
    deb, rpm = one("*.deb"), one("*.rpm")
    # The version begins with a digit, which distinguishes names with a common prefix.
    bills = {name: one(f"{name}-[0-9]*.cdx.json") for name in packages.BUILT_FROM.values()}
    need_tools()
    check_control(deb)
    files = files_of_deb(deb)
    files_of_rpm = check_rpm(rpm, files)
    print(f"{deb.name}, {rpm.name}: {len(files)} files, identical in both", flush=True)

    def test(root):
        check_programs(root)
        check_documents(root, bills)
        run_tests(command, root)

    if is_root():
        on_this_machine(deb, files, test)
        print(f"{deb.name}: installed by dpkg, tested, removed; no files left")
        rpm_in_a_folder(rpm, files_of_rpm)
        print(f"{rpm.name}: installed by rpm into an empty folder, verified, removed; no files left")
    else:
        with tempfile.TemporaryDirectory() as folder:
            output(["dpkg-deb", "--extract", deb, folder])
            test(pathlib.Path(folder))
        print(
            f"NOT TESTED without root: installing and removing {deb.name} and {rpm.name}; run this as root to test it"
        )


if __name__ == "__main__":
    cache.main(main)
