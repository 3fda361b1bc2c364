"""Losses, gradients, accumulation, evaluation and logs of `GroveTrainer`."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dataset_builders.stream import GroundedCaptionStream, StreamSource
from modeling_grove import GroveForConditionalGeneration, GroveProcessor
from tests.train.training_runs import losses_of, run_script
from train.collator import GroveCollator
from train.parameter_groups import freeze
from train.trainer import LOSS_NAMES, GroveTrainer, NonFiniteLossError
from train.training_arguments import GroveTrainingArguments

GOLDEN = Path(__file__).parents[1] / "golden" / "train" / "losses.json"


def make_trainer(world, output, policy="full", shuffle=4, **changes):
    settings = {
        "max_steps": 4,
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 2,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "dataloader_num_workers": 0,
        "use_cpu": True,
        **changes,
    }
    torch.manual_seed(0)
    model = GroveForConditionalGeneration.from_pretrained(world.start)
    processor = GroveProcessor.from_pretrained(world.start)
    freeze(model, policy)
    validation = StreamSource(world.shards, "default_video", "validation")
    return GroveTrainer(
        model=model,
        args=GroveTrainingArguments(output_dir=str(output), **settings),
        train_dataset=GroundedCaptionStream(
            StreamSource(world.shards, "default_video", "train"), num_frames=4, shuffle_buffer=shuffle
        ),
        eval_dataset=GroundedCaptionStream(
            validation, num_frames=4, frames="midpoints", repeat=False, shuffle_buffer=0, keep_empty=True
        ),
        data_collator=GroveCollator(processor),
        processing_class=processor,
    )


def logged(trainer):
    return [logs for logs in trainer.state.log_history if "loss" in logs]


def gradients(trainer, batches):
    """The gradients of an optimizer step of these micro-batches."""
    trainer.model.zero_grad()
    found, counts = trainer.get_batch_samples(iter(batches), len(batches), trainer.args.device)
    trainer.current_gradient_accumulation_steps = len(batches)
    total = 0.0
    for batch in found:
        total += float(trainer.training_step(trainer.model, batch, counts))
    return total, {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}


def test_all_losses_are_logged_and_add_up(world, run_folder):
    trainer = make_trainer(world, run_folder)
    trainer.train()

    for logs in logged(trainer):
        assert sum(logs[name] for name in LOSS_NAMES) == pytest.approx(logs["loss"], rel=1e-5)
        assert all(logs[name] > 0 for name in LOSS_NAMES)
        assert logs["clips_per_second"] > 0 and 0 <= logs["data_share"] <= 1 and logs["memory_gib"] > 0
    assert [logs["step"] for logs in logged(trainer)] == [1, 2, 3, 4]
    assert logged(trainer)[-1]["epoch"] == pytest.approx(4 * 2 / 24)


def test_golden_losses(world, run_folder):
    """Five seeded steps give the recorded losses; a change of these has to be meant."""
    trainer = make_trainer(world, run_folder, max_steps=5)
    trainer.train()

    recorded = json.loads(GOLDEN.read_text())
    assert len(recorded["steps"]) == 5
    for logs, expected in zip(logged(trainer), recorded["steps"], strict=True):
        for name, value in expected.items():
            # Another processor adds up in another order.
            assert logs[name] == pytest.approx(value, rel=recorded["tolerance"]), name


def test_the_same_seed_gives_the_same_losses_to_the_last_bit(world, tmp_path):
    runs = []
    for name in ("first", "second"):
        trainer = make_trainer(world, tmp_path / name, max_steps=3)
        trainer.train()
        runs.append([[logs[loss] for loss in ("loss", "grad_norm", *LOSS_NAMES)] for logs in logged(trainer)])

    assert runs[0] == runs[1]


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (2, 2), (1, 3)])
def test_accumulated_micro_batches_equal_one_batch(world, run_folder, sizes):
    """Whatever the clips have of tokens and boxes: each micro-batch weighs what it has."""
    trainer = make_trainer(world, run_folder)
    samples = [sample for sample, _ in zip(trainer.train_dataset, range(4), strict=False)]
    parts = iter(samples)
    micro = [trainer.data_collator([next(parts) for _ in range(size)]) for size in sizes]

    loss, expected = gradients(trainer, [trainer.data_collator(samples)])
    accumulated, found = gradients(trainer, micro)

    assert accumulated == pytest.approx(loss, rel=1e-5)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_runs_of_four_micro_batches_and_of_one_end_alike(world, tmp_path):
    ends = []
    for name, batch, steps in (("one", 4, 1), ("four", 1, 4)):
        trainer = make_trainer(
            world, tmp_path / name, max_steps=2, per_device_train_batch_size=batch, gradient_accumulation_steps=steps,
            optim="sgd", learning_rate=1e-2, max_grad_norm=0.0,
        )  # fmt: skip
        before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
        trainer.train()
        ends.append(({name: p.detach() for name, p in trainer.model.named_parameters()}, logged(trainer)))

    (one, one_logs), (four, four_logs) = ends
    assert not all(torch.equal(one[name], tensor) for name, tensor in before.items())
    for name, tensor in one.items():
        torch.testing.assert_close(four[name], tensor, rtol=1e-4, atol=1e-6, msg=name)
    for alone, accumulated in zip(one_logs, four_logs, strict=True):
        assert [accumulated[name] for name in LOSS_NAMES] == pytest.approx(
            [alone[name] for name in LOSS_NAMES], rel=1e-5
        )


def test_the_originals_normalisation_is_a_mean_of_means(world, run_folder):
    trainer = make_trainer(world, run_folder, loss_normalization="micro-batch")
    samples = [sample for sample, _ in zip(trainer.train_dataset, range(2), strict=False)]
    micro = [trainer.data_collator([sample]) for sample in samples]

    means = []
    for batch in micro:
        inputs = {name: value for name, value in batch.items() if name != "keys"}
        means.append(float(trainer.model(**inputs).loss))
    loss, _ = gradients(trainer, micro)

    assert loss == pytest.approx(sum(means) / 2, rel=1e-5)


@pytest.mark.slow
def test_two_processes_equal_one_with_twice_the_batch(world, tmp_path, warm_python):
    """With the same 24 clips in every step, which the processes share out."""
    common = {"max_steps": 2, "max_grad_norm": 0.0, "optim": "sgd", "learning_rate": 1e-2, "warmup_steps": 0}
    one = run_script(
        warm_python,
        "pt.py",
        world.arguments(tmp_path / "one", per_device_train_batch_size=24, shuffle_buffer=0, **common),
    )
    two = run_script(
        warm_python,
        "pt.py",
        world.arguments(
            tmp_path / "two", per_device_train_batch_size=12, shuffle_buffer=0, ddp_backend="gloo", **common
        ),
        processes=2,
    )

    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    alone, shared = losses_of(tmp_path / "one"), losses_of(tmp_path / "two")
    assert alone.keys() == shared.keys() == {1, 2}
    # Every step has all 24 clips, so the processes see the same ones; their questions and frames depend on the clip alone.
    for step, losses in alone.items():
        for name in ("loss", *LOSS_NAMES):
            assert shared[step][name] == pytest.approx(losses[name], rel=1e-5), (step, name)
    expected, found = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    start = load_file(world.start / "model.safetensors")
    assert not all(tensor.equal(start[name]) for name, tensor in found.items()), "it learned"
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6, msg=name)


def test_evaluation_is_the_mean_over_all_clips(world, run_folder):
    trainer = make_trainer(world, run_folder)
    model = trainer.model.eval()
    samples = list(trainer.eval_dataset)
    batch = trainer.data_collator(samples)
    batch.pop("keys")
    with torch.no_grad():
        outputs = model(**batch)

    found = {size: make_eval(trainer, size) for size in (1, 2, len(samples))}

    assert len(samples) == 6
    for metrics in found.values():
        for name in LOSS_NAMES:
            assert metrics[f"eval_{name}"] == pytest.approx(float(outputs[name]), rel=1e-5)
        assert metrics["eval_loss"] == pytest.approx(float(outputs.loss), rel=1e-5)
        grounding = float(outputs.giou_loss + outputs.l1_loss + outputs.objectness_loss) / 3
        assert metrics["eval_grounding_loss"] == pytest.approx(grounding, rel=1e-5)


def make_eval(trainer, size):
    trainer.args.per_device_eval_batch_size = size
    return trainer.evaluate()


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_clips(world, run_folder):
    trainer = make_trainer(world, run_folder)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    collate = trainer.data_collator
    seen = []

    def broken(samples):
        batch = collate(samples)
        batch["box_labels"] = batch["box_labels"] * math.nan
        seen.extend(batch["keys"])
        return batch

    trainer.data_collator = broken

    with pytest.raises(NonFiniteLossError, match=r"step 1: the loss is no finite number \(.*giou_loss nan") as error:
        trainer.train()

    assert all(key in str(error.value) for key in seen[:2])
    for name, parameter in trainer.model.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_a_gradient_that_is_no_number_stops_the_run_before_the_weights_change(world, run_folder):
    trainer = make_trainer(world, run_folder)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.model.lm_head.weight.register_hook(lambda gradient: gradient * math.inf)

    with pytest.raises(
        NonFiniteLossError, match=r"step 1: the gradient is no finite number \((nan|inf)\) for the clips (\S+), (\S+);"
    ):
        trainer.train()

    for name, parameter in trainer.model.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_the_last_checkpoint_is_found_on_request(world, run_folder):
    settings = {"save_strategy": "steps", "save_steps": 2}
    with pytest.raises(ValueError, match="no complete checkpoint to go on from"):
        make_trainer(world, run_folder, **settings).train(resume_from_checkpoint=True)
    whole = make_trainer(world, run_folder, **settings)
    whole.train()
    shutil.rmtree(run_folder / "checkpoint-4")

    trainer = make_trainer(world, run_folder, **settings)
    trainer.train(resume_from_checkpoint=True)

    assert trainer.state.global_step == 4
    expected = dict(whole.model.named_parameters())
    assert all(torch.equal(parameter, expected[name]) for name, parameter in trainer.model.named_parameters())


def test_frozen_parameters_stay(world, run_folder):
    trainer = make_trainer(world, run_folder, policy="adapters", max_steps=2)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()

    changed = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    learns = {name for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert changed <= learns
    assert any(name.endswith("alpha") and "vision_tower" in name for name in changed), "global adapters learn"
    assert any("grounding_encoder.adapters" in name for name in changed)


def test_groups_have_their_own_rates(world, run_folder):
    trainer = make_trainer(world, run_folder, group_learning_rates=["heads=0.5"], weight_decay=0.1)
    optimizer = trainer.create_optimizer()

    rates = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    names = dict(trainer.model.named_parameters())
    assert rates[id(names["model.box_decoder.box_head.0.weight"])] == (0.5, 0.1)
    assert rates[id(names["model.box_decoder.box_head.0.bias"])] == (0.5, 0.0)
    assert rates[id(names["model.phrase_projector.linear_1.weight"])] == (1e-3, 0.1)
    gates = [name for name in names if name.endswith("alpha")]
    assert gates and all(rates[id(names[name])] == (1e-3, 0.0) for name in gates)
