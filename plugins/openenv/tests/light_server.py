"""A server that answers /health and nothing else, and starts a process of its own that leaves its session.

python light_server.py PORT MARK [fail]
"""

from __future__ import annotations

import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


if __name__ == "__main__":
    port, mark, *more = sys.argv[1:]
    if more:
        print("the vault is closed on Sundays")
        sys.exit(7)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", mark], start_new_session=True)
    HTTPServer(("127.0.0.1", int(port)), Answer).serve_forever()
