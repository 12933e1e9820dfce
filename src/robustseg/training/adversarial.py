"""Adversarial training: an attack of the registry perturbs the images of each batch before the training step.

The attack sees the network that is trained, in evaluation mode, so that its passes leave the batch statistics alone. It is
given the ground truth, unless its `goal` says otherwise. Its random draws depend on (seed, epoch, image) alone, so an
interrupted run resumes exactly and several processes see what one sees. Attacks run in the precision of the training; under
`16-mixed` in float32, because the gradients of single pixels vanish in float16.

Sources: Madry et al., ICLR 2018 (training on PGD); Wong, Rice, Kolter, ICLR 2020 (catastrophic overfitting); on
segmentation Xu, Zhao, Jia, ICCV 2021 (half of a batch, attacked in evaluation mode); Croce, Singh, Hein, ECCV 2024 (all of it).
"""

import dataclasses
import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from robustseg.core import registry
from robustseg.core.budget import Budget
from robustseg.core.errors import RobustsegError
from robustseg.core.labels import IGNORE
from robustseg.core.random import ImageRng
from robustseg.core.types import Batch, Images, Logits, Network, Perturbation, dtype_of
from robustseg.networks.fast import fast
from robustseg.training.labels import Labels, miou_on
from robustseg.training.task import HeldOut, Loss, Setup

CHECK_STEPS = 10
"""Of the SegPGD by which the best weights are chosen, in the budget of the training. Of attacks of ten steps that cost alike it
left least on eight held-out CamVid frames of an ERFNet trained for three epochs (4/255): mIoU 19.0 %, where CosPGD left 19.5, masked
cross-entropy 19.9 and PGD 21.9. None is near SEA: see LOG."""


@dataclass(frozen=True)
class Adversary:
    """What attacks a training.

    Args:
        attack: spec of an attack with a budget, such as "pgd(budget='linf:4/255', steps=3, keep='last')". `keep='last'` saves
            the pass that would judge the last iterate.
        share: of the images to attack, 0 to 1; each image is drawn anew each epoch, so a batch has this share on average.
        warm_up: epochs over which the budget, and a step size that the spec gives, rise evenly to what the spec says.
        trades: 0 learns the labels of the attacked images. Larger learns those of the clean ones, and adds so many times
            the divergence of the answers (see `drift`); 6 in the paper. Costs a second pass of the training.
    """

    attack: str
    share: float = 1.0
    warm_up: float = 0.0
    trades: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.share <= 1 and 0 <= self.warm_up < math.inf and 0 <= self.trades < math.inf):
            raise RobustsegError(
                f"expected a share of 0 to 1, a warm-up of at least 0 epochs and a weight of TRADES of at least 0, got "
                f"{self.share}, {self.warm_up} and {self.trades}; try --share 1 --warm-up 5 --trades 0"
            )
        built = registry.build("perturbation", self.attack)
        if not isinstance(built.arguments.get("budget"), Budget):
            raise RobustsegError(
                f"expected an attack with a budget, got '{self.attack}'; try pgd(budget='linf:4/255', steps=3, keep='last')"
            )
        object.__setattr__(self, "attack", built.spec)

    @property
    def budget(self) -> Budget:
        """Of the attack at full strength."""
        budget: Budget = registry.build("perturbation", self.attack).arguments["budget"]
        return budget

    def checks(self) -> tuple[Perturbation, Perturbation]:
        """The attack of many steps by which the best weights are chosen, and the one of a single step it is held against."""
        budget = self.budget.spec
        many = f"segpgd(budget='{budget}', steps={CHECK_STEPS})"
        return registry.build("perturbation", many), registry.build("perturbation", f"fgsm(budget='{budget}')")

    def at(self, epoch: float) -> registry.Configured:
        """The attack after so many epochs, a fraction within one."""
        built: registry.Configured = registry.build("perturbation", self.attack)
        strength = min(1.0, epoch / self.warm_up) if self.warm_up else 1.0
        given: dict[str, Any] = dict(built.arguments)
        given["budget"] = dataclasses.replace(given["budget"], eps=given["budget"].eps * strength)
        if given.get("step_size") is not None:
            given["step_size"] *= strength
        return dataclasses.replace(built, arguments=given)

    def moved(self, network: Network, batch: Batch, *, epoch: float, seed: int, fabric: Fabric) -> Batch:
        """The batch of a step with its share of adversarial images.

        Args:
            network: that is trained; left as it was.
            batch: on the device of the network. epoch: see `at`. seed: of the training.
        """
        rng = ImageRng(seed, batch.ids, f"adversary/{int(epoch)}")
        chosen = rng.fork("share").uniform((), batch.images) < self.share
        indices = chosen.nonzero().flatten()
        if not len(indices):
            return batch
        images = batch.images.to(dtype_of(network), memory_format=torch.channels_last, copy=True)
        with attack_precision(fabric):
            moved: Tensor = self.at(epoch)(
                network, images[indices], batch.labels[indices], rng=rng.select(indices.tolist())
            )
        images[indices] = moved
        return dataclasses.replace(batch, images=images)


