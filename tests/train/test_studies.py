"""The studies: which runs they need, their tables, and one of them from beginning to end."""

import json

import pytest
import yaml
from PIL import Image

from tests.train.training_runs import ROOT
from train.__main__ import main as train_command
from train.study_results import merge, notes_of, read_other, report, rows_of, table_of
from train.study_runs import SIZES, all_runs, needed_runs, studies

SMOKE = SIZES["smoke"]


def result(ap50, recall=10.0, cider=100.0):
    headline = {"AP50": ap50, "Recall": recall, "CIDEr": cider}
    presence = {"f1": 0.9, "paired": {"f1": 0.95}}
    return {"headline": {"official": headline, "corrected": headline}, "statistics": {"presence": presence}}


@pytest.mark.parametrize("name", studies(SMOKE))
def test_every_row_is_a_run_or_the_pseudo_labels(name):
    study = studies(SMOKE)[name]

    assert set(study.runs.values()) <= {*all_runs(SMOKE), "pseudo-labels"}
    assert all({above, below} <= {*study.runs} for _, above, below in study.expected)


def test_runs_come_after_what_they_start_from():
    runs = all_runs(SMOKE)

    names = [run.name for run in needed_runs(studies(SMOKE)["adapters"], runs)]

    assert names.index("no-adapters-pt") < names.index("no-adapters-pt-ft")
    assert len(names) == len(set(names)) == 6


def test_every_run_on_video_that_starts_from_stills_has_windows_of_video():
    recipe = yaml.safe_load((ROOT / "train" / "recipes" / "pt_shapes.yaml").read_text())
    for run in all_runs(SMOKE).values():
        if run.start == "stills" and run.stage == "ft":
            assert json.loads(run.changes["config_overrides"]) == recipe["config_overrides"]


def test_the_size_of_grove_tiny_is_what_its_recipes_say():
    sizes, recipes = SIZES["tiny"], ROOT / "train" / "recipes"
    stills, pt, ft = (yaml.safe_load((recipes / f"{name}_shapes.yaml").read_text()) for name in ("stills", "pt", "ft"))
    most, script = sizes.pretraining[-1], (recipes / "grove_tiny.sh").read_text()

    assert (sizes.still_steps, sizes.pt_steps, sizes.ft_steps) == tuple(
        recipe["max_steps"] for recipe in (stills, pt, ft)
    )
    assert {sizes.batch} == {recipe["per_device_train_batch_size"] for recipe in (pt, ft)}
    assert sizes.policy == pt["trainable"] == ft["trainable"] and pt["train_data"] == [
        f"outputs/tiny/world/noisy-{most}"
    ]
    assert f"--pretraining {most} --finetuning {sizes.finetuning} " in script and f"shapes:7:{sizes.test} " in script
    assert sizes.stills == most and f"noisy-{most}" in script and "--steps" not in script
    assert sizes.vision_steps == 3500  # the command's default


def test_a_difference_counts_if_its_interval_leaves_out_zero():
    """Seed by seed: AP50 is 20, 22 and 24 higher, though its values differ by as much."""
    study = studies(SMOKE)["noise"]
    rows = {
        "pseudo-labels": [result(20, 30), result(42, 30), result(60, 30)],
        "PT only": [result(40, 29), result(64, 31), result(84, 31)],
    }

    ap50, recall, cider = report(study, rows_of(rows), [0, 1, 2])["findings"]

    assert ap50["difference"] == 22 and ap50["by_seed"] == [20, 22, 24]
    # 4.303 of Student's t with two degrees of freedom, times 2 over the root of 3.
    assert ap50["interval"] == pytest.approx((22 - 4.968, 22 + 4.968), abs=1e-3)
    assert ap50["verdict"] == "as in the paper: 95 % interval +17.0 to +27.0"
    assert recall["difference"] == pytest.approx(1 / 3) and recall["verdict"].startswith(
        "not told apart: 95 % interval -"
    )
    assert cider["difference"] == 0


def test_the_table_has_mean_and_half_range():
    table = table_of(rows_of({"pseudo-labels": [result(20), result(22)], "PT only": [result(40), result(44)]}))

    assert "21.0 ± 1.0" in table and "42.0 ± 2.0" in table and "presence F1" in table
    assert "±" not in table_of(rows_of({"PT only": [result(40)]})), "one seed says nothing of a spread"


