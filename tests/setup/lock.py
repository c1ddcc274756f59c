"""``make lock``: resolve and pin tests/requirements/*.in anew."""

from __future__ import annotations

import sys

from tests.setup import virtualenv

for kind in sys.argv[1:] or virtualenv.KINDS:
    virtualenv.relock(kind)
