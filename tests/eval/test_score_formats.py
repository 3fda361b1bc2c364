"""What `score` reads, and what it says of files that are wrong: one line that names the clip and the field."""

import copy
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dataset_builders.importers.released import import_released
from dataset_builders.importers.vidstg import import_vidstg
from dataset_builders.record import from_record, record_key
from eval.clips import PredictedClip, ReferenceClip
from eval.score_formats import FORMATS, read_files
from modeling_grove.grounded_caption import GroundedCaption

from .score_command import GOLDEN, LEMMAS, golden, refused, score

FOLDERS = {
    "iground": "iground",
    "vidstg": "vidstg",
    "activitynet_entities": "anet",
    "youcook_interactions": "youcook_interactions",
    "grounding_youtube": "grounding_youtube",
}
HEAD = ("--text-similarity", "head-word", "--no-captions")
KEY = "vis001_7"  # of a clip of iGround with boxes in its first frames


def options(benchmark):
    split = ("--split-file", GOLDEN / "anet" / "split.json", "--lemmas", LEMMAS)
    return {"iground": HEAD, "activitynet_entities": split}.get(benchmark, ())


def files(benchmark):
    folder = GOLDEN / FOLDERS[benchmark]
    return folder / "ground_truth.json", folder / "predictions.json"