def test_what_disagrees_with_the_paper_is_said():
    study = studies(SMOKE)["noise"]
    content = report(study, rows_of({"pseudo-labels": [result(50)], "PT only": [result(40)]}), [0])
    content["machines"] = [{"hardware": {"processor": "some processor", "cores": 2}}] * 2

    notes = notes_of(study, content, SMOKE)

    assert any("-10.0, unlike the paper; one seed" in note for note in notes)
    assert notes[-1].endswith("clean clips. some processor, 2 cores.")


def test_seeds_of_another_machine_join_those_of_this_one():
    here = rows_of({"PT only": [result(40), result(44)]})
    there = rows_of({"PT only": [result(50)]})

    rows, seeds = merge(here, [0, 2], [{"rows": there, "seeds": [1]}])

    assert seeds == [0, 1, 2] and rows["PT only"]["AP50 (corrected)"] == [40, 50, 44]
    with pytest.raises(ValueError, match="seeds \\[1\\] has other rows"):
        merge(here, [0, 2], [{"rows": {"FT only": there["PT only"]}, "seeds": [1]}])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"study": "stages"}, "its study is stages, expected noise"),
        ({"sizes": {"batch": 3}}, "its sizes is"),
        ({"start": {"name": "stills", "fingerprint": "other"}}, "its start is other, expected ours"),
        ({"seeds": [0]}, "has seed 0 too"),
        ({"rows": None}, "expected a file that"),
    ],
)
def test_numbers_that_do_not_belong_to_a_study(tmp_path, change, message):
    made = {"study": "noise", "sizes": {"batch": 2}, "start": {"name": "stills", "fingerprint": "ours"}}
    rows = rows_of({"PT only": [result(50)]})
    content = {**made, "start": {"name": "renamed", "fingerprint": "ours"}, "rows": rows, "seeds": [1], "machines": []}
    path = tmp_path / "noise.json"
    path.write_text(json.dumps(content))
    assert read_other(path, made, [0])["rows"] == rows

    path.write_text(json.dumps({name: value for name, value in (content | change).items() if value is not None}))
    with pytest.raises(ValueError, match=message):
        read_other(path, made, [0])


@pytest.mark.slow
def test_a_study_from_beginning_to_end(tmp_path, capsys):
    line = ["study", "noise", "--output", str(tmp_path), "--size", "smoke", "--json"]
    assert train_command(line) == 0

    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {*found["rows"]} == {"pseudo-labels", "PT only"} and found["seeds"] == [0]
    assert (tmp_path / "noise.md").read_text().startswith("# Pseudo-labels and the model")
    with Image.open(tmp_path / "noise.png") as picture:
        assert picture.width > 500
    made = sorted((tmp_path / "smoke" / "runs").iterdir())
    times = [path.stat().st_mtime_ns for path in made]

    assert train_command(line) == 0, "nothing is trained again"
    assert [path.stat().st_mtime_ns for path in made] == times

    # Another seed from the same stills, elsewhere; the numbers of both together.
    elsewhere = tmp_path / "elsewhere"
    start = ["--start", str(tmp_path / "smoke" / "runs" / "stills")]
    more = ["--output", str(elsewhere), "--seeds", "1", "--merge", str(tmp_path / "noise.json")]
    assert train_command([*line, *start, *more]) == 0
    merged = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert merged["seeds"] == [0, 1] and [machine["seeds"] for machine in merged["machines"]] == [[1], [0]]
    for title, columns in merged["rows"].items():
        assert {name: values[:1] for name, values in columns.items()} == found["rows"][title]
        assert all(len(values) == 2 for values in columns.values())
    assert not (elsewhere / "smoke" / "world" / "stills").exists()

    assert train_command(["world", "--output", str(tmp_path / "smoke" / "world"), "--pretraining", "5"]) == 2
    assert "give another --output" in capsys.readouterr().err


def test_a_seed_twice(tmp_path, capsys):
    assert train_command(["study", "noise", "--output", str(tmp_path), "--seeds", "1", "1"]) == 2

    assert "--seeds: a seed is given twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--start", "nowhere"], "--start: no folder 'nowhere'"),
        (["--merge", "noise.json"], "--merge: joins a study of several runs, from the model that --start names"),
        (
            ["--start", str(ROOT / "checkpoints" / "grove-tiny-stills"), "--merge", "nowhere.json"],
            "--merge: nowhere.json",
        ),
    ],
)
def test_bad_arguments_are_found_before_anything_is_made(tmp_path, capsys, options, message):
    assert train_command(["study", "noise", "--output", str(tmp_path / "out"), *options]) == 2

    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
