"""The segmentation networks of torchvision by name: `torchvision('deeplabv3_resnet50', classes='camvid')`."""

import difflib

from robustseg.core.errors import SpecError
from robustseg.core.registry import network
from robustseg.core.spaces import Classes, classes_text, label_space
from robustseg.networks.adapters import IMAGENET_MEAN, IMAGENET_STD, Adapted, Input
from robustseg.networks.online import TORCH, online


@network("torchvision")
def torchvision(name: str, *, classes: Classes | None = None, weights: str | None = None) -> Adapted:
    """A torchvision segmentation network, normalised as ImageNet.

    Args:
        name: `fcn_resnet50`, `deeplabv3_resnet101`, `lraspp_mobilenet_v3_large`, …
        classes: the name of a label space, class names or their number; None with `weights` takes theirs.
        weights: `DEFAULT` or another name of torchvision's weights, which are downloaded; None starts from nothing.

    Raises:
        SpecError: the name is unknown, or neither classes nor weights are given, or they do not fit each other.
    """
    from torchvision import models

    known = models.list_models(module=models.segmentation)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known
        raise SpecError(f"expected a segmentation network of torchvision, got '{name}'; try {', '.join(near)}")
    if weights is None and classes is None:
        raise SpecError(
            f"expected classes for torchvision('{name}'), got none; try classes='camvid', or weights='DEFAULT'"
        )
    if weights is None:
        space = label_space(classes if classes is not None else ())
        module = models.get_model(name, weights=None, weights_backbone=None, num_classes=len(space))
    else:
        choices = models.get_model_weights(name)
        if weights not in (*choices.__members__, "DEFAULT"):
            raise SpecError(f"expected weights of {name}, got '{weights}'; try {', '.join(choices.__members__)}")
        chosen = choices[weights]
        theirs = tuple(chosen.meta["categories"])
        space = label_space(classes if classes is not None else theirs)
        if len(space) != len(theirs):
            raise SpecError(
                f"expected {len(theirs)} classes for weights='{weights}', got {len(space)}; try classes=None"
            )
        with online(f"the weights {weights} of {name}", TORCH, "weights=None, which starts from nothing"):
            module = models.get_model(name, weights=chosen)
    auxiliary = getattr(module, "aux_classifier", None) is not None
    adapted = Adapted(module, space, Input(mean=IMAGENET_MEAN, std=IMAGENET_STD))
    adapted.architecture = f"torchvision({name!r}, classes={classes_text(space)})"
    if auxiliary and weights is not None:
        module.aux_classifier = None  # a head for training only; without it the plain architecture holds the weights
    return adapted