def written(path, value):
    """A JSON or JSONL file; NaN goes in as the extension that the original's files have."""
    lines = [json.dumps(item) for item in value] if path.suffix == ".jsonl" else [json.dumps(value)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def clips():
    """Annotations and predictions of iGround, to be spoilt."""
    return copy.deepcopy(golden("iground", "ground_truth.json")), copy.deepcopy(golden("iground", "predictions.json"))


def iground(tmp_path, truth, predictions, *more):
    return score(
        "iground", written(tmp_path / "truth.json", truth), written(tmp_path / "said.json", predictions), *HEAD, *more
    )


@pytest.fixture
def records(tmp_path):
    """Four records of iGround as the importer makes them; those whose annotation fits itself."""
    found = []
    for record in import_released(GOLDEN / "iground" / "ground_truth.json", lambda problem: None):
        found.append(record)
    assert len(found) > 20
    return found[:4]


class TestFilesThatCannotBeRead:
    @pytest.mark.parametrize("benchmark", FOLDERS)
    @pytest.mark.parametrize("empty", ["", "[]", "{}"])
    @pytest.mark.parametrize("place", [0, 1])
    def test_empty(self, benchmark, empty, place, tmp_path):
        pair = [*files(benchmark)]
        pair[place] = tmp_path / "empty.json"
        pair[place].write_text(empty)
        assert "empty.json" in refused(score(benchmark, *pair, *options(benchmark)))

    @pytest.mark.parametrize("benchmark", FOLDERS)
    def test_empty_jsonl(self, benchmark, tmp_path):
        (tmp_path / "empty.jsonl").write_text("\n")
        error = refused(score(benchmark, files(benchmark)[0], tmp_path / "empty.jsonl", *options(benchmark)))
        if benchmark != "activitynet_entities":  # whose annotations cannot be imported without the videos
            assert "empty.jsonl: no clip in it" in error

    @pytest.mark.parametrize("benchmark", FOLDERS)
    @pytest.mark.parametrize("place", [0, 1])
    def test_cut_off(self, benchmark, place, tmp_path):
        pair = [*files(benchmark)]
        text = pair[place].read_bytes()
        pair[place] = tmp_path / "cut.json"
        pair[place].write_bytes(text[: len(text) // 2])
        assert "cut.json" in refused(score(benchmark, *pair, *options(benchmark)))

    def test_cut_off_jsonl(self, records, tmp_path):
        path = written(tmp_path / "said.jsonl", records)
        path.write_bytes(path.read_bytes()[:-200])
        error = refused(score("iground", path, path, *HEAD))
        assert "said.jsonl: line 4" in error and "cut off" in error

    @pytest.mark.parametrize("name", ["said.pkl", "said.PICKLE", "said.json", "said.jsonl"])
    @pytest.mark.parametrize("benchmark", ["iground", "vidstg"])
    def test_pickle(self, name, benchmark, tmp_path):
        path = tmp_path / name
        path.write_bytes(pickle.dumps({"v_0": {"pred_bboxes": [np.zeros((1, 4), np.float32)]}}))
        error = refused(score(benchmark, files(benchmark)[0], path, *options(benchmark)))
        assert "a pickle" in error and "any code" in error

    def test_no_such_file(self, tmp_path):
        assert "nowhere.json" in refused(score("iground", files("iground")[0], tmp_path / "nowhere.json", *HEAD))

    def test_no_boxes_at_all(self, clips, tmp_path):
        path = written(tmp_path / "said.json", {"v_0": {"text": "a man"}})
        assert "clip 'v_0': pred_bboxes: missing" in refused(score("iground", files("iground")[0], path, *HEAD))

    def test_name_twice(self, tmp_path):
        path = tmp_path / "said.json"
        path.write_text('{"v_0": {"pred_text": "a"}, "v_0": {"pred_text": "b"}}')
        assert "v_0: the name appears twice" in refused(score("iground", files("iground")[0], path, *HEAD))

    def test_clip_twice(self, records, tmp_path):
        path = written(tmp_path / "said.jsonl", [*records, records[0]])
        assert "vis000_6" in refused(score("iground", path, path, *HEAD))


class TestIground:
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "left", [1], 10**400])
    def test_coordinate_of_a_prediction(self, value, clips, tmp_path):
        truth, predictions = clips
        predictions[KEY]["pred_bboxes"][2] = [[0, 0, 9, 9], [0, value, 9, 9]]
        error = refused(iground(tmp_path, truth, predictions))
        assert f"said.json: clip '{KEY}': pred_bboxes[2][1]: expected four finite numbers" in error

    def test_coordinate_of_an_annotation(self, clips, tmp_path):
        truth, predictions = clips
        truth[KEY]["bboxes"][2] = [[0, 0, float("nan"), 9]]
        assert f"truth.json: clip '{KEY}': bboxes[2][0]: " in refused(iground(tmp_path, truth, predictions))

    @pytest.mark.parametrize("box", [[1, 2, 3], [1, 2, 3, 4, 5], "x", 5, [5], [1, 2, "a", 4], {}])
    def test_box_of_a_record(self, box, records, tmp_path):
        wrong = {**records[1], "bboxes": [[*frame] for frame in records[1]["bboxes"]]}
        n = next(n for n, frame in enumerate(wrong["bboxes"]) if frame)
        wrong["bboxes"][n][0] = box
        released = {
            name: value for name, value in wrong.items() if name not in ("track_ids", "track_phrases", "scores")
        }
        for record in (wrong, released):
            path = written(tmp_path / "said.jsonl", [records[0], record])
            error = refused(score("iground", written(tmp_path / "truth.jsonl", records), path, *HEAD))
            assert f"said.jsonl: line 2: clip '{record_key(record)}': bboxes[{n}][0]: expected four finite" in error

    def test_box_of_a_caption(self, records, tmp_path):
        caption = from_record(records[0]).to_dict()
        caption["tracks"][1]["boxes"][3] = [1, 2, 3]
        path = written(tmp_path / "said.jsonl", [caption])
        error = refused(score("iground", written(tmp_path / "truth.jsonl", records), path, *HEAD))
        assert f"line 1: clip '{record_key(records[0])}': tracks[1].boxes[3]: expected four finite" in error

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("caption", None),
            ("caption", 5),
            ("bboxes", None),
            ("bboxes", 5),
            ("labels", [5]),
            ("fps", "x"),
            ("track_ids", 7),
            ("scores", [["x"]]),
            ("tagged_caption", 7),
        ],
    )
    def test_field_of_a_record(self, field, value, records, tmp_path):
        path = written(tmp_path / "said.jsonl", [{**records[0], field: value}])
        error = refused(score("iground", written(tmp_path / "truth.jsonl", records), path, *HEAD))
        assert f"said.jsonl: line 1: clip '{record_key(records[0])}': {field}: " in error

    @pytest.mark.parametrize(("place", "name"), [("bboxes", "bboxes[0]: got null"), ("labels", "labels[0][0]: ")])
    def test_null_in_a_record(self, place, name, records, tmp_path):
        record = {**records[0], "bboxes": [[*frame] for frame in records[0]["bboxes"]]}
        assert record["labels"][0]
        record[place] = [None if place == "bboxes" else [None, *record["labels"][0][1:]], *record[place][1:]]
        path = written(tmp_path / "said.jsonl", [record])
        error = refused(score("iground", written(tmp_path / "truth.jsonl", records), path, *HEAD))
        assert f"clip '{record_key(record)}': {name}" in error

    def test_box_of_a_record_of_another_benchmark(self, tmp_path):
        records = [*import_vidstg(files("vidstg")[0], lambda problem: None)]
        n = next(n for n, frame in enumerate(records[0]["bboxes"]) if frame)
        records[0]["bboxes"][n][0] = [1, 2, 3]
        path = written(tmp_path / "truth.jsonl", records)
        error = refused(score("vidstg", path, written(tmp_path / "said.jsonl", records[1:])))
        assert f"clip '{record_key(records[0])}': bboxes[{n}][0]: expected [x1, y1, x2, y2], got [1, 2, 3]" in error

    def test_nan_in_a_line(self, records, tmp_path):
        path = written(tmp_path / "said.jsonl", records)
        path.write_text(re.sub(r'"bboxes": \[\[\[[0-9.]+', '"bboxes": [[[NaN', path.read_text(), count=1))
        error = refused(score("iground", path, path, *HEAD))
        assert "said.jsonl: line 1: bboxes: NaN is not JSON" in error

    @pytest.mark.parametrize("box", [[1, 2, 3], [[1, 2, 3, 4]], 5, "box", {}])
    def test_box_of_another_shape(self, box, clips, tmp_path):
        truth, predictions = clips
        predictions[KEY]["pred_bboxes"][0] = [box]
        assert f"clip '{KEY}': pred_bboxes[0][0]: " in refused(iground(tmp_path, truth, predictions))

    @pytest.mark.parametrize(
        ("field", "value"),
        [("pred_text", 5), ("pred_text", None), ("pred_bboxes", {}), ("pred_bboxes", [1]), ("pred_labels", ["a"])],
    )
    def test_field_of_a_prediction(self, field, value, clips, tmp_path):
        truth, predictions = clips
        predictions[KEY][field] = value
        assert f"clip '{KEY}': {field}: " in refused(iground(tmp_path, truth, predictions))

    @pytest.mark.parametrize(
        ("field", "value"), [("width", 0), ("height", "270"), ("width", 1.5), ("caption", None), ("bboxes", [None])]
    )
    def test_field_of_an_annotation(self, field, value, clips, tmp_path):
        truth, predictions = clips
        truth[KEY][field] = value
        assert re.search(rf"clip '{KEY}': {field}(\[0\])?: ", refused(iground(tmp_path, truth, predictions)))

    @pytest.mark.parametrize("protocol", ["official", "corrected"])
    @pytest.mark.parametrize("field", ["pred_bboxes", "pred_labels"])
    def test_wrong_number_of_frames(self, field, protocol, clips, tmp_path):
        truth, predictions = clips
        del predictions[KEY][field][-2:]
        assert f"'{KEY}'" in refused(iground(tmp_path, truth, predictions, "--protocol", protocol))

    def test_inverted_boxes_are_counted(self, clips, tmp_path):
        truth, predictions = clips
        before = iground(tmp_path, truth, predictions).result["warnings"]["inverted_boxes"]
        frame = next(frame for frame in predictions[KEY]["pred_bboxes"] if frame)
        frame[0] = [90, 90, 20, 20]
        assert iground(tmp_path, truth, predictions).result["warnings"]["inverted_boxes"] == before + 1

    def test_label_that_is_null_is_counted(self, clips, tmp_path):
        truth, predictions = clips
        frame = next(frame for frame in predictions[KEY]["pred_labels"] if frame)
        frame[0] = None
        scored = iground(tmp_path, truth, predictions)
        assert scored.status == 0 and scored.result["warnings"]["frames_with_null_label"] == 1

    def test_unknown_clip_is_counted(self, clips, tmp_path):
        truth, predictions = clips
        del truth[KEY]
        scored = iground(tmp_path, truth, predictions)
        assert scored.status == 0 and scored.result["warnings"]["unknown_clip"] == 1

    def test_null_in_place_of_boxes_means_not_asked(self, clips, tmp_path):
        truth, predictions = clips
        predictions[KEY]["pred_bboxes"][0] = None
        predictions[KEY]["pred_labels"][0] = None
        scored = iground(tmp_path, truth, predictions)
        for metrics in scored.result["metrics"].values():
            assert "all" not in metrics and "center_frame" in metrics  # the first frame is not the centre


