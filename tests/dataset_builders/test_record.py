"""The record: what survives on disk, and what the original's files become."""

import dataclasses
import json

import numpy as np
import pytest
from datasets import Dataset

from dataset_builders.features import RECORD_FEATURES
from dataset_builders.record import (
    RECORD_FIELDS,
    from_record,
    processed,
    record_key,
    record_metadata,
    sample_key,
    to_record,
)
from modeling_grove.grounded_caption import GroundedCaption
from tests.records import make_caption, make_record

OURS = ("frame_indices", "timestamps", "track_phrases", "track_ids", "scores", "metadata")


def as_original(record: dict) -> dict:
    """The record with the fields of the original release only."""
    return {name: value for name, value in record.items() if name not in OURS}


def contents(record: dict) -> list:
    """Labels and boxes of every frame, in any order."""
    frames = zip(record["labels"], record["bboxes"], strict=True)
    return [sorted(zip(labels, map(tuple, boxes), strict=True)) for labels, boxes in frames]


@pytest.mark.parametrize("instances", [1, 2], ids=["processed", "raw"])
def test_a_caption_survives_the_record(instances):
    caption = make_caption(instances=instances, end_frame=149)
    record = json.loads(json.dumps(to_record(caption), allow_nan=False))
    assert list(record) == list(RECORD_FIELDS)
    assert from_record(record) == caption
    assert to_record(from_record(record)) == record


def test_only_present_boxes_are_stored():
    caption = make_caption()
    record = to_record(caption)
    assert [len(ids) for ids in record["track_ids"]] == [
        sum(bool(track.presence[n]) for track in caption.tracks) for n in range(caption.num_frames)
    ]
    assert [len(boxes) for boxes in record["bboxes"]] == [len(ids) for ids in record["track_ids"]]
    guess = dataclasses.replace(caption.tracks[0], boxes=np.full((caption.num_frames, 4), 7, np.float32))
    guessed = to_record(dataclasses.replace(caption, tracks=(guess, *caption.tracks[1:])))
    assert guessed["track_ids"] == record["track_ids"]


def test_boxes_keep_their_float32_and_nothing_more():
    track = make_caption().tracks[0]
    boxes = np.where(track.presence[:, None], np.float32([0.1, 1 / 3, 2 / 3, 40.7]), np.float32(np.nan))
    caption = dataclasses.replace(make_caption(), tracks=(dataclasses.replace(track, boxes=boxes),))
    record = to_record(caption)
    assert record["bboxes"][0] == [[0.1, 0.33333334, 0.6666667, 40.7]]
    assert np.array_equal(from_record(record).tracks[0].boxes, boxes, equal_nan=True)


def test_scores_are_kept_where_a_box_is():
    caption = make_caption()
    tracks = [dataclasses.replace(t, objectness=np.where(t.presence, np.float32(0.7), 0)) for t in caption.tracks]
    caption = dataclasses.replace(caption, tracks=tuple(tracks))
    record = to_record(caption)
    assert {score for scores in record["scores"] for score in scores} == {0.7}
    assert from_record(record) == caption


def test_a_track_is_one_instance_over_time():
    """Of two onions, the second is alone in a frame: without track ids it would become the first."""
    caption = make_caption(instances=2, end_frame=199)
    alone = [
        n for n in range(caption.num_frames) if caption.tracks[2].presence[n] and not caption.tracks[1].presence[n]
    ]
    assert alone
    record = to_record(caption)
    assert all(2 in record["track_ids"][n] and 1 not in record["track_ids"][n] for n in alone)
    assert from_record(record) == caption
    assert not from_record(as_original(record)).tracks[2].presence[alone].any()


def test_the_same_phrase_twice_keeps_both_places():
    caption = make_caption(tagged_caption="<p>A man</p> hands <p>a man</p> <p>a cup</p>.")
    record = to_record(caption)
    assert record["phrases"] == ["A man", "a man", "a cup"]
    assert record["track_phrases"] == [0, 1, 2]
    assert from_record(record) == caption
    assert [track.span for track in from_record(as_original(record)).tracks] == [(0, 5), (12, 17), (18, 23)]


