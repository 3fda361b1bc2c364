"""The `export` command: what it writes and prints, from JSONL and from shards, and its errors."""

import json
import subprocess
import sys

import pytest

from dataset_builders.__main__ import main
from dataset_builders.exporting import FORMATS
from dataset_builders.record import record_key
from dataset_builders.tar_shards import write_shard
from tests.conftest import ROOT
from tests.records import make_record


@pytest.fixture(scope="module")
def records():
    return [make_record("video", n, seed=n) for n in range(3)]


@pytest.fixture
def source(records, tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_formats(name, source, tmp_path, capsys):
    assert main(["export", name, str(source), "--output", str(tmp_path / "out"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    boxes = sum(len(frame) for line in source.read_text().splitlines() for frame in json.loads(line)["bboxes"])
    assert printed == {
        "format": name, "output": str(tmp_path / "out"), "clips": 3, "frames": 30, "tracks": 9, "boxes": boxes, "categories": 3,
    }  # fmt: skip
    assert (tmp_path / "out").exists()


def test_limit_and_categories(source, tmp_path, capsys):
    output = tmp_path / "coco.json"
    options = ["--limit", "2", "--categories", "single"]
    assert main(["export", "coco", str(source), "--output", str(output), *options]) == 0
    assert capsys.readouterr().out.startswith(f"{output}: 2 clips, 20 frames, 6 tracks, ")
    data = json.loads(output.read_text())
    assert (len(data["videos"]), data["categories"]) == (2, [{"id": 1, "name": "object"}])


def test_from_shards(records, tmp_path, capsys):
    folder = tmp_path / "shards"
    folder.mkdir()
    for number, part in enumerate((records[:2], records[2:])):
        samples = [(record_key(record), {"json": json.dumps(record).encode()}) for record in part]
        write_shard(folder / f"train-{number:05d}.tar", samples)
    options = ["--video", "clip", "--video-root", "/data/local-files/?d="]
    assert main(["export", "label-studio", str(folder), "--output", str(tmp_path / "tasks"), *options]) == 0
    tasks = json.loads((tmp_path / "tasks" / "tasks.json").read_text())
    assert [task["data"]["video"] for task in tasks] == [f"/data/local-files/?d=video_{n}.mp4" for n in range(3)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["coco", "SOURCE", "--output", "out.json", "--video", "clip"], "--video: coco has no use for it"),
        (["cvat", "SOURCE", "--output", "out", "--video-root", "x"], "--video-root: cvat has no use for it"),
        (["mot", "SOURCE", "--output", "out", "--limit", "0"], "--limit: expected at least 1, got 0"),
        (["mot", "missing.jsonl", "--output", "out"], "missing.jsonl"),
        (["yolo", "SOURCE", "--output", "out"], "invalid choice: 'yolo'"),
    ],
)
def test_errors_are_one_line(arguments, message, source, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        status = main(["export", *(str(source) if word == "SOURCE" else word for word in arguments)])
    except SystemExit as stop:
        status = stop.code
    printed = capsys.readouterr()
    assert status == 2
    assert printed.err.startswith("error: ") and message in printed.err
    assert printed.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["records.jsonl"]


def test_supervision_is_optional(source, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    assert main(["export", "supervision", str(source), "--output", str(tmp_path / "boxes.csv")]) == 2
    assert capsys.readouterr().err == "error: supervision is not installed; run `pip install supervision`\n"
    assert not (tmp_path / "boxes.csv").exists()


def test_in_a_process_of_its_own(source, tmp_path):
    arguments = ["export", "cvat", str(source), "--output", str(tmp_path / "cvat"), "--json"]
    run = subprocess.run(
        [sys.executable, "-m", "dataset_builders", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert json.loads(run.stdout)["clips"] == 3
    assert len(list((tmp_path / "cvat").glob("*.xml"))) == 3


def test_help(capsys):
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in FORMATS)
    assert "tasks.json and labeling_config.xml" in text
