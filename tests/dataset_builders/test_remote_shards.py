"""Shards on a server that refuses, and whose connections drop."""

import contextlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dataset_builders import tar_shards
from dataset_builders.tar_shards import ShardError, iter_shard, write_shard


def read(url: str, **options: object) -> list[tuple[str, dict[str, bytes]]]:
    return [(sample.key, sample.members) for sample in iter_shard(url, **options)]


@contextlib.contextmanager
def served(content: bytes, failures: list[int], ranges: bool = True) -> Iterator[str]:
    """The URL of a file whose downloads each use up a failure: 0 for a connection that drops half way, or the HTTP status."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(200, content if ranges else b"", {"Accept-Ranges": "bytes" if ranges else "none"})

        def do_GET(self) -> None:
            wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if ranges else None
            body = content[int(wanted[1]) : int(wanted[2]) + 1] if wanted else content
            status = 206 if wanted else 200
            failure = failures.pop(0) if failures else status
            self.answer(failure or status, body, {})
            self.wfile.write(body if failure else body[: len(body) // 2])
            self.close_connection = not failure

        def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, contextlib.ExitStack() as stack:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stack.callback(server.shutdown)
        yield f"http://127.0.0.1:{server.server_port}/shard.tar?signature=secret"


def test_a_connection_that_drops_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_shards, "_PAUSES", (0.0, 0.0, 0.0))
    samples = [(f"v{i}_0", {"json": b"{}", "mp4": bytes([i]) * 1_000_000}) for i in range(13)]  # three requests
    write_shard(tmp_path / "shard.tar", samples)
    for failures in ([0], [0, 503, 0], [200, 0, 0, 200, 502]):
        with served((tmp_path / "shard.tar").read_bytes(), failures) as url:
            assert read(url) == samples
            assert not failures


@pytest.mark.parametrize(
    ("failures", "left", "message"),
    [
        ([0] * 9, 5, r"\(ClientPayloadError: .*\)"),
        ([403] * 9, 8, r"\(ClientResponseError: 403, .*\)"),
    ],
)
def test_remote_failures_are_errors_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: list[int], left: int, message: str
) -> None:
    monkeypatch.setattr(tar_shards, "_PAUSES", (0.0, 0.0, 0.0))
    failures = [*failures]
    write_shard(tmp_path / "shard.tar", [("v_0", {"json": b"{}"})])
    with served((tmp_path / "shard.tar").read_bytes(), failures) as url:
        problems: list[ShardError] = []
        with pytest.raises(OSError, match=message) as error:
            read(url, on_problem=problems.append)
    assert str(error.value).startswith(url.split("?")[0] + ": cannot be read (")
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)
    assert (len(failures), problems) == (left, [])


def test_without_ranges_a_drop_in_the_middle_is_final(tmp_path: Path) -> None:
    write_shard(tmp_path / "shard.tar", [(f"v{i}_0", {"json": b"{}", "mp4": bytes(1_000_000)}) for i in range(9)])
    with served((tmp_path / "shard.tar").read_bytes(), [200, 0], ranges=False) as url:
        assert len(read(url)) == 9
        with pytest.raises(OSError, match="ClientPayloadError"):
            read(url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:9/a.tar?signature=secret", "ClientConnectorError: Cannot connect"),
        ("nothing://a/b.tar", "ValueError: Protocol not known"),
        ("file:///absent/a.tar", "FileNotFoundError: "),
    ],
)
def test_what_cannot_be_opened(url: str, reason: str) -> None:
    with pytest.raises(OSError, match=f"cannot be read .{reason}") as error:
        read(url)
    assert "secret" not in str(error.value)
