"""The validator: every reason on a record that has it, and nothing lost where there is no error."""

import copy
import json
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from dataset_builders.__main__ import main
from dataset_builders.problems import ERRORS, WARNINGS, is_valid
from dataset_builders.reading import read_records
from dataset_builders.record import from_record, to_record
from dataset_builders.record_checks import check_record
from dataset_builders.tar_shards import write_shard
from dataset_builders.validation import Validator, clip_boxes
from tests.records import make_record

OURS = ("frame_indices", "timestamps", "track_phrases", "track_ids", "scores", "metadata")
NAN, INF = float("nan"), float("inf")


def as_original(record: dict) -> dict:
    return {name: value for name, value in record.items() if name not in OURS}


def with_box(*box: Any) -> dict:
    """A record whose first box is this one."""
    record = make_record()
    record["bboxes"][0][0] = list(box)
    return record


def without_boxes(record: dict) -> dict:
    return {**record, **{name: [[] for _ in record["bboxes"]] for name in ("bboxes", "labels", "track_ids", "scores")}}


def changed(**fields: Any) -> dict:
    return {**make_record(), **fields}


def original(**fields: Any) -> dict:
    return {**as_original(make_record()), **fields}


def retold(caption: str, tagged: str, phrases: list[str]) -> dict:
    """A record without boxes and with another caption."""
    record = as_original(without_boxes(make_record()))
    return {**record, "caption": caption, "tagged_caption": tagged, "phrases": phrases}


def reasons(record: Any, **options: Any) -> set[str]:
    return {problem.reason for problem in check_record(record, **options)}


@pytest.mark.parametrize("instances", [1, 2])
def test_good_records_have_no_problems(instances):
    record = make_record(instances=instances, end_frame=124, metadata={"type": "question"})
    assert check_record(record) == []
    assert check_record(as_original(record)) == []
    assert check_record({**as_original(record), **dict.fromkeys(OURS)}) == []
    assert reasons(record, require_processed=True) == (set() if instances == 1 else {"not_processed"})
    assert reasons(as_original(record), require_processed=True) == (set() if instances == 1 else {"not_processed"})


def test_two_mentions_of_a_phrase_are_not_two_instances():
    record = make_record(tagged_caption="<p>A man</p> hands <p>a man</p> <p>a cup</p>.")
    assert reasons(record, require_processed=True) == reasons(as_original(record), require_processed=True) == set()


