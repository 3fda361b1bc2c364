"""
GPUs for machines that have none: tensors that hold CPU data, claim a device, and refuse what CUDA refuses.

Inside [`PretendGpus`] every torch function checks that its tensors claim one device (indices may be on the CPU), that `index_put`
gets values of its own dtype and that no GPU tensor becomes a NumPy array; it then runs on the data. So tests on the CPU see the
device mistakes of code that is to run on GPUs. Only what Python calls is checked, which is where such mistakes are made.
"""

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

CPU = torch.device("cpu")
_INDEXING = {"__getitem__", "__setitem__", "index_put", "index_put_"}
_TO_PYTHON = {"tolist", "item", "__int__", "__bool__", "__len__"}


class GpuTensor(torch.Tensor):
    """A tensor that claims to be on `device`."""

    @staticmethod
    def __new__(cls, data: torch.Tensor, device: str | torch.device) -> "GpuTensor":
        tensor = torch.Tensor._make_wrapper_subclass(cls, data.shape, strides=data.stride(), dtype=data.dtype)
        tensor.held, tensor.claimed = data, _device(device)
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} ran outside PretendGpus")


def _device(device: str | torch.device) -> torch.device:
    device = torch.device(device)
    return device if device.type == "cpu" or device.index is not None else torch.device(device.type, 0)


def held(value: Any) -> Any:
    """The CPU data of a tensor; anything else as it is."""
    return value.held if isinstance(value, GpuTensor) else value


def claimed(tensor: torch.Tensor) -> torch.device:
    return tensor.claimed if isinstance(tensor, GpuTensor) else CPU


def _claiming(result: Any, device: torch.device) -> Any:
    if device == CPU:
        return result
    return tree_map(lambda x: GpuTensor(x, device) if type(x) in (torch.Tensor, nn.Parameter) else x, result)


class PretendGpus(TorchFunctionMode):
    """Where [`GpuTensor`] works."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if name in ("__get__", "__set__"):
            attribute = getattr(func.__self__, "__name__", "")
            if isinstance(args[0], GpuTensor) and attribute in ("device", "is_meta"):
                return args[0].claimed if attribute == "device" else False
            return _claiming(func(held(args[0]), *args[1:], **kwargs), claimed(args[0]))
        if name in ("to", "cpu"):
            return _moved(args[0], [CPU] if name == "cpu" else [*args[1:], *kwargs.values()])
        if not any(isinstance(tensor, GpuTensor) for tensor in tensors) and kwargs.get("device") is None:
            return func(*args, **kwargs)
        device = _common_device(name, args, tensors)
        if kwargs.get("device") is not None:
            device, kwargs["device"] = _device(kwargs["device"]), CPU
        args_held, kwargs_held = tree_map(held, (args, kwargs))
        with torch._C.DisableTorchFunction():
            result = func(*args_held, **kwargs_held)
        if name in _TO_PYTHON:
            return result
        in_place = name.endswith("_") and not name.startswith("__")
        return args[0] if in_place and isinstance(args[0], torch.Tensor) else _claiming(result, device)


def _moved(tensor: torch.Tensor, options: list[Any]) -> torch.Tensor:
    """`tensor.to(*options)`: the last device among them is claimed, a dtype converts."""
    device, data = claimed(tensor), held(tensor)
    for option in options:
        if isinstance(option, torch.Tensor):
            device, data = claimed(option), data.to(option.dtype)
        elif isinstance(option, torch.dtype):
            data = data.to(option)
        elif isinstance(option, str | torch.device):
            device = _device(option)
    return tensor if device == claimed(tensor) and data is held(tensor) else _claiming(data, device)


def _common_device(name: str, args: Any, tensors: list[torch.Tensor]) -> torch.device:
    """Where the result is; raises RuntimeError as CUDA would."""
    # A number on the CPU goes with every device.
    devices = {claimed(tensor) for tensor in tensors if tensor.ndim or claimed(tensor) != CPU}
    if name in _INDEXING or name == "copy_":
        device = claimed(args[0])
        index = [leaf for leaf in tree_leaves(args[1]) if isinstance(leaf, torch.Tensor)] if name in _INDEXING else []
        if any(claimed(part) not in (CPU, device) for part in index):
            raise RuntimeError(f"{name}: indices should be on the CPU or on {device}")
        if name.startswith("index_put") and (claimed(args[2]), args[2].dtype) != (device, args[0].dtype):
            raise RuntimeError(f"{name}: values on {claimed(args[2])} of {args[2].dtype}, self on {device}")
        return device
    if name == "numpy" and devices - {CPU}:
        raise TypeError("can't convert a GPU tensor to numpy")
    if len(devices) > 1:
        raise RuntimeError(f"{name}: expected all tensors on one device, found {sorted(map(str, devices))}")
    return next(iter(devices), CPU)


def pretend_on(module: nn.Module, device: str) -> None:
    """Claims `device` for the weights of `module`, and moves there what is given to it, as accelerate's hooks do."""
    for part in module.modules():
        for table in (part._parameters, part._buffers):
            table.update(
                {name: GpuTensor(held(value).data, device) for name, value in table.items() if value is not None}
            )

    def move(_: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        return tree_map(lambda x: x.to(device) if isinstance(x, torch.Tensor) else x, (args, kwargs))

    module.register_forward_pre_hook(move, with_kwargs=True)
