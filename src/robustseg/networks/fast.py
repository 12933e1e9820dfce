"""The same function, faster: a frozen copy for attacks and measurements, where weights no longer change.

Four changes, none of which moves a logit by more than rounding: batch normalisation is folded into the convolution
before it; transposed convolutions with stride become ordinary ones whose channels are shuffled into pixels; sums and
ReLUs overwrite what nobody else reads, and ReLUs their gradient; weights and activations lie channels-last. On two CPU cores with AVX-512 the first
layers of ERFNet alone gain a factor of six from the last.

Under autocast the layer that reads the images stays in their precision, where a plain network would round them to steps
of 1/256 and not see what an attack changes; ReLUs hand on the lower precision, so that sums stay in it.
"""

import copy
import inspect
import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.fusion import fuse_conv_bn_weights

from robustseg.core.types import Images, Logits, Network, device_of, dtype_of

_RELUS = (torch.relu, F.relu, torch.Tensor.relu)


@torch.no_grad()  # where a copy is made of a TorchScript module, its parameters would be results otherwise
def fast(network: Network) -> Network:
    """A frozen copy of a network that computes the same logits faster, in evaluation mode.

    Args:
        network: left as it was. Of one that cannot be traced as a whole, as of most foreign ones, the parts that can
            are made faster. One that draws at random or answers softly is copied channels-last with the networks that
            it is made of made faster; one whose fast copy does not agree with it on two image sizes, as it is.

    Returns:
        A network with the same label space, spec, features and, up to rounding, logits and input gradients.
    """
    frozen = copy.deepcopy(network).eval().requires_grad_(False).to(memory_format=torch.channels_last)
    own = (getattr(type(network), name) is getattr(Network, name) for name in ("draw", "soft", "predict"))
    if not all(own):
        for name, part in frozen.named_children():
            if isinstance(part, Network):
                setattr(frozen, name, fast(part))
        return frozen
    quick = _Fast(frozen, _quickened(copy.deepcopy(frozen)).to(memory_format=torch.channels_last))
    return quick if _agree(frozen, quick) else frozen


def _quickened(module: nn.Module) -> nn.Module:
    """The module as a faster graph, or itself with its children made faster where it cannot be traced."""
    if not any(module.children()):
        return module
    graph = _traced(module)
    if graph is None:
        for name, child in module.named_children():
            quick = _quickened(child)
            if quick is not child:
                setattr(module, name, _Part(child, quick))
        return module
    _drop_dropout(graph)
    _fold_norms(graph)
    _shuffle_transposed(graph)
    _sum_in_place(graph)
    _relu_in_place(graph)
    _first_exact(graph)
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph


class _Fast(Network):
    def __init__(self, network: Network, quick: nn.Module):
        super().__init__(network.label_space, network.spec)
        self.network, self.quick = network, quick
        self.eval()

    def forward(self, images: Images) -> Logits:
        return self.quick(images.contiguous(memory_format=torch.channels_last))

    def features(self, images: Images) -> dict[str, Tensor]:
        return self.network.features(images)

    def train(self, mode: bool = True) -> "_Fast":
        # Folded weights know only evaluation.
        return super().train(False)

    def __getattr__(self, name: str) -> Any:
        # What else is asked of it, its depth say, the network itself answers.
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("network"), name)


class _Part(nn.Module):
    """A child as a faster graph; what else its parent asks of it, its own strides say, the child answers."""

    def __init__(self, child: nn.Module, quick: nn.Module):
        super().__init__()
        self.quick = quick
        self.__dict__["child"] = child  # no module of this one: nothing runs it

    def forward(self, *inputs: Any) -> Any:
        return self.quick(*inputs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["child"], name)


def _traced(module: nn.Module) -> fx.GraphModule | None:
    try:
        if any(p.default is not p.empty for p in inspect.signature(module.forward).parameters.values()):
            return None  # a trace does not know which of its arguments will be given
        return fx.symbolic_trace(module)
    except (Exception, SystemExit):  # whatever a foreign forward does with a proxy
        return None


def _agree(network: Network, quick: Network, sizes: Sequence[tuple[int, int]] = ((64, 96), (88, 72))) -> bool:
    # A trace may have kept what was true of the tracing only: a size, a random draw.
    device, dtype = device_of(network), dtype_of(network)
    for height, width in sizes:
        images = torch.rand((1, 3, height, width), generator=torch.Generator().manual_seed(0)).to(device, dtype)
        try:
            logits, gradient = _logits_and_gradient(network, images)
            quick_logits, quick_gradient = _logits_and_gradient(quick, images)
        except (Exception, SystemExit):  # a network of one fixed size, say
            return False
        size = float(logits.abs().max())
        if not math.isfinite(size) or not torch.allclose(logits, quick_logits, rtol=0, atol=1e-3 * size):
            return False
        # Rounding turns a few ReLUs on or off, and the gradient of what lies below with them.
        if not (quick_gradient - gradient).norm() <= 0.02 * gradient.norm():
            return False
    return True


