"""A server of OpenAI's chat protocol on 127.0.0.1 that answers as it is told to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class ChatServer(ThreadingHTTPServer):
    """
    Args:
        script: for each request in turn what is done: a text is the answer, a number a status, `("slow", seconds, text)` an answer
            after a while, `("raw", bytes)` a body as it is, `("cut", text)` the beginning of an answer whose connection then ends.
            The last one goes on for ever.
    """

    daemon_threads = True

    def __init__(self, script):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script, self.requests, self.tokens, self.lock = [*script], [], [], threading.Lock()
        self.running = self.most = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.requests.append((self.path, body))
            server.tokens.append(self.headers.get("Authorization"))
            server.running += 1
            server.most = max(server.most, server.running)
            what = server.script.pop(0) if len(server.script) > 1 else server.script[0]
        try:
            self._do(what)
        finally:
            with server.lock:
                server.running -= 1

    def _do(self, what):
        if isinstance(what, int):
            return self._send(what, b'{"error": "busy"}')
        if isinstance(what, str):
            return self._send(200, _completion(what))
        kind, *rest = what
        if kind == "slow":
            time.sleep(rest[0])
            return self._send(200, _completion(rest[1]))
        if kind == "raw":
            return self._send(200, rest[0])
        body = _completion(rest[0])
        self._head(200, len(body))
        self.wfile.write(body[: len(body) // 2])
        self.close_connection = True
        return None

    def _head(self, status, length):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _send(self, status, body):
        try:
            self._head(status, len(body))
            self.wfile.write(body)
        except BrokenPipeError:
            pass  # who asked has gone

    def log_message(self, *args):
        pass


def _completion(text):
    return json.dumps(
        {
            "id": "1", "object": "chat.completion", "created": 0, "model": "m", "system_fingerprint": "",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
    ).encode()  # fmt: skip


@contextmanager
def chat_server(*script) -> Iterator[ChatServer]:
    """The server, while it runs."""
    server = ChatServer(script)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
