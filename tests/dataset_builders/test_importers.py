import copy
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset_builders.importers.activitynet_entities import import_activitynet_entities
from dataset_builders.importers.pointing import import_pointing
from dataset_builders.importers.released import import_released
from dataset_builders.importers.vidstg import import_vidstg
from dataset_builders.reading import ReadProblem
from dataset_builders.record import RECORD_FIELDS, from_record, processed, record_key, record_metadata, to_record
from tests.dataset_builders import released_files
from tests.records import make_caption, make_videos

SHARED = Path(__file__).parents[3] / "shared"


def shared(*parts: str) -> Path:
    """A file that is kept beside the repository and not in it."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no ../shared/{'/'.join(parts)}")
    return path


def _with_problems(
    function: Callable[..., Any], *args: Any, **options: Any
) -> tuple[list[dict[str, Any]], list[ReadProblem]]:
    problems: list[ReadProblem] = []
    return list(function(*args, problems.append, **options)), problems


# --- HowToGround1M and iGround


def test_released_annotations_become_the_captions_they_were(tmp_path: Path) -> None:
    for instances in (1, 3):
        path = released_files.write(tmp_path / "raw.jsonl", released_files.released(instances=instances))
        captions = [make_caption(f"video{i}", i, seed=i, instances=instances) for i in range(3)]
        records = list(import_released(path))
        assert [processed(record) for record in records] == [to_record(caption.merged()) for caption in captions]
        assert [record["labels"] for record in records] == [caption.to_dict()["labels"] for caption in captions]
        assert [from_record(record).key for record in records] == ["video0_0", "video1_1", "video2_2"]


def _rename(record: dict[str, Any], **names: str) -> None:
    for old, new in names.items():
        record[new] = record.pop(old)


# Ways in which a released record may be spelled without being another one.
VARIANTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "numbers as strings": lambda r: r.update(fps="25.0", width=" 64", clip_id="0", clip_end_frame="49"),
    "whole floats": lambda r: r.update(clip_start_frame=0.0, clip_end_frame=49.0, height=48.0),
    "quotes": lambda r: r.update(caption=f'"{r["caption"]}"', tagged_caption=f" '{r['tagged_caption']}' "),
    "labels": lambda r: r.update(labels=[[f" {label.upper()} " for label in frame] for frame in r["labels"]]),
    "not tagged": lambda r: r.update(tagged_caption=None),
    "tagged otherwise": lambda r: r.update(tagged_caption="<p>another</p> text"),
    "no caption": lambda r: r.pop("caption"),
    "tags in the caption": lambda r: r.update(caption=r.pop("tagged_caption")),
    "no phrases": lambda r: r.pop("phrases"),
    "phrases twice": lambda r: r.update(phrases=[*r["phrases"], "a knife", "A MAN"]),
    "names of predictions": lambda r: _rename(r, bboxes="pred_bboxes", labels="pred_labels", caption="pred_text"),
    "null frames": lambda r: r.update(bboxes=[f or None for f in r["bboxes"]], labels=[f or None for f in r["labels"]]),
    "null boxes": lambda r: (r["bboxes"][1].append(None), r["labels"][1].append("a knife")),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_released_annotations_are_read_tolerantly(name: str, tmp_path: Path) -> None:
    [record] = released_files.released(1)
    [expected] = import_released(released_files.write(tmp_path / "a.jsonl", [record]))
    VARIANTS[name](record)
    assert list(import_released(released_files.write(tmp_path / "b.jsonl", [record]))) == [expected]
    assert list(import_released(released_files.write(tmp_path / "c.jsonl", [{"video0_0": record}]))) == [expected]
    del record["video_id"], record["clip_id"]
    assert list(import_released(released_files.write(tmp_path / "d.json", {"video0_0": record}))) == [expected]


def test_one_frame_less_is_what_the_original_accepts(tmp_path: Path) -> None:
    [record] = released_files.released(1)
    for name in ("bboxes", "labels"):
        record[name].pop()
    [imported] = import_released(released_files.write(tmp_path / "a.jsonl", [record]))
    assert imported["frame_indices"] == [*range(0, 45, 5)]


def test_further_fields_are_kept_in_the_metadata(tmp_path: Path) -> None:
    [record] = released_files.released(1)
    [imported] = import_released(
        released_files.write(tmp_path / "a.jsonl", [{**record, "scores": [[0.5]], "source": "x"}])
    )
    assert record_metadata(imported) == {"scores": [[0.5]], "source": "x"}  # no tracks say whose these scores are


@pytest.mark.parametrize("names", [RECORD_FIELDS[13:], ("metadata",), ("frame_indices", "timestamps", "metadata")])
def test_what_only_our_records_have_is_taken_over(names: tuple[str, ...], tmp_path: Path) -> None:
    """Frames that begin later than the original's would, in a file of both kinds."""
    caption = make_caption(end_frame=49, instances=2)
    frames = np.arange(0, 49, 5) + (2 if "frame_indices" in names else 0)
    record = to_record(replace(caption, frame_indices=frames, timestamps=frames / 25 + 0.01), {"source": "x"})
    entry = {name: record[name] for name in (*RECORD_FIELDS[:13], *names)}
    path = released_files.write(tmp_path / "a.jsonl", [released_files.released(1)[0], {**entry, "note": 1}])
    _, imported = import_released(path)
    assert record_metadata(imported) == {"source": "x", "note": 1}
    same = {"frame_indices", "bboxes", "labels", *names} - {"metadata"}
    assert {name: imported[name] for name in same} == {name: record[name] for name in same}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"frame_indices": [0, 5]}, "frame_indices"),
        ({"frame_indices": [0.5] * 10}, r"frame_indices\[0\]"),
        ({"frame_indices": [0] * 10}, "frame_indices"),
        ({"timestamps": [0, 5]}, "timestamps"),
        ({"track_ids": [[9]] * 10}, r"track_ids\[0\]"),
        ({"track_phrases": [0, 1, 7]}, "track_phrases"),
        ({"scores": [[1e9] * len(boxes) for boxes in make_caption().to_dict()["bboxes"]]}, "objectness"),
        ({"metadata": "[1]"}, "metadata"),
        ({"metadata": "{"}, "metadata"),
        ({"metadata": "[" * 100_000}, "metadata"),
    ],
)
def test_what_only_our_records_have_may_be_wrong(change: dict[str, Any], field: str, tmp_path: Path) -> None:
    path = released_files.write(tmp_path / "a.jsonl", [to_record(make_caption()) | change])
    with pytest.raises(ValueError, match=f"a.jsonl: line 1: {field}: "):
        list(import_released(path))


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        (lambda r: r.pop("clip_start_frame"), "clip_start_frame", "missing_field"),
        (lambda r: r.update(fps="fast"), "fps", "wrong_type"),
        (lambda r: r.update(fps=0), "fps", "out_of_range"),
        (lambda r: r.update(width=64.5), "width", "out_of_range"),
        (lambda r: r.update(clip_end_frame=10**12), "clip_end_frame", "clip_range"),
        (lambda r: r.update(clip_end_frame=60), "bboxes", "frame_count"),
        (lambda r: r["labels"].pop(), "labels", "length_mismatch"),
        (lambda r: r["labels"][0].pop(), "labels[0]", "length_mismatch"),
        (lambda r: r["labels"][0].__setitem__(0, "a dog"), "labels", "label_not_a_phrase"),
        (lambda r: r["bboxes"][0].__setitem__(0, [1, 2, 3]), "bboxes[0][0]", "bad_box"),
        (lambda r: r["bboxes"][0].__setitem__(1, [1, 2, 3, "x"]), "bboxes[0][1]", "wrong_type"),
        (lambda r: r["phrases"].append("a dog"), "phrases", "phrase_not_in_caption"),
        (lambda r: r.update(caption=" "), "tagged_caption", None),
    ],
)
def test_a_wrong_record_is_reported_with_line_and_field(
    change: Callable[[dict[str, Any]], Any], field: str, reason: str | None, tmp_path: Path
) -> None:
    good, bad, other = released_files.released(3)
    change(bad)
    path = released_files.write(tmp_path / "a.jsonl", [good, bad, other])
    records, problems = _with_problems(import_released, path)
    if reason is None:  # the tagged caption has all that is needed
        assert len(records) == 3
        return
    assert [record["video_id"] for record in records] == ["video0", "video2"]
    assert [(problem.line, problem.field, problem.reason) for problem in problems] == [(2, field, reason)]
    with pytest.raises(ValueError, match=f"a.jsonl: line 2: {field}".replace("[", r"\[")):
        list(import_released(path))