def _logits_and_gradient(network: Network, images: Tensor) -> tuple[Tensor, Tensor]:
    # The gradient of a sum with signs: logits that are probabilities would add up to a constant.
    images = images.clone().requires_grad_()
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
        logits = network(images)
        signs = 1 - 2.0 * (torch.arange(logits.numel(), device=logits.device).view(logits.shape) % 3 == 0)
        (gradient,) = torch.autograd.grad((logits * signs).sum(), images, allow_unused=True, materialize_grads=True)
    return logits.detach(), gradient


def _drop_dropout(graph: fx.GraphModule) -> None:
    modules = dict(graph.named_modules())
    for node in list(graph.graph.nodes):  # in evaluation it is the identity, and would stand between what can be joined
        if isinstance(_module(node, modules), (nn.Dropout, nn.Dropout2d, nn.Identity)):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)


def _fold_norms(graph: fx.GraphModule) -> None:
    modules = dict(graph.named_modules())
    for node in list(graph.graph.nodes):
        norm, before = _module(node, modules), node.args[0] if node.args else None
        convolution = _module(before, modules)
        if not isinstance(norm, nn.BatchNorm2d) or not isinstance(convolution, (nn.Conv2d, nn.ConvTranspose2d)):
            continue
        if norm.running_mean is None or norm.running_var is None or not isinstance(before, fx.Node):
            continue
        shared = sum(n.target == before.target for n in graph.graph.nodes if n.op == "call_module") > 1
        transposed = isinstance(convolution, nn.ConvTranspose2d)
        if shared or len(before.users) > 1 or (transposed and convolution.groups > 1):
            continue
        weight, bias = fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
            transpose=transposed,
        )
        convolution.weight = nn.Parameter(weight.detach(), requires_grad=False)
        convolution.bias = nn.Parameter(bias.detach(), requires_grad=False)
        node.replace_all_uses_with(before)
        graph.graph.erase_node(node)


def _shuffle_transposed(graph: fx.GraphModule) -> None:
    called = [n for n in graph.graph.nodes if n.op == "call_module"]
    for name, module in list(graph.named_modules()):
        if isinstance(module, nn.ConvTranspose2d) and Subpixel.fits(module):
            # What no module reads any more is on its way to the loss.
            graph.set_submodule(name, Subpixel(module, planes=called[-1].target == name))


