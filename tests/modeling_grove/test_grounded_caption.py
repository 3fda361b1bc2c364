"""Grounded captions: what they accept, the files of the original and ours, and how phrases and boxes are matched."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from modeling_grove.grounded_caption import GroundedCaption, PhraseTrack, atomic_path

GOLDEN = Path(__file__).parents[1] / "golden" / "grove"
TEXT = "A woman throws a ball for her dog."


def make_track(phrase="A woman", span=(0, 7), boxes=None, presence=(True, True, False), objectness=(0.9, 0.8, 0.1)):
    if boxes is None:
        boxes = [[1.1, 2, 30, 40], [2.7, 3, 31, 41], [np.nan] * 4]
    return PhraseTrack(phrase, span, boxes, presence, objectness)


def make_caption(**changes):
    values = {
        "caption": TEXT,
        "tracks": (
            make_track(),
            make_track("a ball", (15, 21), np.arange(12).reshape(3, 4) / 7, (False, True, False), (0.25, 0.75, 0.5)),
        ),
        "video_id": "clip",
        "clip_id": 3,
        "video_fname": "clip.mp4",
        "fps": 25.0,
        "width": 64,
        "height": 48,
        "clip_start_frame": 10,
        "clip_end_frame": 24,
        "frame_indices": [10, 15, 20],
        "timestamps": [0.4, 0.6, 0.8],
    }
    return GroundedCaption(**{**values, **changes})


def original_record(**changes):
    """As the original's annotations: no tracks, no frame indices; raw, with two hands in the second frame."""
    record = {
        "video_id": "abc",
        "clip_id": 0,
        "video_fname": "abc.mp4",
        "fps": 29.97,
        "width": 640,
        "height": 360,
        "clip_start_frame": 100,
        "clip_end_frame": 114,
        "caption": "Two hands cut the bread.",
        "tagged_caption": "<p>Two hands</p> cut <p>the bread</p>.",
        "phrases": ["Two hands", "the bread"],
        "bboxes": [
            [[10, 20, 30, 40]],
            [[10, 20, 30, 40], [5, 6, 7.3, 8], [50, 15, 60, 35]],
            [],
        ],
        "labels": [["two hands"], ["Two hands", "The Bread", "Two hands"], []],
    }
    return {**record, **changes}


def test_derived_properties():
    caption = make_caption()
    assert caption.key == "clip_3"
    assert caption.num_frames == 3
    assert caption.phrases == ["A woman", "a ball"]
    assert caption.spans == [(0, 7), (15, 21)]
    assert caption.tagged_caption == "<p>A woman</p> throws <p>a ball</p> for her dog."
    assert make_caption(tracks=()).tagged_caption == TEXT
    assert make_caption(tracks=make_caption().tracks[::-1]).phrases == ["A woman", "a ball"]


def test_arrays_are_coerced_and_read_only():
    track = make_track(boxes=np.ones((3, 4), np.float64), presence=[1, 0, 1])
    assert (track.boxes.dtype, track.presence.dtype, track.objectness.dtype) == (np.float32, bool, np.float32)
    with pytest.raises(ValueError, match="read-only"):
        track.boxes[0, 0] = 5
    half_known = make_track(boxes=[[1, 2, 3, 4], [1, 2, 3, 4], [1, np.inf, 3, 4]])
    assert np.isnan(half_known.boxes[2]).all()


def test_equality():
    assert make_caption() == make_caption()  # one box is NaN in both
    assert make_caption() != make_caption(clip_id=4)
    assert make_caption() != make_caption(timestamps=[0.4, 0.6, 0.9])
    moved = replace(make_track(), boxes=[[1.2, 2, 30, 40], [2.7, 3, 31, 41], [np.nan] * 4])
    assert make_track() == make_track()
    assert make_track() != moved
    assert make_caption() != "clip"


