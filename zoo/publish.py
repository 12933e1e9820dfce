"""Put trained weights into a zoo, with a model card: half precision, or as they are where others were trained on them.

python zoo/publish.py runs/erfnet-camvid/best.safetensors zoo/camvid/erfnet-camvid.safetensors --terms camvid
"""

import argparse
from pathlib import Path
from typing import Any

from robustseg.core.provenance import sha256
from robustseg.networks import weights

TERMS = {
    "streets": "Trained on `streets`, rendered by this package. Apache-2.0, as the package.",
    "camvid": (
        "Trained on CamVid (Brostow et al. 2009), whose authors give it for **research and other non-commercial use only**; "
        "so these weights are for non-commercial use only. They are not part of the installed package."
    ),
}


def main() -> None:
    """Read, write, describe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--terms", choices=TERMS, required=True)
    parser.add_argument("--exact", action="store_true", help="keep single precision: the same numbers bit for bit")
    options = parser.parse_args()
    network, notes = weights.load(options.weights), weights.notes_of(options.weights)
    weights.save(network, options.out, half=not options.exact, **{**notes, "terms": options.terms})
    recipe = "\n".join(f"| {name} | `{value}` |" for name, value in notes["recipe"].items())
    size = options.out.stat().st_size / 1e6
    options.out.with_suffix(".md").write_text(
        f"# {options.out.stem}\n\n{TERMS[options.terms]}\n\n"
        f"- Architecture: `{network.architecture}`, {sum(p.numel() for p in network.parameters()):,} parameters\n"
        f"- Classes: {', '.join(network.label_space.names)}; input: RGB in [0, 1], any size\n"
        f"- Trained on `{notes['data']}`; chosen on `{notes['holdout']}`, epoch {notes['epoch']}, "
        f"held-out mIoU {100 * notes['holdout_miou']:.1f} %\n"
        f"- {_standing(notes)} Do not steer anything with it.\n"
        f"- File: {size:.1f} MB, {'single' if options.exact else 'half'} precision, SHA-256 `{sha256(options.out)}`\n\n"
        f"## Recipe (`robustseg train`)\n\n| | |\n|---|---|\n{recipe}\n"
    )


def _standing(notes: dict[str, Any]) -> str:
    adversary = notes["recipe"].get("adversary")
    if not adversary:
        return "Undefended: it was made to be broken."
    robust, single = (100 * notes[f"holdout_{name}_miou"] for name in ("robust", "single_step"))
    attack = notes.get("holdout_attack", "PGD with 10 steps in the same budget")
    return (
        f"Trained under `{adversary['attack']}`, {100 * adversary['share']:.0f} % of the images; chosen by held-out mIoU under {attack}: "
        f"{robust:.1f} % (after one step {single:.1f} %); stronger attacks leave less. No certificate."
    )


if __name__ == "__main__":
    main()
