"""Scores saved predictions: what the original code computes and, beside it, what the paper's text says.

python -m eval score iground --annotations val.jsonl --predictions predictions.jsonl
python -m eval score vidstg --annotations vidstg_val.json --predictions predictions.json --protocol official --json
python -m eval score activitynet_entities --annotations anet.json --split-file split.json --predictions results.json
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from dataset_builders.command_line import complain, emit
from dataset_builders.record import Record, from_record, record_key, to_record
from modeling_grove.grounded_caption import GroundedCaption

from . import score_formats
from .activitynet_entities import score_activitynet_entities
from .activitynet_segments import annotated_segment, predicted_segment, read_original_activitynet_entities
from .clips import PredictedClip, ReferenceClip, predicted_clips, reference_clips
from .iground import score_iground
from .lemmas import lemmatizer
from .per_clip import write_per_clip
from .pointing import pointing_prediction, pointing_reference, read_original_pointing, score_pointing
from .provenance import describe_machine
from .report_tables import coverage_line, result_table
from .result_files import json_ready, write_results
from .results import PROTOCOLS, BenchmarkResult
from .score_formats import ScoreFiles, read_files
from .score_intervals import score_intervals
from .statistics import caption_statistics
from .text_similarity import TEXT_SIMILARITIES, text_similarity
from .vidstg import read_original_vidstg, score_vidstg, vidstg_prediction, vidstg_reference_of
from .worst_clips import write_worst

logger = logging.getLogger(__name__)

BENCHMARKS = ("iground", "vidstg", "activitynet_entities", "youcook_interactions", "grounding_youtube")
MODES = ("generated", "gt")
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = f"{__doc__}\n{score_formats.__doc__}"
    parser.add_argument("benchmark", choices=BENCHMARKS, metavar="BENCHMARK", help=f"one of {', '.join(BENCHMARKS)}")
    parser.add_argument("--annotations", required=True, metavar="FILE", help="what is true; formats see above")
    parser.add_argument("--predictions", required=True, metavar="FILE", help="what the model says; formats see above")
    parser.add_argument("--protocol", choices=("official", "corrected", "both"), default="both", help="default: both")
    parser.add_argument(
        "--split-file", type=Path, metavar="FILE", help="activitynet_entities: video ids of every split"
    )
    parser.add_argument(
        "--split",
        metavar="NAME",
        help="activitynet_entities: split of the split file, default validation; else of a folder of shards",
    )
    add_score_arguments(parser)
    parser.add_argument("--per-clip", type=Path, metavar="FILE", help="write the scores of every clip, as .jsonl")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="write results.json, the scores of every clip, and what was scored"
    )
    parser.add_argument(
        "--worst", type=int, default=0, metavar="N", help="iground: draw the N worst clips into the folder of --output"
    )
    parser.add_argument(
        "--videos",
        type=Path,
        metavar="DIR",
        help="folder of videos, for --worst, and for the original's annotations of activitynet_entities",
    )
    parser.add_argument("--strict", action="store_true", help="exit status 2 if a clip has no prediction")
    parser.add_argument("--json", action="store_true", help="print everything as one JSON line")
    parser.add_argument("--with-clips", action="store_true", help="with --json: the scores of every clip too")


def add_score_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that [`options_of`] reads, but for protocol and split."""
    parser.add_argument(
        "--text-similarity",
        choices=TEXT_SIMILARITIES,
        default="bert",
        help="iground: when phrases mean the same in Recall: bert as the original (default), sentence (another encoder), "
        "head-word (the last words are equal; needs no model)",
    )
    parser.add_argument(
        "--text-model", metavar="DIR", help="iground: folder or Hub name of the model of the text similarity"
    )
    parser.add_argument("--device", help="where that model runs, default: a GPU if there is one")
    parser.add_argument("--no-captions", action="store_true", help="iground: leave METEOR, CIDEr, BLEU and ROUGE-L out")
    parser.add_argument("--coco-stats", action="store_true", help="iground: the twelve numbers of COCO too")
    parser.add_argument(
        "--merge-instances",
        action="store_true",
        help="iground: score against the union of a phrase's instances in a frame (processed form)",
    )
    parser.add_argument(
        "--lemmas", default="spacy", metavar="NAME", help="activitynet_entities: spacy (default) or table:FILE"
    )
    parser.add_argument(
        "--mode", choices=MODES, default="generated", help="activitynet_entities: whose sentences; default: generated"
    )
    parser.add_argument(
        "--no-statistics",
        action="store_true",
        help="only the paper's metrics: no intervals, presence, tracks, calibration",
    )