NESTED = "[" * 5000 + "]" * 5000
CASES: list[tuple[str, Callable[[], Any]]] = [
    ("not_an_object", lambda: [1]),
    ("missing_field", lambda: {name: value for name, value in make_record().items() if name != "phrases"}),
    ("missing_field", lambda: changed(tagged_caption=None)),
    ("wrong_type", lambda: changed(clip_id="0")),
    ("wrong_type", lambda: changed(clip_id=True)),
    ("wrong_type", lambda: changed(width=64.0)),
    ("wrong_type", lambda: changed(phrases="A man")),
    ("wrong_type", lambda: with_box(1, 2, 3)),
    ("wrong_type", lambda: with_box(1, 2, None, 4)),
    ("not_finite", lambda: changed(fps=INF)),
    ("not_finite", lambda: changed(timestamps=[NAN] * 10)),
    ("not_finite", lambda: changed(fps=10**400)),
    ("out_of_range", lambda: changed(fps=0)),
    ("out_of_range", lambda: changed(height=-48)),
    ("out_of_range", lambda: changed(width=65_537)),
    ("out_of_range", lambda: changed(height=200_000)),
    ("out_of_range", lambda: changed(clip_id=2**63)),
    ("out_of_range", lambda: changed(scores=[[2.0 for _ in ids] for ids in make_record()["track_ids"]])),
    ("bad_text", lambda: changed(video_fname="\ud800.mp4")),
    ("bad_key", lambda: changed(video_id="a.b")),
    ("bad_key", lambda: changed(video_id="a/b")),
    ("bad_key", lambda: changed(video_id="a b")),
    ("bad_key", lambda: changed(video_id="a\x07b")),
    ("bad_key", lambda: changed(video_id="")),
    ("bad_key", lambda: changed(video_id="\xe9" * 50)),
    ("bad_video_fname", lambda: changed(video_fname="")),
    ("bad_video_fname", lambda: changed(video_fname="../video.mp4")),
    ("bad_video_fname", lambda: changed(video_fname="/video.mp4")),
    ("clip_range", lambda: changed(clip_start_frame=50, clip_end_frame=49)),
    ("clip_range", lambda: changed(clip_start_frame=-1)),
    ("empty_caption", lambda: retold(" ", " ", [])),
    ("marker_in_caption", lambda: retold("A man</s>", "<p>A man</p></s>", ["A man"])),
    ("bad_tags", lambda: retold("A man", "<p>A man", ["A man"])),
    ("overlapping_phrases", lambda: retold("A man's hat", "<p><p>A man</p>'s hat</p>", ["A man", "A man's hat"])),
    ("tagged_caption_differs", lambda: changed(caption="A man cuts two onions with a knife. Then he leaves.")),
    ("tagged_caption_inexact", lambda: original(caption="'a man cuts two onions  with a knife.'")),
    ("empty_phrase", lambda: original(phrases=["A man", "two onions", "a knife", " "])),
    ("phrase_not_in_caption", lambda: original(phrases=["A man", "two onions", "a knife", "a spoon"])),
    ("phrase_not_tagged", lambda: original(phrases=["A man", "two onions", "a knife", "onions"])),
    ("phrase_not_tagged", lambda: original(phrases=["A man", "a man", "two onions", "a knife"])),
    ("tag_without_phrase", lambda: retold("A man runs.", "<p>A man</p> runs.", [])),
    ("label_not_a_phrase", lambda: original(phrases=["two onions", "a knife"])),
    ("length_mismatch", lambda: original(labels=make_record()["labels"][:-1])),
    ("length_mismatch", lambda: original(labels=[["A man"]] * 10)),
    ("length_mismatch", lambda: changed(frame_indices=[0, 5])),
    ("length_mismatch", lambda: changed(timestamps=[])),
    ("length_mismatch", lambda: changed(track_ids=[[]] * 10)),
    ("length_mismatch", lambda: changed(scores=[[1.0]] * 10)),
    ("no_frames", lambda: changed(**{name: [] for name in ("bboxes", "labels", "track_ids", "scores", *OURS[:2])})),
    ("frame_count", lambda: original(clip_end_frame=10**18)),
    ("frame_count", lambda: original(clip_end_frame=44)),
    ("one_frame_less", lambda: original(clip_end_frame=50)),
    ("frame_order", lambda: changed(frame_indices=[0] * 10)),
    ("frame_order", lambda: changed(timestamps=list(range(10, 0, -1)))),
    ("frame_outside_clip", lambda: changed(frame_indices=list(range(45, 55)))),
    ("box_not_finite", lambda: with_box(NAN, 2, 3, 4)),
    ("box_not_finite", lambda: with_box(1, 2, 3, 1e39)),
    ("box_without_area", lambda: with_box(5, 5, 5, 9)),
    ("box_without_area", lambda: with_box(9, 5, 5, 9)),
    ("box_without_area", lambda: with_box(10.00000001, 5, 10.00000002, 9)),
    ("box_outside", lambda: with_box(-1.5, 0, 5, 5)),
    ("box_outside", lambda: with_box(0, 0, 64, 50)),
    ("box_outside", lambda: with_box(64.5, 0, 64.9, 48)),
    ("box_over_border", lambda: with_box(-1, 0, 64, 48)),
    ("box_over_border", lambda: with_box(0, 0, 64.5, 48)),
    ("track_mismatch", lambda: changed(track_phrases=[0, 1, 3])),
    ("track_mismatch", lambda: changed(track_phrases=[1, 0, 2])),
    ("track_mismatch", lambda: changed(track_phrases=None)),
    ("track_mismatch", lambda: changed(track_ids=[[0, 0, 2], *make_record()["track_ids"][1:]])),
    ("track_mismatch", lambda: {**without_boxes(make_record()), "track_phrases": [0, 1]}),
    ("bad_metadata", lambda: changed(metadata="{")),
    ("bad_metadata", lambda: changed(metadata="[]")),
    ("bad_metadata", lambda: changed(metadata='{"a": NaN}')),
    ("bad_metadata", lambda: changed(metadata='{"a": 1e999}')),
    ("bad_metadata", lambda: changed(metadata='{"a": "\\ud800"}')),
    ("bad_metadata", lambda: changed(metadata=NESTED)),
    ("wrong_type", lambda: changed(metadata={"a": 1})),
    ("unknown_field", lambda: changed(tracks=[])),
    ("no_boxes", lambda: without_boxes(make_record())),
    ("phrase_without_box", lambda: {**make_record(), **lost_knife()}),
    ("caption_without_words", lambda: retold("...", "...", [])),
    ("line_break", lambda: retold("A man\u2028runs.", "<p>A man</p>\u2028runs.", ["A man"])),
    ("duplicate_box", lambda: twice_the_same()),
    ("scores_without_tracks", lambda: changed(track_ids=None, track_phrases=None)),
    ("not_loadable", lambda: retold("A man sees a\nman", "<p>A man</p> sees <p>a man</p>", ["A man", "a man"])),
]


