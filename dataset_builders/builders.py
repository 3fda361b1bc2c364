"""`datasets` builders of grounded captions: GROVE's own two data sets, and anybody's shards.

    from dataset_builders.builders import HowToGround1M
    from dataset_builders.record import from_record

    builder = HowToGround1M(base_path="hf://datasets/org/howtoground1m")   # or a folder
    for row in builder.as_streaming_dataset(split="train"):
        grounded_caption = from_record(row["json"])

    builder.download_and_prepare(num_proc=2)                               # or all of it as Arrow files
    dataset = builder.as_dataset(split="train")

    clips = HowToGround1M(config_name="automatic_annotation_method_video", base_path="shards")
    for row in clips.as_streaming_dataset(split="train").decode(False):   # without `decode(False)`: needs torchcodec
        grounded_caption, mp4 = from_record(row["json"]), row["mp4"]["bytes"]

`load_dataset("org/howtoground1m", streaming=True)` on a repository that `python -m dataset_builders shard` wrote gives the same
rows and features: the card says all that it needs, so that nobody has to install this. The classes here are for shards
without a card, for files as they were released, and for what is known about each data set. The benchmark sets are in
`benchmark_builders`.

What `datasets` 5.2 does with the rows, here as with `load_dataset`:
- A streamed row has the numbers as they are in the JSON, a prepared one as the features have them (boxes: float32);
  `from_record` makes the same caption of both.
- `decode(False)` is for streams; `cast_column("mp4", Video(decode=False))` does the same to prepared data.
- `with_format("arrow").iter(batch_size)` of a stream only works with a `batch_size` of 1: the type of every row is guessed
  before the features are applied, and a row without boxes has another one.
- Shards are divided over ranks and workers (`split_dataset_by_node`, `DataLoader`); `num_shards` says how many there are.
- A stream resumes exactly (`state_dict`, `load_state_dict`) unless it is shuffled, when the samples in the buffer are lost.
  The training stream in `stream` loses none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import datasets
from datasets.builder import Key
from datasets.packaged_modules.webdataset.webdataset import WebDataset
from datasets.utils.file_utils import xjoin

from .builder_files import find_files, is_json, pinned, read_json_lines
from .features import sample_features
from .record import sample_key

VIDEO_SUFFIX = "_video"


@dataclass
class GroundedCaptionsConfig(datasets.BuilderConfig):
    """
    A configuration of a data set of grounded captions.

    Args:
        name (`str`, *optional*, defaults to `"default"`):
            Folder of its shards. One that ends in `_video` has the clips as well.
        released (`Mapping[str, str]`, *optional*):
            Names of the JSONL files in which the authors released it, by split; read where there are no shards.
        max_bad_lines (`int`, *optional*, defaults to 100):
            Lines of a JSONL file that may be wrong and are left out, each with a warning, before it is an error.
    """

    # `datasets` ignores a builder's VERSION for configurations that are made on the fly.
    version: datasets.Version | str | None = "1.0.0"
    released: Mapping[str, str] = field(default_factory=dict)
    max_bad_lines: int = 100

    @property
    def with_video(self) -> bool:
        """Whether its rows have a column `mp4`."""
        return self.name.endswith(VIDEO_SUFFIX)


def with_video_twins(*configs: GroundedCaptionsConfig) -> list[GroundedCaptionsConfig]:
    """Each configuration, followed by the one that has the clips as well."""
    twins = []
    for config in configs:
        description = f"{config.description} With the clips (mp4)."
        twins += [config, GroundedCaptionsConfig(name=f"{config.name}{VIDEO_SUFFIX}", description=description)]
    return twins


class GroundedCaptions(WebDataset):
    """
    Shards of grounded captions: GroundedShapes, or data of your own.

    A row has the columns `json` (the record: [`~dataset_builders.record.from_record`] makes a
    [`~modeling_grove.grounded_caption.GroundedCaption`] of it), `__key__`, `__url__`, and in `_video` configurations `mp4`
    (the clip; its frame 0 is the source frame that the record's metadata has in `clip.first_frame`).

    Args:
        config_name (`str`, *optional*):
            Configuration. This class takes any name; default: `"default"`.
        base_path (`str` or `os.PathLike`, *optional*, defaults to the current folder):
            Folder or repository (`hf://datasets/org/name`, `hf://datasets/org/name@revision`) with
            `{config_name}/{split}-00000-of-00012.tar`, as `python -m dataset_builders shard` writes it.
        data_dir (`str` or `os.PathLike`, *optional*):
            Folder within `base_path`.
        data_files (`str`, `list` or `Mapping`, *optional*):
            Instead of that, shards or JSONL files (the released ones, or records) by split: paths, URLs or patterns.
        kwargs:
            What else [`datasets.DatasetBuilder`] takes (`cache_dir`, `token`, `features`, ...) and the fields of
            [`GroundedCaptionsConfig`].

    Raises:
        `ValueError`: if there are no shards, or not all of them, or the configuration does not exist.
    """

    BUILDER_CONFIG_CLASS = GroundedCaptionsConfig
    DATASET_NAME = "grounded_captions"
    DESCRIPTION = "Video clips and their captions, whose noun phrases have boxes in every annotated frame."
    CITATION = ""
    HOMEPAGE = ""
    LICENSE = ""

    def __init__(
        self,
        *,
        config_name: str | None = None,
        base_path: Any = None,
        data_dir: Any = None,
        data_files: Any = None,
        token: bool | str | None = None,
        storage_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        name = config_name or self.DEFAULT_CONFIG_NAME or "default"
        if self.BUILDER_CONFIGS and name not in self.builder_configs:
            raise ValueError(
                f"{type(self).__name__} has no configuration {name!r}; expected one of {', '.join(self.builder_configs)}"
            )
        base_path = str(base_path or ".")
        if data_dir:
            base_path = xjoin(base_path, str(data_dir))
        base_path = pinned(base_path, token)
        if data_files is None:
            released = self.builder_configs[name].released if self.BUILDER_CONFIGS else {}
            download_config = datasets.DownloadConfig(token=token, storage_options=storage_options or {})
            data_files = find_files(base_path, name, released, download_config)
        kwargs.setdefault("dataset_name", self.DATASET_NAME)  # the name of the module, by default
        super().__init__(
            config_name=name,
            base_path=base_path,
            data_files=data_files,
            token=token,
            storage_options=storage_options,
            **kwargs,
        )

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description=self.DESCRIPTION,
            citation=self.CITATION,
            homepage=self.HOMEPAGE,
            license=self.LICENSE,
            features=sample_features(self.config.with_video),
        )

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        names = [name for files in self.config.data_files.values() for name in files]
        num_json = sum(map(is_json, names))
        if num_json == 0:
            return super()._split_generators(dl_manager)
        if num_json < len(names):
            raise ValueError(f"data_files: {num_json} of {len(names)} files are JSON; expected either those or shards")
        if self.config.with_video:
            base = self.config.name.removesuffix(VIDEO_SUFFIX)
            raise ValueError(f"configuration {self.config.name!r}: JSONL files have no clips; use {base!r}, or shards")
        # They are read where they are, also when a data set is prepared: once, and a line at a time.
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"json_paths": list(files)})
            for split, files in self.config.data_files.items()
        ]

    def _generate_shards(self, **kwargs: Any) -> Iterator[str]:
        yield from kwargs.get("json_paths") or kwargs["tar_paths"]

    def _generate_examples(self, **kwargs: Any) -> Iterator[tuple[Key, dict[str, Any]]]:
        if "json_paths" not in kwargs:
            yield from super()._generate_examples(**kwargs)
            return
        for file_index, path in enumerate(kwargs["json_paths"]):
            for index, record in enumerate(read_json_lines(path, self.config.max_bad_lines)):
                yield Key(file_index, index), {"json": record, "__key__": sample_key(record), "__url__": path}


class HowToGround1M(GroundedCaptions):
    """
    One million clips of HowTo100M with automatic annotations, for pre-training. Split: `train`.

    Configurations: `automatic_annotation_method` (default; the pseudo-labels of the paper) and `model_preds` (a second set of
    labels that the authors released, predictions of a model), each also with the clips as `..._video`.

    See [`GroundedCaptions`] for the arguments. The files of the authors' release work as they are, as `data_files` or in
    `base_path`: `HowToGround1M(data_files="HowToGround1M_automatic_annotation_method.jsonl")`.
    """

    BUILDER_CONFIGS = with_video_twins(
        GroundedCaptionsConfig(
            name="automatic_annotation_method",
            description="Pseudo-labels of the automatic annotation method.",
            released={"train": "HowToGround1M_automatic_annotation_method.jsonl"},
        ),
        GroundedCaptionsConfig(
            name="model_preds",
            description="Predictions of a trained model.",
            released={"train": "HowToGround1M_model_preds.jsonl"},
        ),
    )
    DEFAULT_CONFIG_NAME = "automatic_annotation_method"
    DATASET_NAME = "howtoground1m"
    DESCRIPTION = (
        "HowToGround1M: one million clips of HowTo100M (8 seconds on average), each with one caption and, at 5 frames a second, "
        "80 million boxes of its 3.2 million noun phrases in all, annotated automatically."
    )
    CITATION = """@inproceedings{kazakos2025grove,
  title     = {Large-scale Pre-training for Grounded Video Caption Generation},
  author    = {Kazakos, Evangelos and Schmid, Cordelia and Sivic, Josef},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision (ICCV)},
  year      = {2025}
}"""
    HOMEPAGE = "https://ekazakos.github.io/grounded_video_caption_generation/"
    LICENSE = "CC BY-NC-SA 4.0"


def _iground_files(form: str) -> dict[str, str]:
    return {
        split: f"iGround_{short}_set_{form}.jsonl"
        for split, short in (("train", "train"), ("validation", "val"), ("test", "test"))
    }


class IGround(GroundedCaptions):
    """
    3,513 clips with captions and boxes drawn by people, for fine-tuning and evaluation. Splits: `train` (2,013), `validation`
    (500) and `test` (1,000).

    Configurations: `processed` (default) has at most one box of a phrase in a frame, the union of its instances; `raw` has
    the boxes as they were drawn (two hands: two boxes). Each also with the clips as `..._video`.

    `processed` is the default because it is what a model can be trained on, and what HowToGround1M has, so that code written
    for one runs on the other. The paper trains on `processed` and scores on `raw`, so an evaluation has to name `raw`.

    See [`GroundedCaptions`] for the arguments. The JSONL files of the authors' release work as they are, as `data_files` or
    in `base_path`.
    """

    BUILDER_CONFIGS = with_video_twins(
        GroundedCaptionsConfig(
            name="processed",
            description="At most one box a phrase a frame: the union of its instances.",
            released=_iground_files("processed"),
        ),
        GroundedCaptionsConfig(
            name="raw",
            description="Every instance of a phrase with its own box.",
            released=_iground_files("raw"),
        ),
    )
    DEFAULT_CONFIG_NAME = "processed"
    DATASET_NAME = "iground"
    DESCRIPTION = (
        "iGround: 3,513 clips (8 seconds on average) with captions of what people do with which objects, and "
        "421,588 boxes of the captions' noun phrases in all frames at 5 a second in which they are visible, drawn by people."
    )
    CITATION = HowToGround1M.CITATION
    HOMEPAGE = HowToGround1M.HOMEPAGE
    LICENSE = "CC BY-NC-SA 4.0"


__all__ = ["GroundedCaptions", "GroundedCaptionsConfig", "HowToGround1M", "IGround", "with_video_twins"]
