"""Every card, as it is published: nothing is left to be filled in, its metadata is whole, and its examples run as printed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import DatasetCard, HfApi, ModelCard, RepoCard, SpaceCard, hf_hub_download

from dataset_builders.card import dataset_card as basic_card
from dataset_builders.features import sample_features
from eval.provenance import describe_model
from hub_cards.__main__ import main
from hub_cards.rendering import is_signed
from tests.conftest import ROOT
from tests.dataset_builders.shard_runs import manifest_of, shard, write_jsonl
from tests.eval.tiny_benchmarks import write_benchmark
from tests.hub_cards.publishing import DEMO, make_shapes, publish, results_of
from tests.records import make_record

NAMES = {
    "model": "org/cards-model",
    "shapes": "org/cards-shapes",
    "howtoground": "org/howtoground1m-cards",
    "iground": "org/iground-cards",
    "plain": "org/cards-plain",
    "metric": "org/cards_vidstg_score",
    "space": "org/cards-space",
}
# Off the path before anything is imported: the repository is installed in development mode.
WITHOUT_PACKAGE = f"import sys\nsys.path = [p for p in sys.path if p not in ('', {str(ROOT)!r})]\n"


@pytest.fixture(scope="module")
def cards(local_hub, tmp_path_factory) -> dict[str, RepoCard]:
    """One repository of every kind on the local Hub, and their cards as they are there."""
    folder = tmp_path_factory.mktemp("cards")
    results = folder / "results.json"
    results.write_text(json.dumps(results_of(describe_model(str(DEMO))["fingerprint"])))
    records = write_jsonl(folder / "records.jsonl", [make_record(name) for name in ("a", "b")])
    assert shard(records, folder / "shards") == 0
    shapes = make_shapes(folder / "shapes", videos=True)
    commands = {
        "model": (DEMO, "--license", "apache-2.0", "--results", results, "--without-forward"),
        "shapes": (shapes, "--license", "cc-by-4.0"),
        "howtoground": (folder / "shards",),
        "iground": (folder / "shards",),
        "plain": (folder / "shards", "--license", "cc-by-4.0", "--contact", "Write to cards@example.org"),
        "metric": ("vidstg",),
        "space": (ROOT / "hub_cards" / "space", "--model", NAMES["model"]),
    }
    kinds = {"model": "model", "metric": "metric", "space": "space"}
    for name, arguments in commands.items():
        assert publish(kinds.get(name, "dataset"), arguments[0], "--repo", NAMES[name], *arguments[1:]) == 0, name
    loaders = {"model": ModelCard, "metric": SpaceCard, "space": SpaceCard}
    return {name: loaders.get(name, DatasetCard).load(repo) for name, repo in NAMES.items()}


def blocks(card: RepoCard, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", card.text, re.DOTALL)


def start_python(text: str, folder: Path, path: str) -> subprocess.Popen[str]:
    """Runs text in a fresh process, which has the repository on its path or not."""
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "HF_MODULES_CACHE": str(folder / "modules"),
        "OMP_NUM_THREADS": "1",
    }
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", text], cwd=folder, env=environment, **pipes)


def output_of(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, f"{process.args}\n{errors}"
    return output


@pytest.fixture(scope="module")
def stranger(cards, tmp_path_factory) -> Iterator[subprocess.Popen[str]]:
    """The example of the model's card that needs no package, where there is none. It runs beside the other tests."""
    folder = tmp_path_factory.mktemp("stranger")
    shutil.copy(ROOT / "examples" / "clip.mp4", folder)
    (text,) = (text for text in blocks(cards["model"], "python") if "trust_remote_code" in text)
    check = "\nimport importlib.util\nassert importlib.util.find_spec('modeling_grove') is None\n"
    check += "assert type(model).__module__.startswith('transformers_modules.')\n"
    process = start_python(WITHOUT_PACKAGE + text + check, folder, "")
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("name", NAMES)
def test_a_card_is_whole(cards, name):
    card = cards[name]
    text = str(card)
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", card.text, flags=re.DOTALL)
    assert not re.search(r"More Information Needed|\bORG\b|TODO|FIXME|\bNone\b", prose)
    assert not re.search(r"/home/|/tmp/|/root/|127\.0\.0\.1", text)
    assert is_signed(text)
    for heading in ("Limits", "Licence", "Questions, and removal", "Citation"):
        assert re.search(rf"^## {heading}", card.text, re.MULTILINE), heading
    assert "@inproceedings{kazakos2025grove" in card.text and "Community tab" in card.text
    card.validate()
    assert card.data.license and card.data.tags


def test_the_metadata_of_each_kind(cards):
    model = cards["model"].data
    assert (model.pipeline_tag, model.library_name, model.language) == ("video-text-to-text", "transformers", "en")
    assert {"grounded-video-captioning", "custom_code"} <= set(model.tags)
    assert model.metrics == ["ap50", "meteor"] and len(model.eval_results) == 3
    space = cards["space"].data
    assert (space.sdk, space.app_file, space.models) == ("gradio", "app.py", [NAMES["model"]])
    assert re.fullmatch(r"\d+\.\d+\.\d+", space.sdk_version) and len(space.short_description) <= 60
    assert f'DEFAULT_MODEL = "{NAMES["model"]}"' in Path(
        hf_hub_download(NAMES["space"], "app.py", repo_type="space")
    ).read_text(encoding="utf-8")
    assert {"evaluate", "metric"} <= set(cards["metric"].data.tags)
    for name in ("howtoground", "iground"):
        assert cards[name].data.license == "cc-by-nc-sa-4.0" and "not ours to give" in cards[name].text
    assert "Write to cards@example.org. Open a discussion" in cards["plain"].text


