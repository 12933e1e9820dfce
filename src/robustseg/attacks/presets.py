"""The settings of single papers as attacks: each is a general attack with its arguments fixed.

Differs, for all: results are clipped to [0, 1], and void pixels never join the loss, even where the attack uses the
network's own labels. The code of Arnab et al. does not clip; pass `clip=False` to the presets `arnab2018_*` for that.
"""

from robustseg.attacks.gradient import fgsm, fgsm_ll, ifgsm, ifgsm_ll, pgd
from robustseg.attacks.variants import variant_of
from robustseg.core.registry import attack


@attack("arnab2018_fgsm")
@variant_of(fgsm, only=("budget", "clip"), goal="prediction")
def arnab2018_fgsm() -> None:
    """FGSM away from the network's own clean prediction. Source: Arnab, Miksik, Torr, CVPR 2018, code."""


@attack("arnab2018_fgsm_ll")
@variant_of(fgsm_ll, only=("budget", "clip"))
def arnab2018_fgsm_ll() -> None:
    """FGSM towards the least likely class. Source: Arnab, Miksik, Torr, CVPR 2018, code."""


@attack("arnab2018_ifgsm")
@variant_of(ifgsm, only=("budget", "clip"), goal="prediction")
def arnab2018_ifgsm() -> None:
    """Iterative FGSM away from the clean prediction, steps of 1/255. Source: Arnab, Miksik, Torr, CVPR 2018, code."""


@attack("arnab2018_ifgsm_ll")
@variant_of(ifgsm_ll, only=("budget", "clip"), goal="least_likely_now")
def arnab2018_ifgsm_ll() -> None:
    """Iterative FGSM-ll with a new target at each step. Source: Arnab, Miksik, Torr, CVPR 2018, code."""


@attack("klingner2020_fgsm")
@variant_of(fgsm, only=("budget",))
def klingner2020_fgsm() -> None:
    """FGSM away from the ground truth. Source: Klingner, Baer, Fingscheidt, CVPRW 2020, later code of the authors."""


@attack("klingner2020_bim")
@variant_of(ifgsm, only=("budget",), steps=40, step_size=0.01)
def klingner2020_bim() -> None:
    """Iterative FGSM, 40 steps of 0.01. Source: Klingner et al., CVPRW 2020, later code of the authors."""


@attack("klingner2020_pgd")
@variant_of(pgd, only=("budget",), steps=40, step_size=0.01, keep="last")
def klingner2020_pgd() -> None:
    """PGD, 40 steps of 0.01, random start, last iterate. Source: Klingner et al., CVPRW 2020, later code of the authors."""


@attack("baer2020_llcm")
@variant_of(ifgsm_ll, only=("budget",))
def baer2020_llcm() -> None:
    """Towards the least likely class of the clean image, steps of 1/255. Source: Baer et al., CVPRW 2020, section 3.4."""
