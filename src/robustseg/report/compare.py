"""Two runs, image by image: is the second worse than the first, and by how much?

Frames a second apart are not independent, so the interval of the difference comes from contiguous blocks of frames,
and both runs get the same draws (a paired block bootstrap). The intervals of one comparison hold together: each is at
level `1 - 0.05 / rows` (Bonferroni), so that the more rows there are the wider they grow, and not the more often some
row is called worse by chance. See `docs/design/intervals.md`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from robustseg.core.errors import RobustsegError
from robustseg.results import metrics
from robustseg.results.record import Counts, Record


@dataclass(frozen=True)
class Comparison:
    """Two networks, or one before and after a change, on the same perturbed data.

    Args:
        data, perturbation, source: what both were measured under; `source` is "itself" where each network was
            perturbed through itself.
        network_a, network_b: specs.
        images: how many pairs.
        before, after: pooled mIoU of a and of b.
        difference: after - before with its interval, which holds together with those of the other rows; NaN ends
            where there are fewer than two blocks of images.
    """

    data: str
    perturbation: str
    source: str
    network_a: str
    network_b: str
    images: int
    before: float
    after: float
    difference: metrics.Interval

    @property
    def worse(self) -> bool:
        """Whether b is significantly worse: the interval of the difference lies below 0."""
        return self.difference.high < 0

    @property
    def better(self) -> bool:
        """Whether b is significantly better: the interval of the difference lies above 0."""
        return self.difference.low > 0

    @property
    def undecided(self) -> bool:
        """Whether there are too few images for an interval, so that the row can be neither worse nor better."""
        return math.isnan(self.difference.low)

    @property
    def verdict(self) -> str:
        """In words: `worse`, `better`, `no clear difference`, or `undecided` where there are too few images."""
        if self.undecided:
            return "undecided (too few images)"
        return "worse" if self.worse else "better" if self.better else "no clear difference"


def compare(
    records_a: Sequence[Record],
    records_b: Sequence[Record],
    *,
    block: int = 15,
    draws: int = 1000,
    level: float = 0.95,
) -> list[Comparison]:
    """Compare run b with run a, one comparison for each record of a, in its order.

    Records pair by data, perturbation, size and source; networks may differ, but where a run has several networks
    under one perturbation they pair by name. What only b measured is left out: a check against an older run goes on.

    By chance alone the second run is called worse somewhere in 0 to 4 of 100 pairs of runs, however many rows they have,
    and in 5 to 8 of 100 where frames hang together over five frames or more; see `docs/design/intervals.md`.

    Args:
        records_a: the run to compare with. records_b: the run that may be worse.
        block: frames a block. draws: bootstrap samples. level: of confidence of all rows together.

    Raises:
        RobustsegError: b lacks a measurement of a, or the two are not over the same images.
        LabelSpaceMismatch: the two speak of different classes.
    """
    found = []
    alone = 1 - (1 - level) / max(1, len(records_a))
    for a in records_a:
        b = _partner(a, records_a, records_b)
        a.label_space.require_same(b.label_space, mine="the first run", theirs="the second run")
        counts = _in_order(b, a)
        drawn_a, drawn_b = (metrics.resample(c, block=block, draws=draws) for c in (a.counts, counts))
        samples = metrics.image_miou(drawn_b) - metrics.image_miou(drawn_a)
        before, after = metrics.miou(a.counts), metrics.miou(counts)
        difference = metrics.t_interval(after - before, samples, a.ids, block=block, level=alone)
        found.append(
            Comparison(a.data, a.perturbation, _source(a), a.network, b.network, len(a.ids), before, after, difference)
        )
    return found


def _partner(a: Record, records_a: Sequence[Record], records_b: Sequence[Record]) -> Record:
    near = [b for b in records_b if _key(b) == _key(a) and (b.content == a.content or not a.content or not b.content)]
    same = [b for b in near if b.network == a.network]
    alone = len({r.network for r in records_a if _key(r) == _key(a)}) == 1 and len({b.network for b in near}) == 1
    if same or alone:
        return (same or near)[-1]  # measured again after a change of code, the latest counts
    if not near:
        others = [b for b in records_b if (b.perturbation, _source(b)) == (a.perturbation, _source(a))]
        if others:
            raise RobustsegError(
                f"expected both runs over one data set, got {_where(a)} and {_where(others[0])} "
                f"under '{a.perturbation}'; try two runs with the same --data and --size"
            )
        raise RobustsegError(
            f"expected '{a.perturbation}' on {a.data} in both runs, got it in the first only; "
            "try the second run with the same --perturbation"
        )
    raise RobustsegError(
        f"expected '{a.network}' in both runs, got {', '.join(sorted({b.network for b in near}))} in the second; "
        "try runs with one network each, or with the same networks"
    )


def _key(record: Record) -> tuple[object, ...]:
    return record.data, record.perturbation, record.size, _source(record)


def _source(record: Record) -> str:
    return "itself" if record.source in (record.network, "") else record.source


def _where(record: Record) -> str:
    return record.data + (f" at {record.size[0]}x{record.size[1]}" if record.size else "")


def _in_order(b: Record, a: Record) -> Counts:
    """The counts of b in the order of a's images."""
    missing, more = set(a.ids) - set(b.ids), set(b.ids) - set(a.ids)
    if missing or more or len(a.ids) != len(b.ids):
        example = sorted(missing or more or a.ids)[0]
        raise RobustsegError(
            f"expected the same images in both runs, got {len(a.ids)} and {len(b.ids)} under '{a.perturbation}', "
            f"{len(missing)} only in the first and {len(more)} only in the second (such as '{example}'); "
            "try the same --data and --images"
        )
    place = {image_id: i for i, image_id in enumerate(b.ids)}
    order = np.array([place[image_id] for image_id in a.ids], np.int64)
    rows = {name: getattr(b.counts, name)[order] for name in ("tp", "fp", "fn")}
    return replace(b.counts, ids=a.ids, **rows)
