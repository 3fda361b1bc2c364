"""Original checkpoints for tests, cut from the recorded cases: published layouts, deltas over GLaMM, and GLaMM, CLIP and SAM."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from modeling_grove.checkpoint_map_grove import GROVE_ONLY

GOLDEN = Path(__file__).parent / "golden" / "grove"
CLIP_PREFIX = "model.vision_tower.vision_tower."
SAM_PREFIX = "model.grounding_encoder."
# What of a vocabulary table is GROVE's own: <vid_start>, <vid_end>, [DET].
NUM_NEW_TOKENS = 3


def load_case(name: str) -> tuple[dict[str, Tensor], dict]:
    """The state dict of a recorded case, in the original's names, and its sizes."""
    config = json.loads((GOLDEN / name / "original_config.json").read_text(encoding="utf-8"))
    return load_file(GOLDEN / name / "state_dict.safetensors"), config


def add_tokenizer(directory: Path, kind: str) -> None:
    """Tokenizer files of `kind`: "base" (Llama's), "glamm" or "final" (GROVE's)."""
    shutil.copytree(GOLDEN / "tokenizer" / kind, directory, dirs_exist_ok=True)


def add_config(directory: Path, config: Mapping, name: str = "original_config.json") -> None:
    """A configuration file beside the weights."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text(json.dumps(config), encoding="utf-8")


def add_safetensors(directory: Path, tensors: Mapping[str, Tensor], shards: int = 1) -> None:
    """`model.safetensors`, or shards with their index."""
    _add_shards(directory, tensors, shards, "model", "safetensors", "model.safetensors.index.json", save_file)


def add_pickle(directory: Path, tensors: Mapping[str, Tensor], shards: int = 1) -> None:
    """`pytorch_model.bin`, or shards with their index."""
    _add_shards(directory, tensors, shards, "pytorch_model", "bin", "pytorch_model.bin.index.json", torch.save)


def _add_shards(directory: Path, tensors: Mapping, shards: int, stem: str, suffix: str, index_name: str, save) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    if shards == 1:
        save(dict(tensors), directory / f"{stem}.{suffix}")
        return
    names, weight_map = list(tensors), {}
    for number in range(shards):
        file = f"{stem}-{number + 1:05d}-of-{shards:05d}.{suffix}"
        part = names[number::shards]
        save({name: tensors[name] for name in part}, directory / file)
        weight_map.update(dict.fromkeys(part, file))
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / index_name).write_text(json.dumps(index), encoding="utf-8")


def clip_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The CLIP checkpoint that a GROVE was built on: vision half in Hugging Face's names, and a bit of the text half."""
    vision = {
        name.removeprefix(CLIP_PREFIX): tensor
        for name, tensor in state.items()
        if name.startswith(CLIP_PREFIX) and not GROVE_ONLY.fullmatch(name)
    }
    text = {
        "logit_scale": torch.tensor(4.6),
        "text_projection.weight": torch.ones(16, 16),
        "text_model.embeddings.position_ids": torch.arange(77)[None],
        "visual_projection.weight": torch.ones(16, 32),
    }
    return vision | text


def glamm_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """
    A GLaMM checkpoint in the shape of the one that a GROVE starts from: no CLIP, nothing of GROVE's, a smaller vocabulary, SAM's
    position tables at 1024 px, the constants that old versions save, and a region encoder.
    """
    glamm = {}
    for name, tensor in state.items():
        if name.startswith(CLIP_PREFIX) or GROVE_ONLY.fullmatch(name):
            continue
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            tensor = tensor[:-NUM_NEW_TOKENS].clone()
        elif name.endswith("image_encoder.pos_embed"):
            tensor = F.interpolate(tensor.permute(0, 3, 1, 2), scale_factor=2).permute(0, 2, 3, 1).contiguous()
        elif "attn.rel_pos_" in name and tensor.shape[0] == 63:
            tensor = F.interpolate(tensor.T[None], size=127)[0].T.contiguous()
        glamm[name] = tensor
    glamm["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    glamm["model.region_encoder.roi_align.updims.weight"] = torch.ones(4, 4)
    return glamm


def published_checkpoint(directory: Path) -> Path:
    """The case full_a as GROVE is on the Hub: three safetensors shards."""
    state, config = load_case("full_a")
    add_safetensors(directory, state, shards=3)
    add_config(directory, config)
    add_tokenizer(directory, "final")
    return directory


def glamm_checkpoint(directory: Path) -> Path:
    """The GLaMM that full_a could have started from: two pickled shards and a LLaVA-style config.json."""
    state, config = load_case("full_a")
    add_pickle(directory, glamm_of(state), shards=2)
    llava = {"model_type": "llava", "mm_vision_select_layer": -2, "vocab_size": 455}
    add_config(directory, config["llm"] | llava, "config.json")
    add_tokenizer(directory, "glamm")
    return directory


def clip_checkpoint(directory: Path) -> Path:
    """Its CLIP, as OpenAI's repository has it."""
    state, config = load_case("full_a")
    add_pickle(directory, clip_of(state))
    add_config(directory, {"vision_config": config["clip"]}, "config.json")
    return directory


def large_state(num_layers: int = 15) -> tuple[dict[str, Tensor], dict]:
    """full_a with a language model of 40 MB a layer (the largest tensor has 8 MB), and its sizes."""
    state, config = load_case("full_a")
    width, inner = 1024, 2048
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) / 30

    large = {name: tensor for name, tensor in state.items() if not name.startswith(("model.layers.", "model.norm"))}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        large[name] = draw(458, width)
    large["model.norm.weight"] = torch.ones(width)
    large["model.mm_projector.0.weight"], large["model.mm_projector.0.bias"] = draw(width, 32), draw(width)
    large["model.mm_projector.2.weight"], large["model.mm_projector.2.bias"] = draw(width, width), draw(width)
    large["model.text_hidden_fcs.0.0.weight"], large["model.text_hidden_fcs.0.0.bias"] = draw(width, width), draw(width)
    large["model.text_hidden_fcs.0.2.weight"] = draw(32, width)
    for layer in range(num_layers):
        prefix = f"model.layers.{layer}."
        for part in "qkvo":
            large[f"{prefix}self_attn.{part}_proj.weight"] = draw(width, width)
        for part, shape in (("gate", (inner, width)), ("up", (inner, width)), ("down", (width, inner))):
            large[f"{prefix}mlp.{part}_proj.weight"] = draw(*shape)
        for part in ("input", "post_attention"):
            large[f"{prefix}{part}_layernorm.weight"] = torch.ones(width)
    # The sizes of the language model are left to the shapes.
    return large, config | {
        "llm": {key: config["llm"][key] for key in ("num_attention_heads", "max_position_embeddings")}
    }