class TestOtherSplit:
    @pytest.mark.parametrize("benchmark", FOLDERS)
    def test_no_clip_in_common(self, benchmark, tmp_path):
        truth, said = files(benchmark)
        predictions = json.loads(said.read_text())
        if benchmark == "activitynet_entities":
            predictions["results"] = {f"other_{key}": value for key, value in predictions["results"].items()}
        else:
            predictions = {f"other_{key}": value for key, value in predictions.items()}
        path = written(tmp_path / "said.json", predictions)
        for protocol in ("official", "corrected"):
            error = refused(score(benchmark, truth, path, *options(benchmark), "--protocol", protocol))
            assert "split" in error

    def test_split_that_is_not_there(self):
        error = refused(
            score(
                "activitynet_entities",
                *files("activitynet_entities"),
                *options("activitynet_entities"),
                "--split",
                "val",
            )
        )
        assert "'val'" in error and "validation" in error

    def test_split_file_is_needed(self):
        error = refused(score("activitynet_entities", *files("activitynet_entities"), "--lemmas", LEMMAS))
        assert "--split-file" in error


class TestOtherBenchmarks:
    def test_nan_of_vidstg_is_counted(self, tmp_path):
        truth, said = files("vidstg")
        predictions = json.loads(said.read_text())
        predictions["v0000_0"]["boxes"][0] = [[float("nan")] * 4]
        scored = score("vidstg", truth, written(tmp_path / "said.json", predictions))
        assert scored.result["warnings"]["frames_with_nan_boxes"] >= 1
        assert scored.result["metrics"]["official"]["declarative"]["msIoU"] is None
        assert scored.result["metrics"]["corrected"]["declarative"]["msIoU"] > 0

    def test_lengths_of_vidstg(self, tmp_path):
        truth, said = files("vidstg")
        predictions = json.loads(said.read_text())
        del predictions["v0001_1"]["boxes"][0]
        error = refused(score("vidstg", truth, written(tmp_path / "said.json", predictions)))
        assert "'v0001_1': boxes" in error

    def test_boxes_of_pointing(self, tmp_path):
        truth, said = files("youcook_interactions")
        predictions = json.loads(said.read_text())
        predictions["yc000_0"]["final_boxes"][1] = [[1, 2, 3]]
        error = refused(score("youcook_interactions", truth, written(tmp_path / "said.json", predictions)))
        assert "'yc000_0': final_boxes[1]" in error

    def test_nan_of_activitynet_entities_is_counted(self, tmp_path):
        truth, said = files("activitynet_entities")
        predictions = json.loads(said.read_text())
        predictions["results"]["v_vis0000"]["0"]["bbox_for_all_frames"][0] = [[float("nan")] * 4] * 10
        path = written(tmp_path / "said.json", predictions)
        scored = score("activitynet_entities", truth, path, *options("activitynet_entities"))
        assert scored.result["warnings"]["tubes_with_boxes_that_are_not_finite"] == 1

    @pytest.mark.parametrize("value", [[[1, 2, 3, 4]] * 9, "boxes"])
    def test_boxes_of_activitynet_entities(self, value, tmp_path):
        truth, said = files("activitynet_entities")
        predictions = json.loads(said.read_text())
        predictions["results"]["v_vis0000"]["0"]["bbox_for_all_frames"][0] = value
        path = written(tmp_path / "said.json", predictions)
        error = refused(score("activitynet_entities", truth, path, *options("activitynet_entities")))
        assert "'v_vis0000_0': bbox_for_all_frames" in error

    @pytest.mark.parametrize("benchmark", ["vidstg", "youcook_interactions", "activitynet_entities"])
    def test_records_with_predictions_of_the_original(self, benchmark, records, tmp_path):
        path = written(tmp_path / "truth.jsonl", records)
        error = refused(score(benchmark, path, files(benchmark)[1], *options(benchmark)))
        assert "format of the original" in error and "truth.jsonl" in error

    @pytest.mark.parametrize("benchmark", FOLDERS)
    def test_record_without_a_name(self, benchmark, records, tmp_path):
        path = written(tmp_path / "truth.jsonl", [{**records[0], "video_id": None}])
        said = written(tmp_path / "said.jsonl", records)
        more = ("--lemmas", LEMMAS) if benchmark == "activitynet_entities" else options(benchmark)
        assert "video_id: missing" in refused(score(benchmark, path, said, *more))

    def test_records_of_another_benchmark(self, records, tmp_path):
        path = written(tmp_path / "truth.jsonl", records)
        error = refused(score("vidstg", path, path))
        assert "clip 'vis000_6'" in error


