"""The demo's two servers as child processes: local-sts, which replaces AWS STS, and mongod with the plugin."""

import json
import os
import pathlib
import socket
import subprocess
import time

START_STOP_LIMIT = 30  # seconds for a server to start or to stop
POLL = 0.05  # seconds between checks
PORT_TRIES = 5  # another program can take the port before mongod binds it


class ServerError(Exception):
    """A server failed; the text names it and what failed."""


class Server:
    """A child process whose output goes to files in FOLDER, stopped by its own handle at the end of a `with` block."""

    name = ""
    # The files in its folder to show after a failure.
    log_files = ("stdout", "stderr")

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir()
        self._child = None

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception):
        self.stop()

    def start(self):
        raise NotImplementedError

    def stop(self):
        """Stops the process and returns its exit status; None if it never ran."""
        child = self._child
        if child is None:
            return None
        if child.stdin:
            child.stdin.close()
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(START_STOP_LIMIT)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        return child.returncode

    def run(self, command, environment, **options):
        """Starts the process in its own session: Ctrl-C reaches only the demo, which then stops it."""
        with open(self.folder / "stdout", "wb") as stdout, open(self.folder / "stderr", "wb") as stderr:
            try:
                self._child = subprocess.Popen(
                    [str(part) for part in command],
                    env=environment,
                    stdout=stdout,
                    stderr=stderr,
                    start_new_session=True,
                    **options,
                )
            except OSError as error:
                raise ServerError(f"cannot start {self.name}: {command[0]}: {error.strerror}") from error

    def text_of(self, name):
        try:
            return (self.folder / name).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def tail_of(self, name, count):
        """The last COUNT lines of one of its files, each truncated."""
        lines = self.text_of(name).splitlines()[-count:]
        return [line if len(line) <= 400 else line[:400] + "…" for line in lines]

    def wait_until(self, condition, what, limit=START_STOP_LIMIT):
        """Returns the first true value of CONDITION()."""
        until = time.monotonic() + limit
        while True:
            # Read the status first: output before the exit still counts.
            status = self._child.poll()
            value = condition()
            if value:
                return value
            if status is not None:
                raise ServerError(f"{self.name} exited with status {status} before {what}")
            if time.monotonic() > until:
                raise ServerError(f"{self.name}: timed out after {limit} seconds waiting for {what}")
            time.sleep(POLL)


class LocalSts(Server):
    """An STS on loopback that verifies signatures, for the given identities."""

    name = "local-sts"

    def __init__(self, folder, program, identities):
        super().__init__(folder)
        self.endpoint = None
        self.ca_file = None
        self._program = program
        self._identities = identities

    def start(self):
        identities = self.folder / "identities.json"
        identities.write_text(json.dumps(self._identities), encoding="utf-8")
        command = [self._program, "--data-dir", self.folder, "--identities", identities, "--stop-with-stdin"]
        self.run(command, environment=None, stdin=subprocess.PIPE)

        def announced():
            line = self.text_of("stdout")
            return line.endswith("\n") and json.loads(line)

        ready = self.wait_until(announced, "its endpoint")
        self.endpoint, self.ca_file = ready["endpoint"], ready["ca_file"]


class Mongod(Server):
    """A mongod with an empty database, authorization and the plugin."""

    name = "mongod"
    log_files = ("stdout", "stderr", "mongod.log")

    def __init__(self, folder, program, library_path, plugin, parameters):
        super().__init__(folder)
        self.port = None
        self.config = None
        self._program = program
        self._library_path = library_path
        self._plugin = plugin
        self._parameters = parameters

    def start(self):
        (self.folder / "db").mkdir()
        for _ in range(PORT_TRIES):
            self.port = free_port()
            self.config = self._write_config()
            environment = {**os.environ, "LD_PRELOAD": str(self._plugin)}
            if self._library_path:
                environment["LD_LIBRARY_PATH"] = self._library_path
            self.run([self._program, "--config", self.config], environment, stdin=subprocess.DEVNULL)
            try:
                self.wait_until(lambda: "Waiting for connections" in self.text_of("mongod.log"), "connections")
                return
            except ServerError:
                if self._child.poll() is None or "Address already in use" not in self.text_of("mongod.log"):
                    raise
        raise ServerError(f"mongod found no free port in {PORT_TRIES} tries")

    def log_position(self):
        """The current end of the log, for wait_for_log."""
        return len(self.text_of("mongod.log"))

    def find_in_log(self, wanted, since=0):
        """The first log entry after position SINCE for which WANTED(entry) is true, or None."""
        for line in self.text_of("mongod.log")[since:].splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # an incomplete last line
            if wanted(entry):
                return entry
        return None

    def wait_for_log(self, wanted, since=0):
        """Like find_in_log, but waits some seconds for the entry."""
        try:
            return self.wait_until(lambda: self.find_in_log(wanted, since), "the entry in its log", limit=5)
        except ServerError:
            return None

    def _write_config(self):
        lines = [
            "net:",
            "  bindIp: 127.0.0.1",
            f"  port: {self.port}",
            "  unixDomainSocket:",
            "    enabled: false",
            "storage:",
            f"  dbPath: {yaml(self.folder / 'db')}",
            "systemLog:",
            "  destination: file",
            f"  path: {yaml(self.folder / 'mongod.log')}",
            "security:",
            "  authorization: enabled",
            "setParameter:",
            *(f"  {name}: {yaml(value)}" for name, value in self._parameters.items()),
        ]
        config = self.folder / "mongod.conf"
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return config


def yaml(value):
    """A quoted YAML string, which is the same as JSON's."""
    return json.dumps(str(value))


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
