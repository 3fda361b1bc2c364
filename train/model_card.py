"""`README.md` of a trained model: the card of `hub_cards`, with what the run was made from and how, and its numbers alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hub_cards.model_card import Lineage, lineage, model_card
from hub_cards.publication import CARD
from hub_cards.rendering import parse_card
from hub_cards.terms import Terms, as_list, check_license, required_license
from modeling_grove.grounded_caption import atomic_path

from .parameter_groups import learning_rates, parameter_groups

if TYPE_CHECKING:
    from .trainer import GroveTrainer

_HUB = "hf://datasets/"
UNKNOWN = "unknown"  # the Hub's word for a licence that nobody has chosen


def run_lineage(start: str, config: Mapping[str, Any], data: Iterable[Any], *, look_up: bool) -> Lineage:
    """
    What a run's model is made of: the model that it starts from, and data of the Hub.

    Args:
        start (`str`):
            Folder or name on the Hub of that model. What a folder's card says holds on.
        config (`Mapping`):
            Of the model.
        data (`Iterable`):
            Where the data is.
        look_up (`bool`):
            Whether terms that are not known here are looked up on the Hub.

    Raises:
        `ValueError`: if they cannot be found there.
    """
    datasets = [name for name in map(_hub_name, data) if name]
    if not Path(start).exists():
        return lineage(config, [start] if "/" in start else [], datasets, look_up=look_up)
    path = Path(start) / CARD
    said = parse_card(path.read_text(encoding="utf-8"), str(path)).data.to_dict() if path.is_file() else {}
    found = lineage(
        config, as_list(said.get("base_model")), [*as_list(said.get("datasets")), *datasets], look_up=look_up
    )
    if said.get("license", UNKNOWN) != UNKNOWN:
        found.terms.append(Terms(Path(start).resolve().name, str(said["license"]), "its README.md"))
    return found


def training_card(trainer: GroveTrainer, path: Path, **metadata: Any) -> None:
    """
    Writes the card of a trainer's model.

    Args:
        trainer ([`GroveTrainer`]): after its last step.
        path (`Path`): of the `README.md`, in the model's folder.
        metadata (*optional*): more of the card's, such as `license` or `datasets`.

    Raises:
        `ValueError`: if the licence is one that what the model is made of does not allow.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(training_card_text(trainer, path.parent, **metadata), encoding="utf-8")


def training_card_text(trainer: GroveTrainer, folder: Path, **metadata: Any) -> str:
    """The card of the model that a trainer has saved in a folder; see [`training_card`]."""
    args, state = trainer.args, trainer.state
    sources = [] if trainer.train_dataset is None else [s.location for s in trainer.train_dataset.sources]
    config: Any = trainer.model.config
    made_of = trainer.made_of or run_lineage(trainer.start_name, config.to_dict(), sources, look_up=False)
    license_id = metadata.pop("license", None)
    if license_id is None:
        license_id = required_license(made_of.terms) or UNKNOWN
    else:
        check_license(license_id, made_of.terms)
    last: dict[str, Any] = next((logs for logs in reversed(state.log_history) if "eval_loss" in logs), {})
    names = (
        "learning_rate", "lr_scheduler_type", "warmup_steps", "bf16", "fp16", "seed", "per_device_train_batch_size",
        "gradient_accumulation_steps",
    )  # fmt: skip
    rates = learning_rates(args.group_learning_rates)
    training = {
        "settings": {
            **{name: getattr(args, name) for name in names},
            "start": {"name": trainer.start_name},
            "processes": args.world_size,
        },
        "groups": [asdict(group) for group in parameter_groups(trainer.model, args.learning_rate, rates)],
        "metrics": last,
        "steps": state.global_step,
        "data_names": data_names(sources),
    }
    name = trainer.hub_model_id or args.hub_model_id or Path(args.output_dir).resolve().name
    return model_card(folder, name, license_id, made_of, training=training, metadata=metadata)


def data_names(locations: Iterable[Any]) -> list[str]:
    """Data without a path of this machine: a Hub address as it is, a local folder's name."""
    return [str(place) if "://" in str(place) else Path(str(place)).name for place in locations]


def _hub_name(location: Any) -> str | None:
    """The name of a data set of the Hub, without its revision."""
    text = str(location)
    return text.removeprefix(_HUB).partition("@")[0] if text.startswith(_HUB) else None


__all__ = ["UNKNOWN", "data_names", "run_lineage", "training_card", "training_card_text"]
