"""The dataset card (README.md) of a folder of shards: what `load_dataset` needs to know, and what a reader does.

Everything in it comes from the manifest, so that it cannot disagree with the files. Features are written out, because those
inferred from the first samples lose what later ones have (see `features`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub import DatasetCardData

from .features import sample_features
from .sources import default_config
from .statistics import statistics_markdown

TASK = "video-text-to-text"
TAGS = ["grounded-video-captioning", "video-captioning", "video-grounding", "webdataset"]
_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)

_FIELDS = """\
| field | type | meaning |
|---|---|---|
| `video_id`, `clip_id` | string, int | the clip; `{video_id}_{clip_id}` is its key, in `__key__` too |
| `video_fname` | string | file name of the source video |
| `fps`, `width`, `height` | float, int, int | of the source video: frames a second, pixels |
| `clip_start_frame`, `clip_end_frame` | int | first and last frame of the clip in the source video, counted from 0, inclusive |
| `caption` | string | plain text |
| `tagged_caption` | string | the caption with `<p>phrase</p>` around each noun phrase |
| `phrases` | list of strings | the noun phrases, in the order of the caption |
| `bboxes` | float32, frames x boxes x 4 | `[x1, y1, x2, y2]` in pixels of the source frame, for each annotated frame |
| `labels` | strings, frames x boxes | the phrase that each box belongs to |
| `frame_indices` | list of ints | the annotated frames, counted as `clip_start_frame` is |
| `timestamps` | list of floats | the same in seconds from the start of the source video |
| `track_phrases` | list of ints | for each track (one object through the clip) the position of its phrase in `phrases` |
| `track_ids` | ints, frames x boxes | the track that each box belongs to |
| `scores` | float32, frames x boxes | probability that the object is visible; 1 in annotations made by hand |
| `metadata` | string | a JSON object: what this data set has beyond the fields above |"""


def dataset_card(manifest: Mapping[str, Any], repo_id: str | None = None) -> str:
    """
    The README.md of a data set of shards, with the YAML that `load_dataset` reads.

    Args:
        manifest (`Mapping`):
            As `shard` writes it.
        repo_id (`str`, *optional*):
            Repository or folder for the examples of loading; by default one of the data set's name in an organisation `ORG`.

    Returns:
        `str`: YAML and Markdown.
    """
    configs = manifest["configs"]
    default = default_config(configs)
    data = DatasetCardData(
        pretty_name=manifest["name"],
        license=manifest["license"],
        language=manifest["language"] or None,
        task_categories=[TASK],
        size_categories=[_size_category(manifest)],
        tags=TAGS,
        configs=[_config_yaml(name, entry, name == default) for name, entry in configs.items()],
        dataset_info=[_info_yaml(name, entry) for name, entry in configs.items()],
    )
    body = _body(manifest, repo_id or f"ORG/{manifest['name']}", default)
    # Wide enough that no name is folded into two lines.
    return f"---\n{data.to_yaml(line_break=chr(10))}\n---\n\n{body}"


def _config_yaml(name: str, entry: Mapping[str, Any], is_default: bool) -> dict[str, Any]:
    files = [{"split": split, "path": f"{name}/{split}-*.tar"} for split in entry["splits"]]
    return {"config_name": name, **({"default": True} if is_default else {}), "data_files": files}


def _info_yaml(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    splits = [
        {"name": split, "num_bytes": content["num_bytes"], "num_examples": content["num_records"]}
        for split, content in entry["splits"].items()
    ]
    size = sum(split["num_bytes"] for split in splits)
    features = sample_features(entry["with_video"])._to_yaml_list()
    return {"config_name": name, "features": features, "splits": splits, "download_size": size, "dataset_size": size}


def _size_category(manifest: Mapping[str, Any]) -> str:
    """By the largest configuration, since the others have the same clips in another form."""
    totals = [sum(split["num_records"] for split in entry["splits"].values()) for entry in manifest["configs"].values()]
    return next((name for limit, name in _SIZES if max(totals, default=0) < limit), "10M<n<100M")


def _body(manifest: Mapping[str, Any], repo: str, default: str | None) -> str:
    configs, counts = manifest["configs"], manifest["counts"]
    rows = [
        f"| `{name}` | {split} | {content['num_records']:,} | {counts[name][split].get('phrases', 0):,} | "
        f"{counts[name][split].get('frames', 0):,} | {counts[name][split].get('boxes', 0):,} | "
        f"{len(content['shards']):,} | {content['num_bytes'] / 1e6:,.1f} MB |"
        for name, entry in configs.items()
        for split, content in entry["splits"].items()
    ]
    sections = [
        f"# {manifest['name']}",
        "Video clips with captions in which every noun phrase is tied to boxes that follow its object.",
        "| configuration | split | clips | noun phrases | annotated frames | boxes | shards | size |\n"
        "|---|---|---|---|---|---|---|---|\n" + "\n".join(rows),
        "The shards are WebDataset tars of `<key>.json` and, in configurations whose names end in `_video`, `<key>.mp4`. "
        "`manifest.json` has the SHA-256 of each, and what was left out.",
        "## Load it",
    ]
    if default is not None:
        split = next(iter(configs[default]["splits"]))
        sections.append(
            "```python\nfrom datasets import load_dataset\n\n"
            f'dataset = load_dataset("{repo}", "{default}", split="{split}", streaming=True)\n'
            'record = next(iter(dataset))["json"]\nprint(record["tagged_caption"], record["bboxes"][0], record["labels"][0])\n```'
        )
    with_video = next((name for name, entry in configs.items() if entry["with_video"]), None)
    if with_video is not None:
        split = next(iter(configs[with_video]["splits"]))
        sections += [
            "With the clips; frame 0 of a clip is the source frame `first_frame` of `clip` in `metadata`:",
            "```python\nfrom datasets import Video, load_dataset\n\nfrom dataset_builders.clips import clip_frames\n"
            "from modeling_grove import read_video\n\n"
            f'dataset = load_dataset("{repo}", "{with_video}", split="{split}", streaming=True)\n'
            'sample = next(iter(dataset.cast_column("mp4", Video(decode=False))))\n'
            'frames = read_video(sample["mp4"]["bytes"], target_fps=None).frames[clip_frames(sample["json"])]\n'
            'print(frames.shape, len(sample["json"]["bboxes"]))\n```',
        ]
    sections += _statistics(manifest)
    sections += ["## Fields", "The fields of `json`:", _FIELDS, *_left_out(manifest), "## Licence", _licence(manifest)]
    return "\n\n".join(sections) + "\n"


def _statistics(manifest: Mapping[str, Any]) -> list[str]:
    """The paper's statistics of each split of annotations. Configurations with videos have the same, less what is missing."""
    found = manifest.get("statistics", {})  # which older ones lack
    columns = {
        f"`{name}`, {split}": found[name][split]
        for name, entry in manifest["configs"].items()
        for split in entry["splits"]
        if split in found.get(name, {}) and not entry["with_video"]
    }
    if not columns:
        return []
    meaning = (
        "A tube is an unbroken run of annotated frames in which an object has a box. Boxes are in pixels of the source video. The "
        "presence rate is the share of a phrase's frames in which it has a box."
    )
    return ["## Statistics", statistics_markdown(columns), meaning]