def test_a_file_of_something_else_says_what_is_there(tmp_path: Path) -> None:
    path = released_files.write(tmp_path / "keys.jsonl", [{"key": "video_0"}])
    with pytest.raises(ValueError, match="line 1: fps: missing; there is key"):
        list(import_released(path))


def test_golden_iground_imports_but_for_its_malformed_clips() -> None:
    path = shared("golden", "eval", "iground", "ground_truth.json")
    truth = json.loads(path.read_text(encoding="utf-8"))
    records, problems = _with_problems(import_released, path)
    # One caption lacks the phrases, and one has more labels than boxes in a frame.
    assert [(problem.field, problem.reason) for problem in problems] == [
        ("vis018_17.phrases", "phrase_not_in_caption"),
        ("vis019_37.labels[0]", "length_mismatch"),
    ]
    assert [record_key(record) for record in records] == [key for key in truth if key not in ("vis018_17", "vis019_37")]
    for record in records:
        original = truth[record_key(record)]
        assert record["caption"] == original["caption"]
        for frame, boxes, labels in zip(
            range(len(original["bboxes"])), original["bboxes"], original["labels"], strict=True
        ):
            ours = [(label, *box) for label, box in zip(record["labels"][frame], record["bboxes"][frame], strict=True)]
            theirs = [(label, *np.float32(box)) for label, box in zip(labels, boxes, strict=True)]
            assert sorted((label, *np.float32(box)) for label, *box in ours) == sorted(theirs)


