"""A fully connected conditional random field behind a network: mean-field inference as layers.

Each pixel asks all others what they are, and listens to those that are near and of its colour. With the network's logits as
unary potentials, `p` the positions and `I` the colours, the energy of a label map `x` is

    E(x) = -sum_i logit_i(x_i) + sum_{i<j} [x_i != x_j] k(i, j)
    k(i, j) = w_1 exp(-|p_i - p_j|^2 / 2 theta_alpha^2 - |I_i - I_j|^2 / 2 theta_beta^2) + w_2 exp(-|p_i - p_j|^2 / 2 theta_gamma^2)

and mean field finds the independent marginals `q` nearest to it by iterating `q_i <- softmax(logit_i + sum_j k(i, j) q_j)`.

How the sums over all pairs are made:

* The spatial term is a product of two matrices, one along each axis: exact.
* The bilateral term is exact where the image has at most `senders` pixels. On larger ones each pixel hears every s-th pixel
  of every s-th row, counted from itself over the whole image and standing for s * s pixels each. Pixels that hear each other are one of s * s
  interleaved grids, so a term of N^2 pairs becomes N * senders, as ordinary matrix products with an exact gradient in images and
  logits; no pixel weighs more than another, as the fixed points of a grid or lattice would.

How well, measured by `benchmarks/crf.py` on four images of `streets` at 120x90: with 512 senders marginals are 0.0032 from the exact ones on average, and
up to 0.69 at single pixels; 1.6 % of the labels are others than the exact CRF's, which changes 6.5 % of the network's. More senders help slowly (1024:
1.3 %). On one CPU thread beside other work an iteration took 0.22 s an image at 480x360; five with all else 2.8 s, with the gradient 9.6 s. At
240x180: 0.04, 0.35 and 1.5 s. Time and memory go with `senders`.

Sources: Kraehenbuehl and Koltun, NIPS 2011, section 2 and algorithm 1; as layers of a network Zheng et al., ICCV 2015 (CRF-RNN).
"""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustseg.core.errors import SpecError
from robustseg.core.registry import network
from robustseg.core.types import Images, Logits, Network, device_of, dtype_of
from robustseg.networks.around import Around


@network("crf")
class MeanFieldCRF(Around):
    """A network with a fully connected CRF behind it; its logits are the logs of the CRF's marginals.

    Args:
        network: its logits are the unary potentials.
        iterations: of mean field.
        weights: of the bilateral and the spatial term, trained with the network.
        theta_alpha: reach of the bilateral term, in pixels. theta_beta: in colour, images being in [0, 1].
        theta_gamma: reach of the spatial term, in pixels.
        senders: how many pixels each one hears in the bilateral term, at most; see the head of this file.

    Raises:
        SpecError: a number is not above 0 (weights: below 0).

    Source: Kraehenbuehl and Koltun, NIPS 2011, equations 1 to 3 and algorithm 1.
    Differs: each kernel is divided by its sum over all pixels, itself included, as in the code of CRF-RNN, so that weights mean the same
    at any size and border; the compatibility is Potts; the bilateral sum is sampled on large images.
    """

    def __init__(
        self,
        network: Network,
        *,
        iterations: int = 5,
        weights: tuple[float, float] = (3.0, 1.0),
        theta_alpha: float = 20.0,
        theta_beta: float = 13 / 255,
        theta_gamma: float = 3.0,
        senders: int = 512,
    ):
        settings = {
            "iterations": iterations,
            "weights": tuple(weights),
            "theta_alpha": theta_alpha,
            "theta_beta": theta_beta,
            "theta_gamma": theta_gamma,
            "senders": senders,
        }
        above = (iterations, theta_alpha, theta_beta, theta_gamma, senders)
        if not all(0 < number < math.inf for number in above) or min(weights) < 0:
            raise SpecError(f"expected numbers above 0 and weights of at least 0, got {settings}; try crf(zoo:NAME)")
        super().__init__(network, "crf", **settings)
        self.iterations, self.senders = iterations, senders
        self.theta_alpha, self.theta_beta, self.theta_gamma = theta_alpha, theta_beta, theta_gamma
        self.weights = nn.Parameter(torch.tensor(weights, dtype=dtype_of(network), device=device_of(network)))

    def forward(self, images: Images) -> Logits:
        """The log marginals `[b, k, h, w]`."""
        logits = self.network(images)
        with torch.autocast(images.device.type, enabled=False):  # differences of squares need all digits
            return self.log_marginals(logits.to(images.dtype), images)

    def log_marginals(self, logits: Logits, images: Images) -> Logits:
        """Mean field from the softmax of the logits on, `[b, k, h, w]`."""
        bilateral = _Bilateral(images, self.theta_alpha, self.theta_beta, self.senders)
        spatial = _Spatial(images, self.theta_gamma)
        found = logits.log_softmax(1)
        for _ in range(self.iterations):
            marginals = found.exp()
            heard = self.weights[0] * bilateral(marginals) + self.weights[1] * spatial(marginals)
            found = (logits + heard).log_softmax(1)
        return found


