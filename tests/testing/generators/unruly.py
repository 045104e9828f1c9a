"""An OpenAI-compatible endpoint on a real socket that behaves as its script says."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


def reply(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def completion(text: str, prompt_tokens: int = 10, completion_tokens: int = 5) -> bytes:
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return json.dumps({"choices": [choice], "usage": usage}).encode()


def good(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    reply(handler, 200, completion("echo " + body["messages"][-1]["content"]))


def status(code: int, message: str = "no", **headers: str) -> Behaviour:
    body = json.dumps({"error": {"message": message, "code": None}}).encode()
    return lambda handler, _: reply(handler, code, body, **headers)


def raw(body: bytes) -> Behaviour:
    return lambda handler, _: reply(handler, 200, body)


def cut(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
    body = completion("never whole")
    reply(handler, 200, body[: len(body) // 2], Content_Length=str(len(body)))
    handler.close_connection = True


def cut_chunks(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b'5\r\n{"cho\r\n')
    handler.close_connection = True


def mute(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
    handler.close_connection = True


def slow(seconds: float) -> Behaviour:
    def wait(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        time.sleep(seconds)
        good(handler, body)

    return wait


def drip(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
    """A byte now and then: no single read is late."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _byte in range(40):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)
    handler.close_connection = True


@dataclass
class Unruly:
    """``script`` has the behaviours of the next requests; when it is used up, ``otherwise`` holds."""

    url: str = ""
    script: list[Behaviour] = field(default_factory=list)
    otherwise: Behaviour = good
    seen: Counter[str] = field(default_factory=Counter)  # by the last message
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    times_s: list[float] = field(default_factory=list)
    most_at_once: int = 0
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def requests(self) -> int:
        return self.seen.total()

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self.seen[body["messages"][-1]["content"]] += 1
            self.bodies.append(body)
            self.keys.add(handler.headers.get("Authorization"))
            self.times_s.append(time.monotonic())
            behaviour = self.script.pop(0) if self.script else self.otherwise
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            behaviour(handler, body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client had enough
        finally:
            with self._lock:
                self._now -= 1


@contextmanager
def unruly() -> Iterator[Unruly]:
    place = Unruly()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            assert self.path == "/v1/chat/completions"
            place.handle(self)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    place.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield place
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