def test_json_round_trip_is_lossless(tmp_path):
    rng = np.random.default_rng(0)
    boxes = rng.uniform(0, 500, (3, 4)).astype(np.float32)
    caption = make_caption(
        tracks=(make_track(boxes=boxes, objectness=rng.uniform(size=3)), *make_caption().tracks[1:]),
        timestamps=rng.uniform(size=3).cumsum(),
    )
    record = json.loads(json.dumps(caption.to_dict(), allow_nan=False))
    assert GroundedCaption.from_dict(record) == caption
    np.testing.assert_array_equal(np.float32(record["bboxes"][0][0]), boxes[0])
    caption.save(tmp_path / "a.json")
    assert GroundedCaption.load(tmp_path / "a.json") == caption
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_to_dict_has_the_original_fields():
    record = make_caption().to_dict()
    original = set(original_record())
    assert set(record) == original | {"frame_indices", "timestamps", "tracks"}
    assert record["bboxes"] == [[[1.1, 2.0, 30.0, 40.0]], [[2.7, 3.0, 31.0, 41.0], record["bboxes"][1][1]], []]
    assert record["labels"] == [["A woman"], ["A woman", "a ball"], []]
    assert record["tracks"][0]["boxes"][2] is None
    assert record["tracks"][0]["objectness"] == [0.9, 0.8, 0.1]


def test_raw_annotations_become_instances_and_merge():
    caption = GroundedCaption.from_dict(original_record())
    assert caption.frame_indices.tolist() == [100, 105, 110]
    np.testing.assert_allclose(caption.timestamps, np.array([100, 105, 110]) / 29.97)
    assert [(track.phrase, track.span) for track in caption.tracks] == [
        ("Two hands", (0, 9)),
        ("Two hands", (0, 9)),
        ("the bread", (14, 23)),
    ]
    assert caption.tracks[1].presence.tolist() == [False, True, False]
    assert caption.tracks[1].objectness.tolist() == [0, 1, 0]
    record = caption.to_dict()
    assert record["bboxes"] == [[[10, 20, 30, 40]], [[10, 20, 30, 40], [50, 15, 60, 35], [5, 6, 7.3, 8]], []]
    assert record["labels"] == [["Two hands"], ["Two hands", "Two hands", "the bread"], []]
    assert record["phrases"] == ["Two hands", "the bread"]
    merged = caption.merged()
    assert merged.to_dict()["bboxes"] == [[[10, 20, 30, 40]], [[10, 15, 60, 40], [5, 6, 7.3, 8]], []]
    assert merged.merged() == merged
    del record["tracks"]
    assert GroundedCaption.from_dict(record) == caption


def test_merged_keeps_the_best_box_where_absent():
    low = make_track(boxes=np.zeros((3, 4)), presence=[True, False, False], objectness=[0.9, 0.1, 0.2])
    high = make_track(boxes=np.ones((3, 4)), presence=[False, False, True], objectness=[0.1, 0.3, 0.8])
    (track,) = make_caption(tracks=(low, high)).merged().tracks
    assert track.boxes[:, 0].tolist() == [0, 1, 1]
    assert track.presence.tolist() == [True, False, True]
    np.testing.assert_array_equal(track.objectness, np.float32([0.9, 0.3, 0.8]))


def test_threshold_is_strict_and_leaves_unknown_boxes_absent():
    caption = make_caption().with_threshold(0.5)
    assert caption.tracks[1].presence.tolist() == [False, True, False]
    low = make_caption().with_threshold(0.05)
    assert low.tracks[0].presence.tolist() == [True, True, False]
    assert low.tracks[1].presence.tolist() == [True, True, True]


@pytest.mark.parametrize(
    ("caption", "tagged", "phrases", "expected"),
    [
        (
            "A man hands a cup to another man.",
            "",
            ["man", "cup", "man"],
            "A <p>man</p> hands a <p>cup</p> to another <p>man</p>.",
        ),
        (
            "The butter knife is next to a knife.",
            "",
            ["knife", "butter knife"],
            "The <p>butter knife</p> is next to a <p>knife</p>.",
        ),
        ("A man and a woman.", "", ["Woman", "MAN"], "A <p>man</p> and a <p>woman</p>."),
        ("Human and man.", "", ["man"], "Human and <p>man</p>."),
        ("Two cups.", "", ["cup"], "Two <p>cup</p>s."),
        ("A cup by a cup.", "A cup by a <p>cup</p>.", ["cup"], "A cup by a <p>cup</p>."),
        ("A cup.", "<p> A cup </p>.", ["A cup"], "<p>A cup</p>."),
        ('"A Cup."', "A <p>Cup</p>.", ["Cup"], '"A <p>Cup</p>."'),
        ("Mix (thin) dough.", "", ["(thin) dough"], "Mix <p>(thin) dough</p>."),
        (None, "A <p>cup</p>.", None, "A <p>cup</p>."),
        # The tags are those of a differently spaced caption, of another one, and malformed.
        ('"A cup by  a cup."', "A cup by a <p>cup</p>.", ["cup"], '"A cup by  a <p>cup</p>."'),
        ("A cup by a cup.", "Two cups by a <p>cup</p>.", ["cup"], "A <p>cup</p> by a cup."),
        ("A cup by a cup.", "A cup by a <p>cup.", ["cup"], "A <p>cup</p> by a cup."),
    ],
)
def test_phrases_are_located(caption, tagged, phrases, expected):
    record = original_record(caption=caption, tagged_caption=tagged, phrases=phrases, bboxes=[[]] * 3, labels=[[]] * 3)
    loaded = GroundedCaption.from_dict(record)
    assert loaded.tagged_caption == expected
    assert GroundedCaption.from_dict(loaded.to_dict()) == loaded