def test_a_data_sets_card_keeps_what_load_dataset_reads(cards, tmp_path):
    """And every number in its tables is one of the manifest."""
    path = hf_hub_download(NAMES["shapes"], "manifest.json", repo_type="dataset")
    manifest = json.loads(Path(path).read_text())
    basic = DatasetCard(basic_card(manifest, NAMES["shapes"]))
    ours, theirs = cards["shapes"].data.to_dict(), basic.data.to_dict()
    assert all(ours[name] == theirs[name] for name in ("configs", "dataset_info", "size_categories", "pretty_name"))
    assert ours["dataset_info"][0]["features"] == sample_features(False)._to_yaml_list()
    assert manifest_of(Path(path).parent)["statistics"]["default"]["train"]["clips"] == 3
    tables = re.findall(r"^\|.*\|$", basic.text, re.MULTILINE)
    assert len(tables) > 30 and all(row in cards["shapes"].text for row in tables if "annotations" not in row)


def test_the_examples_of_the_cards_run_as_printed(cards, stranger, tmp_path, example_clip):
    """All that need the package in one process, which has a video, predictions and annotations of its own."""
    shutil.copy(example_clip, tmp_path / "clip.mp4")
    records, _ = write_benchmark(tmp_path / "vidstg", "vidstg")
    for name in ("predictions.jsonl", "references.jsonl"):
        shutil.copy(records, tmp_path / name)
    parts = [text for card in cards.values() for text in blocks(card, "python") if "trust_remote_code" not in text]
    assert len(parts) == 1 + 2 + 3 + 1 + 1
    told = output_of(start_python("\n".join(parts), tmp_path, str(ROOT)))
    assert "frames" in told and (tmp_path / "captioned.mp4").stat().st_size > 1000
    for text in (text for card in cards.values() for text in blocks(card, "bash")):
        if not text.startswith("pip install"):
            environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
            subprocess.run(["bash", "-ec", text], cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert (tmp_path / "demo" / "app.py").is_file() and (tmp_path / "demo" / "requirements.txt").is_file()


def test_a_published_model_runs_where_the_package_is_not_installed(stranger):
    """As its card prints it: by name, with the code of the repository."""
    assert output_of(stranger).strip()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("model", DEMO, "--license", "apache-2.0"), f'model="{DEMO}"'),
        (("metric", "vidstg"), 'evaluate.load("org/vidstg_score")'),
        (("space", ROOT / "hub_cards" / "space", "--repo", "org/demo", "--model", "org/grove"), "sdk: gradio"),
    ],
)
def test_a_card_alone_is_printed_or_written(arguments, expected, tmp_path, capsys):
    assert main(["card", *map(str, arguments)]) == 0
    printed = capsys.readouterr().out
    assert expected in printed
    assert main(["card", *map(str, arguments), "--output", str(tmp_path / "new" / "README.md")]) == 0
    assert (tmp_path / "new" / "README.md").read_text(encoding="utf-8") == printed


def test_the_card_of_a_data_set_alone(tmp_path, capsys):
    folder = make_shapes(tmp_path, videos=False)
    assert main(["card", "dataset", str(folder), "--repo", "org/x"]) == 2
    assert "no licence: give --license" in capsys.readouterr().err
    assert main(["card", "dataset", str(folder), "--repo", "org/x", "--license", "cc-by-4.0", "--json"]) == 0
    card = DatasetCard(json.loads(capsys.readouterr().out)["card"])
    assert card.data.license == "cc-by-4.0" and "python -m dataset_builders shapes` makes them again" in card.text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("metric", "nothing", "--repo", "org/x_score"), "got 'nothing'; expected one of iground"),
        (("metric", "iground", "--repo", "org/x.score"), "repository: got 'org/x.score'"),
        (("metric", "iground", "--repo", "org/x_score", "--license", "mit"), "the code is under apache-2.0"),
        (
            ("space", ROOT / "hub_cards", "--repo", "org/x", "--model", "org/m"),
            "no app.py; expected the folder of a Gradio",
        ),
        (("space", ROOT / "hub_cards" / "space", "--repo", "org/x"), "--model: a Space needs the model"),
        (("model", DEMO, "--repo", "just-a-name"), "--repo: got 'just-a-name'; expected org/name"),
    ],
)
def test_what_cannot_be_published_says_why(arguments, expected, capsys):
    assert publish(*arguments, "--dry-run") == 2
    assert expected in capsys.readouterr().err


def test_a_space_whose_program_is_broken_is_refused(tmp_path, capsys):
    (tmp_path / "app.py").write_text("import gradio\nprint(\n")
    (tmp_path / "requirements.txt").write_text("gradio==6.0.0\n")
    assert publish("space", tmp_path, "--repo", "org/x", "--model", "org/m") == 2
    assert "app.py, line 2: '(' was never closed" in capsys.readouterr().err
    assert not HfApi().repo_exists("org/x", repo_type="space")
