"""An exact, faster copy of a network for prediction: BatchNorm folded away, 1×1×1 convolutions as matrix products."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_conv_bn_weights

from ..networks.healthy_anatomy import Merge, UpsampleConv

_CONVOLUTIONS = (nn.Conv3d, nn.Conv2d)
_NORMS = (nn.BatchNorm3d, nn.BatchNorm2d)


class OneDnnConv3d(nn.Conv3d):
    """A 3D convolution that uses oneDNN for every size.

    For one small scan or slab (batch × channels × planes × rows ≤ 20480) torch falls back on its own convolution on
    a CPU, which was measured 2 to 3 times slower; deep levels, the stem and slabs of the head all are that small.
    """

    def __init__(self, conv: nn.Conv3d):
        super().__init__(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding,
                         bias=conv.bias is not None)
        self.load_state_dict(conv.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        return convolve(x, self.weight, self.bias, self.stride, self.padding)


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...] = (), padding: tuple[int, ...] = (),
) -> Tensor:
    """A convolution over two or three axes, as many as the weight has, on a CPU by oneDNN where torch has it. Left
    empty, the stride is 1 and the padding is 0 along each."""
    axes = weight.ndim - 2
    stride, padding = stride or (1,) * axes, padding or (0,) * axes
    if x.device.type == "cpu" and x.dtype is torch.float32 and _HAS_ONEDNN:
        return torch.mkldnn_convolution(x, weight, bias, padding, stride, (1,) * axes, 1)
    # Unlike torch.convolution, these take part in autocast.
    plain = functional.conv3d if axes == 3 else functional.conv2d
    return plain(x, weight, bias, stride, padding)


_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch, "mkldnn_convolution")


class PointwiseConv3d(nn.Linear):
    """A 1×1×1 convolution as one matrix product over the channels.

    In channels-last layout nothing is copied; measured 3 times faster than the convolution on a CPU (64 → 72
    channels, 40×48×40).
    """

    def __init__(self, conv: nn.Conv3d):
        super().__init__(conv.in_channels, conv.out_channels)
        self.weight.data = conv.weight.detach().flatten(1).clone()
        self.bias.data = conv.bias.detach().clone()

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x.permute(0, 2, 3, 4, 1), self.weight, self.bias).permute(0, 4, 1, 2, 3)


class FusedMerge(nn.Module):
    """A decoder stage with its norm folded away and its upsampling convolution as one transposed convolution.

    A 3³ convolution after nearest-neighbour upsampling by 2 equals a transposed one with stride 2 and a 4³ kernel:
    64 instead of 216 multiplications, and no copies to interleave the eight parities.
    """

    def __init__(self, merge: Merge):
        super().__init__()
        norm = merge.norm
        self.skip = OneDnnConv3d(fuse_conv_bn_eval(merge.skip, norm))
        # The shift of the norm is already in the skip half: here only its scale.
        scaled, _ = fuse_conv_bn_weights(
            merge.coarse.weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        self.kernel = nn.Parameter(upsampling_kernel(scaled.detach()))

    def upsampled(self, coarse: Tensor) -> Tensor:
        """The half of the stage that depends on the latent."""
        return functional.conv_transpose3d(coarse, self.kernel, stride=2, padding=1)

    def forward(self, coarse: Tensor, context: Tensor) -> Tensor:
        return functional.silu(self.upsampled(coarse).add_(context), inplace=True)


class FusedUpsampleConv(nn.Module):
    """An upsampling convolution and the norm after it as one transposed convolution; see `FusedMerge`."""

    def __init__(self, layer: UpsampleConv, norm: nn.BatchNorm3d):
        super().__init__()
        weight, bias = fuse_conv_bn_weights(
            layer.weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        self.kernel = nn.Parameter(upsampling_kernel(weight.detach()))
        self.bias = nn.Parameter(bias.detach())

    def forward(self, coarse: Tensor) -> Tensor:
        return functional.conv_transpose3d(coarse, self.kernel, self.bias, stride=2, padding=1)


def upsampling_kernel(weight: Tensor) -> Tensor:
    """(outputs, inputs, 3, 3, 3) of a convolution with padding 1 after nearest-neighbour upsampling by 2 ->
    (inputs, outputs, 4, 4, 4) of the equal transposed convolution with stride 2 and padding 1."""
    for axis in (2, 3, 4):
        first, middle, last = weight.unbind(axis)
        weight = torch.stack([last, middle + last, first + middle, first], axis)
    return weight.transpose(0, 1).contiguous()


def fuse_for_inference(model: nn.Module) -> nn.Module:
    """A deep copy in evaluation mode, on the CPU, in float32, without gradients, whose outputs equal the model's.

    Every BatchNorm that follows a convolution in an nn.Sequential is folded into it; its place is kept by an
    nn.Identity. 1×1×1 convolutions and the decoder's merges take the faster forms of this file.
    """
    model = copy.deepcopy(model).to(device="cpu", dtype=torch.float32).eval().requires_grad_(False)
    with torch.no_grad():
        for module in list(model.modules()):
            _fold_norms(module)
        return _fused(model).eval().requires_grad_(False)


def _fused(module: nn.Module) -> nn.Module:
    for kind, faster_form in _FASTER_FORMS.items():
        if isinstance(module, kind):
            return faster_form(module)
    for name, child in list(module.named_children()):
        setattr(module, name, _fused(child))
    return module


def _fold_norms(module: nn.Module) -> None:
    if isinstance(module, nn.Sequential):
        for i in range(len(module) - 1):
            layer, norm = module[i], module[i + 1]
            if isinstance(norm, _NORMS):
                if isinstance(layer, _CONVOLUTIONS):
                    module[i], module[i + 1] = fuse_conv_bn_eval(layer, norm), nn.Identity()
                elif isinstance(layer, UpsampleConv):
                    module[i], module[i + 1] = FusedUpsampleConv(layer, norm), nn.Identity()


def _faster_convolution(conv: nn.Conv3d) -> nn.Module:
    return PointwiseConv3d(conv) if conv.kernel_size == (1, 1, 1) else OneDnnConv3d(conv)


_FASTER_FORMS: dict[type[nn.Module], Callable[..., nn.Module]] = {
    nn.Conv3d: _faster_convolution, Merge: FusedMerge,
}
