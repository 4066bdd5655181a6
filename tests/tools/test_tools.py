"""Tests of the scripts in tools/: `python3 -m unittest discover --start-directory tests/tools`."""

import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from unittest import mock

TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))

import cache  # noqa: E402
import cargo_program  # noqa: E402
import fetch_mongod  # noqa: E402
import python_env  # noqa: E402

SCRIPT = "#!/usr/bin/env python3\n"


class WithCache(unittest.TestCase):
    """Each test has an empty folder, which has the cache in it."""

    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory())).resolve()
        variables = {"PSMDB_AWS_IAM_CACHE": str(self.folder / "cache")}
        self.enterContext(mock.patch.dict(os.environ, variables))
        self.enterContext(mock.patch.object(cache, "say"))

    # unittest has it since Python 3.11.
    def enterContext(self, context):
        value = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return value

    def program(self, path, text):
        path = self.folder / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        return path


class PythonEnvironment(WithCache):
    def test_a_folder_stands_in_for_a_venv_whatever_pip_leaves_beside_the_programs(self):
        def install(_python, _requirements, *options):
            programs = pathlib.Path(options[-1]) / "bin"
            (programs / "__pycache__").mkdir(parents=True)
            (programs / "script").write_text("#!/usr/bin/python3\n", encoding="ascii")
            (programs / "program").write_bytes(b"\x7fELF")
            (programs.parent / "example.py").write_text("print('found')", encoding="ascii")

        target = self.folder / "environment"
        target.mkdir()
        with mock.patch.object(python_env, "install", install), mock.patch.object(cache, "need_pip"):
            python_env.make_folder(target, self.folder / "requirements.txt")
        self.assertEqual(sorted(path.name for path in (target / "bin").iterdir()), ["program", "python"])
        ran = subprocess.run([target / "bin/python", "-m", "example"], capture_output=True, text=True, check=True)
        self.assertEqual(ran.stdout, "found\n")


