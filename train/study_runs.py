"""
The runs of the studies: what each starts from, what it trains on, and what differs from the recipe.

All start from one model of single pictures ("stills"), which has GLaMM's place in the paper: its encoders have learned what the
parts of pictures show and all of it captions of single frames, its adapters are closed, and it has seen no video. As in the paper,
its encoders and its language model then stay frozen; but for the size "tiny", that of `checkpoints/grove-tiny`, in which all of
the model learns.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class StudySizes:
    """
    How large the studies are.

    Args:
        stills (`int`): clips of whose single frames the first model learns.
        pretraining (`tuple[int, int, int]`): clips with pseudo-labels, at three scales.
        finetuning (`int`), test (`int`): clean clips.
        batch (`int`): clips of a step.
        vision_steps (`int`), still_steps (`int`), pt_steps (`int`), ft_steps (`int`): optimizer steps of each stage, whatever the
            number of clips.
        policy (`str`, *optional*): what learns on video.
    """

    stills: int
    pretraining: tuple[int, int, int]
    finetuning: int
    test: int
    batch: int
    vision_steps: int
    still_steps: int
    pt_steps: int
    ft_steps: int
    policy: str = "paper"


SIZES = {
    "small": StudySizes(6000, (240, 1200, 6000), 480, 200, 8, 3500, 1500, 600, 200),
    # What the recipes and `grove_tiny.sh` say.
    "tiny": StudySizes(9000, (360, 1800, 9000), 8000, 300, 16, 3500, 1500, 600, 1500, "full"),
    # Every command with next to nothing, to see that it works.
    "smoke": StudySizes(8, (4, 8, 12), 4, 2, 2, 2, 2, 2, 2),
}


@dataclass(frozen=True)
class Run:
    """
    A training run and what it is called.

    Args:
        name (`str`): of its folders, without the seed.
        stage (`str`): "pt" or "ft".
        start (`str`): name of the run that it goes on from; "stills" for the first model.
        clips (`int`): pre-training clips; 0 for the clean ones of fine-tuning.
        changes (`dict`): settings that differ from the recipe.
    """

    name: str
    stage: str
    start: str
    clips: int = 0
    changes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """
    A question of the paper.

    Args:
        title (`str`): what is asked.
        paper (`str`): what the paper found, and where.
        runs (`dict[str, str]`): rows of the table: heading, and the run that is scored.
        expected (`tuple[tuple[str, str, str], ...]`): metric, and the rows of which the first is to be above the second.
    """

    title: str
    paper: str
    runs: dict[str, str]
    expected: tuple[tuple[str, str, str], ...]


def all_runs(sizes: StudySizes) -> dict[str, Run]:
    """Every run by name; studies share them."""
    most = sizes.pretraining[-1]
    no_adapters = {"trainable": f"{sizes.policy}-vision_adapters-grounding_adapters"}
    frozen_decoder = {"trainable": f"{sizes.policy}-box_decoder"}
    # The model of stills has windows of one frame; pre-training makes them longer, and here fine-tuning has to.
    video = {"config_overrides": json.dumps({"num_frames": 8, "video_pool_size": [8, 4, 4]})}
    runs = [Run("ft", "ft", "stills", changes={"from_scratch": True, **video})]
    for clips in sizes.pretraining:
        runs.append(Run(f"pt-{clips}", "pt", "stills", clips))
        runs.append(Run(f"pt-{clips}-ft", "ft", f"pt-{clips}"))
    for name, changes in (("no-adapters", no_adapters), ("frozen-decoder", frozen_decoder)):
        runs.append(Run(f"{name}-pt", "pt", "stills", most, changes))
        # Without adapters all gates stay closed, which fine-tuning would take for a model that was never pre-trained.
        runs.append(Run(f"{name}-pt-ft", "ft", f"{name}-pt", changes={**changes, "from_scratch": True}))
    return {run.name: run for run in runs}


def studies(sizes: StudySizes) -> dict[str, Study]:
    """The studies by name."""
    low, middle, most = sizes.pretraining
    full = f"pt-{most}-ft"
    return {
        "stages": Study(
            "Pre-training and fine-tuning",
            "Table 2: PT+FT 40.0 AP50, PT 33.6, FT alone 15.8; CIDEr 83.5, 50.6, 77.7",
            {"FT only": "ft", "PT only": f"pt-{most}", "PT + FT": full},
            (
                ("AP50", "PT + FT", "FT only"),
                ("AP50", "PT + FT", "PT only"),
                ("CIDEr", "PT + FT", "FT only"),
                ("CIDEr", "PT + FT", "PT only"),
                ("CIDEr", "FT only", "PT only"),
            ),
        ),
        "scale": Study(
            "Number of clips for pre-training",
            "Figure 5: CIDEr, AP50 and Recall rise from 1k to 1M clips, with and without fine-tuning",
            {
                **{f"PT, {clips:,}": f"pt-{clips}" for clips in sizes.pretraining},
                **{f"PT + FT, {clips:,}": f"pt-{clips}-ft" for clips in sizes.pretraining},
            },
            tuple(
                (metric, f"{stage}, {more:,}", f"{stage}, {less:,}")
                for metric in ("AP50", "Recall", "CIDEr")
                for stage in ("PT", "PT + FT")
                for less, more in ((low, middle), (middle, most))
            ),
        ),
        "adapters": Study(
            "Adapters and the box decoder",
            "Table 6: both 42.0 AP50, without adapters 39.2, with a frozen decoder 36.8",
            {"frozen decoder": "frozen-decoder-pt-ft", "no adapters": "no-adapters-pt-ft", "both": full},
            (
                ("AP50", "both", "no adapters"),
                ("AP50", "both", "frozen decoder"),
                ("AP50", "no adapters", "frozen decoder"),
            ),
        ),
        "noise": Study(
            "Pseudo-labels and the model that learned from them",
            "Table 2: automatic annotation 27.1 AP50, 20.4 Recall and 40.0 CIDEr, the model trained on it 33.6, 24.3 and 50.6",
            {"pseudo-labels": "pseudo-labels", "PT only": f"pt-{most}"},
            tuple((metric, "PT only", "pseudo-labels") for metric in ("AP50", "Recall", "CIDEr")),
        ),
    }


def needed_runs(study: Study, runs: dict[str, Run]) -> list[Run]:
    """The runs of a study and those that they start from, each after its start."""
    found: list[Run] = []

    def add(name: str) -> None:
        run = runs.get(name)
        if run is not None and run not in found:
            add(run.start)
            found.append(run)

    for name in study.runs.values():
        add(name)
    return found


__all__ = ["SIZES", "Run", "Study", "StudySizes", "all_runs", "needed_runs", "studies"]