# --- VidSTG


def test_vidstg_boxes_come_from_vidor(tmp_path: Path) -> None:
    path = released_files.write(tmp_path / "annotations.json", released_files.vidstg(3))
    folder = released_files.vidor(tmp_path / "vidor", ["1000", "1001"])
    records = list(import_vidstg(path, trajectories=folder))
    keys = [record_key(record) for record in records]
    assert keys == [*(f"1000_{i}" for i in range(6)), "1001_0", "1001_1", "1001_2"]
    declarative, who, what = records[:3]
    assert declarative["frame_indices"] == [11, 16, *range(21, 70, 5)]
    assert (declarative["clip_start_frame"], declarative["clip_end_frame"]) == (10, 69)
    in_tube = [21 <= frame < 58 for frame in declarative["frame_indices"]]
    assert [bool(boxes) for boxes in declarative["bboxes"]] == in_tube
    assert declarative["bboxes"][2] == [[26.0, 10.0, 56.0, 50.0]]
    assert who["bboxes"] == declarative["bboxes"]
    assert [bool(boxes) for boxes in what["bboxes"]] == [
        t and f % 2 == 1 for t, f in zip(in_tube, what["frame_indices"], strict=True)
    ]
    assert declarative["tagged_caption"] == "<p>an adult kicks ball 0.</p>"
    assert record_metadata(what) == {
        "entry": 1,
        "qtype": "interrogative",
        "relation": {"object_tid": 3, "predicate": "kick", "subject_tid": 0},
        "target_category": "ball/sports_ball",
        "target_id": 3,
        "target_type": "object",
        "temporal_gt": {"begin_fid": 21, "end_fid": 58},
    }
    without = list(import_vidstg(path))
    assert [record_key(record) for record in without] == keys
    assert not any(boxes for record in without for boxes in record["bboxes"])