def test_phrases_of_the_original_examples_are_located():
    entries = json.loads((GOLDEN / "prompts.json").read_text(encoding="utf-8"))["parse"]
    same = 0
    for entry in entries:
        record = original_record(
            caption=entry["input_caption"],
            tagged_caption=entry["input_tagged_caption"],
            phrases=entry["input_phrases"],
            bboxes=[[]] * 3,
            labels=[[]] * 3,
        )
        if "hammer" in entry["input_phrases"]:
            with pytest.raises(ValueError, match=r"'hammer' has no \(further\) mention of its own in the caption"):
                GroundedCaption.from_dict(record)
            continue
        loaded = GroundedCaption.from_dict(record)
        assert len(loaded.phrases) == len(entry["input_phrases"])
        same += loaded.tagged_caption == entry["input_tagged_caption"]
    assert same == len(entries) - 2  # "hammer", and one phrase that only the field `phrases` names


def test_repeated_labels_fill_the_occurrences_first():
    record = original_record(
        caption="A man meets a man.",
        tagged_caption="",
        phrases=["man", "man"],
        bboxes=[[[0, 0, 1, 1]], [[0, 0, 2, 2], [0, 0, 3, 3]], [[0, 0, 4, 4], [0, 0, 5, 5], [0, 0, 6, 6]]],
        labels=[["man"], ["man"] * 2, ["man"] * 3],
    )
    tracks = GroundedCaption.from_dict(record).tracks
    assert [(track.span, track.presence.sum()) for track in tracks] == [((2, 5), 3), ((2, 5), 1), ((14, 17), 2)]


