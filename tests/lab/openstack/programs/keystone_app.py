"""WSGI entry of keystone: it would read gunicorn's own arguments as its options."""

import sys

sys.argv = sys.argv[:1]
from keystone.wsgi.api import application  # noqa: F401
