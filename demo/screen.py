"""The demo's output: steps, checks, and a summary at the end."""

import os
import shutil
import sys
import textwrap

GREEN, RED, BOLD, DIM = "32", "31", "1", "2"


class Screen:
    """Writes text for 80 to 110 columns, in colour on a terminal."""

    def __init__(self):
        # A character that the terminal cannot show must not end the demo.
        sys.stdout.reconfigure(errors="replace")
        self.checks = []
        self._steps = 0
        self._width = max(80, min(shutil.get_terminal_size((100, 24)).columns, 110)) - 1
        self._colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"

    def title(self, text):
        self._line(self._paint(BOLD, text))

    def step(self, text):
        self._steps += 1
        self._line("")
        self._line(self._paint(BOLD, f"{self._steps}. {text}"))

    def say(self, text):
        """A sentence of the demo."""
        self._wrapped("   ", "   ", text)

    def field(self, name, text):
        """A name and a value in two columns."""
        self._wrapped(f"   {name + ':':14}", " " * 17, text)

    def block(self, text):
        """Verbatim lines, such as a file."""
        for line in text.splitlines():
            self._line(self._paint(DIM, f"   | {line}"))

    def check(self, title, passed, detail=""):
        """Records a check. DETAIL is shown immediately, not in the summary."""
        self.checks.append((title, bool(passed)))
        self._wrapped(f"   {self._verdict(passed)}", " " * 10, title + (f": {detail}" if detail else ""))

    def all_passed(self):
        return all(passed for _, passed in self.checks)

    def summary(self, conclusion):
        """The conclusion and all checks."""
        self._line("")
        self._line(self._paint(BOLD, " Summary ".center(self._width, "=")))
        self._wrapped("", "", conclusion)
        self._line("")
        for title, passed in self.checks:
            self._wrapped(f"   {self._verdict(passed)}", " " * 10, title)
        self._line("")
        failed = sum(not passed for _, passed in self.checks)
        if failed:
            self._line(self._paint(RED, f"{failed} of {len(self.checks)} checks FAILED"))
        else:
            self._line(self._paint(GREEN, f"all {len(self.checks)} checks ok"))

    def _verdict(self, passed):
        return self._paint(GREEN, "ok     ") if passed else self._paint(RED, "FAILED ")

    def _wrapped(self, first, rest, text):
        # The first line's prefix may contain colour codes without width, so REST gives the width.
        lines = textwrap.wrap(text, self._width - len(rest), break_long_words=False, break_on_hyphens=False) or [""]
        self._line(first + lines[0])
        for line in lines[1:]:
            self._line(rest + line)

    def _paint(self, colour, text):
        return f"\033[{colour}m{text}\033[0m" if self._colour else text

    @staticmethod
    def _line(text):
        print(text.rstrip(), flush=True)
