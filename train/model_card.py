"""`README.md` of a trained model: what it was made from and how, with numbers of the run alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCard, ModelCardData

from modeling_grove.grounded_caption import atomic_path

from .parameter_groups import parameter_groups

if TYPE_CHECKING:
    from .trainer import GroveTrainer

_BODY = """
# {title}

A [GROVE](https://arxiv.org/abs/2503.10781) model: it writes a caption of a video in which every noun phrase is tied to boxes that
follow the object. Trained from `{start}` for {steps:,} steps of {batch} clips.

```python
import modeling_grove  # registers GROVE
from transformers import pipeline

captioner = pipeline("grounded-video-captioning", model="{model}")
print(captioner("clip.mp4").tagged_caption)
```

## Training

| | |
|---|---|
{rows}

{evaluation}
"""


def training_card(trainer: GroveTrainer, path: Path, **metadata: Any) -> None:
    """
    Writes the card of a trainer's model.

    Args:
        trainer ([`GroveTrainer`]): after its last step.
        path (`Path`): of the `README.md`.
        metadata (*optional*): more of the card's, such as `license` or `datasets`.
    """
    args, state = trainer.args, trainer.state
    model_id = trainer.hub_model_id or args.hub_model_id or Path(args.output_dir).resolve().name
    sources = trainer.train_dataset.sources if trainer.train_dataset is not None else []
    groups = parameter_groups(trainer.model, args.learning_rate, {})
    settings = {
        "data": ", ".join(_source(source.location) for source in sources),
        "learning rate": f"{args.learning_rate:g}, {args.lr_scheduler_type}, {args.warmup_steps:g} warm-up",
        "parameters": f"{sum(group.parameters for group in groups):,}, {sum(group.trained for group in groups):,} trained",
        "precision": "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32",
        "seed": str(args.seed),
    }
    last: dict[str, Any] = next((logs for logs in reversed(state.log_history) if "eval_loss" in logs), {})
    scores = {name.removeprefix("eval_"): value for name, value in last.items() if _is_result(name)}
    evaluation = ""
    if scores:
        lines = "\n".join(f"| {name} | {value:.3f} |" for name, value in scores.items())
        evaluation = f"## Validation, at step {last['step']:,}\n\n| | |\n|---|---|\n{lines}\n"
    body = _BODY.format(
        title=model_id.rpartition("/")[2],
        start=trainer.start_name,
        steps=state.global_step,
        batch=args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size,
        model=model_id,
        rows="\n".join(f"| {name} | {value} |" for name, value in settings.items() if value),
        evaluation=evaluation,
    )
    on_hub = [str(source.location) for source in sources if str(source.location).startswith("hf://datasets/")]
    known: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "video-text-to-text",
        "tags": ["grounded-video-captioning", "custom_code"],
        "base_model": trainer.start_name if "/" in trainer.start_name else None,
        "datasets": [location.removeprefix("hf://datasets/").partition("@")[0] for location in on_hub] or None,
    }
    data = ModelCardData(**{**known, **metadata})
    with atomic_path(path) as temporary:
        temporary.write_text(str(ModelCard(f"---\n{data.to_yaml()}\n---\n{body}")), encoding="utf-8")


def _source(location: Any) -> str:
    """Data without a path of this machine: a Hub address as it is, a local folder's name."""
    text = str(location)
    return text if "://" in text else Path(text).name


def _is_result(name: str) -> bool:
    return name.startswith("eval_") and not name.endswith(("_runtime", "_per_second"))


__all__ = ["training_card"]
