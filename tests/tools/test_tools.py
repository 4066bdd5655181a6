"""Tests of the scripts in tools/: `python3 -m unittest discover --start-directory tests/tools`."""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))

import cache  # noqa: E402
import python_env  # noqa: E402

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


if __name__ == "__main__":
    unittest.main()
