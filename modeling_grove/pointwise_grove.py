"""Dense layers that use the fast CPU kernels where PyTorch's defaults do not, and keep their buffers small."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import has_torch_function_unary

# Below this many rows a product is bound by reading the weight, and the convolution's reordering of it costs more than it saves.
_MIN_ROWS = 16

# Large intermediate results are kept below this. glibc maps buffers above 32 MiB afresh each time, and the system then clears
# every page of them: a fifth of the grounding encoder's processor time. Smaller buffers are used again, and stay in the cache.
# Measured: 4-10 % of that encoder's time for its feed-forward layers, 4-8 % for its attention, 25 % of the box decoder's; the
# vision tower, whose activations are smaller, gains nothing.
CPU_BUFFER_BYTES = 24 * 2**20


def is_cpu_inference(features: Tensor) -> bool:
    """Whether `features` are float32 on the CPU and no graph is being recorded or compiled: where the CPU paths are valid."""
    return (
        features.device.type == "cpu"
        and features.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )


def map_rows(function: Callable[[Tensor], Tensor], features: Tensor, row_bytes: int) -> Tensor:
    """
    `function`, which treats rows alike and keeps their shape, over the leading dimension of `features`; as many rows at a time as
    have intermediate results of `row_bytes` each within `CPU_BUFFER_BYTES`.
    """
    size = max(CPU_BUFFER_BYTES // row_bytes, 1)
    if len(features) <= size:
        return function(features)
    out = torch.empty(features.shape, dtype=features.dtype)
    for part, target in zip(features.split(size), out.split(size), strict=True):
        target.copy_(function(part))
    return out


class PointwiseLinear(nn.Linear):
    """
    `nn.Linear` whose float32 inference on CPU runs as a 1 x 1 convolution.

    PyTorch gives float32 matrix products on CPU to MKL, which does not use the wide vector units of processors that are not
    Intel's, and convolutions to oneDNN, which does: on an AVX-512 AMD machine 300-450 GFLOP/s instead of 170-200
    (`benchmarks/inference.py` prints both rates). Results differ by rounding only; everywhere else this is `nn.Linear`.
    """

    def forward(self, features: Tensor) -> Tensor:
        rows = features.numel() // max(features.shape[-1], 1)
        if rows < _MIN_ROWS or has_torch_function_unary(self.weight) or not self._has_fast_kernel(features):
            return super().forward(features)
        # (rows, in) read as one channels-last image of rows x 1 pixels: no copy on either side.
        image = features.reshape(1, rows, 1, self.in_features).permute(0, 3, 1, 2)
        out = F.conv2d(image, self.weight[:, :, None, None], self.bias)
        return out.permute(0, 2, 3, 1).reshape(*features.shape[:-1], self.out_features)

    def _has_fast_kernel(self, features: Tensor) -> bool:
        mkldnn = torch.backends.mkldnn
        return (
            is_cpu_inference(features)
            and self.weight.dtype == torch.float32
            and mkldnn.is_available()
            and bool(mkldnn.enabled)
        )


class QuickGELU(nn.Module):
    """`x * sigmoid(1.702 x)` (CLIP's activation); at inference in one pass over memory and in place, as a scaled SiLU."""

    def forward(self, features: Tensor) -> Tensor:
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return features * torch.sigmoid(1.702 * features)
        return F.silu(features.mul(1.702), inplace=True).mul_(1 / 1.702)


def use_pointwise_linear(module: nn.Module) -> None:
    """Turns every plain `nn.Linear` below `module` into a [`PointwiseLinear`], sharing its parameters."""
    for child in module.modules():
        if type(child) is nn.Linear:
            child.__class__ = PointwiseLinear


__all__ = [
    "CPU_BUFFER_BYTES",
    "PointwiseLinear",
    "QuickGELU",
    "is_cpu_inference",
    "map_rows",
    "use_pointwise_linear",
]
