"""Put three trained members into a zoo as one triplet, in half precision, with thresholds fitted on clean images, and a card.

python zoo/publish_triplet.py TEACHER STUDENT ADAPTIVE src/robustseg/zoo/triplet-streets.safetensors --terms streets \\
    --data "streets(seed=5, scenes=399, frames=1, size='96x192', split='val')"

The members are rounded first, so the thresholds are of what is published. `--data`: images that no member was trained or
chosen on; labels are not looked at.
"""

import argparse
import tempfile
from pathlib import Path

from publish import TERMS

from robustseg import api
from robustseg.core.provenance import sha256
from robustseg.evaluation.run import Conditions, evaluate
from robustseg.monitor.triplet import Triplet
from robustseg.networks import weights
from robustseg.results import metrics

MEMBERS = ("teacher", "student", "adaptive")


def main() -> None:
    """Round, fit, write, describe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in MEMBERS:
        parser.add_argument(name, help="spec")
    parser.add_argument("out", type=Path)
    parser.add_argument("--terms", choices=TERMS, required=True)
    parser.add_argument("--data", required=True, help="spec of clean images for the thresholds")
    parser.add_argument("--holdout", required=True, help="spec of labelled images, for the card")
    parser.add_argument("--rate", type=float, default=0.01, help="of false alarms, at most")
    options = parser.parse_args()
    members = [_rounded(getattr(options, name)) for name in MEMBERS]
    triplet = Triplet(*members).fit(api.data(options.data), rate=options.rate)
    weights.save(triplet, options.out, half=True, terms=options.terms)
    write_card(options)


def write_card(options: argparse.Namespace) -> None:
    """Measure what was published, and describe it."""
    triplet = api.network(f"weights('{options.out}')")
    assert isinstance(triplet, Triplet)
    for name in MEMBERS:
        getattr(triplet, name).spec = getattr(options, name)
    networks = [*(getattr(triplet, name) for name in MEMBERS), triplet]
    records = evaluate(networks, api.data(options.holdout), conditions=Conditions(batch_size=4))
    miou = (f"{n} {100 * metrics.miou(r.counts):.1f} %" for n, r in zip((*MEMBERS, "corrected"), records, strict=True))
    notes = weights.notes_of(Path(options.adaptive)) if Path(options.adaptive).is_file() else {}
    recipe = "\n".join(f"| {name} | `{value}` |" for name, value in notes.get("recipe", {}).items())
    rows = "\n".join(f"- {n}: `{getattr(options, n)}`, `{getattr(triplet, n).architecture}`" for n in MEMBERS)
    options.out.with_suffix(".md").write_text(
        f"# {options.out.stem}\n\n{TERMS[options.terms]}\n\n{rows}\n"
        f"- Thresholds {triplet.threshold} for {triplet.rate:.0%} false alarms on {triplet.condition}\n"
        f"- Clean mIoU on `{options.holdout}`: {', '.join(miou)}\n"
        "- It notices attacks on one member. Whoever attacks all three breaks it. Do not steer anything with it.\n"
        f"- File: {options.out.stat().st_size / 1e6:.1f} MB, half precision, SHA-256 `{sha256(options.out)}`\n\n"
        "## Recipe of the adaptive network (`robustseg train-adaptive`)\n\n"
        f"{notes.get('updates', '?')} updates on `{notes.get('data', '?')}`\n\n| | |\n|---|---|\n{recipe}\n"
    )


def _rounded(spec: str):  # type: ignore[no-untyped-def]
    network = api.network(spec if "(" in spec or spec.startswith("zoo:") else f"weights({spec!r})")
    with tempfile.TemporaryDirectory() as place:
        weights.save(network, Path(place, "member.safetensors"), half=True)
        return weights.load(Path(place, "member.safetensors"))


if __name__ == "__main__":
    main()