@unittest.skipUnless(shutil.which("dpkg-deb"), "no dpkg-deb: not a Debian or Ubuntu system")
class MissingLibraries(WithCache):
    """A mongod that needs a library which is in a Debian package only."""

    def setUp(self):
        super().setUp()
        main = 'int main(void) { printf("db version v%d\\n", answer()); }\n'
        sources = {
            "library.c": "int answer(void) { return 6; }\n",
            "mongod.c": f"#include <stdio.h>\nint answer(void);\n{main}",
        }
        for name, text in sources.items():
            (self.folder / name).write_text(text, encoding="ascii")
        libraries = self.folder / "package/usr/lib" / cache.MULTIARCH
        libraries.mkdir(parents=True)
        library = libraries / "libexample.so.4"
        self.cc("-shared", "-fPIC", "-Wl,-soname,libexample.so.4", "library.c", "-o", library)
        self.mongod = self.folder / "cache/mongod-6/bin/mongod"
        self.mongod.parent.mkdir(parents=True)
        self.cc("mongod.c", library, "-o", self.mongod)
        control = self.folder / "package/DEBIAN/control"
        control.parent.mkdir()
        control.write_text(
            "Package: libexample4\nVersion: 1\nArchitecture: amd64\n"
            "Maintainer: test <test@example.com>\nDescription: test\n",
            encoding="ascii",
        )
        subprocess.run(
            ["dpkg-deb", "--build", "--root-owner-group", self.folder / "package", self.folder / "libexample4.deb"],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        library.unlink()
        self.enterContext(mock.patch.dict(fetch_mongod.SERVERS, {"6": ("none", "none")}))
        packages = {"libexample.so.4": "libexample4"}
        self.enterContext(mock.patch.dict(fetch_mongod.DEBIAN_PACKAGES, packages))

    def cc(self, *arguments):
        subprocess.run(["cc", *map(str, arguments)], cwd=self.folder, check=True)

    def apt_get(self, text):
        self.program("bin/apt-get", SCRIPT + text)
        self.enterContext(mock.patch.dict(os.environ, {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}))

    def test_they_are_unpacked_into_the_cache_and_nothing_is_installed(self):
        self.apt_get(
            f"""
import pathlib, shutil, sys
if "install" in sys.argv:
    assert "--download-only" in sys.argv and sys.argv[-1] == "libexample4", sys.argv
    (cache,) = [word.split("=", 2)[2] for word in sys.argv if word.startswith("--option=Dir::Cache=")]
    shutil.copy({str(self.folder / "libexample4.deb")!r}, cache + "/archives/libexample4.deb")
"""
        )
        found = fetch_mongod.fetch("6")
        libraries = self.mongod.parent.parent / "lib"
        self.assertEqual(found, (self.mongod, libraries))
        self.assertEqual(os.readlink(libraries / "libexample.so.4")[:6], "../../")
        environment = {"LD_LIBRARY_PATH": str(libraries)}
        ran = subprocess.run([self.mongod], env=environment, capture_output=True, text=True, check=True)
        self.assertEqual(ran.stdout, "db version v6\n")
        # A second run needs no apt-get.
        (self.folder / "bin/apt-get").unlink()
        self.assertEqual(fetch_mongod.fetch("6"), found)

    def test_without_apt_get_an_error_names_the_packages(self):
        with mock.patch.object(shutil, "which", return_value=None):
            with self.assertRaisesRegex(cache.ToolError, r"mongod misses libexample\.so\.4, .* Debian's libexample4"):
                fetch_mongod.fetch("6")

    def test_a_download_that_fails_leaves_no_half_of_it(self):
        self.apt_get("import sys\nsys.exit('install' in sys.argv)\n")
        with self.assertRaisesRegex(cache.ToolError, r"check the network and apt's sources"):
            fetch_mongod.fetch("6")
        self.assertEqual(list(self.folder.glob("cache/*debian*/")), [])
        self.assertFalse((self.mongod.parent.parent / "ready").exists())


class CargoProgram(WithCache):
    """A program from crates.io; cargo is a script."""

    def cargo(self, script):
        self.program("bin/cargo", "#!/bin/sh\n" + script)
        path = os.pathsep.join([str(self.folder / "bin"), os.environ["PATH"]])
        self.enterContext(mock.patch.dict(os.environ, {"PATH": path}))

    def test_it_is_installed_once_in_its_exact_version(self):
        self.cargo(
            'echo "$@" >> "$0.log"\n'
            'while [ "$1" != --root ]; do shift; done\n'
            'mkdir "$2/bin" && touch "$2/bin/cargo-example"\n'
        )
        for _ in range(2):
            path = cargo_program.program("cargo-example", "1.2.3")
            self.assertEqual(path, self.folder / "cache/cargo-example-1.2.3/bin/cargo-example")
            self.assertTrue(path.exists())
        [call] = (self.folder / "bin/cargo.log").read_text(encoding="ascii").splitlines()
        for part in ("install ", " --locked ", " --version =1.2.3 cargo-example"):
            self.assertIn(part, call)

    def test_an_installation_that_fails_leaves_nothing(self):
        self.cargo("exit 1\n")
        with self.assertRaisesRegex(cache.ToolError, "the installation of cargo-example 1.2.3 failed"):
            cargo_program.program("cargo-example", "1.2.3")
        self.assertFalse((self.folder / "cache/cargo-example-1.2.3").exists())


class CargoRunner(WithCache):
    """tools/cargo_runner.py with programs that write what Rust's test harness writes."""

    PRINT_OPEN_FILES = "import resource\nprint(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"

    def run_test(self, text, *arguments, seconds="60", limits=None, path="deps/tests-0123"):
        program = self.program(path, SCRIPT + text)
        environment = {**os.environ, "PSMDB_AWS_IAM_TEST_SECONDS": seconds}
        return subprocess.run(
            [TOOLS / "cargo_runner.py", program, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
            preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limits)) if limits else None,
        )

    def assert_ends(self, pid):
        until = time.monotonic() + 10
        while pathlib.Path(f"/proc/{pid}/cmdline").exists() and pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
            self.assertLess(time.monotonic(), until, "what a test has started still runs")
            time.sleep(0.01)

    def test_a_test_that_hangs_is_named_and_stopped_with_what_it_started(self):
        ran = self.run_test(
            """
import subprocess, time
print("test a::b ... ok")
print(subprocess.Popen(["sleep", "1000"]).pid)
print("test a::hangs has been running for over 60 seconds", flush=True)
time.sleep(1000)
"""
        )
        self.assertEqual(ran.returncode, 1)
        self.assertIn("a::hangs ran longer than 60 seconds", ran.stderr)
        self.assertNotIn("a::b", ran.stderr)
        self.assert_ends(int(ran.stdout.splitlines()[1]))

    def test_a_test_that_hangs_in_the_only_thread_is_named(self):
        ran = self.run_test(
            """
import time
print("test a::hangs ... test a::hangs has been running for over 60 seconds", flush=True)
time.sleep(1000)
"""
        )
        self.assertIn("a::hangs ran longer than 60 seconds", ran.stderr)

    def test_a_slow_test_that_ends_in_time_is_left_alone(self):
        for result in ["test a::slow ... ok", "test a::slow - should panic ... ok", "ok"]:
            ran = self.run_test(
                f"""
import time
print("test a::slow has been running for over 60 seconds", flush=True)
time.sleep(0.1)
print({result!r}, flush=True)
time.sleep(1.5)
""",
                seconds="61",
            )
            self.assertEqual((ran.returncode, ran.stderr), (0, ""), result)

    def test_a_program_that_is_silent_for_too_long_is_stopped(self):
        ran = self.run_test("import time\ntime.sleep(1000)\n", seconds="1")
        self.assertEqual(ran.returncode, 1)
        self.assertIn("the tests ran longer than 6 seconds in all", ran.stderr)

    def test_what_a_program_leaves_behind_is_not_waited_for(self):
        ran = self.run_test(
            """
import subprocess
print(subprocess.Popen(["sleep", "1000"], stderr=subprocess.DEVNULL, start_new_session=True).pid)
"""
        )
        os.kill(int(ran.stdout), signal.SIGKILL)
        self.assertEqual(ran.returncode, 0)

    def test_a_test_program_gets_the_open_files_it_needs(self):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        ran = self.run_test(self.PRINT_OPEN_FILES, limits=(1024, hard))
        self.assertEqual((ran.returncode, ran.stdout), (0, "4096\n"), ran.stderr)

    def test_where_it_cannot_get_them_it_fails_at_once_and_says_what_is_needed(self):
        ran = self.run_test("print('started')", limits=(1024, 1024))
        self.assertEqual((ran.returncode, ran.stdout), (1, ""))
        self.assertIn("the tests need 4096 open files, and this user's hard limit is 1024", ran.stderr)

    def test_exit_status_output_and_arguments_are_passed_on(self):
        text = "import sys\nprint(sys.argv[1:])\nprint('e', file=sys.stderr)\nsys.exit(101)"
        ran = self.run_test(text, "a", "--list")
        self.assertEqual((ran.returncode, ran.stdout, ran.stderr), (101, "['a', '--list']\n", "e\n"))
        ran = self.run_test("import os\nos.abort()")
        self.assertEqual(ran.returncode, -6)

    def test_other_programs_are_run_without_limits(self):
        for path, argument in [("debug/command", "x"), ("deps/bench-0123", "--bench")]:
            ran = self.run_test(self.PRINT_OPEN_FILES, argument, limits=(512, 1024), path=path)
            self.assertEqual((ran.returncode, ran.stdout), (0, "512\n"), ran.stderr)

    def test_a_limit_that_is_no_number_is_refused(self):
        ran = self.run_test("", seconds="1h")
        self.assertIn("PSMDB_AWS_IAM_TEST_SECONDS must be a whole number of seconds, not '1h'", ran.stderr)


if __name__ == "__main__":
    unittest.main()
