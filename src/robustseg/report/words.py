"""Names and sentences of a report: perturbation families, short names of networks, tier and protocol, the headline."""

import ast
import math
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

from robustseg.core import registry
from robustseg.core.errors import SpecError
from robustseg.results import metrics
from robustseg.results.findings import Finding, about, suspicious
from robustseg.results.record import STRENGTHS, Record
from robustseg.results.summary import clean_of, mean_score, raised, unpredicted

ACRONYMS = {"apgd", "bim", "cospgd", "fgsm", "ifgsm", "ll", "llcm", "mifgsm", "pgd", "sea", "segpgd"}
NORMS = {"linf": "L∞", "l2": "L2"}
DASH = "\u2013"
"""What stands for an absent figure."""

TIERS = {"streets": "synthetic", "cityscapes": "full", "kitti": "full", "voc": "full"}
"""Of data sets, by name. CamVid's layout holds other data too, so CamVid is known by its sequences."""

CAMVID_SEQUENCES = {"0001TP", "0006R0", "0016E5", "Seq05VD"}
CAMVID_TEST_FRAMES = {"0001TP": 62, "Seq05VD": 171}
PROTOCOL_CPU = resources.files("robustseg") / "datasets" / "camvid_cpu.txt"


class Family(NamedTuple):
    """One perturbation at any strength.

    Args:
        name: as in the spec. norm: of its budget, or empty. rest: other arguments, as written.
        source: the network it was made against where that is not the measured one, or empty.
        kind: `noise`, `attack`, or `corruption` (of other packages).
    """

    name: str
    norm: str
    rest: str
    source: str
    kind: str


def family(record: Record) -> Family:
    """The family of a record's perturbation."""
    rest = [f"{name}={value}" for name, value in record.arguments.items() if name not in STRENGTHS]
    source = record.source if record.kind == "attack" and record.source not in ("", record.network) else ""
    norm = record.budget.norm if record.budget else ""
    return Family(record.perturbation_name, norm, ", ".join(rest), source, record.kind)


def family_names(records: Sequence[Record]) -> dict[Family, str]:
    """A name for each family of perturbations: as short as tells them apart. Noise and attacks in order of appearance."""
    found = list(dict.fromkeys(family(r) for r in records if not r.clean))
    networks = network_names(records)
    names: dict[Family, str] = {}
    for one in sorted(found, key=lambda f: f.kind):
        alike = [other for other in found if other.name == one.name]
        text = pretty(one.name)
        if len({other.norm for other in alike}) > 1:
            text += f" {NORMS.get(one.norm, one.norm)}"
        if one.rest and len({other.rest for other in alike if other.norm == one.norm}) > 1:
            text += f" ({one.rest})"
        names[one] = text + (f" of {networks[one.source]}" if one.source else "")
    return names


def pretty(name: str) -> str:
    """`iterative_fgsm` as `iterative FGSM`."""
    return " ".join(word.upper() if word in ACRONYMS else word for word in name.split("_"))


def network_names(records: Sequence[Record]) -> dict[str, str]:
    """A short name for each network of records, see `short_names`."""
    return short_names([s for r in records for s in (r.network, r.source) if s])


def short_names(specs: Sequence[str]) -> dict[str, str]:
    """A short name for each network spec: `zoo:erfnet-camvid` as `erfnet-camvid`, the best weights of a training by its folder;
    numbered where two would be equal."""
    names: dict[str, str] = {}
    for spec in dict.fromkeys(specs):
        short = _short(spec)
        names[spec] = short if short not in names.values() else f"{short} #{len(names) + 1}"
    return names


def _short(spec: str) -> str:
    try:
        call = registry.parse(spec)
    except SpecError:
        return spec[:40]
    name = ast.unparse(call.func)
    first = next((a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)), "")
    stem = first.rstrip("/").removesuffix("/best.safetensors").rpartition("/")[2].removesuffix(".safetensors")
    return stem or name


def tier(record: Record) -> str:
    """`synthetic`, `camvid` or `full` for the data sets of the studies, otherwise `own data`.

    Frames are CamVid's if their ids name its sequences, and synthetic if theirs name those of streets, whatever reads
    them.
    """
    names = set(metrics.sequences(record.ids))
    if names and names <= CAMVID_SEQUENCES:
        return "camvid"
    if names and all(name.startswith("streets-") for name in names):
        return "synthetic"
    return TIERS.get(record.data.partition("(")[0].partition(":")[0], "own data")


