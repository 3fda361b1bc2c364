"""Arguments and recipes, what is found out before the first step, and what a run leaves behind."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from dataset_builders.record import record_key
from dataset_builders.sources import iter_source
from dataset_builders.tar_shards import write_shard
from modeling_grove import GroveForConditionalGeneration, GroveProcessor
from tests.train.training_runs import ROOT
from train.benchmark_metrics import BenchmarkMetrics
from train.checkpoints import checkpoints
from train.running import main, parse_arguments
from train.streams import training_stream, validation_stream
from train.trainer import GroveTrainer
from train.training_arguments import DataArguments


@pytest.fixture
def fails(capsys):
    """Runs a stage that has to fail; returns its one line."""

    def run(arguments, stage="pt"):
        capsys.readouterr()
        assert main(stage, arguments) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert sum(line.startswith("error: ") for line in lines) == 1 and "Traceback" not in "\n".join(lines)
        return next(line for line in lines if line.startswith("error: "))

    return run


def recipe(tmp_path, **settings):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings))
    return ["--config", str(path)]


def test_the_command_line_goes_over_the_recipe(tmp_path):
    line = recipe(
        tmp_path, learning_rate=1e-4, trainable="adapters", output_dir="a", config_overrides={"num_frames": 4}
    )

    model, _, args = parse_arguments([*line, "--learning_rate", "2e-4"])

    assert args.learning_rate == 2e-4 and model.trainable == "adapters" and model.config_overrides == {"num_frames": 4}


def test_defaults_are_those_of_training_grove(tmp_path):
    model, data, args = parse_arguments(["--output_dir", str(tmp_path)])

    assert model.trainable == "paper" and data.max_length == 1536
    assert args.adam_beta2 == 0.95 and args.max_grad_norm == 1.0 and args.ignore_data_skip
    assert args.accelerator_config.dispatch_batches is False and not args.remove_unused_columns


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["--learning_rat", "1"], "learning_rat"),
        (["--learning_rate", "fast"], "invalid float value: 'fast'"),
        (["--config"], "--config: expected the YAML file"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--config_overrides", "{num_frames: 4"], "config_overrides: expected a JSON object"),
        (["--loss_normalization", "none"], "invalid choice: 'none'"),
        (["--sample_clips", "-1", "--output_dir", "x"], "sample_clips: expected at least 0, got -1"),
    ],
)
def test_wrong_arguments(fails, line, message):
    assert message in fails(line)


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "not YAML"), ("- a", "mapping"), ("no_such_key: 1", "no_such_key")]
)
def test_wrong_recipes(fails, tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)

    assert message in fails(["--config", str(path)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output_dir": ""}, "output_dir: not given"),
        ({"model_name_or_path": None}, "model_name_or_path: not given"),
        ({"model_name_or_path": "nowhere/at-all"}, "model_name_or_path: no processor in 'nowhere/at-all'"),
        ({"train_data": None}, "train_data: not given"),
        ({"train_data": "nowhere"}, "train_data: no shards at 'nowhere'"),
        ({"train_split": "test"}, "train_data: configuration"),
        ({"train_weights": [1.0, 2.0]}, "train_weights: got 2 for 1 train_data"),
        ({"videos": "nowhere"}, "videos: no folder 'nowhere'"),
        ({"trainable": "nothing"}, "no policy or group 'nothing'"),
        ({"trainable": "heads-heads"}, "no parameter that learns"),
        ({"group_learning_rates": ["lora"]}, "expected GROUP=RATE"),
        ({"eval_strategy": "steps"}, "eval_strategy: steps needs eval_data"),
        ({"sample_steps": 2}, "sample_steps: needs eval_data"),
        ({"eval_strategy": "steps", "metric_for_best_model": "AP50"}, "needs eval_data"),
        ({"max_length": 30}, "max_length: with 30 tokens, 16 of them for the video, the caption of"),
        ({"config_overrides": {"vision_feature_layer": -1}}, "weights that this recipe needs"),
        ({"config_overrides": {"num_frame": 8}}, "config_overrides has no field 'num_frame'"),
        ({"load_in_4bit": True}, "quantised weights do not learn; add use_peft"),
        ({"report_to": "wandb"}, "wandb"),
        ({"save_strategy": "epoch"}, "save_strategy: expected steps or no, as the stream has no end, got epoch"),
    ],
)
def test_bad_settings_are_found_before_the_first_step(fails, world, run_folder, changes, message):
    line = fails(world.arguments(**{"output": run_folder, **changes}))

    assert message in line
    assert not list(run_folder.glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("metric", "message"),
    [("corrected_AP50", "corrected_AP50 needs benchmark_clips"), ("accuracy", "expected one of loss, ")],
)
def test_a_metric_that_will_not_be_there(fails, world, run_folder, metric, message):
    changes = {"eval_data": world.shards, "eval_strategy": "steps", "metric_for_best_model": metric}

    assert message in fails(world.arguments(run_folder, **changes))


def test_too_few_shards_or_clips_for_the_processes(world):
    data = DataArguments(train_data=[str(world.shards)], train_split="validation", eval_data=str(world.shards))
    three, seven = (SimpleNamespace(process_index=1, world_size=size, seed=0, data_seed=None) for size in (3, 7))

    with pytest.raises(ValueError, match="train_data: .* has 2 shards for 3 processes"):
        training_stream(data, three, num_frames=4)
    with pytest.raises(ValueError, match="eval_data: 6 clips for 7 processes"):
        validation_stream(data, seven, num_frames=4)


def test_shards_that_were_not_copied(fails, world, run_folder, tmp_path):
    shards = tmp_path / "shards"
    shutil.copytree(world.shards, shards)
    (shards / "default_video" / "train-00004-of-00006.tar").unlink()

    message = fails(world.arguments(run_folder, train_data=shards))
    assert "train_data: " in message and "1 of the 6 shards that its manifest.json lists are missing" in message


def test_a_validation_clip_that_cannot_be_read(fails, world, run_folder, tmp_path):
    record, _ = next(iter_source(str(world.shards), "default_video", "validation"))
    shard = tmp_path / "validation.tar"
    write_shard(shard, [(record_key(record), {"json": json.dumps(record).encode(), "mp4": b"no video"})])

    message = fails(world.arguments(run_folder, eval_data=shard, sample_steps=2, sample_clips=1))
    assert message.startswith("error: eval_data: ") and not list(run_folder.glob("checkpoint-*"))


def test_a_model_that_was_never_pre_trained_is_not_fine_tuned_by_mistake(fails, world, run_folder):
    assert "all adapters of" in fails(world.arguments(run_folder), stage="ft")

    assert main("ft", world.arguments(run_folder, from_scratch=True, max_steps=1)) == 0


def test_an_original_checkpoint_has_to_be_converted(fails, world, run_folder, tmp_path):
    folder = tmp_path / "original"
    shutil.copytree(world.start, folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llava"}))

    line = fails(world.arguments(run_folder, model_name_or_path=folder))

    assert "has a model of type 'llava'" in line and "convert_grove" in line


def test_a_tokenizer_of_another_model(fails, world, run_folder, tmp_path):
    folder = tmp_path / "mixed"
    shutil.copytree(world.start, folder)
    processor = GroveProcessor.from_pretrained(folder)
    processor.tokenizer.add_tokens(["[EXTRA]"])
    processor.save_pretrained(folder)

    assert "1 tokens of the tokenizer have no row" in fails(world.arguments(run_folder, model_name_or_path=folder))

    config = json.loads((folder / "config.json").read_text())
    config["det_token_id"], config["phrase_end_token_id"] = config["phrase_end_token_id"], config["det_token_id"]
    (folder / "config.json").write_text(json.dumps(config))
    assert "the tokenizer gives </p> the id" in fails(world.arguments(run_folder, model_name_or_path=folder))


def test_a_processor_of_another_model(fails, world, run_folder, tmp_path):
    folder = tmp_path / "mixed"
    shutil.copytree(world.start, folder)
    settings = json.loads((folder / "processor_config.json").read_text())
    settings["video_processor"]["window_size"] = 8
    (folder / "processor_config.json").write_text(json.dumps(settings))

    message = fails(world.arguments(run_folder, model_name_or_path=folder))
    assert "window_size / num_frames: the processor has 8, the model 4" in message


def test_lost_weights_are_not_replaced_by_random_ones(fails, world, run_folder, tmp_path):
    folder = tmp_path / "lossy"
    shutil.copytree(world.start, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["model.box_decoder.objectness_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    message = fails(world.arguments(run_folder, model_name_or_path=folder))
    assert "lacks 1 weights that this recipe needs, such as model.box_decoder.objectness_head.weight" in message


def test_no_objectness_head_where_the_recipe_has_none(world, run_folder):
    changes = {"config_overrides": {"use_temporal_objectness": False}, "max_steps": 1}
    assert main("pt", world.arguments(run_folder, **changes)) == 0

    model = GroveForConditionalGeneration.from_pretrained(run_folder)
    assert model.model.box_decoder.objectness_head is None
    history = json.loads((run_folder / "trainer_state.json").read_text())["log_history"]
    assert history[0]["objectness_loss"] == 0


def test_frozen_weights_in_bfloat16_on_a_processor(world, run_folder):
    changes = {"dtype": "bfloat16", "bf16": True, "trainable": "paper", "max_steps": 2}
    assert main("pt", world.arguments(run_folder, **changes)) == 0

    history = json.loads((run_folder / "trainer_state.json").read_text())["log_history"]
    assert all(logs["grad_norm"] > 0 for logs in history if "loss" in logs)
    assert GroveForConditionalGeneration.from_pretrained(run_folder).dtype == torch.bfloat16


def test_windows_of_another_length(world, run_folder):
    """Training on single frames, and a processor that fits."""
    changes = {"config_overrides": {"num_frames": 1, "video_pool_size": [1, 2, 2]}, "max_steps": 1}
    assert main("pt", world.arguments(run_folder, **changes)) == 0

    processor = GroveProcessor.from_pretrained(run_folder)
    assert processor.num_video_tokens == 4 and processor.video_processor.window_size == 1


def test_epochs_become_steps(world, run_folder):
    changes = {"max_steps": None, "num_train_epochs": 0.5, "per_device_train_batch_size": 4}
    assert main("pt", world.arguments(run_folder, **changes)) == 0

    assert json.loads((run_folder / "results.json").read_text())["steps"] == 3


def test_validation_scores_pictures_and_the_best_checkpoint(world, run_folder):
    changes = {
        "eval_data": world.shards, "eval_strategy": "steps", "eval_steps": 2, "benchmark_clips": 3, "sample_steps": 3,
        "sample_clips": 2, "metric_for_best_model": "corrected_CIDEr", "load_best_model_at_end": True,
        "report_to": "tensorboard",
    }  # fmt: skip
    assert main("pt", world.arguments(run_folder, **changes)) == 0

    results = json.loads((run_folder / "results.json").read_text())
    assert {"eval_loss", "eval_caption_loss", "eval_giou_loss", "eval_l1_loss", "eval_objectness_loss"} <= {
        *results["metrics"]
    }
    assert "eval_corrected_CIDEr" in results["metrics"] and "eval_presence_f1" in results["metrics"]
    assert results["best"]["step"] in (2, 4)
    assert {group["name"] for group in results["groups"]} >= {"language_model", "box_decoder"}
    assert results["versions"]["torch"] == torch.__version__ and results["settings"]["seed"] == 42
    assert str(run_folder) not in json.dumps(results), "no paths of this machine"
    pictures = sorted(path.relative_to(run_folder).as_posix() for path in run_folder.glob("samples/*/*.png"))
    assert [path.split("/")[1] for path in pictures] == ["000003", "000003", "000004", "000004"]
    with Image.open(run_folder / pictures[0]) as picture:
        assert picture.width > 300 and len(picture.convert("RGB").getcolors(10**6)) > 50
    assert list(run_folder.glob("runs/*/events.*")), "tensorboard"
    best = run_folder / f"checkpoint-{results['best']['step']}"
    kept, final = (load_file(folder / "model.safetensors") for folder in (best, run_folder))
    assert all(tensor.equal(final[name]) for name, tensor in kept.items())


@pytest.mark.parametrize("metric", ["corrected_AP50", "grounding_loss"])
def test_the_best_checkpoint_is_kept_and_loaded(world, run_folder, monkeypatch, metric):
    """The second of four is the best: the highest score, or the lowest loss; it stays where later ones are pruned."""
    scores, losses = iter((1.0, 3.0, 2.0, 1.5, 0.0)), iter((2.0, 1.0, 3.0, 4.0, 5.0))
    evaluation_loop = GroveTrainer.evaluation_loop

    def evaluated(*args, **kwargs):
        output = evaluation_loop(*args, **kwargs)
        output.metrics.update(eval_grounding_loss=next(losses), eval_corrected_AP50=next(scores))
        return output

    monkeypatch.setattr(GroveTrainer, "evaluation_loop", evaluated)
    monkeypatch.setattr(BenchmarkMetrics, "score", lambda *_: {})
    changes = {
        "eval_data": world.shards, "eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "save_total_limit": 2,
        "benchmark_clips": 1, "metric_for_best_model": metric, "load_best_model_at_end": True,
    }  # fmt: skip
    assert main("pt", world.arguments(run_folder, **changes)) == 0

    assert json.loads((run_folder / "results.json").read_text())["best"]["step"] == 2
    assert [*checkpoints(run_folder)] == [2, 4]
    kept, other, final = (
        load_file(folder / "model.safetensors")
        for folder in (run_folder / "checkpoint-2", run_folder / "checkpoint-4", run_folder)
    )
    assert all(tensor.equal(final[name]) for name, tensor in kept.items())
    assert not all(tensor.equal(final[name]) for name, tensor in other.items())


def test_the_table_of_a_run(world, run_folder, caplog, capsys):
    with caplog.at_level("INFO", "train"):
        assert main("pt", world.arguments(run_folder, max_steps=2)) == 0

    assert "| box_decoder" in caplog.text and "100.0 % learn" in caplog.text
    lines = [line for message in caplog.messages for line in message.splitlines()]
    heading = next(line for line in lines if "caption" in line and "clips/s" in line)
    line = next(line for line in lines if line.strip().startswith("1/2"))
    assert len(heading.split()) == len(line.split()) == 12
    assert "step 2" in capsys.readouterr().out


def test_help_explains_the_recipe(capsys):
    with pytest.raises(SystemExit) as stopped:
        main("ft", ["--help"])

    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for option in ("--trainable", "--config_overrides", "--train_data", "--loss_normalization", "--sample_steps"):
        assert option in shown


@pytest.mark.parametrize("path", sorted((ROOT / "train" / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_can_be_read(path):
    model, data, args = parse_arguments(["--config", str(path), "--use_cpu", "true", "--bf16", "false"])

    assert data.train_data and args.output_dir and model.model_name_or_path
    if path.stem.rpartition("_")[2] != "shapes":
        assert args.learning_rate == 5e-5 and args.warmup_steps == 100 and args.num_train_epochs == 20
        assert model.trainable == "paper" and args.adam_beta2 == 0.95 and args.weight_decay == 0
        assert args.per_device_train_batch_size == args.gradient_accumulation_steps == args.max_grad_norm == 1
        assert args.adam_beta1 == 0.9 and args.lr_scheduler_type == "linear" and data.max_length == 1536
        assert args.load_best_model_at_end and args.metric_for_best_model == "grounding_loss"
        assert args.greater_is_better is False
        without = {} if "howtoground" in path.stem or "iground" in path.stem else {"use_temporal_objectness": False}
        assert (model.config_overrides or {}) == without
