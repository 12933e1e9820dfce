"""The settings of single papers, as attacks of their own: each only calls the general attack with fixed arguments.

Differs, for all: results are clipped to [0, 1], and void pixels never join the loss, also where the attacker uses the
network's own labels. The code of Arnab et al. does not clip: `clip=False` gives theirs, in the presets `arnab2018_*`.
"""

from robustseg.attacks.gradient import fgsm, fgsm_ll, ifgsm, ifgsm_ll, pgd
from robustseg.core.budget import Budget
from robustseg.core.random import ImageRng
from robustseg.core.registry import attack
from robustseg.core.types import Images, Labels, Network


@attack("arnab2018_fgsm")
def arnab2018_fgsm(
    network: Network, images: Images, labels: Labels, *, budget: Budget | str, clip: bool = True, rng: ImageRng
) -> Images:
    """FGSM away from the network's own clean prediction. Source: Arnab, Miksik, Torr, CVPR 2018, code."""
    return fgsm(network, images, labels, budget=budget, goal="prediction", clip=clip, rng=rng)


@attack("arnab2018_fgsm_ll")
def arnab2018_fgsm_ll(
    network: Network, images: Images, labels: Labels, *, budget: Budget | str, clip: bool = True, rng: ImageRng
) -> Images:
    """FGSM towards the least likely class. Source: Arnab, Miksik, Torr, CVPR 2018, code."""
    return fgsm_ll(network, images, labels, budget=budget, clip=clip, rng=rng)


@attack("arnab2018_ifgsm")
def arnab2018_ifgsm(
    network: Network, images: Images, labels: Labels, *, budget: Budget | str, clip: bool = True, rng: ImageRng
) -> Images:
    """Iterative FGSM away from the clean prediction, steps of 1/255. Source: Arnab, Miksik, Torr, CVPR 2018, code."""
    return ifgsm(network, images, labels, budget=budget, goal="prediction", clip=clip, rng=rng)


@attack("arnab2018_ifgsm_ll")
def arnab2018_ifgsm_ll(
    network: Network, images: Images, labels: Labels, *, budget: Budget | str, clip: bool = True, rng: ImageRng
) -> Images:
    """Iterative FGSM-ll whose target is found anew at each step. Source: Arnab, Miksik, Torr, CVPR 2018, code."""
    return ifgsm_ll(network, images, labels, budget=budget, goal="least_likely_now", clip=clip, rng=rng)


@attack("klingner2020_fgsm")
def klingner2020_fgsm(
    network: Network, images: Images, labels: Labels, *, budget: Budget | str, rng: ImageRng
) -> Images:
    """FGSM away from the ground truth. Source: Klingner, Baer, Fingscheidt, CVPRW 2020, later code of the authors."""
    return fgsm(network, images, labels, budget=budget, rng=rng)


@attack("klingner2020_bim")
def klingner2020_bim(
    network: Network, images: Images, labels: Labels, *, budget: Budget | str, rng: ImageRng
) -> Images:
    """Iterative FGSM, 40 steps of 0.01. Source: Klingner et al., CVPRW 2020, later code of the authors."""
    return ifgsm(network, images, labels, budget=budget, steps=40, step_size=0.01, rng=rng)


@attack("klingner2020_pgd")
def klingner2020_pgd(
    network: Network, images: Images, labels: Labels, *, budget: Budget | str, rng: ImageRng
) -> Images:
    """PGD, 40 steps of 0.01, random start, last iterate. Source: Klingner et al., CVPRW 2020, later code of the authors."""
    return pgd(network, images, labels, budget=budget, steps=40, step_size=0.01, keep="last", rng=rng)


@attack("baer2020_llcm")
def baer2020_llcm(network: Network, images: Images, labels: Labels, *, budget: Budget | str, rng: ImageRng) -> Images:
    """Towards the least likely class of the clean image, steps of 1/255. Source: Baer et al., CVPRW 2020, section 3.4."""
    return ifgsm_ll(network, images, labels, budget=budget, rng=rng)
