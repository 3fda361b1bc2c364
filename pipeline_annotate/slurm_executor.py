"""datatrove's Slurm executor, whose jobs do not stop at a part that cannot be done."""

from __future__ import annotations

from datatrove.executor import SlurmPipelineExecutor
from datatrove.utils.stats import PipelineStats


class PatientSlurmExecutor(SlurmPipelineExecutor):
    """A job goes on with the parts behind one that fails, which stays unfinished; the part's log has the error."""

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> PipelineStats:
        try:
            return super()._run_for_rank(rank, local_rank, node_rank)
        except Exception:  # logged by datatrove, with its traceback
            return PipelineStats()


__all__ = ["PatientSlurmExecutor"]