def drift(clean: Logits, attacked: Logits, weights: Tensor) -> Tensor:
    """The second term of TRADES: `sum over pixels of weight * KL(softmax(clean) || softmax(attacked))`.

    Args:
        clean, attacked: answers to both images. weights: of each pixel `[b, h, w]`, 0 at void.

    Source: Zhang et al., ICML 2019, equation 5.
    Differs: the attack is the training's own, by default on the cross-entropy with the ground truth, where the paper's climbs this divergence.
    """
    divergence = F.kl_div(attacked.log_softmax(1), clean.log_softmax(1), reduction="none", log_target=True).sum(1)
    return (weights * divergence).sum()


def attack_precision(fabric: Fabric) -> AbstractContextManager[Any]:
    """Within: the precision of an attack's passes in a training."""
    half = fabric.strategy.precision.precision == "16-mixed"
    return nullcontext() if half else fabric.autocast()


class AdversarialLabels(Labels):
    """Learn the labels of attacked images, or of clean images with the TRADES term; ranked by mIoU under attack.

    Args:
        setup: of the training. adversary: attacks the images of each batch.
    """

    def __init__(self, setup: Setup, adversary: Adversary):
        super().__init__(setup)
        self.adversary = adversary

    @property
    def notes(self) -> dict[str, Any]:
        recipe = {**dataclasses.asdict(self.setup.recipe), "adversary": dataclasses.asdict(self.adversary)}
        return {"recipe": recipe, "holdout_attack": self.adversary.checks()[0].spec}

    def images(self, batch: Batch, step: int) -> Images:
        """The attacked images; with TRADES the clean ones, followed by the attacked ones."""
        network, _, _, recipe, fabric = self.setup
        epoch = step / self.batches.per_epoch
        moved = self.adversary.moved(network, batch, epoch=epoch, seed=recipe.seed, fabric=fabric).images
        images = torch.cat([batch.images, moved]) if self.adversary.trades else moved
        return images.contiguous(memory_format=torch.channels_last)

    def loss_of(self, logits: Logits, batch: Batch) -> Loss:
        """Cross-entropy, with TRADES plus `trades * drift`."""
        clean, *attacked = logits.float().split(len(batch.labels))
        total = self.cross_entropy(clean, batch)
        for moved_logits in attacked:
            labelled = batch.labels != IGNORE
            weights_of_pixels = self.class_weights[batch.labels.where(labelled, 0)] * labelled
            total = total + self.adversary.trades * drift(clean, moved_logits, weights_of_pixels)
        return Loss(self.over_batch(total, batch), {}, [(batch.ids, logits[: len(batch.ids)])])

    def measure(self, trained: nn.Module) -> HeldOut:
        """Clean mIoU, and mIoU under the attacks of `Adversary.checks`; the one of many steps is the rank."""
        network, holdout, fabric = self.network_in(trained), self.setup.holdout, self.setup.fabric
        guide = fast(network)

        def under(attack: Perturbation) -> float:
            def attacked(batch: Batch) -> Images:
                with attack_precision(fabric):
                    return attack(guide, batch.images, batch.labels, rng=ImageRng(0, batch.ids))

            return miou_on(network, holdout, fabric, attack=attacked)

        clean = miou_on(network, holdout, fabric)
        robust, single_step = (under(attack) for attack in self.adversary.checks())
        fooled = overfitted(robust, single_step)
        warning = "catastrophic overfitting: it holds against one step only" if fooled else ""
        return HeldOut({"miou": clean, "robust_miou": robust, "single_step_miou": single_step}, robust, warning)


def overfitted(many_steps: float, single_step: float) -> bool:
    """Catastrophic overfitting: mIoU after many steps is less than half of what a single step leaves.

    Source: Wong, Rice, Kolter, ICLR 2020, section 5 (there: accuracy under PGD falls to 0 while FGSM's rises); the half is ours.
    """
    return many_steps < single_step / 2
