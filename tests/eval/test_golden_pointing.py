"""Every recorded number of the original's evaluation of the two pointing benchmarks, through the command line: exactly."""

import pytest

from .score_command import GOLDEN, cases, golden, refused, score, write_case

BENCHMARKS = ("youcook_interactions", "grounding_youtube")
EDGE_CASES = [
    pytest.param(benchmark, *case.values, id=f"{benchmark}-{case.id}")
    for benchmark in BENCHMARKS
    for case in cases(benchmark)
]


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_all_values(benchmark):
    folder, expected = GOLDEN / benchmark, golden(benchmark, "expected.json")
    files = folder / "ground_truth.json", folder / "predictions.json"
    scored = score(benchmark, *files, "--protocol", "official")
    assert scored.status == 0
    metrics = scored.result["metrics"]["official"]
    assert scored.result["headline"]["official"]["accuracy"] == expected["accuracy_percent"]
    assert (metrics["correct"], metrics["valid"]) == (expected["total_correct"], expected["total_valid"])
    rows = {row["key"]: row["official"] for row in scored.result["per_clip"]}
    assert rows.keys() == expected["per_segment"].keys()
    for key, segment in expected["per_segment"].items():
        assert (rows[key]["correct"], rows[key]["valid"]) == (segment["total_correct"], segment["total_valid"]), key
        assert 100 * rows[key]["accuracy"] == segment["accuracy_percent"], key


@pytest.mark.parametrize(("benchmark", "case"), EDGE_CASES)
def test_edge_case(benchmark, case, tmp_path):
    files = write_case(tmp_path, case, "ground_truth", "predictions")
    scored = score(benchmark, *files, "--protocol", "official")
    if "error" in case:
        refused(scored)
        return
    metrics, expected = scored.result["metrics"]["official"], case["expected"]
    assert scored.result["headline"]["official"]["accuracy"] == expected["accuracy_percent"]
    assert (metrics["correct"], metrics["valid"]) == (expected["total_correct"], expected["total_valid"])


def test_files_of_the_other_benchmark():
    folder = GOLDEN / "youcook_interactions"
    scored = score("grounding_youtube", folder / "ground_truth.json", folder / "predictions.json")
    assert "segment_groundingyoutube_idx" in refused(scored)
