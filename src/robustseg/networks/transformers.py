"""SegFormer and other semantic networks of `transformers`, from a folder or the hub: `transformers('folder')`."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robustseg.networks.adapters import IMAGENET_MEAN, IMAGENET_STD, Adapted, Input
from robustseg.records import LabelSpaceMismatch, MissingExtra, RobustsegError, SpecError
from robustseg.registry import network
from robustseg.spaces import Classes, classes_text, label_space


@network("transformers")
def transformers(
    name: str | None = None,
    *,
    config: str | None = None,
    classes: Classes | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    input_size: Sequence[int] | None = None,
    divisor: int | None = None,
) -> Adapted:
    """A semantic segmentation network of `transformers`; code that comes with a model is not run.

    Mean and standard deviation are those of the model's `preprocessor_config.json`, or ImageNet's where it has none.
    Images keep their size (the resizing of the model's own processor is left out) unless `input_size` is given.

    Args:
        name: a local folder that `save_pretrained` wrote, or an id of the hub, which is downloaded.
        config: instead of a name, the model's configuration as JSON: the architecture without weights.
        classes: what the outputs mean; None takes the model's own names.
        mean, std: of RGB images in [0, 1]. input_size, divisor: see `Input`; some models take one size only.

    Raises:
        MissingExtra: the package is not installed. RobustsegError: there is no such model, or it is no semantic
            segmentation network. LabelSpaceMismatch: `classes` has another number of classes than the model.
    """
    try:
        from transformers import AutoConfig, AutoModelForSemanticSegmentation
    except ImportError as error:
        raise MissingExtra("transformers", "transformers") from error
    if (name is None) == (config is None):
        raise SpecError("expected the name of a model or its config, got both or neither; try transformers('FOLDER')")
    try:
        if name is not None:
            model = AutoModelForSemanticSegmentation.from_pretrained(name, trust_remote_code=False)
        else:
            settings = json.loads(str(config))
            built = AutoConfig.for_model(settings.pop("model_type"), **settings)
            model = AutoModelForSemanticSegmentation.from_config(built)
    except (OSError, ValueError, KeyError) as error:
        why = str(error).partition("\n")[0][:200]
        raise RobustsegError(
            f"expected a semantic segmentation network of transformers, got '{name or config}' ({why}); "
            "try a folder that save_pretrained wrote, or an id of the hub"
        ) from error
    own = tuple(model.config.id2label[i] for i in range(model.config.num_labels))
    space = label_space(classes if classes is not None else own)
    if len(space) != len(own):
        raise LabelSpaceMismatch(
            f"expected {len(own)} classes for '{name}', got {len(space)}; try classes=None for its own: {', '.join(own[:5])}, …"
        )
    own_mean, own_std = _normalisation(name)
    expects = Input(mean=mean or own_mean, std=std or own_std, input_size=input_size, divisor=divisor)
    adapted = Adapted(model, space, expects)
    text = json.dumps(model.config.to_dict(), default=str, separators=(",", ":")).replace("'", "\\u0027")
    adapted.architecture = f"transformers(config={text!r}, classes={classes_text(space)}, {expects.text})"
    if name is not None and os.path.isdir(name):
        wanted = ("config.json", "*.safetensors", "*.bin", "preprocessor_config.json")
        adapted.files = tuple(sorted(file for pattern in wanted for file in Path(name).glob(pattern)))
    return adapted.eval() if name is not None else adapted


def _normalisation(name: str | None) -> tuple[Sequence[float], Sequence[float]]:
    processor: dict[str, Any] = {}
    if name is not None:
        from transformers.image_processing_base import ImageProcessingMixin

        try:
            processor, _ = ImageProcessingMixin.get_image_processor_dict(name)
        except OSError:
            processor = {}
    if not processor.get("do_normalize", True):
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return tuple(processor.get("image_mean", IMAGENET_MEAN)), tuple(processor.get("image_std", IMAGENET_STD))