def test_vidstg_reports_what_the_trajectories_lack(tmp_path: Path) -> None:
    entries = released_files.vidstg(4)
    entries[3]["vid"] = "../vidor/1000"
    entries[2]["width"] = 320
    entries[1]["captions"][0]["target_id"] = 7
    entries[0]["temporal_gt"] = {"begin_fid": 20, "end_fid": 21}
    path = released_files.write(tmp_path / "annotations.json", entries)
    folder = released_files.vidor(tmp_path / "vidor", ["1000", "1001"])
    records, problems = _with_problems(import_vidstg, path, trajectories=folder)
    # Object 3 has no box in frame 20.
    assert [record_key(record) for record in records] == ["1000_0", "1000_1", "1000_4", "1000_5"]
    reasons = [(problem.line, problem.field, problem.reason) for problem in problems]
    assert reasons == [
        (1, "questions[1].target_id", "target_without_box"),
        (2, "captions[0].target_id", "target_missing"),
        *((3, f"{name}.width", "trajectory_of_other_size") for name in ("captions[0]", "questions[0]", "questions[1]")),
        *((4, f"{name}.vid", "trajectory_missing") for name in ("captions[0]", "questions[0]", "questions[1]")),
    ]
    with pytest.raises(ValueError, match="no folder"):
        list(import_vidstg(path, trajectories=tmp_path / "none"))
    with pytest.raises(ValueError, match="no .json below it"):
        list(import_vidstg(path, trajectories=make_videos(tmp_path / "videos", [])))


def test_prepared_vidstg_has_the_boxes_of_the_official_evaluation() -> None:
    path = shared("golden", "eval", "vidstg", "ground_truth.json")
    truth = json.loads(path.read_text(encoding="utf-8"))
    records, problems = _with_problems(import_vidstg, path)
    assert not problems and len(records) == len(truth["videos"]) == 30
    num_boxes = 0
    for record, video in zip(records, truth["videos"], strict=True):
        tube = truth["trajectories"][video["original_video_id"]][str(video["target_id"])]
        position = {frame: n for n, frame in enumerate(record["frame_indices"])}
        for frame in range(video["tube_start_frame"], video["tube_end_frame"] - 1, int(video["fps"] / 5)):
            x, y, width, height = tube[str(frame)]["bbox"]
            np.testing.assert_allclose(record["bboxes"][position[frame]], [[x, y, x + width, y + height]], rtol=1e-6)
            num_boxes += 1
        assert record_metadata(record)["video_id"] == video["video_id"]
    assert num_boxes > 200


def test_prepared_vidstg_may_name_the_segment(tmp_path: Path) -> None:
    document = released_files.prepared_vidstg(1)
    [record] = import_vidstg(released_files.write(tmp_path / "a.json", document))
    assert (record["clip_start_frame"], record["clip_end_frame"]) == (20, 59)
    document["videos"][0].update(start_frame=3, end_frame=80)
    [record] = import_vidstg(released_files.write(tmp_path / "a.json", document))
    assert (record["clip_start_frame"], record["clip_end_frame"]) == (3, 80)
    assert record["frame_indices"] == [*range(4, 81, 4)]
    assert record["bboxes"][4] == [[30.5, 20.0, 60.75, 60.5]] and record["bboxes"][3] == record["bboxes"][14] == []


# --- ActivityNet-Entities


def test_activitynet_words_are_phrases_at_their_place(tmp_path: Path) -> None:
    path = released_files.write(tmp_path / "reference.json", released_files.activitynet_entities(1))
    [record] = import_activitynet_entities([path])
    assert record["tagged_caption"] == "Two <p>dogs</p> and a <p>cat</p> play ."
    # The middles of ten parts of seconds 1 to 5, at 25 frames a second.
    assert record["frame_indices"] == [30, 40, 50, 60, 70, 80, 90, 100, 110, 120]
    assert (record["clip_start_frame"], record["clip_end_frame"]) == (25, 125)
    assert record["labels"] == [[]] * 4 + [["dogs", "dogs"]] + [[]] * 4 + [["dogs", "cat"]]
    assert record["bboxes"][4] == [[72, 36, 144, 72], [360, 180, 720, 360]]
    assert record["bboxes"][9] == [[0, 0, 36, 36]] * 2
    segment = released_files.activitynet_entities(1)["annotations"]["v_0"]["segments"]["0"]
    assert record_metadata(record) == segment