class _Bilateral:
    """What each pixel hears from those near and of its colour: `[b, k, h, w] -> [b, k, h, w]`."""

    def __init__(self, images: Images, theta_alpha: float, theta_beta: float, senders: int):
        height, width = images.shape[-2:]
        self.stride = next(s for s in itertools.count(1) if math.ceil(height / s) * math.ceil(width / s) <= senders)
        rows, columns = ((torch.arange(n) - n / 2).to(images) / theta_alpha for n in (height, width))
        places = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(len(images), -1, -1, -1)
        seen = self._split(torch.cat([(images - 0.5) / theta_beta, places], 1))
        # -|a - b|^2 / 2 = a b - |a|^2 / 2 - |b|^2 / 2, in one product
        half, one = seen.square().sum(-1, keepdim=True) / -2, torch.ones_like(seen[..., :1])
        self.kernel = (torch.cat([seen, half, one], -1) @ torch.cat([seen, one, half], -1).mT).exp()
        self.itself = self.kernel.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
        self.size = (height, width)
        self.sum = 1 + self._others(self._split(torch.ones_like(images[:, :1])))

    def __call__(self, marginals: Tensor) -> Tensor:
        height, width = self.size
        b, k, s = len(marginals), marginals.shape[1], self.stride
        heard = self._others(self._split(marginals)) / self.sum
        rows = math.ceil(height / s)
        grids = heard.permute(0, 3, 1, 2).reshape(b, k * s * s, rows, -1)
        return F.pixel_shuffle(grids, s)[..., :height, :width]

    def _others(self, values: Tensor) -> Tensor:
        return self.stride**2 * (self.kernel @ values - self.itself * values)

    def _split(self, maps: Tensor) -> Tensor:
        """`[b, c, h, w]` as `[b, s * s, pixels, c]`, interleaved grid by grid; zeros stand beyond the border."""
        s, (height, width) = self.stride, maps.shape[-2:]
        grids = F.pixel_unshuffle(F.pad(maps, (0, -width % s, 0, -height % s)), s)
        return grids.view(len(maps), maps.shape[1], s * s, -1).permute(0, 2, 3, 1)


class _Spatial:
    """What each pixel hears from those near: `[b, k, h, w] -> [b, k, h, w]`."""

    def __init__(self, images: Images, theta_gamma: float):
        self.rows, self.columns = (_gaussian(n, theta_gamma, images) for n in images.shape[-2:])
        self.sum = self.rows.sum(1)[:, None] * self.columns.sum(1)

    def __call__(self, marginals: Tensor) -> Tensor:
        return (self.rows @ marginals @ self.columns - marginals) / self.sum


def _gaussian(pixels: int, theta: float, like: Tensor) -> Tensor:
    places = torch.arange(pixels).to(like) / theta
    return ((places[:, None] - places) ** 2 / -2).exp()