def lost_knife() -> dict:
    record = make_record()
    names = ("bboxes", "labels", "track_ids", "scores")
    kept = [[i for i, track in enumerate(ids) if track != 2] for ids in record["track_ids"]]
    return {name: [[frame[i] for i in ids] for frame, ids in zip(record[name], kept, strict=True)] for name in names}


def twice_the_same() -> dict:
    record = as_original(make_record(instances=2))
    labels = record["labels"][0]
    first, second = (i for i, label in enumerate(labels) if label == "two onions")
    record["bboxes"][0][second] = record["bboxes"][0][first]
    return record


@pytest.mark.parametrize(("reason", "make"), CASES, ids=[f"{n}-{reason}" for n, (reason, _) in enumerate(CASES)])
def test_every_reason(reason, make):
    record = make()
    problems = {problem.reason: problem for problem in check_record(record)}
    assert reason in problems, problems
    problem = problems[reason]
    assert problem.is_error == (reason in ERRORS)
    assert "\n" not in problem.message and len(problem.message) < 600
    if reason in WARNINGS:
        assert is_valid(problems.values())
        from_record(record)


def test_cases_are_complete():
    tested_elsewhere = {"duplicate_key", "not_processed", "unreadable"}
    assert {reason for reason, _ in CASES} | tested_elsewhere == ERRORS.keys() | WARNINGS.keys()


def test_all_problems_are_reported_not_the_first():
    record = changed(video_id="a.b", caption="", fps=-1, metadata="[]", frame_indices=[0] * 10)
    record["bboxes"][0][0] = [-9, 0, 5, 5]
    assert {"bad_key", "empty_caption", "out_of_range", "bad_metadata", "frame_order", "box_outside"} <= reasons(record)


def test_rounding_of_float32_is_no_problem():
    record = with_box(0, 0, float(np.nextafter(np.float32(64), np.float32(99))), 48.0001)
    assert check_record(record) == []


def nodes(value: Any, path: tuple = ()) -> Iterator[tuple]:
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from nodes(value[key], (*path, key))


ODD = [None, True, 0, -1, 3, 2**31, 2**63, 10**400, 0.5, 1e39, 1e308, 1e-320, NAN, INF, "", " ", "a man", "<p>", "</p>"]
ODD += ["\ud800", "\u0130", "{}", [], [[]], {}, {"a": 1}, [None], [1, 2, 3, 4], [4.0, 3.0, 2.0, 1.0], 10**18]


def mutated(record: dict, rng: random.Random) -> Any:
    """The record with one to three of its values changed, lost, doubled, moved or replaced."""
    record = copy.deepcopy(record)
    for _ in range(rng.choice([1, 1, 2, 3])):
        paths = list(nodes(record))
        path = rng.choice(paths if rng.random() < 0.6 else [path for path in paths if len(path) == 1] or [()])
        if not path:
            return copy.deepcopy(rng.choice(ODD))
        parent = record
        for key in path[:-1]:
            parent = parent[key]
        key, value = path[-1], parent[path[-1]]
        action = rng.randrange(5)
        if action == 0:
            parent[key] = copy.deepcopy(rng.choice(ODD))
        elif action == 1:
            del parent[key]
        elif action == 2 and isinstance(parent, list):
            parent.insert(key, copy.deepcopy(rng.choice([value, *ODD])))
        elif action == 3 and isinstance(value, int | float):
            parent[key] = value + rng.choice([1, -1, 0.5, 100, 1e-5])
        elif action == 3 and isinstance(value, str):
            at = rng.randrange(len(value) + 1)
            parent[key] = value[:at] + rng.choice(["x", " ", "\n", "<p>", "\u0130", "'"]) + value[at + 1 :]
        elif isinstance(value, list):
            rng.shuffle(value)
    return record


def contents(record: dict) -> list:
    """Labels and boxes of every frame, as they are on reading: any case, any order, float32."""
    frames = zip(record["labels"], record["bboxes"], strict=True)
    return [
        sorted((label.strip().casefold(), np.float32(box).tolist()) for label, box in zip(*frame, strict=True))
        for frame in frames
    ]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # a rate of 1e-320 overflows in the timestamps