def test_activitynet_boxes_are_scaled_to_the_video(tmp_path: Path) -> None:
    document = released_files.activitynet_entities(2)
    for video in document["annotations"].values():
        for name in ("fps", "num_frames", "width", "height"):
            del video[name]
    path = released_files.write(tmp_path / "reference.json", document)
    videos = make_videos(tmp_path / "videos" / "part", ["v_0"], num_frames=90).parent
    records, [problem] = _with_problems(import_activitynet_entities, [path], videos=videos)
    [record] = records
    assert (problem.field, problem.reason) == ("v_1.segments.1.width", "video_missing")
    assert (record["width"], record["height"], record["fps"], record["video_fname"]) == (64, 48, 25.0, "v_0.mp4")
    np.testing.assert_allclose(record["bboxes"][4][0], np.array([72, 36, 144, 72]) * 64 / 720, rtol=1e-6)
    # The segment ends after the video: as the original, at its last but one frame.
    assert record["clip_end_frame"] == 88 and record["frame_indices"][0] == round(25 + 63 / 20)
    skeleton = released_files.write(tmp_path / "all.json", {"database": {"v_0": {"rwidth": 720, "rheight": 360}}})
    [record], _ = _with_problems(import_activitynet_entities, [path, skeleton], videos=videos)
    np.testing.assert_allclose(record["bboxes"][4][0], [6.4, 4.8, 12.8, 9.6], rtol=1e-6)
    (videos / "part" / "v_1.mp4").write_bytes(b"no video")
    _, [problem] = _with_problems(import_activitynet_entities, [path], videos=videos)
    assert problem.reason == "broken_video"


def test_activitynet_sizes_may_come_from_the_annotations_alone(tmp_path: Path) -> None:
    document = released_files.activitynet_entities(1)
    document["annotations"]["v_0"].update(width=1280, height=640)
    [record] = import_activitynet_entities([released_files.write(tmp_path / "a.json", document)])
    np.testing.assert_allclose(record["bboxes"][4][0], [128, 64, 256, 128], rtol=1e-6)
    for name in ("width", "height"):
        del document["annotations"]["v_0"][name]
    paths = [
        released_files.write(tmp_path / "a.json", document),
        released_files.write(tmp_path / "b.json", {"database": {"v_0": {"rwidth": 720, "rheight": 406}}}),
    ]
    [record] = import_activitynet_entities(paths)
    assert (record["width"], record["height"], record["bboxes"][4][0]) == (720, 406, [72, 36, 144, 72])
    with pytest.raises(ValueError, match="v_0.segments.0.width: the file does not say"):
        list(import_activitynet_entities(paths[:1]))
    with pytest.raises(ValueError, match="expected a reference file"):
        list(import_activitynet_entities(paths[1:]))


@pytest.mark.parametrize(("start", "end"), [(1.0, 1.2), (0.0, 0.01), (7.9, 9.0), (3.0, 1000.0)])
def test_short_segments_still_have_ten_frames(start: float, end: float, tmp_path: Path) -> None:
    document = released_files.activitynet_entities(1)
    document["annotations"]["v_0"]["segments"]["0"]["timestamps"] = [start, end]
    [record] = import_activitynet_entities([released_files.write(tmp_path / "a.json", document)])
    assert len(record["frame_indices"]) == 10 and record["frame_indices"][-1] < 200


