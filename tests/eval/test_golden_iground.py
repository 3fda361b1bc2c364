"""Every recorded number of the original's evaluation of iGround, through the command line.

The similarity of phrases is that of a tiny BERT of the same formula (`bert`), or the head-word rule (`head`).
"""

import itertools
import shutil

import pytest

from .score_command import GOLDEN, TINY_BERT, cases, golden, refused, same, score, write_case

FOLDER = GOLDEN / "iground"
FILES = FOLDER / "ground_truth.json", FOLDER / "predictions.json"
SIMILARITIES = {
    "bert": ("--text-similarity", "bert", "--text-model", TINY_BERT, "--device", "cpu"),
    "head": ("--text-similarity", "head-word"),
}
OPTIONS = ("--protocol", "official", "--coco-stats")
FRAME_SETS = ("all", "center_frame", "center_8")
java = [pytest.mark.java, pytest.mark.skipif(shutil.which("java") is None, reason="needs the java command")]


@pytest.fixture(scope="module")
def expected():
    return golden("iground", "expected.json")


@pytest.fixture(scope="module", params=[*SIMILARITIES])
def scored(request):
    """The name of a similarity, and what the command says with it."""
    return request.param, score("iground", *FILES, *OPTIONS, "--no-captions", *SIMILARITIES[request.param])


@pytest.fixture(scope="module")
def captions():
    """What the command says of captions."""
    return score("iground", *FILES, *OPTIONS, *SIMILARITIES["bert"])


@pytest.mark.parametrize("frames", FRAME_SETS)
def test_means_over_videos(frames, scored, expected):
    name, answer = scored
    run, values = expected["runs"][frames]["per_video"], answer.result["metrics"]["official"][frames]["per_video"]
    assert same(values["AP50"], run["AP50"])
    assert same(values["mIoU"], run["mIoU"])
    assert same(values["Recall"], run[f"Recall_{name}"])


@pytest.mark.parametrize("frames", FRAME_SETS)
def test_all_frames_as_one_video(frames, scored, expected):
    name, answer = scored
    run, values = expected["runs"][frames]["flattening"], answer.result["metrics"]["official"][frames]["flattening"]
    for metric in ("AP50", "AP", "mIoU"):
        assert same(values[metric], run[metric]), metric
    assert same(values["Recall"], run[f"Recall_{name}"])
    assert values["coco_stats"] == pytest.approx(run["coco_stats_12"], abs=1e-9)


@pytest.mark.parametrize("frames", FRAME_SETS)
def test_every_clip(frames, scored, expected):
    name, answer = scored
    recorded = expected["runs"][frames]["per_video"]["per_clip"]
    rows = {row["key"]: row["official"] for row in answer.result["per_clip"] if "official" in row}
    assert list(rows) == expected["evaluated_clips"] == list(recorded)
    for key, clip in recorded.items():
        row = rows[key] if frames == "all" else rows[key][frames]
        recall = clip[f"recall_{name}"]
        assert same(row["AP50"], clip["AP50"]), key
        assert same(row["mIoU"], clip["mIoU"]), key
        assert row["frame_mIoU"] == pytest.approx(clip["frame_mIoU_counted"], abs=1e-9), key
        assert row["coco_stats"] == pytest.approx(clip["coco_stats_12"], abs=1e-9), key
        assert (row["matches"], row["labels"]) == (recall["tp"], recall["n_gt_labels"]), key
        assert same(row["Recall"], recall["recall"]), key


def test_every_match(scored, expected):
    name, answer = scored
    matches = {
        f"{row['key']}_{frame}": pairs
        for row in answer.result["per_clip"]
        for frame, pairs in row.get("official", {}).get("matched_pairs", {}).items()
        if pairs
    }
    assert matches == expected["runs"]["all"]["per_video"][f"matches_{name}"]


def test_clips_that_are_left_out(scored, expected):
    _, answer = scored
    assert answer.status == 0 and answer.result["metrics"]["official"]["clips"] == len(expected["evaluated_clips"])
    left_out = [row["key"] for row in answer.result["per_clip"] if "official" not in row]
    assert left_out == expected["skipped_clips"]
    # One of them is predicted, with empty lists.
    assert answer.result["coverage"] == {"clips": 34, "predicted": 33, "coverage": 33 / 34, "missing": ["vis012_14"]}
    assert answer.result["warnings"]["clip_with_empty_lists"] == 1


