"""The official protocol of iGround equals every value recorded from the original."""

import pytest

from eval.iground import FRAME_SETS, score_iground
from tests.eval.iground_cases import predictions, read, references, similarity

SIMILARITIES = ("bert", "head")
EDGE_CASES = {case["name"]: case for case in read("edge_cases.json")}
GROUNDING_CASES = [name for name in EDGE_CASES if "Recall_bert" in EDGE_CASES[name]["expected"]["per_video"]]
ABORTING_CASES = [name for name in EDGE_CASES if "error_head" in EDGE_CASES[name]["expected"]["per_video"]]


def close(expected):
    return pytest.approx(expected, rel=0, abs=1e-9)


def scored(truth, answers, name, **options):
    return score_iground(
        references(truth), predictions(answers), protocols=("official",), similarity=similarity(name), **options
    )


@pytest.fixture(scope="module")
def runs():
    return {
        name: scored(read("ground_truth.json"), read("predictions.json"), name, captions=False, coco_stats=True)
        for name in SIMILARITIES
    }


def test_all_edge_cases_are_tested():
    captions_only = {name for name in EDGE_CASES if name.startswith("caption_")} | {"single_clip_cider_is_zero"}
    assert {*GROUNDING_CASES, *ABORTING_CASES} | captions_only == {*EDGE_CASES}
    assert len(EDGE_CASES) == 43


@pytest.mark.parametrize("frames", FRAME_SETS)
@pytest.mark.parametrize("name", SIMILARITIES)
def test_recorded_means(runs, name, frames):
    expected, metrics = read("expected.json")["runs"][frames], runs[name].metrics["official"][frames]
    for mode in ("per_video", "flattening"):
        of_mode = {metric: expected[mode][metric] for metric in ("AP50", "mIoU")}
        of_mode["Recall"] = expected[mode][f"Recall_{name}"]
        assert {metric: metrics[mode][metric] for metric in of_mode} == close(of_mode)
    assert metrics["flattening"]["AP"] == close(expected["flattening"]["AP"])
    assert metrics["flattening"]["coco_stats"] == close(expected["flattening"]["coco_stats_12"])


@pytest.mark.parametrize("frames", FRAME_SETS)
@pytest.mark.parametrize("name", SIMILARITIES)
def test_recorded_clips(runs, name, frames):
    expected = read("expected.json")["runs"][frames]["per_video"]["per_clip"]
    rows = {row["key"]: row["official"] for row in runs[name].per_clip if "official" in row}
    rows = rows if frames == "all" else {key: row[frames] for key, row in rows.items()}
    assert [*rows] == [*expected] == read("expected.json")["evaluated_clips"]
    for key, row in rows.items():
        recorded = expected[key]
        assert row["coco_stats"] == close(recorded["coco_stats_12"])
        assert row["frame_mIoU"] == close(recorded["frame_mIoU_counted"])
        assert (row["AP50"], row["mIoU"]) == close((recorded["AP50"], recorded["mIoU"]))
        recall = recorded[f"recall_{name}"]
        assert (row["matches"], row["labels"]) == (recall["tp"], recall["n_gt_labels"])
        assert row["Recall"] == close(recall["recall"])


@pytest.mark.parametrize("name", SIMILARITIES)
def test_recorded_matches(runs, name):
    expected = read("expected.json")["runs"]["all"]["per_video"][f"matches_{name}"]
    ours = {
        f"{row['key']}_{frame}": pairs
        for row in runs[name].per_clip
        for frame, pairs in row.get("official", {}).get("matched_pairs", {}).items()
    }
    assert ours == expected


def test_skipped_clips(runs):
    result, expected = runs["head"], read("expected.json")
    assert [row["key"] for row in result.per_clip if "official" not in row] == expected["skipped_clips"]
    assert result.metrics["official"]["clips"] == len(expected["evaluated_clips"])
    assert result.warnings["clip_not_predicted"] == result.warnings["clip_with_empty_lists"] == 1


@pytest.mark.java
def test_recorded_captions_and_the_rows_of_the_paper():
    expected = read("expected.json")
    result = scored(read("ground_truth.json"), read("predictions.json"), "bert")
    assert result.metrics["official"]["captions"] == close(expected["captions"]["corpus"])
    rows = {row["key"]: row for row in result.per_clip if "captions" in row}
    assert [*rows] == expected["evaluated_clips"]
    for key, row in rows.items():
        assert row["captions"]["official"] == close(expected["captions"]["per_clip"][key])
        tokens = [expected["captions"][f"ptb_tokens_{side}"][key] for side in ("gt", "pred")]
        assert [row["caption_tokens"][side] for side in ("reference", "prediction")] == tokens
    headline = result.headline["official"]
    for frames, suffix in (("all", ""), ("center", " (center)")):
        paper = expected[f"paper_metrics_{frames}"]
        names = {"METEOR": "METEOR", "CIDEr": "CIDEr", "AP50": f"AP50{suffix}", "Recall": f"Recall{suffix}"}
        assert {name: headline[ours] / 100 for name, ours in names.items()} == close({n: paper[n] for n in names})


@pytest.mark.parametrize("mode", ["per_video", "flattening"])
@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("case", GROUNDING_CASES)
def test_edge_case(case, name, mode):
    case = EDGE_CASES[case]
    result = scored(case["ground_truth"], case["predictions"], name, frames=("all",), captions=False, coco_stats=True)
    expected, metrics = case["expected"][mode], result.metrics["official"]["all"][mode]
    assert (metrics["mIoU"], metrics["Recall"]) == close((expected["mIoU"], expected[f"Recall_{name}"]))
    if mode == "flattening":
        assert metrics["coco_stats"] == close(expected["coco_stats_12"])
    else:
        assert metrics["AP50"] == close(expected["AP50"])
        stats = {row["key"]: row["official"]["coco_stats"] for row in result.per_clip if "official" in row}
        assert [*stats] == [*expected["coco_stats_12_per_clip"]]
        for key, values in stats.items():
            assert values == close(expected["coco_stats_12_per_clip"][key])
    assert result.warnings["frames_with_null_label"] == len(expected[f"exceptions_swallowed_{name}"])


@pytest.mark.java
@pytest.mark.parametrize(
    "case", [name for name, case in EDGE_CASES.items() if "captions" in case["expected"]["per_video"]]
)
def test_captions_of_edge_case(case):
    case = EDGE_CASES[case]
    result = scored(case["ground_truth"], case["predictions"], "head", frames=("all",))
    expected = case["expected"]["per_video"]
    assert result.metrics["official"]["captions"] == close(expected["captions"])
    tokens = {f"{r['key']}_0": r["caption_tokens"]["prediction"] for r in result.per_clip if "captions" in r}
    assert tokens == expected["ptb_tokens_pred"]
    assert result.metrics["official"]["all"]["per_video"]["Recall"] == close(expected["Recall_head"])


@pytest.mark.parametrize("case", ABORTING_CASES)
def test_where_the_original_ends_in_an_exception(case):
    case = EDGE_CASES[case]
    with pytest.raises(ValueError, match=r"^clip 'v_0': bboxes of the prediction: .*expected|needs") as raised:
        scored(case["ground_truth"], case["predictions"], "head", captions=False)
    assert "\n" not in str(raised.value)
