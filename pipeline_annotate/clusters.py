"""
The parts of a run as jobs of a cluster, through datatrove's executors, with the blocks that run here too.

Of Slurm as many jobs as `--workers` are started, each for its share of the parts, so that a job loads its models once; Ray has a
process for each part, as many at a time. What is left when time is up, or when a job is killed, the same command hands out again.
"""

from __future__ import annotations

import argparse
import logging
import math
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .engine import AnnotateParts

logger = logging.getLogger(__name__)

EXECUTORS = ("local", "slurm", "ray")


def add_cluster_arguments(parser: argparse.ArgumentParser) -> None:
    """Who runs the parts, and what they are given."""
    parser.add_argument(
        "--executor", choices=EXECUTORS, default="local", help="who runs the parts (default: %(default)s)"
    )
    parser.add_argument(
        "--gpus-per-worker", type=int, default=0, metavar="N", help="of a cluster's job (default: %(default)s)"
    )
    parser.add_argument(
        "--cpus-per-worker", type=int, default=1, metavar="N", help="of a cluster's job (default: %(default)s)"
    )
    parser.add_argument(
        "--memory-per-cpu", type=float, default=4, metavar="GB", help="of a cluster's job (default: %(default)s)"
    )
    parser.add_argument("--partition", metavar="NAME", help="of Slurm")
    parser.add_argument("--time", default="12:00:00", metavar="H:M:S", help="of a Slurm job (default: %(default)s)")
    parser.add_argument(
        "--sbatch",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="more options of Slurm's sbatch, such as account=lab",
    )


def check_cluster(args: argparse.Namespace) -> None:
    """
    Raises:
        `ValueError`: if the arguments ask for a cluster that is not at hand, or for less than nothing.
    """
    if args.gpus_per_worker < 0 or args.cpus_per_worker < 1 or not args.memory_per_cpu > 0:
        got = f"{args.gpus_per_worker} GPUs, {args.cpus_per_worker} CPUs, {args.memory_per_cpu} GB"
        raise ValueError(f"a cluster's job: got {got}; expected at least 0 GPUs, at least 1 CPU, and more than 0 GB")
    if args.executor == "slurm" and (not args.partition or shutil.which("sbatch") is None):
        raise ValueError("--executor slurm: expected --partition NAME, and `sbatch` on this machine")
    if args.executor == "ray" and find_spec("ray") is None:
        raise ValueError("--executor ray: Ray is not installed; `pip install ray`")
    if wrong := [option for option in args.sbatch if not option.partition("=")[0] or "=" not in option]:
        raise ValueError(f"--sbatch: expected NAME=VALUE, got {wrong[0]!r}")


def run_on_cluster(args: argparse.Namespace, block: AnnotateParts, parts: int, output: Path) -> bool:
    """
    Hands the parts that are not finished to a cluster.

    Args:
        args (`argparse.Namespace`): of [`add_cluster_arguments`], and `workers`.
        block ([`AnnotateParts`]): what is done.
        parts (`int`): all of them.
        output (`Path`): folder of the run, which all machines see.

    Returns:
        `bool`: whether the parts are finished. Ray is waited for; Slurm has a queue.
    """
    options: dict[str, Any] = {
        "tasks": parts,
        "workers": args.workers,
        "logging_dir": str(output / "logs"),
        "cpus_per_task": args.cpus_per_worker,
        "gpus_per_task": args.gpus_per_worker,
    }
    if args.executor == "slurm":
        return _run_on_slurm(args, block, output, options)
    import ray
    from datatrove.executor import RayPipelineExecutor

    ray.init(ignore_reinit_error=True, log_to_driver=False)  # a running cluster, by RAY_ADDRESS, or one of this machine
    # Of several tasks in a job datatrove would start all at once.
    executor = RayPipelineExecutor([block], mem_per_cpu_gb=args.memory_per_cpu, tasks_per_job=1, **options)
    executor.run()
    if left := len(executor.get_incomplete_ranks(skip_completed=True)):
        raise ValueError(f"{left} parts could not be done; {output / 'logs'} says why, and the same command goes on")
    return True


def _run_on_slurm(args: argparse.Namespace, block: AnnotateParts, output: Path, options: dict[str, Any]) -> bool:
    from .slurm_executor import PatientSlurmExecutor

    activate = Path(sys.prefix) / "bin" / "activate"
    executor = PatientSlurmExecutor(
        [block], time=args.time, partition=args.partition, job_name="annotate", qos="",
        mem_per_cpu_gb=math.ceil(args.memory_per_cpu), venv_path=str(activate) if activate.exists() else None,
        sbatch_args=dict(option.split("=", 1) for option in args.sbatch), slurm_logs_folder=str(output / "slurm"), **options,
    )  # fmt: skip
    left, job = len(executor.get_incomplete_ranks(skip_completed=True)), output / "slurm" / "job_id"
    if not left:
        return True
    if _is_queued(job):
        logger.info("%d parts are not finished; their jobs are in the queue (`squeue --me`)", left)
        return False
    if job.exists():
        before = job.read_text(encoding="utf-8")
        logger.warning(
            "job %s left %d parts; %s says why, and they are handed out again", before, left, output / "logs"
        )
    executor.tasks_per_job = math.ceil(left / min(args.workers, left))
    try:
        executor.run()
    except subprocess.CalledProcessError as error:  # what sbatch said stands above
        raise ValueError(
            f"Slurm refused the jobs: `{' '.join(map(str, error.cmd[:-1]))}` ended with {error.returncode}"
        ) from None
    finally:
        if executor.job_id:
            job.write_text(str(executor.job_id), encoding="utf-8")
    logger.info("%d parts are in the queue (`squeue --me`); what their jobs print is in %s", left, output / "slurm")
    return False


def _is_queued(job: Path) -> bool:
    """
    Whether the jobs that were handed to Slurm last wait or run still.

    Raises:
        `ValueError`: if Slurm does not say.
    """
    if not job.exists():
        return False
    line = ["squeue", "--noheader", "--jobs", job.read_text(encoding="utf-8")]
    found = subprocess.run(line, capture_output=True, text=True, check=False)
    if found.returncode == 0:
        return bool(found.stdout.strip())
    if "Invalid job id" in found.stderr:  # long forgotten
        return False
    raise ValueError(f"`{' '.join(line)}` failed ({' '.join(found.stderr.split())}); try again when it answers")


__all__ = ["EXECUTORS", "add_cluster_arguments", "check_cluster", "run_on_cluster"]
