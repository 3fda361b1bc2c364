"""Spatio-temporal adapter: the only place where GROVE's video encoders mix frames (paper, section 4.2)."""

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
    Names of the adapters whose `alpha` is exactly 0: at inference they need not be computed.

    The gates are read anew at every call, because weights are written in too many ways to remember an answer (optimizers and
    DeepSpeed write through `.data`, which leaves no trace), but in one transfer, so that a GPU is waited for once. A compiled graph
    outlives the values that it has seen: there no adapter counts as closed. Neither does one whose weights are offloaded.
    """
    if torch.compiler.is_compiling():
        return set()
    alphas = {name: adapter.alpha.detach() for name, adapter in adapters.items() if not adapter.alpha.is_meta}
    if not alphas:
        return set()
    device = next(iter(alphas.values())).device
    closed = torch.cat([alpha.to(device) == 0 for alpha in alphas.values()]).tolist()
    return {name for name, is_closed in zip(alphas, closed, strict=True) if is_closed}


__all__ = ["SpatioTemporalAdapter", "closed_adapters"]
