"""The `evaluate` modules: by path they score as the functions do, and published they need no checkout."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import pytest
from huggingface_hub import HfApi

from dataset_builders.importers.activitynet_entities import import_activitynet_entities
from dataset_builders.record import from_record, to_record
from eval.__main__ import main
from eval.publishing import write_metric
from eval.results import BENCHMARKS
from tests.records import make_caption

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "eval"
TABLE = {"lemmas": f"table:{GOLDEN / 'anet' / 'lemma_table.json'}"}


def golden(folder: str, name: str) -> Any:
    return json.loads((GOLDEN / folder / f"{name}.json").read_text())


def load(benchmark: str) -> Any:
    return evaluate.load(str(ROOT / "eval" / "metrics" / f"{benchmark}_score"))


def clips_of_original(benchmark: str) -> tuple[list[Any], list[Any]]:
    """References and predictions of the recorded files, one entry a clip, in the original's spelling."""
    folder = {"activitynet_entities": "anet"}.get(benchmark, benchmark)
    truth, answers = golden(folder, "ground_truth"), golden(folder, "predictions")
    if benchmark == "iground":
        return [{key: clip} for key, clip in truth.items()], [
            {key: answers[key]} if key in answers else None for key in truth
        ]
    if benchmark == "vidstg":
        references = [{"videos": [v], "trajectories": truth["trajectories"]} for v in truth["videos"]]
        return references, [{v["video_id"]: answers[v["video_id"]]} for v in truth["videos"]]
    if benchmark == "activitynet_entities":
        split, results = golden(folder, "split")["validation"], answers["results"]
        references = [{"annotations": {video: truth["annotations"][video]}} for video in split]
        predictions = [{"results": {video: results[video]}} if video in results else None for video in split]
        # The original counts segments of other videos too, where it divides.
        others = [video for video in results if video not in split]
        return references + [None] * len(others), predictions + [
            {"results": {video: results[video]}} for video in others
        ]
    index = {"youcook_interactions": "segment_youcook_idx", "grounding_youtube": "segment_groundingyoutube_idx"}[
        benchmark
    ]
    keys = [f"{segment['video_id']}_{segment[index]}" for segment in truth]
    return truth, [{key: answers[key]} if key in answers else None for key in keys]


@pytest.mark.parametrize("benchmark", ["vidstg", "youcook_interactions", "grounding_youtube"])
def test_original_files_clip_by_clip(benchmark: str, capsys: pytest.CaptureFixture[str]):
    """As the command line scores the files, whose values are the recorded ones."""
    metric = load(benchmark)
    for reference, prediction in zip(*clips_of_original(benchmark), strict=True):
        metric.add(reference=reference, prediction=prediction)
    result = metric.compute()
    files = [f"{GOLDEN / benchmark / name}.json" for name in ("ground_truth", "predictions")]
    arguments = ["score", benchmark, "--annotations", files[0], "--predictions", files[1], "--no-statistics", "--json"]
    assert main(arguments) == 0
    expected = json.loads(capsys.readouterr().out)
    assert json.loads(json.dumps(result["headline"])) == expected["headline"]


def test_activitynet_entities():
    references, predictions = clips_of_original("activitynet_entities")
    metric = load("activitynet_entities")
    for n in range(0, len(references), 7):
        metric.add_batch(references=references[n : n + 7], predictions=predictions[n : n + 7])
    expected = golden("anet", "expected")["paper_metrics"]
    headline = metric.compute(**TABLE)["headline"]["official"]
    assert headline == pytest.approx({name: 100 * value for name, value in expected.items()}, abs=1e-10)
    records = list(import_activitynet_entities([GOLDEN / "anet" / "ground_truth.json"], lambda problem: None))
    result = metric.compute(references=records, predictions=[from_record(r) for r in records], per_clip=True, **TABLE)
    assert set(result["headline"]["corrected"].values()) == {100.0}
    assert {"key", "official", "corrected"} == set(result["per_clip"][0])
    with pytest.raises(ValueError, match="clip 'v_vis0000_0': metadata: missing from the reference; give the record"):
        metric.compute(references=[from_record(records[0])], predictions=[from_record(records[0])], **TABLE)


