"""Saves a GROVE checkpoint with its code, so that `trust_remote_code=True` loads it where this package is not installed."""

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from transformers.dynamic_module_utils import get_relative_import_files

from .grounded_caption import atomic_path

if TYPE_CHECKING:
    from .modeling_grove import GroveForConditionalGeneration
    from .processing_grove import GroveProcessor

PIPELINE_TASK = "grounded-video-captioning"
_CONFIG_AUTO_MAP = {
    "AutoConfig": "configuration_grove.GroveConfig",
    "AutoModel": "modeling_grove.GroveForConditionalGeneration",
    "AutoModelForImageTextToText": "modeling_grove.GroveForConditionalGeneration",
}
_PROCESSOR_AUTO_MAP = {
    "AutoProcessor": "processing_grove.GroveProcessor",
    "AutoVideoProcessor": "video_processing_grove.GroveVideoProcessor",
}
_PIPELINE_CLASS = "pipeline_grove.GroundedVideoCaptioningPipeline"
_PIPELINE = {
    "impl": _PIPELINE_CLASS,
    "pt": ["AutoModel"],
    "type": "multimodal",
}


def save_with_remote_code(
    directory: str | os.PathLike[str], model: "GroveForConditionalGeneration", processor: "GroveProcessor"
) -> None:
    """
    Writes a complete model repository: weights, processor, the modules of this package, and the entries by which the Auto classes
    and `pipeline` find them.

    Args:
        directory (`str` or `os.PathLike`): created if it does not exist.
        model ([`GroveForConditionalGeneration`]): saved as safetensors.
        processor ([`GroveProcessor`]): saved beside it.
    """
    directory = Path(directory)
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    add_remote_code(directory)


def add_remote_code(directory: str | os.PathLike[str]) -> None:
    """
    Adds the code and its entries to a checkpoint directory that already holds a model and its processor.

    Raises:
        ValueError: if the directory has no `config.json` or no processor.
    """
    directory = Path(directory)
    entries = {
        "config.json": {"auto_map": _CONFIG_AUTO_MAP, "custom_pipelines": {PIPELINE_TASK: _PIPELINE}},
        "processor_config.json": {"auto_map": _PROCESSOR_AUTO_MAP},
    }
    for name in entries:
        if not (directory / name).is_file():
            raise ValueError(
                f"{directory} has no {name}; expected a directory with a saved GROVE model and its processor."
            )
    for name, added in entries.items():
        settings = json.loads((directory / name).read_text(encoding="utf-8"))
        settings |= added
        if "video_processor" in settings:
            # AutoVideoProcessor reads its part of the processor's file only.
            settings["video_processor"]["auto_map"] = _PROCESSOR_AUTO_MAP
        with atomic_path(directory / name) as temporary:
            temporary.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    package = Path(__file__).parent
    classes = [*_CONFIG_AUTO_MAP.values(), *_PROCESSOR_AUTO_MAP.values(), _PIPELINE_CLASS]
    modules = {package / f"{name.split('.')[0]}.py" for name in classes}
    for module in sorted(modules):
        modules = modules.union(map(Path, get_relative_import_files(module)))
    for module in sorted(modules):
        shutil.copyfile(module, directory / module.name)


__all__ = ["PIPELINE_TASK", "add_remote_code", "save_with_remote_code"]
