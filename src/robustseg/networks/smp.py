"""Every architecture of segmentation_models_pytorch by name: `smp('DeepLabV3Plus', encoder='resnet18')`."""

import difflib
import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from robustseg.core.errors import MissingExtra, RobustsegError, SpecError
from robustseg.core.registry import network
from robustseg.core.spaces import Classes, classes_text, label_space
from robustseg.networks.adapters import IMAGENET_MEAN, IMAGENET_STD, Adapted, Input
from robustseg.networks.online import HUB, online


@network("smp")
def smp(
    architecture: str,
    *,
    encoder: str = "resnet18",
    classes: Classes = "camvid",
    encoder_weights: str | None = None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    divisor: int = 32,
    **options: Any,
) -> Adapted:
    """A segmentation_models_pytorch network; images are padded inside to a multiple of `divisor`.

    Args:
        architecture: `Unet`, `UnetPlusPlus`, `MAnet`, `Linknet`, `FPN`, `PSPNet`, `DeepLabV3`, `DeepLabV3Plus`, `PAN`,
            `UPerNet`, `Segformer`, `DPT`; case does not matter.
        encoder: its encoder, such as `resnet34` or `tu-convnext_tiny`.
        classes: the name of a label space, class names or their number.
        encoder_weights: `imagenet` starts from pretrained weights, which are downloaded; None starts from nothing.
        mean, std: of the RGB images in [0, 1].
        options: more arguments of the architecture.

    Raises:
        MissingExtra: the package is not installed. SpecError: architecture, encoder or an option is unknown.
    """
    try:
        import segmentation_models_pytorch as package
    except ImportError as error:
        raise MissingExtra("segmentation-models-pytorch", "smp") from error
    known = {cls.__name__.lower(): cls for cls in package.MODEL_ARCHITECTURES_MAPPING.values()}
    if architecture.lower() not in known:
        raise SpecError(_unknown("architecture", architecture, [cls.__name__ for cls in known.values()]))
    encoders = package.encoders.get_encoder_names()
    if not encoder.startswith("tu-") and encoder not in encoders:
        raise SpecError(_unknown("encoder", encoder, encoders))
    space = label_space(classes)
    build = known[architecture.lower()]
    _require_known(build, encoder, options)
    source = online(f"the weights '{encoder_weights}' of '{encoder}'", HUB, "encoder_weights=None")
    try:
        with nullcontext() if encoder_weights is None else source:
            module = build(
                encoder_name=encoder, encoder_weights=encoder_weights, in_channels=3, classes=len(space), **options
            )
    except RobustsegError:
        raise
    except (TypeError, ValueError, KeyError) as error:
        raise SpecError(f"expected arguments of {build.__name__} with '{encoder}', got: {error}; try others") from error
    expects = Input(mean=mean, std=std, divisor=divisor)
    more = "".join(f", {name}={value!r}" for name, value in options.items())
    text = f"smp({build.__name__!r}, encoder={encoder!r}, classes={classes_text(space)}, {expects.text}{more})"
    return Adapted(module, space, expects, text)


def _require_known(build: Callable[..., Any], encoder: str, options: dict[str, Any]) -> None:
    # The package swallows what it does not know, and its activation would turn logits into probabilities.
    ours = {"self", "in_channels", "classes", "encoder_name", "encoder_weights", "activation", "aux_params", "kwargs"}
    known = [name for name in inspect.signature(build).parameters if name not in ours]
    for name in options:
        if name in ours or (name not in known and not encoder.startswith("tu-")):
            near = difflib.get_close_matches(name, known, n=2, cutoff=0.5) or known
            raise SpecError(f"expected an option of {build.__name__}, got '{name}'; try {', '.join(near)}")


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    lower = {k.lower(): k for k in known}
    near = [lower[n] for n in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)] or known[:12]
    return f"expected an {what} of segmentation_models_pytorch, got '{name}'; try {', '.join(near)}"