def test_no_value_breaks_the_check_and_what_passes_loads_and_keeps_its_boxes():
    rng = random.Random(0)
    records = [make_record(), make_record(instances=2), make_record(tagged_caption="<p>A man</p> sees <p>a man</p>.")]
    records += [as_original(record) for record in records]
    passed = 0
    for _ in range(1500):
        record = mutated(rng.choice(records), rng)
        if is_valid(check_record(record)):
            passed += 1
            again = to_record(from_record(record))
            assert contents(again) == contents(record)
            assert is_valid(check_record(again))
    assert 200 < passed < 1200


def test_counts_are_conserved():
    rng = random.Random(1)
    validator = Validator(repair_boxes=True)
    accepted = rejected = given = kept = 0
    for clip_id in range(200):
        record = make_record(clip_id=clip_id, seed=clip_id)
        if rng.random() < 0.5:
            record["bboxes"][0][0] = rng.choice([[-5, 0, 5, 5], [70, 1, 90, 5], [3, 3, 3, 3], [0, 0, 64.5, 48]])
        if rng.random() < 0.2:
            record["labels"][0][0] = "a spoon"
        given += sum(map(len, record["bboxes"]))
        mended, problems = validator.admit(record)
        accepted, rejected = accepted + is_valid(problems), rejected + (not is_valid(problems))
        kept += sum(map(len, mended["bboxes"]))
    report = validator.report
    assert (report["records"], report["accepted"], report["rejected"]) == (200, accepted, rejected)
    assert report["boxes"]["read"] == given == kept + report["boxes"]["dropped"]
    assert kept == report["boxes"]["accepted"] + report["boxes"]["rejected"]
    assert report["repaired"]["dropped"] > 0 and report["repaired"]["clipped"] > 0
    assert report["errors"]["label_not_a_phrase"]["records"] == rejected
    json.dumps(report, allow_nan=False)


def test_examples_are_few_and_counts_are_by_record():
    validator = Validator(num_examples=2)
    for clip_id in range(5):
        record = make_record(clip_id=clip_id)
        record["bboxes"] = [[[0, 0, 99, 48] for _ in boxes] for boxes in record["bboxes"]]
        validator.check(record)
    entry = validator.report["errors"]["box_outside"]
    assert entry["records"] == 5 and entry["problems"] > 5
    assert [example["key"] for example in entry["examples"]] == ["video_0", "video_1"]
    assert "leaves the frame of 64 x 48 by 35 px" in entry["examples"][0]["message"]
    assert not validator.is_valid


def test_keys_are_unique_over_the_set():
    validator = Validator()
    assert validator.check(make_record(clip_id=1)) == validator.check(make_record(clip_id=2)) == []
    [problem] = validator.check(make_record(clip_id=1))
    assert (problem.reason, problem.is_error) == ("duplicate_key", True)


def test_strict_makes_errors_of_warnings():
    record = without_boxes(make_record())
    validator, strict = Validator(), Validator(strict=True)
    assert is_valid(validator.check(record)) and validator.report["warnings"].keys() >= {"no_boxes"}
    assert not is_valid(strict.check(record)) and strict.report["warnings"] == {}


def test_clipping_keeps_what_goes_with_a_box():
    record = make_record()
    record["bboxes"][0] = [[-5.5, 1, 20, 30], [1, 60, 5, 70], [3.25, 4, 99, 48]]
    record["scores"][0] = [0.1, 0.2, 0.3]
    mended, counts = clip_boxes(record)
    assert counts == {"clipped": 2, "dropped": 1}
    assert mended["bboxes"][0] == [[0, 1, 20, 30], [3.25, 4, 64, 48]]
    assert mended["labels"][0] == ["A man", "a knife"]
    assert mended["track_ids"][0] == [0, 2]
    assert mended["scores"][0] == [0.1, 0.3]
    assert mended["bboxes"][1:] == record["bboxes"][1:]
    assert check_record(mended) == [] and len(record["bboxes"][0]) == 3


def test_a_record_with_other_errors_is_not_mended():
    record = with_box(-9, 0, 5, 5)
    record["caption"] = "Something else."
    same, problems = Validator(repair_boxes=True).admit(record)
    assert same is record and "box_outside" in {problem.reason for problem in problems}


