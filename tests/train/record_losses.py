"""
Records the losses of five seeded steps, after a change that was meant to change them.

    python -m tests.train.record_losses
"""

import json
import tempfile
from pathlib import Path

import torch

from tests.train.test_trainer import GOLDEN, LOSS_NAMES, logged, make_trainer
from tests.train.training_runs import make_world


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(make_world(Path(folder) / "world"), Path(folder) / "run", max_steps=5)
        trainer.train()
        steps = [{name: logs[name] for name in ("loss", *LOSS_NAMES)} for logs in logged(trainer)]
    GOLDEN.parent.mkdir(parents=True, exist_ok=True)
    GOLDEN.write_text(json.dumps({"tolerance": 1e-4, "steps": steps}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