def test_a_phrase_without_any_box_is_kept():
    caption = make_caption()
    absent = dataclasses.replace(
        caption.tracks[2],
        boxes=np.full_like(caption.tracks[2].boxes, np.nan),
        presence=np.zeros(caption.num_frames, bool),
        objectness=np.zeros(caption.num_frames, np.float32),
    )
    caption = dataclasses.replace(caption, tracks=(*caption.tracks[:2], absent))
    record = to_record(caption)
    assert record["phrases"] == ["A man", "two onions", "a knife"]
    assert from_record(record) == caption
    assert from_record(as_original(record)).phrases == record["phrases"]


def test_tracks_in_any_order():
    caption = make_caption(instances=2)
    caption = dataclasses.replace(caption, tracks=tuple(reversed(caption.tracks)))
    record = to_record(caption)
    assert record["track_phrases"] == [2, 1, 1, 0]
    assert from_record(record) == caption


def test_the_original_format():
    """Without our fields: the sampled frames follow from the clip, the spans from the tags, all boxes are kept."""
    record = make_record(instances=2, start_frame=100, end_frame=199)
    original = as_original(record)
    caption = from_record(original)
    assert caption.frame_indices.tolist() == list(range(100, 200, 5))
    assert caption.timestamps[0] == 4.0
    assert contents(to_record(caption)) == contents(record)
    assert {float(v) for track in caption.tracks for v in track.objectness} == {0.0, 1.0}
    lowered = {**original, "labels": [[label.upper() for label in labels] for labels in original["labels"]]}
    assert from_record(lowered) == caption
    shorter = {**original, "bboxes": original["bboxes"][:-1], "labels": original["labels"][:-1]}
    assert from_record(shorter).num_frames == caption.num_frames - 1


def test_processed_unites_the_instances():
    caption = make_caption(instances=2)
    record = to_record(caption, {"source": "test"})
    united = processed(record)
    assert from_record(united) == caption.merged()
    assert united["track_phrases"] == [0, 1, 2]
    assert all(len(labels) == len(set(labels)) for labels in united["labels"])
    onions = np.array(
        [box for box, track in zip(record["bboxes"][0], record["track_ids"][0], strict=True) if track in (1, 2)]
    )
    union = united["bboxes"][0][united["labels"][0].index("two onions")]
    assert np.allclose(union, [*onions[:, :2].min(axis=0), *onions[:, 2:].max(axis=0)])
    assert record_metadata(united) == {"source": "test"}
    assert processed(united) == united


def test_metadata():
    metadata = {"question": {"type": "interrogative", "ids": [1, 2]}, "text": "caf\xe9"}
    record = make_record(metadata=metadata)
    assert record_metadata(record) == metadata
    assert record["metadata"] == '{"question": {"ids": [1, 2], "type": "interrogative"}, "text": "caf\xe9"}'
    assert record_metadata(make_record()) == record_metadata({"metadata": None}) == record_metadata({}) == {}
    assert record_metadata({"metadata": {"a": 1}}) == {"a": 1}
    with pytest.raises(ValueError, match="metadata: not JSON"):
        record_metadata({"metadata": "{"})
    with pytest.raises(ValueError, match="metadata: expected a JSON object, got list"):
        record_metadata({"metadata": "[]"})
    with pytest.raises(ValueError, match="JSON"):
        make_record(metadata={"score": float("nan")})


def test_boxes_of_a_frame_in_any_order_and_labels_in_any_case():
    record = make_record(instances=2)
    shuffled = {name: [list(reversed(frame)) for frame in record[name]] for name in ("bboxes", "track_ids", "scores")}
    labels = [[label.upper() for label in reversed(frame)] for frame in record["labels"]]
    assert from_record({**record, **shuffled, "labels": labels}) == from_record(record)


def test_a_key_that_datasets_would_hide_is_another_in_a_shard():
    assert sample_key(make_record("__abcdefghi", 3)) == "~__abcdefghi_3"
    assert sample_key(make_record("_abcdefghij", 3)) == "_abcdefghij_3"


