"""One line for every step that takes time, with seconds since the set-up began."""

from __future__ import annotations

import sys
import time

STARTED = time.monotonic()


class SetupError(Exception):
    """The set-up cannot go on; the message says what the user can do."""


def say(text: str) -> None:
    """Print one progress line to standard error, so that it never mixes with a command's output."""
    print(f"set-up {time.monotonic() - STARTED:6.1f}s  {text}", file=sys.stderr, flush=True)