class TestFormats:
    def test_the_original_of_iground(self):
        read = read_files("iground", *map(str, files("iground")))
        assert all(isinstance(clip, ReferenceClip) and clip.source is None for clip in read.references)
        assert all(isinstance(clip, PredictedClip) for clip in read.predictions)
        said = golden("iground", "predictions.json")[KEY]
        clip = next(clip for clip in read.predictions if clip.key == KEY)
        assert [frame.tolist() for frame in clip.boxes] == said["pred_bboxes"]
        assert [list(frame) for frame in clip.labels] == said["pred_labels"]
        assert clip.caption == said["pred_text"]

    def test_source_names_the_frames_of_the_original(self):
        read = read_files("iground", *map(str, files("iground")), with_source=True)
        truth = golden("iground", "ground_truth.json")[KEY]
        source = next(clip.source for clip in read.references if clip.key == KEY)
        assert source.frame_indices[0] == truth["clip_start_frame"] and source.num_frames == len(truth["bboxes"])

    @pytest.mark.parametrize("suffix", [".jsonl", ".json"])
    @pytest.mark.parametrize("form", ["record", "caption"])
    def test_ours(self, form, suffix, records, tmp_path):
        captions = [from_record(record) for record in records]
        values = records if form == "record" else [caption.to_dict() for caption in captions]
        path = str(written(tmp_path / f"clips{suffix}", values))
        read = read_files("iground", path, path)
        assert read.predictions == captions and all(isinstance(clip, GroundedCaption) for clip in read.references)

    def test_predictions_of_ours_on_annotations_of_the_original(self, records, tmp_path):
        path = written(tmp_path / "said.jsonl", [from_record(record).to_dict() for record in records])
        mixed = score("iground", GOLDEN / "iground" / "ground_truth.json", path, *HEAD, "--protocol", "corrected")
        rows = {row["key"]: row["corrected"] for row in mixed.result["per_clip"]}
        for record in records:
            assert rows[f"{record['video_id']}_{record['clip_id']}"]["Recall"] == 1.0

    def test_lines_of_the_original(self, clips, tmp_path):
        _, predictions = clips
        lines = [{key: value} for key, value in predictions.items()]
        path = written(tmp_path / "said.jsonl", lines)
        whole = score("iground", *files("iground"), *HEAD)
        assert score("iground", files("iground")[0], path, *HEAD).result == whole.result

    def test_converted_pickle(self, tmp_path):
        """The lines that the help gives turn the original's pickle, which has arrays, into what is read."""
        predictions = golden("iground", "predictions.json")
        for clip in predictions.values():
            clip["pred_bboxes"] = [np.array(f, np.float32).reshape(-1, 4) for f in clip["pred_bboxes"]]
        (tmp_path / "predictions.pkl").write_bytes(pickle.dumps(predictions))
        lines = re.findall(r"^    ((?:import|with|    ).*)$", FORMATS, re.MULTILINE)
        lines = lines[lines.index("import json, pickle") :]
        assert len(lines) == 5
        subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=tmp_path, check=True)
        truth = GOLDEN / "iground" / "ground_truth.json"
        converted = score("iground", truth, tmp_path / "predictions.json", *HEAD)
        assert converted.result == score("iground", *files("iground"), *HEAD).result

    def test_split_of_a_folder_of_shards_is_said(self, tmp_path):
        assert "no shards" in refused(score("iground", Path(tmp_path), files("iground")[1], *HEAD))
