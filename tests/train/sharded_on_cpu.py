"""
Runs a training script whose model FSDP2 shards over CPUs, which accelerate does for accelerators only.

    torchrun --nproc-per-node 2 tests/train/sharded_on_cpu.py train/pt.py ...

All that is changed is accelerate's list of kinds of processes that may shard; PyTorch does the rest with gloo.
"""

import atexit
import runpy
import sys
from pathlib import Path
from typing import Any

import accelerate.state
import torch.distributed.fsdp
from accelerate.utils import DistributedType

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

_initialise = accelerate.state.AcceleratorState.__init__


def initialise(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
    _initialise(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
        # Every later state begins as a copy of the partial one.
        self.distributed_type = accelerate.state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        if self._mixed_precision != "no":
            fsdp_plugin.set_mixed_precision(self._mixed_precision)
        self.fsdp_plugin = fsdp_plugin


accelerate.state.AcceleratorState.__init__ = initialise

_fully_shard = torch.distributed.fsdp.fully_shard
_sharded: list[str] = []


def fully_shard(module: Any, *args: Any, **kwargs: Any) -> Any:
    _sharded.append(type(module).__name__)
    return _fully_shard(module, *args, **kwargs)


torch.distributed.fsdp.fully_shard = fully_shard
atexit.register(lambda: print(f"sharded: {sorted({*_sharded})}"))

if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