class Subpixel(nn.Module):
    """A transposed convolution of stride s as an ordinary one with s * s times the channels, shuffled into pixels.

    Output pixel `o` of one axis reads input pixel `(o + padding - k) / stride` for every tap k that divides evenly, so
    each of the s phases `o mod s` is an ordinary convolution with a part of the taps.

    Args:
        module: the transposed convolution.
        planes: lay the output out plane by plane, as a loss over the classes wants it, and not channels-last.
    """

    def __init__(self, module: nn.ConvTranspose2d, *, planes: bool = False):
        super().__init__()
        self.stride, self.planes = module.stride[0], planes
        offsets = [_reach(module, axis) for axis in (0, 1)]
        (top, bottom), (left, right) = offsets
        self.pad = (left, right, top, bottom)
        inputs, outputs, *_ = module.weight.shape
        shape = (self.stride, self.stride, outputs, inputs, top + bottom + 1, left + right + 1)
        weight = module.weight.new_zeros(shape)
        for row in range(module.kernel_size[0]):
            for column in range(module.kernel_size[1]):
                (p, y), (q, x) = (_phase(module, axis, tap) for axis, tap in ((0, row), (1, column)))
                weight[p, q, :, :, y + top, x + left] = module.weight[:, :, row, column].detach().T
        if planes:  # neighbours along a row are then evenly spaced in memory
            weight = weight.transpose(0, 1)
        self.weight = nn.Parameter(weight.reshape(-1, inputs, *shape[-2:]), requires_grad=False)
        bias = module.bias if module.bias is not None else module.weight.new_zeros(outputs)
        self.bias = nn.Parameter(bias.detach().repeat(self.stride**2), requires_grad=False)

    @staticmethod
    def fits(module: nn.ConvTranspose2d) -> bool:
        """Whether the output is exactly `stride` times the input, along both axes alike."""
        s = module.stride[0]
        grow = [_integer(module.output_padding, axis) - 2 * _integer(module.padding, axis) for axis in (0, 1)]
        alike = module.stride == (s, s) and module.dilation == (1, 1) and module.groups == 1
        return s > 1 and alike and all(k + g == s for k, g in zip(module.kernel_size, grow, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """`[b, c, h, w] -> [b, k, s h, s w]`."""
        b, _, h, w = x.shape
        if any(self.pad):
            x = F.pad(x, self.pad)
        s, k = self.stride, len(self.bias) // self.stride**2
        if self.planes and self.weight.shape[2:] == (1, 1):
            # Phase planes from the start: the gradient then is one product from planes to channels-last.
            pixels = x.permute(0, 2, 3, 1).reshape(b * h * w, -1)
            phases = torch.addmm(self.bias[:, None], self.weight.flatten(1), pixels.t()).view(s, s, k, b, h, w)
            return torch.stack([q.permute(2, 1, 3, 0, 4) for q in phases.unbind(0)], -1).view(b, k, s * h, s * w)
        # One copy each way: channels-last phases are read as (h, w, p, q, k) without one.
        phases = F.conv2d(x, self.weight, self.bias)
        grid = phases.permute(0, 2, 3, 1).unflatten(3, (s, s, k))
        if self.planes:
            return grid.permute(0, 5, 1, 4, 2, 3).reshape(b, k, s * h, s * w)
        return grid.permute(0, 1, 3, 2, 4, 5).reshape(b, s * h, s * w, k).permute(0, 3, 1, 2)


def _phase(module: nn.ConvTranspose2d, axis: int, tap: int) -> tuple[int, int]:
    # o = stride * i - padding + tap: the phase of o, and where i lies relative to o // stride.
    quotient, phase = divmod(tap - _integer(module.padding, axis), module.stride[axis])
    return phase, -quotient


def _integer(setting: Any, axis: int) -> int:
    return int(setting[axis])


def _reach(module: nn.ConvTranspose2d, axis: int) -> tuple[int, int]:
    offsets = [_phase(module, axis, tap)[1] for tap in range(module.kernel_size[axis])]
    return max(0, -min(offsets)), max(0, max(offsets))


def _sum_in_place(graph: fx.GraphModule) -> None:
    modules = dict(graph.named_modules())
    # A sum may overwrite the summand that a convolution made for it alone.
    for node in graph.graph.nodes:
        if node.op != "call_function" or node.target not in _SUMS or len(node.args) != 2 or node.kwargs:
            continue
        fresh = [n for n in node.args if _convolves(n, modules) and len(n.users) == 1]
        if fresh:
            other = node.args[1] if node.args[0] is fresh[0] else node.args[0]
            node.target, node.args = _added_to, (fresh[0], other)


def _added_to(fresh: Tensor, other: Any) -> Tensor:
    alike = isinstance(other, Tensor) and other.shape == fresh.shape and other.dtype == fresh.dtype
    return fresh.add_(other) if alike else fresh + other


_SUMS = (operator.add, torch.add, _added_to)


def _relu_in_place(graph: fx.GraphModule) -> None:
    modules = dict(graph.named_modules())
    # A ReLU may overwrite what only it reads and whose own backward does not need it; on the way back, the gradient
    # that a convolution computed for it, alone or summed with what comes through a sum.
    for node in graph.graph.nodes:
        is_relu = (node.op == "call_method" and node.target == "relu") or node.target in _RELUS
        module = _module(node, modules)
        if not (is_relu or isinstance(module, nn.ReLU)):
            continue
        before = node.args[0]
        if len(before.users) > 1 or not _forgets_its_output(before, modules):
            continue
        convolved = [_convolves(user, modules) for user in node.users]
        summed = [user.target in _SUMS for user in node.users]
        owns = any(convolved) and all(c or s for c, s in zip(convolved, summed, strict=True))
        with graph.graph.inserting_before(node):
            replacement = graph.graph.call_function(_relu_both_ways if owns else _relu_forth, (before,))
        node.replace_all_uses_with(replacement)
        graph.graph.erase_node(node)


class _InPlaceReLU(torch.autograd.Function):
    """ReLU that overwrites its input, and the gradient it is given: nobody else may hold either."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        x.relu_()
        ctx.save_for_backward(x)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward.grad_input(gradient, x, 0, grad_input=gradient)


def _relu_both_ways(x: Tensor) -> Tensor:
    result: Tensor = _InPlaceReLU.apply(_lowered(x))
    return result


def _relu_forth(x: Tensor) -> Tensor:
    return _lowered(x).relu_()


def _lowered(x: Tensor) -> Tensor:
    # Under autocast sums and pools keep the precision of the images; here it falls to that of the convolutions.
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


def _first_exact(graph: fx.GraphModule) -> None:
    modules = dict(graph.named_modules())
    for node in graph.graph.nodes:
        module = _module(node, modules)
        if isinstance(module, nn.Conv2d) and _reads_images(node.args[0]):
            graph.set_submodule(str(node.target), _Exact(module))


def _reads_images(node: Any) -> bool:
    # Padded or normalised, but by no module.
    while isinstance(node, fx.Node) and node.op in ("call_function", "call_method") and node.args:
        node = node.args[0]
    return isinstance(node, fx.Node) and node.op == "placeholder"


class _Exact(nn.Module):
    """Runs a convolution at the precision of its weights, whatever autocast says: in bfloat16 an image has steps of 1/256."""

    def __init__(self, module: nn.Conv2d):
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            result: Tensor = self.module(x.to(self.module.weight.dtype))
        return result


def _forgets_its_output(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    return _convolves(node, modules) or isinstance(_module(node, modules), nn.BatchNorm2d) or node.target in _SUMS


def _convolves(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    return isinstance(_module(node, modules), (nn.Conv2d, nn.ConvTranspose2d, Subpixel))


def _module(node: Any, modules: dict[str, nn.Module]) -> nn.Module | None:
    return modules.get(str(node.target)) if isinstance(node, fx.Node) and node.op == "call_module" else None
