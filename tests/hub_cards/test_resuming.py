"""An upload whose server is killed in its middle goes on when the command is given again, and sends only what is missing."""

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

from huggingface_hub import HfApi
from safetensors.numpy import load_file, save_file

from hub_cards.__main__ import main
from tests.conftest import ROOT
from tests.hub_cards.publishing import DEMO, copy_of

_PARTS, _BYTES = 24, 6_000_000


def start_hub(port: int, folder: Path, log: Path) -> subprocess.Popen:
    """A Hub as a process of its own, up."""
    command = [sys.executable, "-m", "tests.local_hub", "--port", str(port), "--storage", str(folder)]
    hub = subprocess.Popen(command, cwd=ROOT, stdout=log.open("ab"), stderr=subprocess.STDOUT)
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return hub
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def blobs(folder: Path) -> set[str]:
    """The large files that have arrived whole."""
    return {p.name for p in folder.glob("blobs/*/*") if len(p.name) == 64 and p.stat().st_size > _BYTES}


def sent(log: Path, since: int = 0) -> list[str]:
    """The large files that were sent, by the server's log."""
    return re.findall(r'"PUT /blobs/([0-9a-f]{64}) HTTP/1.1" 200', log.read_text()[since:])


def big_model(folder: Path) -> Path:
    """The demo model with more weights than it needs, in many files, so that sending them takes a while."""
    model = copy_of(DEMO, folder)
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    names = sorted(weights)
    for part in range(_PARTS):
        save_file({n: weights[n] for n in names[part::_PARTS]}, model / f"model-{part:05}-of-{_PARTS:05}.safetensors")
        with (model / f"model-{part:05}-of-{_PARTS:05}.safetensors").open("r+b") as file:
            header = int.from_bytes(file.read(8), "little")
            text = file.read(header)
            file.seek(0)
            rest = file.read()[8 + header :]
            padded = text + b" " * _BYTES  # a header may end in blanks
            file.seek(0)
            file.write(len(padded).to_bytes(8, "little") + padded + rest)
    return model


def test_an_upload_goes_on_where_the_server_was_killed(tmp_path, monkeypatch, capsys):
    model, storage, log = big_model(tmp_path / "model"), tmp_path / "hub", tmp_path / "log.txt"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    command = ["publish", "model", str(model), "--repo", "org/big", "--tag", "v1.0", "--license", "apache-2.0"]
    command += ["--without-forward", "--json"]
    hub = start_hub(port, storage, log)
    client = subprocess.Popen(
        [sys.executable, "-m", "hub_cards", *command],
        cwd=ROOT, env=os.environ | {"HF_ENDPOINT": endpoint}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        while len(blobs(storage)) < 8:
            assert client.poll() is None, client.communicate()[0]
            time.sleep(0.002)
        hub.kill()  # SIGKILL: whatever was under way is lost
        hub.wait()
        client.kill()  # which would try again for half a minute
        client.wait()
        arrived, first = blobs(storage), len(log.read_text())
        assert 8 <= len(arrived) < _PARTS

        hub = start_hub(port, storage, log)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        assert main(command) == 0, capsys.readouterr().err
        told = json.loads(capsys.readouterr().out)
        again = sent(log, first)
        assert len(again) == len(set(again)) == _PARTS - len(arrived) and not set(again) & arrived
        there = {entry.path: entry for entry in HfApi(endpoint=endpoint).list_repo_tree("org/big", revision="v1.0")}
        assert {*there} == {*told["files"], ".gitattributes"}
        for path in model.glob("*.safetensors"):
            assert there[path.name].lfs.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    finally:
        client.kill()
        client.wait()
        hub.kill()
        hub.wait()
