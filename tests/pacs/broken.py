"""Nodes that misbehave, on loopback: servers made of a few lines."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Answer = tuple[int, str, bytes]
"""HTTP status, content type, body."""


@contextmanager
def raw_server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port whose connections are handed to `serve`, each in a thread; they are closed when the block ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    taken: list[socket.socket] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                taken.append(connection)
                threading.Thread(target=one, args=(connection,), daemon=True).start()

    def one(connection: socket.socket) -> None:
        with suppress(OSError):
            serve(connection)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for connection in taken:
            connection.close()


def silence(connection: socket.socket) -> None:
    """Takes everything and says nothing."""
    while connection.recv(1 << 16):
        pass


@contextmanager
def http_server(answer: Callable[[str, str], Answer]) -> Iterator[int]:
    """Answers (method, path) as told. A content length of the body is sent, plus 100 where the status is 299."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body = answer(self.command, self.path)
            self.send_response(200 if status == 299 else status)
            if kind:
                self.send_header("Content-Type", kind)
            if status in (301, 302):
                self.send_header("Location", self.path)
            self.send_header("Content-Length", str(len(body) + (100 if status == 299 else 0)))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.do_GET()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def node_file(folder: Path, port: int, timeout_s: float = 1.0) -> Path:
    """A configuration with the nodes web and get at this port."""
    path = folder / "broken.toml"
    path.write_text(
        f'[nodes.web]\nkind = "dicomweb"\nurl = "http://localhost:{port}/dicom-web"\ntimeout_s = {timeout_s}\n'
        f'[nodes.get]\nkind = "dimse"\nhost = "localhost"\nport = {port}\nae_title = "BROKEN"\n'
        f"timeout_s = {timeout_s}\n"
    )
    return path