def write_jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_command(tmp_path, capsys):
    good, bad, bare = (
        make_record(clip_id=0),
        changed(clip_id=1, caption="\u2028"),
        without_boxes(make_record(clip_id=2)),
    )
    source = write_jsonl(tmp_path / "records.jsonl", [good, bad, bare])
    with source.open("a") as file:
        file.write('{"video_id": \n')
    accepted, rejected = tmp_path / "accepted.jsonl", tmp_path / "rejected.jsonl"
    rejected.write_text("of an earlier run")
    command = ["validate", str(source), "--accepted", str(accepted), "--rejected", str(rejected)]
    assert main([*command, "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert (report["records"], report["accepted"], report["rejected"], report["unreadable"]) == (3, 2, 1, 1)
    assert "line 4" in report["errors"]["unreadable"]["examples"][0]["message"]
    assert list(read_records(accepted)) == [good, bare]
    aside = list(read_records(rejected))
    assert [entry["record"] for entry in aside] == [bad, None]
    assert {"reason", "message", "is_error"} == aside[0]["problems"][0].keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["accepted.jsonl", "records.jsonl", "rejected.jsonl"]

    assert main(["validate", str(accepted)]) == 0
    text = capsys.readouterr().out
    assert "2 records: 2 accepted, 0 rejected; 0 unreadable" in text
    assert re.search(r"no_boxes +1 +1 +the clip has no box at all", text)
    assert main(["validate", str(accepted), "--strict"]) == 2


def test_command_clips_boxes_when_asked(tmp_path, capsys):
    source = write_jsonl(tmp_path / "records.jsonl", [with_box(-5, 0, 5, 5)])
    assert main(["validate", str(source), "--json"]) == 2
    assert main(["validate", str(source), "--clip-boxes", "--accepted", str(tmp_path / "mended.jsonl"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["repaired"] == {"clipped": 1}
    assert next(read_records(tmp_path / "mended.jsonl"))["bboxes"][0][0] == [0, 0, 5, 5]


def test_command_requires_processed_when_asked(tmp_path):
    source = write_jsonl(tmp_path / "records.jsonl", [make_record(instances=2)])
    assert main(["validate", str(source)]) == 0
    assert main(["validate", str(source), "--require-processed"]) == 2


def test_command_on_shards(tmp_path, capsys):
    """Half a character and damaged JSON, which no reader of lines lets through, are counted and can be set aside."""
    texts = [
        json.dumps(make_record(clip_id=0)),
        json.dumps(changed(clip_id=1, video_fname="x")),
        '{"video_id": NaN}',
        "[1]",
    ]
    write_shard(tmp_path / "a.tar", ((f"video_{n}", {"json": text.encode()}) for n, text in enumerate(texts)))
    rejected = tmp_path / "rejected.jsonl"
    assert main(["validate", str(tmp_path), "--json", "--rejected", str(rejected)]) == 2
    report = json.loads(capsys.readouterr().out)
    assert (report["accepted"], report["rejected"], report["unreadable"]) == (2, 0, 2)
    messages = [entry["problems"][0]["message"] for entry in read_records(rejected)]
    assert [message.partition("a.tar: ")[2] for message in messages] == [
        "sample 2 ('video_2'): json: video_id: NaN is not JSON; write null",
        "sample 3 ('video_3'): json: expected an object, got list",
    ]


def test_rejected_records_with_half_a_character_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr("dataset_builders.validation.read_records", lambda *args, **kwargs: [changed(caption="\ud800")])
    main(["validate", "records.jsonl", "--rejected", str(tmp_path / "rejected.jsonl")])
    [line] = (tmp_path / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["record"]["caption"] == "\ud800"


def test_command_makes_the_folders_of_its_files(tmp_path):
    source = write_jsonl(tmp_path / "records.jsonl", [make_record()])
    files = [tmp_path / "new" / name / "x.jsonl" for name in ("accepted", "rejected")]
    assert main(["validate", str(source), "--accepted", str(files[0]), "--rejected", str(files[1])]) == 0
    assert [len(list(read_records(file))) for file in files] == [1, 0]


def test_nothing_is_not_valid(tmp_path, capsys):
    source = write_jsonl(tmp_path / "records.jsonl", [])
    assert main(["validate", str(source), "--accepted", str(tmp_path / "accepted.jsonl")]) == 2
    assert capsys.readouterr() == ("", f"error: no records in {str(source)!r}; expected at least one\n")
    assert [path.name for path in tmp_path.iterdir()] == ["records.jsonl"]


def test_command_errors_are_one_line(tmp_path, capsys):
    assert main(["validate", str(tmp_path / "absent.jsonl")]) == 2
    same = str(tmp_path / "out.jsonl")
    assert main(["validate", "x.jsonl", "--accepted", same, "--rejected", same]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith("error: ") for line in lines)


def test_command_in_a_process_of_its_own(tmp_path):
    source = write_jsonl(tmp_path / "records.jsonl", [make_record()])
    command = [sys.executable, "-m", "dataset_builders", "validate", str(source), "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout)["accepted"] == 1
