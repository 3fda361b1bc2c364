"""What the tools themselves make of the exports: pycocotools, supervision, and what CVAT and Label Studio show between frames."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import supervision as sv
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dataset_builders.exporters import (
    Categories,
    frame_detections,
    write_coco,
    write_cvat,
    write_detections,
    write_label_studio,
    write_mot,
)
from dataset_builders.record import from_record, to_record
from modeling_grove.grounded_caption import GroundedCaption, PhraseTrack
from tests.records import make_record

TEXT = "A cat jumps over a red ball."


def make_clip(presence, *, metadata=None, start=50, step=5, end=76, objectness=None):
    """Two phrases; the box of "A cat" moves 10 pixels a sampled frame, "a red ball" lies where it is."""
    frames = np.arange(start, end + 1, step)
    moving = np.array([20, 30, 60, 80]) + np.arange(len(frames))[:, None] * [10, 0, 10, 0]
    tracks = []
    for phrase, boxes, row in zip(("A cat", "a red ball"), (moving, moving * 0 + [5, 6, 7, 8]), presence, strict=True):
        row = np.array(row, dtype=bool)
        span = (TEXT.index(phrase), TEXT.index(phrase) + len(phrase))
        tracks.append(PhraseTrack(phrase, span, boxes, row, row * 1.0 if objectness is None else row * objectness))
    caption = GroundedCaption(
        TEXT, tuple(tracks), "film", 3, "film.mp4", 25.0, 320, 240, start, end, frames, frames / 25
    )
    return to_record(caption, metadata)


@pytest.fixture
def record():
    """Sampled frames 50, 55, 60, 65, 70, 75 of the clip 50..76. The cat is gone in 60 and 65 and back to the end."""
    return make_clip([[1, 1, 0, 0, 1, 1], [0, 1, 0, 1, 0, 0]])


def evaluate(truth, results):
    evaluation = COCOeval(truth, results, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats


def test_coco_evaluates(tmp_path):
    """The exported annotations are perfect results for themselves, and the boxes of another clip are not."""
    write_coco([make_record("a", n, seed=n, instances=2) for n in range(3)], tmp_path / "truth.json")
    write_coco([make_record("a", n, seed=n + 9, instances=2) for n in range(3)], tmp_path / "other.json")
    truth = COCO(str(tmp_path / "truth.json"))
    same = json.loads((tmp_path / "truth.json").read_text())["annotations"]
    other = json.loads((tmp_path / "other.json").read_text())["annotations"]
    assert evaluate(truth, truth.loadRes(same))[0] == pytest.approx(1)
    assert evaluate(truth, truth.loadRes(other))[0] < 0.5


def test_coco_has_what_video_tools_read(record, tmp_path):
    write_coco([make_record("a", 0), record], tmp_path / "coco.json", categories="head")
    data = json.loads((tmp_path / "coco.json").read_text())
    assert data["categories"] == [
        {"id": n, "name": name} for n, name in enumerate(["man", "onions", "knife", "cat", "ball"], 1)
    ]
    video = data["videos"][1]
    assert (video["id"], video["name"], video["file_name"], video["caption"]) == (2, "film_3", "film.mp4", TEXT)
    assert video["tagged_caption"] == "<p>A cat</p> jumps over <p>a red ball</p>."
    images = [image for image in data["images"] if image["video_id"] == 2]
    assert [image["frame_index"] for image in images] == [50, 55, 60, 65, 70, 75]
    assert images[1]["file_name"] == "film_3/000055.jpg"
    assert (images[0]["width"], images[0]["height"]) == (320, 240)
    tracks = {track["id"]: track for track in data["tracks"] if track["video_id"] == 2}
    assert [(track["phrase"], track["category_id"]) for track in tracks.values()] == [("A cat", 4), ("a red ball", 5)]
    boxes = [item for item in data["annotations"] if item["video_id"] == 2]
    assert {item["track_id"] for item in boxes} == set(tracks)
    assert all(item["instance_id"] == item["track_id"] and item["iscrowd"] == 0 for item in boxes)
    assert {item["category_id"] for item in boxes} == {4, 5}
    assert images[2]["id"] not in {item["image_id"] for item in boxes}
    ids = [item["id"] for name in ("videos", "images", "annotations", "tracks") for item in data[name][:1]]
    assert ids == [1, 1, 1, 1]


def test_supervision_loads_the_coco_file(tmp_path):
    record = make_record("a", 0, instances=2)
    write_coco([record], tmp_path / "coco.json")
    data = sv.DetectionDataset.from_coco(str(tmp_path / "pictures"), str(tmp_path / "coco.json"))
    assert data.classes == ["a man", "two onions", "a knife"]
    assert len(data) == len(record["frame_indices"])
    for (path, loaded), (frame, ours) in zip(data.annotations.items(), frame_detections(record), strict=True):
        assert path.endswith(f"a_0/{frame:06d}.jpg")
        np.testing.assert_allclose(loaded.xyxy, ours.xyxy, atol=1e-5)
        assert loaded.class_id.tolist() == ours.class_id.tolist()


def test_detections_of_frames(record):
    record = make_clip([[1, 1, 0, 0, 1, 1], [0, 1, 0, 1, 0, 0]], objectness=0.75)
    frames = list(frame_detections(record))
    assert [frame for frame, _ in frames] == [50, 55, 60, 65, 70, 75]
    assert [len(detections) for _, detections in frames] == [1, 2, 0, 1, 1, 1]
    both = frames[1][1]
    assert both.xyxy.tolist() == [[30, 30, 70, 80], [5, 6, 7, 8]]
    assert (both.tracker_id.tolist(), both.class_id.tolist(), both.confidence.tolist()) == (
        [1, 2],
        [0, 1],
        [0.75, 0.75],
    )
    assert both["class_name"].tolist() == ["a cat", "a red ball"]
    assert both["phrase"].tolist() == ["A cat", "a red ball"]
    assert frames[2][1].is_empty()
    ball = frames[3][1]
    assert (ball.tracker_id.tolist(), ball["class_name"].tolist()) == ([2], ["a red ball"])
    merged = sv.Detections.merge([detections for _, detections in frames])
    assert len(merged) == 6
    picture = np.zeros((240, 320, 3), np.uint8)
    assert sv.BoxAnnotator().annotate(picture.copy(), both).any()


def test_detections_share_categories(record):
    categories = Categories("head")
    for item in (record, make_record("a", 0), record):
        list(frame_detections(item, categories))
    assert categories.names == ["cat", "ball", "man", "onions", "knife"]
    last = [max(detections.class_id, default=0) for _, detections in frame_detections(make_record("a", 0), categories)]
    assert max(last) == 4


def test_csv_columns(record, tmp_path):
    write_detections([record], tmp_path / "boxes.csv", categories="single")
    header, first, *rest = (tmp_path / "boxes.csv").read_text().splitlines()
    assert header.startswith("x_min,y_min,x_max,y_max,class_id,confidence,tracker_id,")
    row = dict(zip(header.split(","), first.split(","), strict=True))
    assert row["key"] == "film_3" and row["video_fname"] == "film.mp4"
    assert (row["frame"], row["seconds"], row["class_name"], row["phrase"]) == ("50", "2.0", "object", "A cat")
    assert len(rest) == 5


def test_mot_files(record, tmp_path):
    write_mot([make_record("a", 0), record], tmp_path / "mot", categories="head")
    folder = tmp_path / "mot" / "film_3"
    assert (folder / "gt" / "gt.txt").read_text().splitlines() == [
        "1,1,21,31,40,50,1,4,1",
        "2,1,31,31,40,50,1,4,1",
        "2,2,6,7,2,2,1,5,1",
        "4,2,6,7,2,2,1,5,1",
        "5,1,61,31,40,50,1,4,1",
        "6,1,71,31,40,50,1,4,1",
    ]
    assert (folder / "det" / "det.txt").read_text().splitlines()[0] == "1,-1,21,31,40,50,1.0,-1,-1,-1"
    assert (folder / "frames.csv").read_text().splitlines()[:3] == [
        "frame,source_frame,seconds",
        "1,50,2.0",
        "2,55,2.2",
    ]
    info = (folder / "seqinfo.ini").read_text().splitlines()
    assert info == [
        "[Sequence]", "name=film_3", "imDir=img1", "frameRate=5", "seqLength=6", "imWidth=320", "imHeight=240", "imExt=.jpg",
    ]  # fmt: skip
    assert (tmp_path / "mot" / "labels.txt").read_text().splitlines() == ["man", "onions", "knife", "cat", "ball"]
    assert (tmp_path / "mot" / "seqmap.txt").read_text() == "name\na_0\nfilm_3\n"


def cvat_boxes(path, track):
    root = ET.parse(path).getroot()
    return [
        (int(box.get("frame")), float(box.get("xtl")), box.get("outside")) for box in list(root.iter("track"))[track]
    ]


def test_cvat_tracks(record, tmp_path):
    write_cvat([record], tmp_path / "cvat", categories="head")
    path = tmp_path / "cvat" / "film_3.xml"
    assert cvat_boxes(path, 0) == [(50, 20, "0"), (55, 30, "0"), (60, 30, "1"), (70, 60, "0"), (75, 70, "0")]
    assert cvat_boxes(path, 1) == [(55, 5, "0"), (60, 5, "1"), (65, 5, "0"), (70, 5, "1")]
    root = ET.parse(path).getroot()
    meta = {name: root.findtext(f"meta/task/{name}") for name in ("size", "start_frame", "stop_frame")}
    assert meta == {"size": "27", "start_frame": "50", "stop_frame": "76"}
    assert root.findtext("meta/source") == "film.mp4"
    assert [root.findtext(f"meta/task/original_size/{side}") for side in ("width", "height")] == ["320", "240"]
    assert {box.findtext("attribute[@name='phrase']") for box in root.iter("box")} == {"A cat", "a red ball"}
    # Every track has its own label, not just the file all of them.
    assert [label.text for label in root.iterfind("meta/task/labels/label/name")] == ["cat", "ball"]
    tracks = [(track.get("label"), {phrase.text for phrase in track.iter("attribute")}) for track in root.iter("track")]
    assert tracks == [("cat", {"A cat"}), ("ball", {"a red ball"})]
    labels = json.loads((tmp_path / "cvat" / "labels.json").read_text())
    assert [label["name"] for label in labels] == ["cat", "ball"]
    assert {label["attributes"][0]["name"] for label in labels} == {"phrase"}


@pytest.mark.parametrize(("metadata", "first"), [(None, 50), ({"clip": {"first_frame": 48, "num_frames": 29}}, 48)])
def test_frames_of_the_clip_itself(metadata, first, tmp_path):
    record = make_clip([[1, 1, 0, 0, 1, 1], [0, 1, 0, 1, 0, 0]], metadata=metadata)
    write_cvat([record], tmp_path / "cvat", video="clip")
    assert cvat_boxes(tmp_path / "cvat" / "film_3.xml", 1)[0][0] == 55 - first
    root = ET.parse(tmp_path / "cvat" / "film_3.xml").getroot()
    assert root.findtext("meta/source") == "film_3.mp4"
    assert [root.findtext(f"meta/task/{name}") for name in ("start_frame", "stop_frame")] == [
        str(50 - first),
        str(76 - first),
    ]
    write_label_studio([record], tmp_path / "tasks", video="clip", video_root="https://host/clips/")
    (task,) = json.loads((tmp_path / "tasks" / "tasks.json").read_text())
    assert task["data"]["video"] == "https://host/clips/film_3.mp4"
    value = task["predictions"][0]["result"][1]["value"]
    assert (value["sequence"][0]["frame"], value["framesCount"]) == (55 - first + 1, 77 - first)
    with pytest.raises(ValueError, match="expected one of source, clip, got 'frames'"):
        write_cvat([record], tmp_path / "other", video="frames")


def test_label_studio_lifespans(record, tmp_path):
    write_label_studio([record], tmp_path / "tasks")
    (task,) = json.loads((tmp_path / "tasks" / "tasks.json").read_text())
    assert task["data"] == {"video": "film.mp4", "fps": 25.0, "key": "film_3", "caption": TEXT}
    cat, ball, _ = task["predictions"][0]["result"]
    # The last frame of a lifespan is the one before the sampled frame without the object, or the last of the clip.
    frames = [(key["frame"], key["x"] * 3.2, key["enabled"]) for key in cat["value"]["sequence"]]
    expected = [(51, 20, True), (56, 30, True), (60, 30, False), (71, 60, True), (76, 70, True), (77, 70, False)]
    assert frames == [(frame, pytest.approx(x), enabled) for frame, x, enabled in expected]
    assert [(key["frame"], key["enabled"]) for key in ball["value"]["sequence"]] == [
        (56, True), (60, False), (66, True), (70, False),
    ]  # fmt: skip
    assert (cat["value"]["framesCount"], cat["value"]["duration"]) == (77, 77 / 25)
    assert cat["value"]["sequence"][0]["time"] == 51 / 25
    assert (cat["value"]["labels"], cat["meta"], cat["score"]) == (["a cat"], {"text": ["A cat"]}, 1.0)
    first = cat["value"]["sequence"][0]
    places = [first[name] for name in ("x", "y", "width", "height", "rotation")]
    assert places == pytest.approx([6.25, 12.5, 12.5, 50 / 2.4, 0])
    config = (tmp_path / "tasks" / "labeling_config.xml").read_text()
    assert '<Label value="a cat" background="#ff5252" />' in config
    assert 'frameRate="$fps"' in config


@pytest.mark.parametrize("kind", ["phrase", "head", "single"])
def test_every_track_has_the_label_of_its_phrase(kind, record, tmp_path):
    """Also in the second clip, whose categories are not the first ones of the export."""
    categories = Categories(kind)
    clips = [make_record("a", 0, instances=2), record]
    write_cvat(clips, tmp_path / "cvat", categories=kind)
    write_label_studio(clips, tmp_path / "tasks", categories=kind)
    tasks = {task["data"]["key"]: task for task in json.loads((tmp_path / "tasks" / "tasks.json").read_text())}
    for clip in clips:
        phrases = [track.phrase for track in from_record(clip).tracks]
        expected = [(categories.name(phrase), phrase) for phrase in phrases]
        root = ET.parse(tmp_path / "cvat" / f"{clip['video_id']}_{clip['clip_id']}.xml").getroot()
        assert [(track.get("label"), track.findtext("box/attribute")) for track in root.iter("track")] == expected
        *regions, _ = tasks[f"{clip['video_id']}_{clip['clip_id']}"]["predictions"][0]["result"]
        found = [(region["value"]["labels"], region["meta"]["text"]) for region in regions]
        assert found == [([name], [phrase]) for name, phrase in expected]


@pytest.mark.parametrize(
    ("fields", "options", "expected"),
    [
        ({"video_fname": "day 1/50% & #2?.mp4"}, {"video_root": "https://host/"}, "https://host/day%201/50%25%20%26%20%232%3F.mp4"),
        ({"video_fname": "day 1/50% & #2?.mp4"}, {}, "day 1/50% & #2?.mp4"),
        ({"video_id": "__abc"}, {"video_root": "https://host/", "video": "clip"}, "https://host/~__abc_3.mp4"),
        ({"video_id": "_abc"}, {"video": "clip"}, "_abc_3.mp4"),
    ],
)  # fmt: skip
def test_names_of_videos_are_those_of_urls_and_shards(fields, options, expected, record, tmp_path):
    write_label_studio([record | fields], tmp_path / "tasks", **options)
    (task,) = json.loads((tmp_path / "tasks" / "tasks.json").read_text())
    assert task["data"]["video"] == expected


def test_label_studio_without_frames_between(tmp_path):
    """Where every source frame is sampled, the last keyframe of a lifespan is its last sampled frame."""
    record = make_clip([[1, 0, 1, 1], [0, 0, 0, 1]], start=0, end=3, step=1)
    write_label_studio([record], tmp_path / "tasks")
    (task,) = json.loads((tmp_path / "tasks" / "tasks.json").read_text())
    keys = [
        [(key["frame"], key["enabled"]) for key in region["value"]["sequence"]]
        for region in task["predictions"][0]["result"][:2]
    ]
    assert keys == [[(1, False), (3, True), (4, False)], [(4, False)]]


def test_merged_records_have_one_object_a_phrase(tmp_path):
    raw = make_record("a", 0, instances=3)
    assert write_coco([raw], tmp_path / "raw.json").tracks == 5
    assert write_coco([to_record(from_record(raw).merged())], tmp_path / "merged.json").tracks == 3