def options_of(args: argparse.Namespace) -> ScoreOptions:
    """The options of a parsed command line that has `protocol` and what [`add_score_arguments`] adds."""
    return ScoreOptions(
        protocols=PROTOCOLS if args.protocol == "both" else (args.protocol,),
        text_similarity=args.text_similarity,
        text_model=args.text_model,
        device=args.device,
        captions=not args.no_captions,
        coco_stats=args.coco_stats,
        merge_instances=args.merge_instances,
        lemmas=args.lemmas,
        mode=args.mode,
        split=getattr(args, "split", None) or ScoreOptions.split,
        statistics=not args.no_statistics,
    )


def run(args: argparse.Namespace) -> int:
    """Scores, and prints the table."""
    started = time.monotonic()
    if args.worst and (args.output is None or args.benchmark != "iground"):
        raise ValueError("--worst: draws clips of iground into the folder of --output; give both")
    if args.with_clips and not args.json:
        raise ValueError("--with-clips: goes with --json; --per-clip FILE writes the scores of every clip")
    options = options_of(args)
    anet = args.benchmark == "activitynet_entities"
    files = read_files(
        args.benchmark,
        args.annotations,
        args.predictions,
        split_file=args.split_file,
        split=options.split if anet else args.split,
        videos=args.videos,
        with_source=args.worst > 0 and args.videos is not None,
    )
    result = score_files(args.benchmark, files, options)
    if args.per_clip is not None:
        args.per_clip.parent.mkdir(parents=True, exist_ok=True)
        write_per_clip(result.per_clip, args.per_clip)
    if args.output is not None:
        _write_folder(args, options, files, result, time.monotonic() - started)
        if args.worst:
            truth = reference_clips(files.references)
            path = (options.protocols[-1], "AP50")
            videos = None if args.videos is None else _finder(args.videos, truth)
            write_worst(
                truth,
                predicted_clips(files.predictions, truth),
                result.per_clip,
                path,
                args.worst,
                args.output / "worst",
                videos,
            )
    emitted = result.to_dict() | ({"per_clip": result.per_clip} if args.with_clips else {})
    emit(json_ready(emitted), None if args.json else result_table(result), as_json=args.json)
    if result.coverage["predicted"] == result.coverage["clips"]:
        return 0
    if args.strict:
        return complain(f"{coverage_line(result)}; --strict wants all of them")
    if args.json:  # the table says it
        logger.warning("%s", coverage_line(result))
    return 0


def _write_folder(
    args: argparse.Namespace, options: ScoreOptions, files: ScoreFiles, result: BenchmarkResult, seconds: float
) -> None:
    """Writes the result folder. Files are named without their folders: results are published."""
    settings = asdict(options) | {"text_model": options.text_model and Path(options.text_model).name}
    about = {
        "protocols": [*options.protocols],
        "data": {"name": Path(args.annotations).name, "split": args.split},
        "predictions": Path(args.predictions).name,
        "settings": settings,
        "seconds": round(seconds, 1),
        **describe_machine(options.device or "cpu", ("modeling_grove", "dataset_builders", "eval")),
    }
    records = [_record(reference) for reference in files.references]
    captions = [prediction for prediction in files.predictions if isinstance(prediction, GroundedCaption)]
    write_results(
        args.output,
        result,
        about,
        # All or none: a part of them would be another data set.
        references=[] if None in records else [record for record in records if record is not None],
        predictions=captions if len(captions) == len(files.predictions) else [],
    )


def _finder(folder: Path, references: dict[str, ReferenceClip]) -> Callable[[str], Path | None]:
    """Finds the video of a clip by its file name, in a folder or below it."""
    if not folder.is_dir():
        raise ValueError(f"--videos {folder}: no folder; expected one with the annotations' videos")
    files = {path.name: path for path in sorted(folder.rglob("*")) if path.is_file()}

    def find(key: str) -> Path | None:
        caption = references[key].source
        return None if caption is None else files.get(Path(caption.video_fname).name)

    return find


def _record(reference: Record | GroundedCaption | ReferenceClip) -> Record | None:
    """The record of an annotation; `None` for one of the original's that is none."""
    if isinstance(reference, GroundedCaption):
        return to_record(reference)
    if not isinstance(reference, ReferenceClip):
        return reference
    caption = reference.source
    whole = caption is not None and (caption.tracks or not any(map(len, reference.boxes)))
    return to_record(caption) if caption is not None and whole else None


__all__ = [
    "BENCHMARKS",
    "MODES",
    "ScoreOptions",
    "add_arguments",
    "add_score_arguments",
    "options_of",
    "run",
    "score_files",
    "score_records",
]
