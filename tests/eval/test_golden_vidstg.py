"""Every recorded number of the original's evaluation of VidSTG, through the command line."""

import pytest

from .score_command import GOLDEN, cases, golden, refused, same, score, write_case

# The boxes are float32 in the original.
TOLERANCE = 1e-6
_NAMES = {"gt_viou": "msIoU", "gt_viou@0.3": "vIoU@0.3", "gt_viou@0.5": "vIoU@0.5"}


@pytest.fixture(scope="module")
def expected():
    return golden("vidstg", "expected.json")


@pytest.fixture(scope="module")
def scored():
    folder = GOLDEN / "vidstg"
    return score("vidstg", folder / "ground_truth.json", folder / "predictions.json", "--protocol", "official")


def _summary(metrics):
    return {f"{qtype}_{name}": metrics[qtype][ours] for qtype in metrics for name, ours in _NAMES.items()}


def test_summary(scored, expected):
    assert scored.status == 0
    summary = _summary(scored.result["metrics"]["official"])
    assert summary.keys() == expected["summary_fps5"].keys()
    for name, value in expected["summary_fps5"].items():
        assert same(summary[name], value, TOLERANCE), name


def test_headline_is_in_percent(scored, expected):
    headline = scored.result["headline"]["official"]
    for qtype in ("declarative", "interrogative"):
        assert same(headline[f"msIoU ({qtype})"], 100 * expected["summary_fps5"][f"{qtype}_gt_viou"], 100 * TOLERANCE)


def test_every_video_and_frame(scored, expected):
    rows = {row["key"]: row["official"] for row in scored.result["per_clip"]}
    assert rows.keys() == expected["per_video"].keys()
    for key, video in expected["per_video"].items():
        row = rows[key]
        assert (row["qtype"], row["frame_indices"]) == (video["qtype"], video["frame_ids"]), key
        assert len(row["frame_iou"]) == len(video["frame_iou"])
        assert all(same(a, b, TOLERANCE) for a, b in zip(row["frame_iou"], video["frame_iou"], strict=True)), key
        for name, ours in _NAMES.items():
            assert same(row[ours], video[name], TOLERANCE), (key, name)


@pytest.mark.parametrize("case", cases("vidstg"))
def test_edge_case(case, tmp_path):
    files = write_case(tmp_path, case, "ground_truth", "predictions")
    scored = score("vidstg", *files, "--protocol", "official")
    if "error" in case:
        message = refused(scored)
        assert "'a_0'" in message or not case["predictions"]
        return
    summary = _summary(scored.result["metrics"]["official"])
    assert summary.keys() == case["expected"].keys()
    assert all(same(summary[name], value, TOLERANCE) for name, value in case["expected"].items())
    rows = {row["key"]: row["official"]["msIoU"] for row in scored.result["per_clip"]}
    assert rows.keys() == case["per_video_gt_viou"].keys()
    assert all(same(rows[key], value, TOLERANCE) for key, value in case["per_video_gt_viou"].items())


@pytest.mark.parametrize("case", cases("vidstg"))
def test_corrected_takes_every_edge_case(case, tmp_path):
    files = write_case(tmp_path, case, "ground_truth", "predictions")
    scored = score("vidstg", *files, "--protocol", "corrected")
    if case["name"] == "length_mismatch":
        assert "boxes" in refused(scored)  # nobody can say which box is of which frame
    elif case["predictions"]:
        for metrics in scored.result["metrics"]["corrected"].values():
            assert all(0 <= metrics[name] <= 1 for name in _NAMES.values())
    else:
        assert refused(scored)
