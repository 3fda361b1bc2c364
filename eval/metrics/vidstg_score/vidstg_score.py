"""VidSTG's metrics as an `evaluate` module: msIoU, vIoU@0.3 and vIoU@0.5 of declarative and of interrogative sentences.

An entry in the original's spelling is `{"videos": [...], "trajectories": {...}}` with one sentence, and `{video_id: {"frame_ids",
"boxes", "qtype"}}`.
"""

from typing import Any

from eval.metric_base import ClipMetric, are_ours, as_caption, as_record, merged
from eval.results import BenchmarkResult
from eval.vidstg import score_vidstg
from eval.vidstg_sentences import read_original_vidstg


class VidstgScore(ClipMetric):
    """One box a frame for the object of a sentence (paper, Tables 3 and 4)."""

    description = "How well the object of a sentence is followed, on VidSTG: msIoU, vIoU@0.3, vIoU@0.5."
    options = ""

    def score(
        self, references: list[dict[str, Any]], predictions: list[dict[str, Any]], *, protocols: tuple[str, ...]
    ) -> BenchmarkResult:
        """See `eval.vidstg`."""
        if are_ours(references):
            return score_vidstg(map(as_record, references), map(as_caption, predictions), protocols=protocols)
        return score_vidstg(*read_original_vidstg(merged(references), merged(predictions)), protocols=protocols)
