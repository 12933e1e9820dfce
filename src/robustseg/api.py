"""Specs to things: `network(spec)`, `data(spec)`, `perturbation(spec)`."""

from robustseg.core import registry
from robustseg.core.types import Dataset, Network, Perturbation


def network(spec: str) -> Network:
    """Build a network, in evaluation mode.

    Args:
        spec: for example `"zoo:erfnet-streets"`, `"erfnet(classes='camvid')"` or the path of a `.safetensors` file.

    Raises:
        SpecError: the text is no spec, names nothing known, or an argument does not fit.
    """
    built: Network = registry.build("network", spec)
    return built.eval()


def data(spec: str) -> Dataset:
    """Open a data set.

    Args:
        spec: for example `"streets(frames=8)"` or `"camvid(root='…', split='test')"`.

    Raises:
        SpecError: as for `network`. DatasetNotFound: it is not there.
    """
    built: Dataset = registry.build("data", spec)
    return built


def perturbation(spec: str) -> Perturbation:
    """Build a perturbation.

    Args:
        spec: for example `"pgd(budget='linf:8/255')"` or `"gaussian(rms='8/255')"`.

    Raises:
        SpecError: as for `network`.
    """
    built: Perturbation = registry.build("perturbation", spec)
    return built
