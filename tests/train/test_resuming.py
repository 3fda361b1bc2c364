"""Runs that were stopped go on as if nothing had happened."""

import json
import os
import shutil
import subprocess
import sys

import psutil
import pytest
from safetensors.torch import load_file

from tests.train.training_runs import ROOT, losses_of, run_script
from train.checkpoints import (
    RUN_FILE,
    checkpoints,
    claim_run,
    is_complete,
    last_checkpoint,
    remove_incomplete,
    stream_state_name,
)
from train.running import main


def run_and_kill(arguments, output, after, processes=1):
    """Starts a run and kills all of its processes once it has logged a step behind a checkpoint."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    process = subprocess.Popen(
        [*launcher, str(ROOT / "train" / "pt.py"), *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = []
    try:
        for line in process.stderr:
            lines.append(line)
            if line.split()[:1] == [f"{after}/8"]:
                break
    finally:
        for victim in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
            victim.kill()
        process.wait()
    assert lines and lines[-1].split()[0] == f"{after}/8", "".join(lines)
    assert not (output / "results.json").exists()


@pytest.mark.parametrize(
    ("workers", "processes"),
    [(2, 1), pytest.param(1, 2, marks=pytest.mark.slow)],
)
def test_a_run_killed_between_checkpoints_gives_the_losses_of_one_that_was_not(
    world, tmp_path, workers, processes, warm_python
):
    settings = {"max_steps": 8, "save_steps": 3, "dataloader_num_workers": workers, "gradient_accumulation_steps": 2}
    settings |= {"ddp_backend": "gloo"} if processes > 1 else {}
    whole, broken = (world.arguments(tmp_path / name, **settings) for name in ("whole", "broken"))
    assert run_script(warm_python, "pt.py", whole, processes).returncode == 0
    run_and_kill(broken, tmp_path / "broken", after=5, processes=processes)
    assert last_checkpoint(tmp_path / "broken").name == "checkpoint-3"

    again = run_script(warm_python, "pt.py", broken, processes)

    assert again.returncode == 0, again.stderr
    assert "goes on from checkpoint-3" in again.stderr
    expected, found = losses_of(tmp_path / "whole"), losses_of(tmp_path / "broken")
    assert found.keys() == expected.keys() == set(range(1, 9))
    assert found == expected
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken")]
    assert all(tensor.equal(weights[1][name]) for name, tensor in weights[0].items())


def test_a_mean_over_several_steps_is_the_same_after_a_break(world, tmp_path):
    """Lines of three steps, checkpoints of two: the break falls into the middle of a line."""
    settings = {"max_steps": 8, "save_steps": 2, "logging_steps": 3, "save_total_limit": 8}
    arguments = world.arguments(tmp_path / "run", **settings)
    assert main("pt", arguments) == 0
    expected = losses_of(tmp_path / "run")
    for step, path in checkpoints(tmp_path / "run").items():
        if step > 4:
            shutil.rmtree(path)
    for path in (tmp_path / "run").glob("*.json"):
        if path.name in ("trainer_state.json", "results.json"):
            path.unlink()

    assert main("pt", arguments) == 0

    assert losses_of(tmp_path / "run") == expected


def test_a_checkpoint_is_a_complete_model_folder(world, run_folder):
    from modeling_grove import GroveForConditionalGeneration, GroveProcessor

    assert main("pt", world.arguments(run_folder, max_steps=2)) == 0

    checkpoint = run_folder / "checkpoint-2"
    for folder in (checkpoint, run_folder):
        GroveForConditionalGeneration.from_pretrained(folder)
        GroveProcessor.from_pretrained(folder)
        assert (folder / "modeling_grove.py").exists(), "code for trust_remote_code"
        assert not list(folder.glob("*.bin")), "no pickles of settings"
    state = json.loads((checkpoint / stream_state_name(0)).read_text())
    assert sum(worker["draws"] for worker in state["workers"]) == 4
    assert is_complete(checkpoint)


def test_old_checkpoints_go(world, run_folder):
    assert main("pt", world.arguments(run_folder, max_steps=6, save_steps=1, save_total_limit=2)) == 0

    assert [*checkpoints(run_folder)] == [5, 6]


def test_what_a_killed_run_left_half_written_is_not_used(world, run_folder):
    assert main("pt", world.arguments(run_folder, max_steps=4, save_steps=2)) == 0
    expected = losses_of(run_folder)
    half = run_folder / "checkpoint-4"
    (half / "trainer_state.json").write_text('{"global_step": 4, "log_hist')
    for name in ("trainer_state.json", "results.json"):
        (run_folder / name).unlink()

    assert not is_complete(half) and last_checkpoint(run_folder).name == "checkpoint-2"
    assert main("pt", world.arguments(run_folder, max_steps=4, save_steps=2)) == 0

    assert losses_of(run_folder) == expected and is_complete(half)


def test_a_run_killed_behind_its_last_checkpoint_takes_no_step_more(world, run_folder):
    arguments = world.arguments(run_folder, max_steps=4, save_steps=2)
    assert main("pt", arguments) == 0
    expected, weights = losses_of(run_folder), load_file(run_folder / "model.safetensors")
    for name in ("trainer_state.json", "results.json", "model.safetensors"):
        (run_folder / name).unlink()

    assert main("pt", arguments) == 0

    assert json.loads((run_folder / "results.json").read_text())["steps"] == 4 and losses_of(run_folder) == expected
    assert all(tensor.equal(weights[name]) for name, tensor in load_file(run_folder / "model.safetensors").items())


def test_a_run_that_is_finished_has_nothing_left_to_do(world, run_folder, caplog):
    arguments = world.arguments(run_folder, max_steps=2)
    assert main("pt", arguments) == 0
    before = {path: path.stat().st_mtime_ns for path in run_folder.rglob("*") if path.is_file()}

    with caplog.at_level("INFO", "train"):
        assert main("pt", arguments) == 0

    assert "this run is finished" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in run_folder.rglob("*") if path.is_file()} == before


def test_other_settings_in_the_same_folder_are_refused(world, run_folder, capsys):
    assert main("pt", world.arguments(run_folder, max_steps=2)) == 0

    assert main("pt", world.arguments(run_folder, max_steps=2, learning_rate=2e-3, trainable="adapters")) == 2

    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert 'learning_rate was 0.001 and is 0.002; trainable was "full" and is "adapters"' in error


def test_how_a_run_is_watched_may_change(world, run_folder):
    assert main("pt", world.arguments(run_folder, max_steps=2)) == 0

    assert main("pt", world.arguments(run_folder, max_steps=2, logging_steps=2, save_steps=1)) == 0


def test_other_data_at_the_same_place_is_refused(world, run_folder, capsys):
    assert main("pt", world.arguments(run_folder, max_steps=2)) == 0

    assert main("pt", world.arguments(run_folder, max_steps=2, train_split="validation")) == 2

    assert "has a run of other settings: data was" in capsys.readouterr().err


def test_a_folder_with_checkpoints_of_unknown_origin_is_refused(world, run_folder):
    assert main("pt", world.arguments(run_folder, max_steps=2)) == 0
    (run_folder / RUN_FILE).unlink()

    with pytest.raises(ValueError, match="has checkpoints but no run.json"):
        claim_run(run_folder, {"seed": 0})


def test_broken_files_are_named(tmp_path):
    (tmp_path / RUN_FILE).write_text("{")

    with pytest.raises(ValueError, match="run.json: not a JSON file"):
        claim_run(tmp_path, {})


def test_incomplete_checkpoints_are_removed(tmp_path):
    for step, state in ((1, "{}"), (2, "{"), (3, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)

    remove_incomplete(tmp_path)

    assert [*checkpoints(tmp_path)] == [1]


def test_as_many_processes_as_before(world, run_folder, capsys):
    assert main("pt", world.arguments(run_folder, max_steps=4, save_steps=2)) == 0
    (run_folder / "results.json").unlink()
    (run_folder / "checkpoint-4" / stream_state_name(0)).unlink()
    state = json.loads((run_folder / "checkpoint-4" / "trainer_state.json").read_text())
    (run_folder / "checkpoint-4" / "trainer_state.json").write_text(json.dumps({**state, "global_step": 3}))

    assert main("pt", world.arguments(run_folder, max_steps=4, save_steps=2)) == 2

    assert "stream_state_0.json: cannot be read" in capsys.readouterr().err
