"""Pointing accuracy on YouCook-Interactions as an `evaluate` module.

An entry in the original's spelling is a segment, with `video_id`, `segment_youcook_idx` and `segment_bboxes`, and
`{"{video_id}_{index}": {"final_boxes": ...}}`.
"""

from typing import Any

from eval.metric_base import ClipMetric, are_ours, as_caption, merged
from eval.pointing import read_original_pointing, score_pointing
from eval.results import BenchmarkResult

_BENCHMARK = "youcook_interactions"


class YoucookInteractionsScore(ClipMetric):
    """Is the centre of the predicted box inside the annotated one (paper, Table 8)."""

    description = "Does the model point at the object of a sentence, on YouCook-Interactions: pointing accuracy."
    options = ""

    def score(
        self, references: list[dict[str, Any]], predictions: list[dict[str, Any]], *, protocols: tuple[str, ...]
    ) -> BenchmarkResult:
        """See `eval.pointing`."""
        if are_ours(references):
            captions = map(as_caption, references), map(as_caption, predictions)
            return score_pointing(*captions, benchmark=_BENCHMARK, protocols=protocols)
        segments = read_original_pointing(references, merged(predictions), benchmark=_BENCHMARK)
        return score_pointing(*segments, benchmark=_BENCHMARK, protocols=protocols)
