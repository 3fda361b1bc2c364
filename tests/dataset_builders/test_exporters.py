"""Every exporter against a reader of its format that knows nothing of ours: boxes come back, and vanish where they vanish."""

import configparser
import csv
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from dataset_builders.exporters import (
    Categories,
    head_word,
    write_coco,
    write_cvat,
    write_detections,
    write_label_studio,
    write_mot,
)
from dataset_builders.record import from_record, to_record
from modeling_grove.grounded_caption import GroundedCaption, PhraseTrack
from tests.records import make_record

WRITERS = {
    "coco": write_coco,
    "mot": write_mot,
    "cvat": write_cvat,
    "label-studio": write_label_studio,
    "supervision": write_detections,
}
ODD_TEXT = 'The "wi\u00dfe" <dog> & 2 cats, b\u0001itten by a man\'s \U0001f415'


def sparse_record():
    """Every source frame is sampled; objects that come late, vanish for one frame, vanish at the end, or never come."""
    presence = np.array([[1, 1, 0, 1, 1, 1], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 1]], dtype=bool)
    phrases = ['The "wi\u00dfe" <dog>', "2 cats, b\u0001itten", "2 cats, b\u0001itten", "man's \U0001f415"]
    spans = [(ODD_TEXT.index(phrase), ODD_TEXT.index(phrase) + len(phrase)) for phrase in phrases]
    rng = np.random.default_rng(3)
    tracks = []
    for (start, end), row in zip(spans, presence, strict=True):
        low = rng.uniform(0, 200, (6, 2))
        boxes = np.concatenate([low, low + rng.uniform(1, 119, (6, 2))], axis=1)
        scores = np.where(row, rng.uniform(0.5, 1, 6), 0)
        tracks.append(PhraseTrack(ODD_TEXT[start:end], (start, end), boxes, row, scores))
    frames = np.arange(1000, 1006)
    return to_record(
        GroundedCaption(
            ODD_TEXT, tuple(tracks), "-a_B", 12, "films/-a_B.mp4", 5.0, 333, 321, 1000, 1005, frames, frames / 5
        )
    )


@pytest.fixture(scope="module")
def records():
    return [
        make_record("first", 0, seed=1),
        make_record("second", 1, seed=2, instances=3, start_frame=100, end_frame=163),
        sparse_record(),
        make_record("first", 2, seed=4, start_frame=7, end_frame=7),
    ]


def truth(records):
    """{(key, number of the track, source frame): box}"""
    boxes = {}
    for record in records:
        caption = from_record(record)
        tracks = [track for track in caption.tracks if track.presence.any()]
        for number, track in enumerate(tracks):
            for n in np.flatnonzero(track.presence):
                boxes[caption.key, number, int(caption.frame_indices[n])] = track.boxes[n]
    return boxes


def sampled(records):
    return {f"{r['video_id']}_{r['clip_id']}": r["frame_indices"] for r in records}


def read_coco(path, records):
    data = COCO(str(path))
    first = {}
    for track in data.dataset["tracks"]:
        first.setdefault(track["video_id"], track["id"])
    boxes = {}
    for video in data.dataset["videos"]:
        frames = [image for image in data.dataset["images"] if image["video_id"] == video["id"]]
        assert [image["frame_id"] for image in frames] == list(range(len(frames)))
        assert [image["frame_index"] for image in frames] == sampled(records)[video["name"]]
        for image in frames:
            for item in data.loadAnns(data.getAnnIds(imgIds=[image["id"]])):
                x, y, width, height = item["bbox"]
                place = (video["name"], item["track_id"] - first[video["id"]], image["frame_index"])
                assert place not in boxes
                boxes[place] = [x, y, x + width, y + height]
                assert item["area"] == pytest.approx(width * height, abs=1e-5)
    return boxes


def read_mot(path, records):
    """As the devkit does: a table of numbers, pixels counted from 1."""
    boxes = {}
    for key in (path / "seqmap.txt").read_text().splitlines()[1:]:
        info = configparser.ConfigParser()
        info.read(path / key / "seqinfo.ini", encoding="utf-8")
        frames = np.loadtxt(path / key / "frames.csv", delimiter=",", skiprows=1, ndmin=2)
        assert int(info["Sequence"]["seqLength"]) == len(frames) == len(sampled(records)[key])
        table = np.loadtxt(path / key / "gt" / "gt.txt", delimiter=",", ndmin=2)
        assert table.shape[1] == 9
        for frame, number, left, top, width, height, flag, _, visibility in table.tolist():
            assert (flag, visibility) == (1, 1)
            assert frames[int(frame) - 1, 0] == frame
            place = (key, int(number) - 1, int(frames[int(frame) - 1, 1]))
            boxes[place] = [left - 1, top - 1, left - 1 + width, top - 1 + height]
        detections = np.loadtxt(path / key / "det" / "det.txt", delimiter=",", ndmin=2)
        assert detections.shape == (len(table), 10)
        np.testing.assert_array_equal(detections[:, 2:6], table[:, 2:6])
        assert (detections[:, [1, 7, 8, 9]] == -1).all()
    return boxes


