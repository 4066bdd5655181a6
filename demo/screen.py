"""What the demo shows: steps as they happen, checks, and the summary at the end."""

import os
import shutil
import sys
import textwrap

GREEN, RED, BOLD, DIM = "32", "31", "1", "2"


class Screen:
    """Writes plain text that fits a terminal of 80 to 110 columns, in colour when that is a terminal."""

    def __init__(self):
        # A terminal that cannot show a character must not end the demo.
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
        """A sentence of the demo's own."""
        self._wrapped("   ", "   ", text)

    def field(self, name, text):
        """What one side said or has: its name in a column of its own."""
        self._wrapped(f"   {name + ':':14}", " " * 17, text)

    def block(self, text):
        """Lines that stay as they are, such as a file."""
        for line in text.splitlines():
            self._line(self._paint(DIM, f"   | {line}"))

    def check(self, title, passed, detail=""):
        """Records whether what was expected came true. DETAIL is shown where it happens, not in the summary."""
        self.checks.append((title, bool(passed)))
        self._wrapped(f"   {self._verdict(passed)}", " " * 10, title + (f": {detail}" if detail else ""))

    def all_passed(self):
        return all(passed for _, passed in self.checks)

    def summary(self, conclusion):
        """The last screen: what happened, and every check."""
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
        # The first line's beginning may hold colours, which take no room; its room is that of the others.
        lines = textwrap.wrap(text, self._width - len(rest), break_long_words=False, break_on_hyphens=False) or [""]
        self._line(first + lines[0])
        for line in lines[1:]:
            self._line(rest + line)

    def _paint(self, colour, text):
        return f"\033[{colour}m{text}\033[0m" if self._colour else text

    @staticmethod
    def _line(text):
        print(text.rstrip(), flush=True)