def test_iground():
    options = {"similarity": "head-word", "captions": False}
    references, predictions = clips_of_original("iground")
    result = load("iground").compute(references=references, predictions=predictions, **options)
    expected = golden("iground", "expected")
    assert result["headline"]["official"]["AP50"] == pytest.approx(
        100 * expected["paper_metrics_all"]["AP50"], abs=1e-10
    )
    # Captions, records and their rows of a data set are the same; what is not predicted is missed.
    captions = [make_caption(video_id=f"v{n}") for n in range(3)]
    for spelled in (captions, [to_record(c) for c in captions], [c.to_dict() for c in captions]):
        metric = load("iground")
        metric.add_batch(references=captions, predictions=[*spelled[:2], None])
        result = metric.compute(protocols=["corrected"], **options)
        assert set(result["headline"]) == {"corrected"}
        assert result["metrics"]["corrected"]["all"]["per_video"]["Recall"] == pytest.approx(2 / 3)
        assert result["coverage"]["missing"] == [captions[2].key]


def test_what_cannot_be_added_is_named():
    metric = load("vidstg")
    with pytest.raises(ValueError, match="expected a GroundedCaption or an object for a clip, got list"):
        metric.add(reference=[1], prediction=None)
    with pytest.raises(ValueError, match="references: missing; give one entry a clip"):
        metric.compute(predictions=[None])


def test_the_folder_of_a_metric(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "new" / "metric"
    assert main(["metric", "iground", "--output", str(folder), "--repository", "me/grounding", "--json"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert sorted(files) == sorted(path.name for path in folder.iterdir())
    script = (folder / "grounding.py").read_text()
    assert "eval." not in script.replace("`eval.iground`", "").replace("evaluate", "")
    for module in folder.glob("*.py"):
        assert "from eval" not in module.read_text()
        assert module.stem == "grounding" or f"from .{module.stem} import " in script
    card = (folder / "README.md").read_text()
    assert 'evaluate.load("me/grounding")' in card and "- evaluate\n- metric\n" in card
    assert (folder / "requirements.txt").read_text().startswith("grove-video[eval]>=")
    assert main(["metric", "iground", "--output", str(folder)]) == 2
    assert "not empty; give a new folder" in capsys.readouterr().err
    with pytest.raises(ValueError, match="repository: got 'a/b/c'; expected org/name"):
        write_metric("iground", tmp_path / "other", "a/b/c")


PROGRAM = """
import json, sys
sys.modules["eval"] = None  # as where there is no checkout
import evaluate
scores = {}
for name, (references, predictions, options) in json.load(open(sys.argv[1])).items():
    metric = evaluate.load(name)
    metric.add_batch(references=references, predictions=predictions)
    scores[name] = metric.compute(**options)["headline"]
print(json.dumps(scores))
"""


def test_published_metrics_by_name(local_hub: Any, hub_repo: Any, tmp_path: Path):
    """All five as Spaces; another process, which has no `eval`, loads them by name and gets the same numbers."""
    given, expected = {}, {}
    for benchmark in BENCHMARKS:
        repository = hub_repo("space")
        write_metric(benchmark, tmp_path / benchmark, repository)
        HfApi().upload_folder(repo_id=repository, folder_path=tmp_path / benchmark, repo_type="space")
        assert {"evaluate", "metric"} <= set(HfApi().space_info(repository).tags)
        references, predictions = clips_of_original(benchmark)
        options: dict[str, Any] = {"iground": {"similarity": "head-word", "captions": False}}.get(benchmark, {})
        options = TABLE if benchmark == "activitynet_entities" else options
        given[repository] = [references, predictions, options]
        own = load(benchmark).compute(references=references, predictions=predictions, **options)
        expected[repository] = json.loads(json.dumps(own["headline"]))
    (tmp_path / "given.json").write_text(json.dumps(given))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "given.json")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_equal(found, expected)
