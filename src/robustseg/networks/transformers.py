"""SegFormer and other semantic networks of `transformers`, from a folder or the hub: `transformers('folder')`."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from robustseg.core.errors import LabelSpaceMismatch, MissingExtra, RobustsegError, SpecError
from robustseg.core.registry import network
from robustseg.core.spaces import Classes, classes_text, label_space
from robustseg.networks.adapters import IMAGENET_MEAN, IMAGENET_STD, Adapted, Input
from robustseg.networks.online import HUB, online


@network("transformers")
def transformers(
    name: str | None = None,
    *,
    config: str | None = None,
    classes: Classes | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    bgr: bool | None = None,
    scale: float | None = None,
    input_size: Sequence[int] | None = None,
    divisor: int | None = None,
) -> Adapted:
    """A semantic segmentation network of `transformers`; code that comes with a model is not run.

    Colour order, range, mean and standard deviation are those of the model's `preprocessor_config.json`, or RGB in
    [0, 1] with ImageNet's where it has none. Images keep their size (what the model's own processor does to it is left
    out) unless `input_size` is given.

    Args:
        name: a local folder that `save_pretrained` wrote, or an id of the hub, which is downloaded.
        config: instead of a name, the model's configuration as JSON: the architecture without weights.
        classes: what the outputs mean; None takes the model's own names.
        mean, std, bgr, scale: in place of the model's own. input_size, divisor: see `Input`; some models take one size
            only.

    Raises:
        MissingExtra: the package is not installed. SpecError: the model's processor does something to its images that
            is not understood. RobustsegError: there is no such model, or it is no semantic
            segmentation network. LabelSpaceMismatch: `classes` has another number of classes than the model.
    """
    try:
        from transformers import AutoConfig, AutoModelForSemanticSegmentation
    except ImportError as error:
        raise MissingExtra("transformers", "transformers") from error
    if (name is None) == (config is None):
        raise SpecError("expected the name of a model or its config, got both or neither; try transformers('FOLDER')")
    processor: dict[str, Any] = {}
    try:
        if name is not None:
            model, processor = _pretrained(name)
        else:
            settings = json.loads(str(config))
            built = AutoConfig.for_model(settings.pop("model_type"), **settings)
            model = AutoModelForSemanticSegmentation.from_config(built)
    except RobustsegError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
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
    form = _form(processor, name)
    given: dict[str, Any] = {
        "mean": mean,
        "std": std,
        "bgr": bgr,
        "scale": scale,
        "input_size": input_size,
        "divisor": divisor,
    }
    expects = replace(form, **{key: value for key, value in given.items() if value is not None})
    adapted = Adapted(model, space, expects)
    text = json.dumps(model.config.to_dict(), default=str, separators=(",", ":")).replace("'", "\\u0027")
    adapted.architecture = f"transformers(config={text!r}, classes={classes_text(space)}, {expects.text})"
    if name is not None and os.path.isdir(name):
        wanted = ("config.json", "*.safetensors", "*.bin", "preprocessor_config.json")
        adapted.files = tuple(sorted(file for pattern in wanted for file in Path(name).glob(pattern)))
    return adapted.eval() if name is not None else adapted


def _pretrained(name: str) -> tuple[Any, dict[str, Any]]:
    """The model and what its image processor is set to; a name that is no folder is looked for on the hub."""
    from transformers import AutoModelForSemanticSegmentation

    if os.path.isdir(name):
        model = AutoModelForSemanticSegmentation.from_pretrained(name, trust_remote_code=False, local_files_only=True)
        return model, _processor(name, local=True)
    with online(f"the model '{name}'", HUB, "a folder that save_pretrained wrote") as connected:
        local = not connected
        model = AutoModelForSemanticSegmentation.from_pretrained(name, trust_remote_code=False, local_files_only=local)
        return model, _processor(name, local=local)


def _processor(name: str, *, local: bool) -> dict[str, Any]:
    """What the model's image processor is set to; empty where it has none."""
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        return dict(ImageProcessingMixin.get_image_processor_dict(name, local_files_only=local)[0])
    except OSError:
        return {}


UNDERSTOOD = {"do_rescale", "do_normalize", "do_flip_channel_order"}
LEFT_OUT = {"do_resize", "do_center_crop", "do_pad", "do_convert_rgb", "do_reduce_labels"}
"""Steps of a processor that change sizes or labels, or nothing of an RGB image."""


def _form(processor: dict[str, Any], name: str | None) -> Input:
    """The processor as a form: it multiplies 0..255 by its factor, then normalises RGB, then may flip to BGR."""
    if not processor:
        return Input(mean=IMAGENET_MEAN, std=IMAGENET_STD)
    strange = [key for key, on in processor.items() if key.startswith("do_") and on]
    strange = [key for key in strange if key not in UNDERSTOOD | LEFT_OUT]
    mean: Any = (0.0,) * 3
    std: Any = (1.0,) * 3
    if processor.get("do_normalize", "image_mean" in processor):
        mean, std = processor.get("image_mean"), processor.get("image_std")
    if strange or processor.get("offset") or not _three(mean) or not _three(std):
        what = ", ".join(strange) or ("offset" if processor.get("offset") else f"mean {mean} and std {std}")
        raise SpecError(
            f"expected an image processor that rescales, normalises or flips colours in '{name}', got {what}; "
            "try module('FILE:FUNCTION', …), with a function that gives the model, and its mean, std, bgr and scale"
        )
    bgr = bool(processor.get("do_flip_channel_order"))
    factor = processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1.0
    turn = -1 if bgr else 1
    return Input(mean=tuple(mean[::turn]), std=tuple(std[::turn]), bgr=bgr, scale=round(255 * float(factor), 9))


def _three(values: Any) -> bool:
    return isinstance(values, (list, tuple)) and len(values) == 3