def test_golden_activitynet_reference_can_be_rebuilt() -> None:
    path = shared("golden", "eval", "anet", "ground_truth.json")
    reference = json.loads(path.read_text(encoding="utf-8"))["annotations"]
    records, problems = _with_problems(import_activitynet_entities, [path])
    assert not problems and len(records) == 60
    for record in records:
        segment = reference[record["video_id"]]["segments"][str(record["clip_id"])]
        assert record_metadata(record) == segment
        theirs = Counter(
            (frame, segment["tokens"][word], *map(float, box))
            for frame, words, box in zip(
                segment["frame_ind"], segment["process_idx"], segment["process_bnd_box"], strict=True
            )
            for word in set(words)
        )
        ours = Counter(
            (frame, label, *box)
            for frame, (labels, boxes) in enumerate(zip(record["labels"], record["bboxes"], strict=True))
            for label, box in zip(labels, boxes, strict=True)
        )
        assert ours == theirs
    assert sum(sum(map(len, record["bboxes"])) for record in records) == 184
    some = list(import_activitynet_entities([path], ids={"v_vis0010", "v_vis0021"}))
    assert {record["video_id"] for record in some} == {"v_vis0010", "v_vis0021"}


# --- YouCook-Interactions and GroundingYouTube


def test_pointing_segments_have_a_frame_a_second(tmp_path: Path) -> None:
    document = released_files.pointing(2)
    record = [*import_pointing(released_files.write(tmp_path / "a.json", document))][1]
    assert (record_key(record), record["tagged_caption"]) == ("yc1_1", "<p>put the onion in the pan</p>")
    assert (record["frame_indices"], record["timestamps"]) == ([0, 30, 60, 90], [0.0, 1.0, 2.0, 3.0])
    assert [len(boxes) for boxes in record["bboxes"]] == [1, 0, 0, 1]
    np.testing.assert_allclose(record["bboxes"][3], [[97.7, 17.9, 119.7, 77.6]], rtol=1e-6)
    assert record_metadata(record) == {"annotated": [0, 3], "seconds": [0, 1, 2, 3], "segment_index": 1}


def test_pointing_seconds_and_times_may_be_given(tmp_path: Path) -> None:
    [entry] = released_files.pointing(1)
    entry.update(video_fname="clip_0.mkv", secs_relative=[0, 0.5, 1.49, 9], pts=[n / 10 + 0.02 for n in range(20)])
    [record] = import_pointing(released_files.write(tmp_path / "a.json", [entry]))
    assert record["frame_indices"] == [0, 5, 15, 19] and record["video_fname"] == "clip_0.mkv"
    np.testing.assert_allclose(record["timestamps"], [0.02, 0.52, 1.52, 1.92])
    for change, reason in (
        ({"secs_relative": [0, 1]}, "length_mismatch"),
        ({"secs_relative": [3, 2, 1, 0]}, "frame_order"),
        ({"pts": [0, 1]}, "frame_order"),
        ({"segment_bboxes": []}, "no_frames"),
        ({"segment_bboxes": [[1, 2]] * 4}, "bad_box"),
        ({"segment_youcook_idx": None}, "missing_field"),
        ({"caption": ""}, "empty_caption"),
        ({"caption": "a <p>b</p>"}, "marker_in_caption"),
    ):
        path = released_files.write(tmp_path / "a.json", [{**copy.deepcopy(entry), **change}])
        _, [problem] = _with_problems(import_pointing, path)
        assert problem.reason == reason


@pytest.mark.parametrize("name", ["youcook_interactions", "grounding_youtube"])
def test_golden_pointing_sets_import(name: str) -> None:
    path = shared("golden", "eval", name, "ground_truth.json")
    truth = json.loads(path.read_text(encoding="utf-8"))
    records, problems = _with_problems(import_pointing, path)
    assert not problems and len(records) == 30
    assert len({record_key(record) for record in records}) == 30
    valid = sum(bool(box) for segment in truth for box in segment["segment_bboxes"])
    assert sum(len(record_metadata(record)["annotated"]) for record in records) == valid > 180
    for record, segment in zip(records, truth, strict=True):
        for ours, theirs in zip(record["bboxes"], segment["segment_bboxes"], strict=True):
            np.testing.assert_array_equal(np.float32(ours), np.float32([theirs] if theirs else []))