@pytest.mark.parametrize("value", [3, "text", [3], [[3]], [[[3]]], [None]])
@pytest.mark.parametrize(
    "name", ["caption", "phrases", "bboxes", "labels", "frame_indices", "track_phrases", "track_ids"]
)
def test_values_of_other_types_are_an_error_in_one_line(name, value):
    with pytest.raises(ValueError, match=".") as caught:
        from_record({**make_record(), name: value})
    assert "\n" not in str(caught.value)


def test_key():
    assert record_key(make_record("-icHOADpuEc", 3)) == make_caption("-icHOADpuEc", 3).key == "-icHOADpuEc_3"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video_id": None}, "video_id: missing"),
        ({"bboxes": [[]]}, "labels: 10 frames, but bboxes has 1"),
        ({"track_phrases": [0, 1, 7]}, "track_phrases: 7 is no index into the 3 phrases"),
        ({"track_phrases": [0, 1]}, "track_phrases: no track of 'a knife'"),
        ({"track_phrases": [1, 0, 2]}, "a box of 'A man' is in track 0, which is of 'two onions'"),
        (
            {"track_ids": [[]] * 10},
            r"track_ids\[0\]: expected one entry a box, got 3 boxes, 3 labels, 0 tracks, 3 scores",
        ),
        ({"track_ids": [[0, 0, 2]] + [[]] * 9}, r"track_ids\[0\]: track 0 appears twice"),
        ({"track_ids": [[0, 9, 2]] + [[]] * 9}, r"track_ids\[0\]: track 9 is none of 3"),
        (
            {"bboxes": [[*make_record()["bboxes"][0][:2], [5.0]], *make_record()["bboxes"][1:]]},
            r"bboxes\[0\]\[2\]: .* got \[5.0\]",
        ),
        ({"caption": None}, "caption: expected a string, got None"),
        ({"scores": [[1.0]]}, "scores: 1 frames, but bboxes has 10"),
        ({"phrases": ["A man", "two onions", "a spoon"]}, "'a spoon'"),
        ({"frame_indices": [0] * 10}, "frame_indices: expected strictly increasing"),
        ({"width": 0}, "width: expected a positive number"),
        ({"frame_indices": None, "clip_end_frame": 10**15}, "give 200000000000001 sampled ones"),
    ],
)
def test_errors_name_the_field_in_one_line(change, message):
    with pytest.raises(ValueError, match=message) as error:
        from_record({**make_record(), **change})
    assert "\n" not in str(error.value)


def test_records_survive_datasets():
    """Through Arrow with the explicit features: frames without boxes, clips without any, integers among the floats."""
    plain = make_record("plain", metadata={"n": 1})
    raw = make_record("raw", 7, instances=3, end_frame=99)
    bare = make_record("bare")
    bare.update({name: [[] for _ in bare["bboxes"]] for name in ("bboxes", "labels", "track_ids", "scores")})
    whole = make_record("whole")
    whole["bboxes"] = [[[0, 0, 10, 10] for _ in boxes] for boxes in whole["bboxes"]]
    records = [bare, whole, plain, raw]
    assert any(not boxes for boxes in plain["bboxes"])
    dataset = Dataset.from_list(records, features=RECORD_FEATURES)
    assert dataset.features == RECORD_FEATURES
    for given, record in zip(records, dataset, strict=True):
        assert from_record(record) == from_record(given)
        assert record_metadata(record) == record_metadata(given)
    assert not any(track.presence.any() for track in from_record(dataset[0]).tracks)


def test_the_original_format_survives_datasets():
    original = as_original(make_record(instances=2))
    [record] = Dataset.from_list([{**dict.fromkeys(OURS), **original}], features=RECORD_FEATURES)
    assert from_record(record) == from_record(original)


def test_features_are_the_fields_of_the_record():
    assert list(RECORD_FEATURES) == list(RECORD_FIELDS)


def test_a_record_is_more_than_the_file_of_a_caption(tmp_path):
    """`GroundedCaption.load` reads a record as the original's format, boxes and all."""
    record = make_record()
    (tmp_path / "record.json").write_text(json.dumps(record))
    loaded = GroundedCaption.load(tmp_path / "record.json")
    assert contents(to_record(loaded)) == contents(record)
