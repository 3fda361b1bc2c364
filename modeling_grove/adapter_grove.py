"""Spatio-temporal adapter: the only place where GROVE's video encoders mix frames (paper, section 4.2)."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from transformers import initialization as init


class SpatioTemporalAdapter(nn.Module):
    r"""
    `y = x + tanh(alpha) * relu(conv3d(x))` with a 3 x 3 x 3 convolution over frames, rows and columns, and a scalar gate `alpha`
    that starts at 0, so that a new adapter is the identity.

    Args:
        channels (`int`):
            Width of the features, unchanged by the adapter.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(1))
        self.conv3d = nn.Conv3d(channels, channels, kernel_size=3, padding=1)

    def init_weights(self) -> None:
        """A closed gate, and a convolution as PyTorch initialises one, so that it has something to say once the gate opens."""
        init.zeros_(self.alpha)
        init.kaiming_uniform_(self.conv3d.weight, a=5**0.5)
        init.zeros_(self.conv3d.bias)

    def forward(self, features: Tensor) -> Tensor:
        """
        Args:
            features (`torch.Tensor` of shape `(batch_size, num_frames, height, width, channels)`):
                Features of consecutive frames of a window.

        Returns:
            `torch.Tensor` of the same shape.
        """
        if not torch.is_grad_enabled():
            # Channels stay last in memory: the permuted view is what the convolution kernels prefer, and nothing is copied.
            update = self.conv3d(features.permute(0, 4, 1, 2, 3)).relu_().permute(0, 2, 3, 4, 1)
            return torch.addcmul(features, update, self.alpha.tanh())
        update = self.conv3d(features.permute(0, 4, 1, 2, 3)).relu().permute(0, 2, 3, 4, 1)
        return features + self.alpha.tanh() * update


def closed_adapters(adapters: nn.ModuleDict) -> set[str]:
    """
    Names of the adapters whose `alpha` is exactly 0: they need not be computed, unless a gradient has to reach them.

    The gates are read anew at every call, because weights are written in too many ways to remember an answer (optimizers and
    DeepSpeed write through `.data`, which leaves no trace), but in one transfer, so that a GPU is waited for once. A compiled graph
    outlives the values that it has seen: there no adapter counts as closed. Neither does one whose weights are offloaded, or
    sharded over processes.
    """
    if torch.compiler.is_compiling():
        return set()
    learns = torch.is_grad_enabled()
    alphas = {
        name: adapter.alpha.detach()
        for name, adapter in adapters.items()
        if not (adapter.alpha.is_meta or (learns and adapter.alpha.requires_grad))
    }
    # Of a gate that is sharded over several processes (FSDP), this one may have no part.
    alphas = {name: alpha for name, alpha in alphas.items() if type(alpha) is Tensor}
    if not alphas:
        return set()
    device = next(iter(alphas.values())).device
    closed = torch.cat([alpha.to(device) == 0 for alpha in alphas.values()]).tolist()
    return {name for name, is_closed in zip(alphas, closed, strict=True) if is_closed}


class GraphStart:
    """
    Where the graph of an encoder begins: at the first part with something to learn. What is before it runs without a graph, with
    the kernels of inference.

    Args:
        features (`torch.Tensor`): input of the encoder; one that requires a gradient is itself such a part.
    """

    def __init__(self, features: Tensor):
        self._recording = torch.is_grad_enabled() and features.requires_grad

    def before(self, *parts: nn.Module | nn.Parameter | None) -> torch.set_grad_enabled:
        """The context in which the next parts run."""
        if torch.is_grad_enabled() and not self._recording:
            parameters = (p for part in parts for p in _parameters(part))
            self._recording = any(parameter.requires_grad for parameter in parameters)
        return torch.set_grad_enabled(self._recording)


def _parameters(part: nn.Module | nn.Parameter | None) -> Iterable[nn.Parameter]:
    if isinstance(part, nn.Module):
        return part.parameters()
    return () if part is None else (part,)


__all__ = ["GraphStart", "SpatioTemporalAdapter", "closed_adapters"]
