"""Baselines: what captions of single frames and automatic annotation become as predictions."""

import json
from dataclasses import replace

import numpy as np
import pytest

from dataset_builders.noise import LEVELS, noise_generator
from dataset_builders.record import from_record, to_record
from dataset_builders.shapes.world import ShapesConfig, iter_clips
from eval.__main__ import main
from eval.ablations.result_folder import read_captions
from eval.baselines import annotation_prediction, baseline_predictions, center_frame_prediction
from eval.iground import score_iground
from eval.text_similarity import text_similarity
from tests.records import make_caption, make_record


@pytest.fixture(scope="module")
def clips():
    return list(iter_clips("validation", 3, config=ShapesConfig(64, 64, seconds=2.0)))


def write(path, objects):
    path.write_text("".join(json.dumps(value) + "\n" for value in objects), encoding="utf-8")
    return str(path)


def test_the_caption_of_the_centre_frame_stands_for_the_clip(clips):
    for clip in clips:
        truth, lines = clip.caption, clip.frames_record()
        prediction = center_frame_prediction(truth, lines)
        centre = lines["frames"][truth.num_frames // 2]
        assert prediction.key == truth.key
        assert prediction.caption == centre["caption"] and prediction.tagged_caption == centre["tagged_caption"]
        assert prediction.frame_indices.tolist() == [truth.frame_indices[truth.num_frames // 2]]
        # One box a phrase: the union of its instances.
        assert len(prediction.tracks) == len(centre["phrases"])
        for track in prediction.tracks:
            of_phrase = np.array(
                [b for b, name in zip(centre["bboxes"], centre["labels"], strict=True) if name == track.phrase]
            )
            union = [*of_phrase[:, :2].min(axis=0), *of_phrase[:, 2:].max(axis=0)]
            np.testing.assert_allclose(track.boxes[0], union, rtol=1e-6)
            assert track.presence.all() and track.objectness.tolist() == [1]


def test_only_the_centre_frame_is_scored(clips):
    predictions = [center_frame_prediction(clip.caption, clip.frames_record()) for clip in clips]
    truths = [clip.caption for clip in clips]
    result = score_iground(truths, predictions, similarity=text_similarity("head-word"), captions=False)
    for protocol in ("official", "corrected"):
        assert "all" not in result.metrics[protocol]
        assert result.metrics[protocol]["center_frame"]["per_video"]["AP50"] > 0


def test_automatic_annotation_is_taken_as_it_is():
    truth = make_caption(instances=2)
    record = to_record(LEVELS["mild"].apply(truth, noise_generator(0, truth.key)))
    prediction = annotation_prediction(truth, record)
    assert prediction == from_record(record).merged()
    assert len(prediction.tracks) == len(prediction.spans)


def test_boxes_in_other_pixels_are_refused():
    record = to_record(replace(make_caption(), width=640, height=480))
    with pytest.raises(ValueError, match=r"^width, height: got 640 x 480, but the clip is annotated at 64 x 48$"):
        annotation_prediction(make_caption(), record)


def test_predictions_come_in_the_order_of_the_annotation_without_those_that_are_missing():
    truths = [make_caption(clip_id=n) for n in range(3)]
    source = [make_record(clip_id=2), make_record(clip_id=0), make_record(clip_id=9)]
    assert [clip.key for clip in baseline_predictions("annotation", truths, source)] == ["video_0", "video_2"]


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (None, "^frames: expected a list of captions"),
        (
            [{"frame_index": 3}, {"frame_index": 9}],
            "^frames: no caption of source frame 25, the centre .* 2 others, 3..9$",
        ),
        ([], "^frames: no caption of source frame 25, the centre of the clip; got none$"),
        (
            [{"frame_index": 25, "caption": "A man."}],
            "^frames: phrases, bboxes, labels missing from .* source frame 25$",
        ),
    ],
)
def test_a_centre_frame_without_caption_is_named(frames, message):
    with pytest.raises(ValueError, match=message):
        center_frame_prediction(make_caption(), {"frames": frames})


def test_wrong_sources_are_one_line_that_names_the_clip():
    truths, record = [make_caption()], make_record()
    for source, message in [
        ([record, record], "clip 'video_0': is twice among the automatically annotated records"),
        ([make_record("other")], r"none of the annotated clips .*such as 'other_0'.*another split"),
        ([{"caption": "a"}], "video_id, clip_id: missing from entry 1"),
        ([{**record, "labels": []}], "clip 'video_0': labels"),
    ]:
        with pytest.raises(ValueError, match=message) as error:
            list(baseline_predictions("annotation", truths, source))
        assert "\n" not in str(error.value)


def test_the_command_writes_predictions_and_counts_them(clips, tmp_path, capsys):
    annotations = write(tmp_path / "val.jsonl", [clip.to_record() for clip in clips])
    frames = write(tmp_path / "val.frames.jsonl", [clip.frames_record() for clip in clips[:2]])
    output = tmp_path / "new" / "center.jsonl"
    assert (
        main(["baseline", "center-frame", frames, "--annotations", annotations, "--output", str(output), "--json"]) == 0
    )
    written = read_captions(output)
    assert [clip.key for clip in written] == [clip.caption.key for clip in clips[:2]]
    boxes = sum(len(clip.tracks) for clip in written)
    assert json.loads(capsys.readouterr().out) == {"clips": 3, "predicted": 2, "boxes": boxes}


def test_a_command_that_fails_leaves_no_file(clips, tmp_path, capsys):
    annotations = write(tmp_path / "val.jsonl", [clip.to_record() for clip in clips])
    other = write(tmp_path / "other.jsonl", [make_record()])
    output = tmp_path / "out.jsonl"
    assert main(["baseline", "annotation", other, "--annotations", annotations, "--output", str(output)]) == 2
    assert "error: none of the annotated clips" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.jsonl", "val.jsonl"]


def test_empty_files_are_said_to_be_empty(tmp_path, capsys):
    full, empty = write(tmp_path / "full.jsonl", [make_record()]), write(tmp_path / "empty.jsonl", [])
    for files, message in [
        ((empty, full), "no clip among the automatically annotated records: is the file empty?"),
        ((full, empty), "no clip among the annotations: is the file empty?"),
    ]:
        output = tmp_path / "out.jsonl"
        assert main(["baseline", "annotation", files[0], "--annotations", files[1], "--output", str(output)]) == 2
        assert capsys.readouterr().err == f"error: {message}\n"
        assert not output.exists()


def test_a_wrong_annotation_is_named_with_its_field(tmp_path, capsys):
    full, wrong = (
        write(tmp_path / "full.jsonl", [make_record()]),
        write(tmp_path / "wrong.jsonl", [{**make_record(), "fps": "x"}]),
    )
    assert main(["baseline", "annotation", full, "--annotations", wrong, "--output", str(tmp_path / "out.jsonl")]) == 2
    assert capsys.readouterr().err == f"error: {wrong}: entry 1: clip 'video_0': fps: expected a number, got 'x'\n"