def protocol(record: Record) -> str:
    """The named protocol of CamVid that a record follows, or how many images of which size it has.

    `cpu`: the 40 test frames that `camvid_cpu.txt` lists, at 240 x 180. `gpu`: all test frames at 480 x 360.
    """
    if record.size == (180, 240) and set(record.ids) == set(PROTOCOL_CPU.read_text(encoding="utf-8").split()):
        return "cpu"
    frames = {name: len(images) for name, images in metrics.sequences(record.ids).items()}
    if record.size in (None, (360, 480)) and frames == CAMVID_TEST_FRAMES:
        return "gpu"
    images = f"{len(record.ids)} image" + "s" * (len(record.ids) != 1)
    return f"{images} at {record.size[1]} x {record.size[0]}" if record.size else f"{images} at their own size"


def percent(share: float, digits: int = 1) -> str:
    """A share in [0, 1] as a percentage without the sign, a dash where it is absent."""
    return f"{100 * share:.{digits}f}" if math.isfinite(share) else DASH


def headline(records: Sequence[Record], findings: Sequence[Finding] = ()) -> list[str]:
    """What breaks what and how far, and what makes that doubtful: one sentence a network, the most broken first."""
    networks = network_names(records)
    sentences = []
    for spec in dict.fromkeys(r.network for r in records):
        own = [r for r in records if r.network == spec]
        sentences.append(_sentence(networks[spec], own, records, findings))
    return [*without_predictions(records), *(text for _, text in sorted(sentences, key=lambda pair: pair[0]))]


def without_predictions(records: Sequence[Record]) -> list[str]:
    """One sentence for each record whose network gave NaN or infinity."""
    networks = network_names(records)
    return [
        f"{networks[r.network]} gave NaN or infinity on {percent(unpredicted(r), 0)} % of the images ({r.perturbation}): "
        "such pixels have no prediction and count as wrong, and no figure is relative to this run."
        for r in records
        if unpredicted(r)
    ]


def _sentence(
    network: str, own: Sequence[Record], records: Sequence[Record], findings: Sequence[Finding]
) -> tuple[float, str]:
    measured = [(metrics.q(r.counts, c.counts), r) for r in own if not r.clean and (c := clean_of(r, records))]
    measured = [(q, r) for q, r in measured if math.isfinite(q)]
    if not measured:
        values = [metrics.miou(r.counts) for r in own]
        found = "clean images" if own[0].clean else "perturbed images, without a clean run to compare with"
        return math.inf, f"{network} reaches {percent(values[0])} % mIoU on {len(own[0].ids)} {found}."
    lowest, worst = min(measured, key=lambda pair: pair[0])
    clean = clean_of(worst, records)
    before = metrics.miou(clean.counts) if clean else math.nan
    after = metrics.miou(worst.counts)
    text = (
        f"{_called(worst, records)} leaves {network} {percent(lowest, 0)} % of its clean mIoU "
        f"({percent(before)} to {percent(after)} %)"
    )
    names = [*raised(worst), *(finding.check for finding in suspicious(about(worst, findings)))]
    doubts = ", ".join(name.replace("_", " ") for name in dict.fromkeys(names))
    doubt = f" (flagged: {doubts})" if doubts else ""
    return lowest, f"{text}{doubt}{_beside_noise(worst, measured, records)}."


def _called(record: Record, records: Sequence[Record]) -> str:
    size = record.strength
    name = family_names(records)[family(record)]
    return f"{name[:1].upper()}{name[1:]}" + (f" at {size}" if size else "")


def _beside_noise(worst: Record, measured: list[tuple[float, Record]], records: Sequence[Record]) -> str:
    """Half a sentence on what noise of the same realised strength does, where an attack is the worst."""
    size = mean_score(worst, "rms")
    noise = [(q, r) for q, r in measured if r.kind == "noise" and mean_score(r, "rms") > 0]
    if worst.kind != "attack" or not noise or not size > 0:
        return ""
    near = [pair for pair in noise if abs(math.log2(mean_score(pair[1], "rms") / size)) <= 0.5]
    if near:
        q, record = min(near, key=lambda pair: pair[0])
        return f"; noise of the same size ({pretty(family(record).name)}) leaves {percent(q, 0)} %"
    q, record = min(noise, key=lambda pair: pair[0])
    rms = 255 * mean_score(record, "rms")
    return f"; the worst noise ({pretty(family(record).name)} of RMS {rms:.3g}/255) leaves {percent(q, 0)} %"