def between(first, second, frame):
    """Linear interpolation of two (frame, box), held after the first if there is no second."""
    if second is None:
        return first[1]
    share = (frame - first[0]) / (second[0] - first[0])
    return [(1 - share) * a + share * b for a, b in zip(first[1], second[1], strict=True)]


def cvat_track(track, stop):
    """{frame: box} of a track in all frames of its task: from a keyframe to the next, unless it is outside."""
    shapes = [(int(b.get("frame")), [float(b.get(n)) for n in ("xtl", "ytl", "xbr", "ybr")], b) for b in track]
    assert [frame for frame, _, _ in shapes] == sorted({frame for frame, _, _ in shapes})
    boxes = {}
    for n, (frame, box, element) in enumerate(shapes):
        assert (element.get("keyframe"), element.get("occluded")) == ("1", "0")
        if element.get("outside") == "1":
            continue
        after = shapes[n + 1] if n + 1 < len(shapes) else None
        end = stop + 1 if after is None else after[0]
        target = None if after is None or after[2].get("outside") == "1" else after[:2]
        boxes |= {f: between((frame, box), target, f) for f in range(frame, end)}
    return boxes


def read_cvat(path, records):
    boxes = {}
    for key, frames in sampled(records).items():
        root = ET.parse(path / f"{key}.xml").getroot()
        task = root.find("meta/task")
        assert root.findtext("version") == "1.1"
        assert (task.findtext("name"), task.findtext("mode")) == (key, "interpolation")
        start, stop = int(task.findtext("start_frame")), int(task.findtext("stop_frame"))
        assert int(task.findtext("size")) == stop - start + 1
        labels = {label.findtext("name") for label in task.iter("label")}
        for number, track in enumerate(root.iter("track")):
            assert (track.get("id"), track.get("label") in labels) == (str(number), True)
            shown = cvat_track(track, stop)
            assert min(shown) >= start
            boxes |= {(key, number, frame): shown[frame] for frame in frames if frame in shown}
    return boxes


def label_studio_region(value):
    """
    {frame from 1: box in percent} of a region in all frames of its video: from a keyframe to the next, unless it is disabled,
    which makes it the last one for now.
    """
    boxes = {}
    sequence = value["sequence"]
    assert [k["frame"] for k in sequence] == sorted({k["frame"] for k in sequence})
    for n, keyframe in enumerate(sequence):
        box = [keyframe[name] for name in ("x", "y", "width", "height")]
        boxes[keyframe["frame"]] = box
        if keyframe["enabled"]:
            after = sequence[n + 1] if n + 1 < len(sequence) else None
            end = value["framesCount"] + 1 if after is None else after["frame"]
            target = after and (after["frame"], [after[name] for name in ("x", "y", "width", "height")])
            boxes |= {f: between((keyframe["frame"], box), target, f) for f in range(keyframe["frame"], end)}
    return boxes


def read_label_studio(path, records):
    config = ET.parse(path / "labeling_config.xml").getroot()
    controls = {element.get("name"): element.tag for element in config.iter() if element.get("toName") == "video"}
    labels = {label.get("value") for label in config.iter("Label")}
    boxes = {}
    for task, record in zip(json.loads((path / "tasks.json").read_text()), records, strict=True):
        (prediction,) = task["predictions"]
        *regions, caption = prediction["result"]
        assert (caption["type"], caption["value"]) == ("textarea", {"text": [record["caption"]]})
        assert controls[caption["from_name"]] == "TextArea"
        for number, region in enumerate(regions):
            assert (region["type"], region["to_name"]) == ("videorectangle", "video")
            assert controls[region["from_name"]] == "VideoRectangle"
            assert set(region["value"]["labels"]) <= labels
            size = np.array([region["original_width"], region["original_height"]] * 2) / 100
            shown = label_studio_region(region["value"])
            for frame in record["frame_indices"]:
                if frame + 1 in shown:
                    x, y, width, height = size * shown[frame + 1]
                    boxes[task["data"]["key"], number, frame] = [x, y, x + width, y + height]
    return boxes