def test_one_decoded_frame_more_than_annotated_is_accepted():
    loaded = GroundedCaption.from_dict(original_record(clip_end_frame=115))
    assert loaded.frame_indices.tolist() == [100, 105, 110]
    assert loaded == replace(GroundedCaption.from_dict(original_record()), clip_end_frame=115)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None, "fps": None}, "fps, labels: missing from the annotation"),
        ({"caption": None, "tagged_caption": None}, "caption: missing from the annotation"),
        ({"labels": [[], []]}, "labels: 2 frames, but bboxes has 3"),
        ({"labels": [["two hands"], ["the bread"], []]}, r"labels\[1\]: 1 labels for the 3 boxes of bboxes\[1\]"),
        ({"labels": [["a cat"], ["the bread"] * 3, []]}, r"labels\[0\]: 'a cat' is none of the phrases"),
        ({"phrases": ["Two hands", "a cat"]}, r"phrase 'a cat' has no \(further\) mention of its own in the caption"),
        (
            {"phrases": ["Two hands", "the bread", "the bread"]},
            r"phrase 'the bread' has no \(further\) mention of its own",
        ),
        ({"phrases": ["Two hands", ""]}, "phrase '' is empty"),
        ({"clip_end_frame": 200}, "bboxes: 3 frames, but frames 100..200 at 29.97 fps give 21 sampled ones"),
        (
            {"bboxes": [[[1, 2, 3]], [[0] * 4] * 3, []]},
            r"bboxes\[0\] of 'two hands': expected shape \(4,\), got \(3,\)",
        ),
        ({"bboxes": [[["a", 2, 3, 4]], [[0] * 4] * 3, []]}, r"bboxes\[0\] of 'two hands': cannot be read"),
        (
            {"bboxes": [[[1, 2, 3, float("nan")]], [[0] * 4] * 3, []]},
            r"bboxes\[0\]: the box of 'two hands' is not finite",
        ),
    ],
)
def test_errors_of_annotations(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        GroundedCaption.from_dict(original_record(**changes))
    assert "\n" not in str(error.value)


def test_edited_boxes_are_not_ignored():
    record = make_caption().to_dict()
    record["bboxes"][0][0] = [0, 0, 1, 1]
    with pytest.raises(ValueError, match="tracks: disagree with bboxes and labels"):
        GroundedCaption.from_dict(record)
    incomplete = make_caption().to_dict()
    del incomplete["tracks"][0]["presence"], incomplete["tracks"][0]["objectness"]
    with pytest.raises(ValueError, match="tracks: presence, objectness missing from the one of phrase 'A woman'"):
        GroundedCaption.from_dict(incomplete)
    record["tracks"] = None
    assert GroundedCaption.from_dict(record).tracks[0].boxes[0].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phrase": " "}, "phrase: expected a non-empty string"),
        ({"span": (7, 7)}, r"span of phrase 'A woman': expected \(start, end\)"),
        ({"boxes": np.zeros((3, 5))}, r"boxes of phrase 'A woman': expected shape \(T, 4\), got \(3, 5\)"),
        ({"boxes": "none"}, "boxes of phrase 'A woman': cannot be read as an array of float32"),
        ({"presence": [True]}, r"presence of phrase 'A woman': expected shape \(3,\), got \(1,\)"),
        ({"presence": [0.5, 1, 0]}, "presence of phrase 'A woman': expected booleans"),
        (
            {"objectness": [0.5, 1.5, 0]},
            r"objectness of phrase 'A woman': expected probabilities in \[0, 1\], got 0.0..1.5",
        ),
        ({"objectness": [0.5, np.nan, 0]}, "objectness of phrase 'A woman': expected probabilities"),
        (
            {"presence": [True] * 3},
            "boxes of phrase 'A woman': present at sampled frame 2 but the box there is not finite",
        ),
    ],
)
def test_errors_of_tracks(changes, message):
    with pytest.raises(ValueError, match=message):
        make_track(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"caption": None}, "caption: expected a string, got None"),
        ({"clip_id": "x"}, "clip_id: expected a number of type int, got 'x'"),
        ({"width": 64.5}, "width: expected a number of type int, got 64.5"),
        ({"height": 0}, "height: expected a positive number, got 0"),
        ({"fps": float("nan")}, "fps: expected a number of type float, got nan"),
        ({"fps": 0}, "fps: expected a positive number, got 0.0"),
        ({"clip_end_frame": 5}, "clip_end_frame: expected 0 <= clip_start_frame <= clip_end_frame, got 10..5"),
        ({"frame_indices": [], "timestamps": [], "tracks": ()}, "frame_indices: a grounded caption needs at least one"),
        ({"frame_indices": [10, 10, 20]}, "frame_indices: expected strictly increasing"),
        ({"frame_indices": [10, 15, 25]}, r"frame_indices: 10..25 leave the clip's frames 10..24"),
        ({"timestamps": [0, 1]}, r"timestamps: expected shape \(3,\), got \(2,\)"),
        ({"timestamps": [0, 2, 1]}, "timestamps: expected finite seconds that never decrease"),
        ({"caption": "A man throws"}, r"span of phrase 'A woman': \(0, 7\) holds 'A man t' in the caption"),
        ({"caption": "A wom"}, r"span of phrase 'A woman': \(0, 7\) holds 'A wom' in the caption of 5 characters"),
        (
            {"frame_indices": [10, 15], "timestamps": [0, 1]},
            "boxes of phrase 'A woman': 3 frames, but frame_indices has 2",
        ),
        ({"tracks": (make_track(), make_track("woman", (2, 7)))}, "span: phrases 'A woman' and 'woman' overlap"),
    ],
)
def test_errors_of_captions(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        make_caption(**changes)
    assert "\n" not in str(error.value)


def test_save_leaves_nothing_behind_on_failure(tmp_path):
    (tmp_path / "taken.json").mkdir()
    with pytest.raises(OSError, match="taken.json"):
        make_caption().save(tmp_path / "taken.json")
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken.json"]


def test_load_names_the_file(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match="bad.json: not a JSON file"):
        GroundedCaption.load(tmp_path / "bad.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match="list.json: expected one JSON object, got list"):
        GroundedCaption.load(tmp_path / "list.json")


def test_atomic_path_removes_a_half_written_file(tmp_path):
    def write_half():
        with atomic_path(tmp_path / "a.bin") as temporary:
            temporary.write_bytes(b"half")
            raise KeyError(temporary.suffix)

    with pytest.raises(KeyError, match=".bin"):
        write_half()
    assert list(tmp_path.iterdir()) == []