def _left_out(manifest: Mapping[str, Any]) -> list[str]:
    """What is not there and why, if anything is."""
    lines = [
        f"- `{config}`, {split}: {n:,} record(s) rejected by the validator as `{reason}`"
        for config, splits in manifest["rejected"].items()
        for split, reasons in splits.items()
        for reason, n in reasons.items()
    ]
    for place, what in (("missing_videos", "whose video was not there"), ("broken_videos", "that could not be cut")):
        totals: dict[tuple[str, str], int] = {}
        for entry in manifest[place]:
            key = entry["config"], entry["split"]
            totals[key] = totals.get(key, 0) + entry.get("num_records", 1)
        lines += [f"- `{config}`, {split}: {n:,} clip(s) {what}" for (config, split), n in totals.items()]
    if not lines:
        return []
    note = (
        "A record may have several reasons. Clips without a usable video are left out of the `_video` configuration only; "
        "their records stay in the other one. `manifest.json` lists them."
    )
    return ["## Left out", "\n".join(lines), note]


def _licence(manifest: Mapping[str, Any]) -> str:
    videos = any(entry["with_video"] for entry in manifest["configs"].values())
    said = (
        f"The annotations are under `{manifest['license']}`."
        if manifest["license"]
        else ("No licence was given when these files were made; ask the makers of the annotations.")
    )
    of_videos = (
        "The clips remain under the terms of the videos that they are cut from."
        if videos
        else ("The videos are not part of this data set; they remain under their own terms.")
    )
    return f"{said} {of_videos}"


__all__ = ["dataset_card"]