class TestCaptions:
    pytestmark = java

    def test_corpus(self, captions, expected):
        values = captions.result["metrics"]["official"]["captions"]
        assert values.keys() == expected["captions"]["corpus"].keys()
        assert all(same(values[name], value) for name, value in expected["captions"]["corpus"].items()), values

    def test_every_clip(self, captions, expected):
        rows = {row["key"]: row["captions"]["official"] for row in captions.result["per_clip"] if "captions" in row}
        assert rows.keys() == expected["captions"]["per_clip"].keys()
        for key, clip in expected["captions"]["per_clip"].items():
            assert rows[key].keys() == clip.keys()
            assert all(same(rows[key][name], value) for name, value in clip.items()), key

    def test_tokens(self, captions, expected):
        rows = {row["key"]: row["caption_tokens"] for row in captions.result["per_clip"] if "caption_tokens" in row}
        assert {key: row["reference"] for key, row in rows.items()} == expected["captions"]["ptb_tokens_gt"]
        assert {key: row["prediction"] for key, row in rows.items()} == expected["captions"]["ptb_tokens_pred"]

    def test_rows_of_the_paper(self, captions, expected):
        headline = captions.result["headline"]["official"]
        for name, value in expected["paper_metrics_all"].items():
            if name != "mIoU":  # not in the paper's tables
                assert same(headline[name], 100 * value, 1e-7), name
        for name in ("AP50", "Recall"):
            assert same(headline[f"{name} (center)"], 100 * expected["paper_metrics_center"][name], 1e-7), name


def _of(case, name):
    """Options of a similarity that has something recorded for this case."""
    recorded = case["expected"]["per_video"]
    return name in ("head", *(["bert"] if {"Recall_bert", "error_bert"} & recorded.keys() else []))


EDGE_CASES = [
    pytest.param(case.values[0], name, id=f"{case.id}-{name}")
    for case, name in itertools.product(cases("iground"), SIMILARITIES)
    if _of(case.values[0], name)
]


@pytest.mark.parametrize(("case", "name"), EDGE_CASES)
def test_edge_case(case, name, tmp_path):
    files = write_case(tmp_path, case, "ground_truth", "predictions")
    scored = score("iground", *files, *OPTIONS, "--no-captions", *SIMILARITIES[name])
    video, whole = case["expected"]["per_video"], case["expected"].get("flattening")
    if f"error_{name}" in video:
        assert "'v_0'" in refused(scored) or case["name"] == "no_predicted_box_anywhere_aborts"
        return
    values = scored.result["metrics"]["official"]["all"]
    for metric in ("AP50", "mIoU"):
        assert same(values["per_video"][metric], video[metric]), metric
    assert same(values["per_video"]["Recall"], video[f"Recall_{name}"])
    if whole is not None:
        assert same(values["flattening"]["mIoU"], whole["mIoU"])
        assert same(values["flattening"]["Recall"], whole[f"Recall_{name}"])
        assert values["flattening"]["coco_stats"] == pytest.approx(whole["coco_stats_12"], abs=1e-9)
    rows = {row["key"]: row["official"]["coco_stats"] for row in scored.result["per_clip"] if "official" in row}
    assert rows.keys() == video["coco_stats_12_per_clip"].keys()
    for key, stats in video["coco_stats_12_per_clip"].items():
        assert rows[key] == pytest.approx(stats, abs=1e-9), key
    # What the original swallows, we count.
    swallowed = scored.result["warnings"].get("frames_with_null_label", 0)
    assert bool(video[f"exceptions_swallowed_{name}"]) == bool(swallowed)


@pytest.mark.parametrize(
    "case", [case for case in cases("iground") if "captions" in case.values[0]["expected"]["per_video"]]
)
class TestCaptionsOfEdgeCases:
    pytestmark = java

    def test_scores_and_tokens(self, case, tmp_path):
        recorded = case["expected"]["per_video"]
        files = write_case(tmp_path, case, "ground_truth", "predictions")
        scored = score("iground", *files, *OPTIONS, "--no-statistics", *SIMILARITIES["head"])
        values = scored.result["metrics"]["official"]["captions"]
        assert values.keys() == recorded["captions"].keys()
        assert all(same(values[name], value) for name, value in recorded["captions"].items()), values
        rows = {row["key"]: row for row in scored.result["per_clip"]}
        # Their keys are those of the first frame.
        tokens = {key.rpartition("_")[0]: text for key, text in recorded["ptb_tokens_pred"].items()}
        assert {key: rows[key]["caption_tokens"]["prediction"] for key in tokens} == tokens
