"""Scores predictions on any of the benchmarks, from records or from files: what `score`, `run` and training call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from dataset_builders.record import Record, from_record, record_key
from modeling_grove.grounded_caption import GroundedCaption

from .activitynet_entities import score_activitynet_entities
from .activitynet_segments import annotated_segment, predicted_segment, read_original_activitynet_entities
from .caption_statistics import caption_statistics
from .clips import PredictedClip, ReferenceClip, predicted_clips, reference_clips
from .iground import score_iground
from .lemmas import lemmatizer
from .pointing import pointing_prediction, pointing_reference, read_original_pointing, score_pointing
from .results import BENCHMARKS, PROTOCOLS, BenchmarkResult
from .score_formats import ScoreFiles
from .score_intervals import score_intervals
from .text_similarity import text_similarity
from .vidstg import score_vidstg
from .vidstg_sentences import read_original_vidstg, vidstg_prediction, vidstg_reference_of

Made = TypeVar("Made")


@dataclass(frozen=True)
class ScoreOptions:
    """
    How to score.

    Args:
        protocols (`tuple[str, ...]`): of "official" and "corrected".
        text_similarity (`str`): iGround: "bert", "sentence" or "head-word".
        text_model (`str`, *optional*): iGround: local folder or Hub name of the model of the text similarity.
        device (`str`, *optional*): where that model runs.
        captions (`bool`): iGround: whether captions are scored.
        coco_stats (`bool`): iGround: the twelve numbers of COCO too.
        merge_instances (`bool`): iGround: truth in the processed form, the union of a label's instances in a frame.
        lemmas (`str`): ActivityNet-Entities: "spacy" or "table:FILE".
        mode (`str`): ActivityNet-Entities: "generated" or "gt".
        split (`str`): ActivityNet-Entities: the split of the original's split file.
        statistics (`bool`): whether what the paper does not report is computed: intervals, presence, tracks, calibration.
        resamples (`int`): of the bootstrap.
        seed (`int`): of the bootstrap.
    """

    protocols: tuple[str, ...] = PROTOCOLS
    text_similarity: str = "bert"
    text_model: str | None = None
    device: str | None = None
    captions: bool = True
    coco_stats: bool = False
    merge_instances: bool = False
    lemmas: str = "spacy"
    mode: str = "generated"
    split: str = "validation"
    statistics: bool = True
    resamples: int = 1000
    seed: int = 0


def score_records(
    benchmark: str, references: Sequence[Record], predictions: Sequence[GroundedCaption], options: ScoreOptions
) -> BenchmarkResult:
    """
    Scores predictions against the records of a benchmark.

    Args:
        benchmark (`str`):
            One of `BENCHMARKS`.
        references (sequence of records):
            As the importers make them: VidSTG's metadata has `qtype`, that of ActivityNet-Entities the annotated words.
        predictions (sequence of [`GroundedCaption`]):
            With the keys of the records, on their frames.
        options ([`ScoreOptions`]):
            How.

    Raises:
        `ValueError`: if there is no clip in common, or naming clip and field of what is wrong.
    """
    if benchmark == "iground":
        return _score_iground(_made(from_record, references), predictions, options)
    return score_files(benchmark, ScoreFiles(references, predictions), options)


def score_files(benchmark: str, files: ScoreFiles, options: ScoreOptions) -> BenchmarkResult:
    """
    Scores what [`~eval.score_formats.read_files`] read.

    Args and Raises: as [`score_records`].
    """
    truth, answers, original, protocols = files.references, files.predictions, files.original, options.protocols
    if benchmark == "iground":
        return _score_iground(truth, answers, options)
    if benchmark == "vidstg":
        if original is None:
            pair = _made(vidstg_reference_of, truth), _made(vidstg_prediction, answers)
        else:
            pair = read_original_vidstg(original.annotations, original.predictions)
        result = score_vidstg(*pair, protocols=protocols)
    elif benchmark == "activitynet_entities":
        if original is None:
            segments = _made(annotated_segment, truth), _made(predicted_segment, answers)
        elif original.split_file is None:
            raise ValueError(
                "--split-file: missing; the original's annotations are of several splits, whose videos it lists"
            )
        else:
            segments = read_original_activitynet_entities(
                original.annotations, original.split_file, original.predictions, options.split
            )
        lemma = lemmatizer(options.lemmas) if options.mode == "generated" else None
        result = score_activitynet_entities(*segments, mode=options.mode, lemma=lemma, protocols=protocols)
    elif benchmark in BENCHMARKS:
        if original is None:
            captions = _made(from_record, truth)
            seconds = _made(pointing_reference, captions), _made(pointing_prediction, answers)
        else:
            seconds = read_original_pointing(original.annotations, original.predictions, benchmark=benchmark)
        result = score_pointing(*seconds, benchmark=benchmark, protocols=protocols)
    else:
        raise ValueError(f"benchmark: got {benchmark!r}; expected one of {', '.join(BENCHMARKS)}")
    if options.statistics:
        result.statistics = score_intervals(result, resamples=options.resamples, seed=options.seed)
    return result


def _made(make: Callable[[Any], Made], clips: Iterable[Any]) -> list[Made]:
    """What is made of clips; an error names its clip."""
    made = []
    for number, clip in enumerate(clips, start=1):
        if isinstance(clip, Mapping) and (lost := [name for name in ("video_id", "clip_id") if clip.get(name) is None]):
            raise ValueError(f"annotation {number}: {lost[0]}: missing; expected a record")
        key = record_key(clip) if isinstance(clip, Mapping) else clip.key
        try:
            made.append(make(clip))
        except ValueError as error:
            raise error if key in str(error) else ValueError(f"clip {key!r}: {error}") from error
    return made


def _score_iground(
    references: Iterable[GroundedCaption | ReferenceClip],
    predictions: Iterable[GroundedCaption | PredictedClip],
    options: ScoreOptions,
) -> BenchmarkResult:
    truth = reference_clips(references)
    answers = predicted_clips(predictions, truth)
    similarity = text_similarity(options.text_similarity, options.text_model, options.device)
    result = score_iground(
        truth.values(),
        answers.values(),
        protocols=options.protocols,
        similarity=similarity,
        captions=options.captions,
        coco_stats=options.coco_stats,
        merge_instances=options.merge_instances,
    )
    if options.statistics:
        result.statistics = caption_statistics(
            truth, answers, similarity, resamples=options.resamples, seed=options.seed, per_clip=result.per_clip
        )
    return result


__all__ = ["ScoreOptions", "score_files", "score_records"]