def read_supervision(path, records):
    with Path(path).open(encoding="utf-8", newline="") as file:
        return {
            (row["key"], int(row["tracker_id"]) - 1, int(row["frame"])): [
                float(row[name]) for name in ("x_min", "y_min", "x_max", "y_max")
            ]
            for row in csv.DictReader(file)
        }


READERS = {
    "coco": read_coco,
    "mot": read_mot,
    "cvat": read_cvat,
    "label-studio": read_label_studio,
    "supervision": read_supervision,
}
EXACT = {"cvat", "supervision"}  # float32 as they are; the others subtract, or divide


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("categories", ["phrase", "head", "single"])
def test_round_trip(name, categories, records, tmp_path):
    output = tmp_path / "new" / "output"
    counts = WRITERS[name](iter(records), output, categories=categories)
    expected, found = truth(records), READERS[name](output, records)
    assert found.keys() == expected.keys()
    for place, box in expected.items():
        if name in EXACT:
            assert np.float32(found[place]).tolist() == box.tolist()
        else:
            np.testing.assert_allclose(found[place], box, rtol=2.4e-7, atol=2e-6)  # two float32 steps
    assert (counts.clips, counts.boxes) == (4, len(expected))
    assert counts.frames == sum(map(len, sampled(records).values()))
    assert counts.tracks == len({place[:2] for place in expected})
    assert counts.categories == {"phrase": 6, "head": 6, "single": 1}[categories]
    assert [path.name for path in tmp_path.glob("new/*")] == ["output"], "temporary files stay"


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_to_write(name, tmp_path):
    assert WRITERS[name]([], tmp_path / "output").clips == 0
    if name != "supervision":
        assert READERS[name](tmp_path / "output", []) == {}


@pytest.mark.parametrize("name", WRITERS)
def test_written_twice_is_the_same(name, records, tmp_path):
    texts = []
    for turn in ("one", "two"):
        WRITERS[name](records, tmp_path / turn)
        files = sorted(p for p in [tmp_path / turn, *(tmp_path / turn).rglob("*")] if p.is_file())
        texts.append([(p.relative_to(tmp_path / turn), p.read_bytes()) for p in files])
    assert texts[0] == texts[1]


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video_id": "first", "clip_id": 0}, "'first_0' appears twice"),
        ({"caption": "Nothing of that."}, "record bad_5: phrase"),
        ({"video_id": "../bad"}, r"'../bad_5': no name for a file"),
        ({"bboxes": 3}, "record bad_5: not a record"),
        ({"metadata": '{"clip": {"first_frame": 9}}'}, r"record bad_5: metadata: expected clip.first_frame in 0..0"),
        (
            {"metadata": '{"clip": {"first_frame": false}}'},
            r"record bad_5: metadata: expected clip.first_frame in 0..0",
        ),
        ({"clip_id": None}, r"record without a key: "),
    ],
)
def test_a_bad_record_leaves_nothing(name, change, message, records, tmp_path):
    bad = {**make_record("bad", 5), "tagged_caption": "", **change}
    with pytest.raises(ValueError, match=message) as caught:
        WRITERS[name]([records[0], bad], tmp_path / "output")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["mot", "cvat", "label-studio"])
def test_a_folder_with_files_is_kept(name, records, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ValueError, match="is not empty; expected a new folder"):
        WRITERS[name](records, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_file_is_replaced_when_the_new_one_is_complete(records, tmp_path):
    path = tmp_path / "coco.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="appears twice"):
        write_coco([records[0], records[0]], path)
    assert path.read_text() == "old"
    write_coco(records, path)
    assert len(json.loads(path.read_text())["videos"]) == 4


@pytest.mark.parametrize(
    ("phrase", "head"),
    [
        ("the small brown dog on a sofa", "dog"),
        ("two slices of bread with butter", "bread"),
        ("a cup of tea", "cup"),
        ("A man's hand", "hand"),
        ("both of the Hands", "hands"),
        ("another man who runs", "man"),
        ("a T-shirt", "t-shirt"),
        ("the next cup", "cup"),
        ("him", "him"),
        ("of", "of"),
        ("?!", "?!"),
    ],
)
def test_head_word(phrase, head):
    assert head_word(phrase) == head


def test_categories():
    categories = Categories()
    assert [categories.number(phrase) for phrase in ("A man", "a dog", "a\n MAN")] == [0, 1, 0]
    assert categories.names == ["a man", "a dog"]
    with pytest.raises(ValueError, match="expected one of phrase, head, single, got 'colour'"):
        Categories("colour")
