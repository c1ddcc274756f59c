"""A Neutron that knows no network: enough for servers booted with `networks: none`.

Usage: neutron_stub.py ADDRESS PORT. Answers every list with an empty list.
"""

import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

EXTENSIONS = (
    "binding",
    "binding-extended",
    "provider",
    "multi-provider",
    "security-group",
    "quotas",
    "port-resource-request",
)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        code, body = 200, {}
        if path in ("", "/"):
            href = f"http://{self.server.server_address[0]}:{self.server.server_address[1]}/v2.0/"
            body = {"versions": [{"id": "v2.0", "status": "CURRENT", "links": [{"rel": "self", "href": href}]}]}
        elif re.fullmatch(r"/v2\.0/?", path):
            body = {"resources": []}
        elif path.startswith("/v2.0/extensions"):
            common = {"description": "", "links": [], "updated": "2020-01-01T00:00:00-00:00"}
            body = {"extensions": [{"alias": alias, "name": alias, **common} for alias in EXTENSIONS]}
        elif path.startswith("/v2.0/quotas"):
            body = {"quota": {}}
        elif self.command == "GET" and (match := re.fullmatch(r"/v2\.0/([a-z-]+)(\.json)?", path)):
            body = {match.group(1).replace("-", "_"): []}
        else:
            code, body = 404, {"NeutronError": {"type": "NotFound", "message": "not in the lab's stub", "detail": ""}}
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_DELETE = answer


if __name__ == "__main__":
    ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
