"""WSGI entry of nova-api: it would read gunicorn's own arguments as its options."""

import sys

sys.argv = sys.argv[:1]
from nova.wsgi.osapi_compute import application  # noqa: F401
