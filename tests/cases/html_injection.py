"""Class names, image names, specs and paths that hold HTML (from a file that somebody sent) end in report.html and
timeline.html. Right: nothing of them stands raw in the pages, in text, in attributes or in the data for the scripts.
Kind of report: hostile names in files, as for names in danny-avila/LibreChat#8792."""

import json
from pathlib import Path

import kit

EVIL = "<img src=x onerror=alert(7)></script></style></title><script>alert(7)</script>'\"&lt;"
RAW = ("<img src=x onerror", "<script>alert(7)", "</script></style></title>")


def check() -> str | None:
    import numpy as np

    kit.pairs()
    for change in (None, "gaussian(rms='60/255')", "pgd(budget='linf:8/255', steps=2)"):
        kit.evaluate(kit.tiny(), kit.folder(), change, folder="run")
    path = Path("run/records.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        names = line["label_space"]["names"]
        line["label_space"]["names"] = [f"{EVIL}{i}" for i in range(len(names))]
        line["counts"]["ids"] = [f"{EVIL}{i}" for i in line["counts"]["ids"]]
        for key in ("network", "source", "data", "device", "precision", "started", "commit"):
            if isinstance(line.get(key), str):
                line[key] += EVIL
        for key, value in (("files", EVIL), ("versions", EVIL)):
            if isinstance(line.get(key), dict):
                line[key] = {EVIL: value}
        line["flags"][EVIL] = True
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    wrong = []
    ran = kit.inside("report", "run", "--out", "page.html")
    if ran.code == 0:
        wrong += [f"report.html holds {raw!r}" for raw in RAW if raw in Path("page.html").read_text()]
    elif not ran.refused:
        wrong.append(ran.told())
    noise = np.random.default_rng(0).integers(0, 255, (64, 96, 3)).astype(np.uint8)
    place = EVIL.replace("/", "-")
    for i in range(4):
        kit.save(f"{place}/{i:03d}.png", np.roll(noise, i, 1))
    ran = kit.inside(
        "monitor",
        "--triplet",
        "zoo:triplet-streets",
        "--no-video",
        "--quiet",
        "2",
        "--out",
        "watched",
        "--input",
        place,
    )
    if ran.code:
        return "; ".join([*wrong, f"monitor of a folder of that name: {ran.told()}"])
    for name in ("frames.jsonl", "events.jsonl", "stream.json"):
        file = Path("watched") / name
        if file.is_file():
            told = (
                [json.loads(line) for line in file.read_text().splitlines()]
                if name != "stream.json"
                else [json.loads(file.read_text())]
            )
            for line in told:
                for key, value in line.items():
                    if isinstance(value, str) and key != "kind":
                        line[key] = value + EVIL
                if name == "events.jsonl":
                    line |= {
                        "kind": EVIL,
                        "member": EVIL,
                        "reason": EVIL,
                        "frame": EVIL if line["kind"] == "end" else line["frame"],
                    }
            file.write_text("".join(json.dumps(line) + "\n" for line in told))
    try:
        from robustseg.report.timeline import write_timeline
    except ImportError as error:
        raise kit.Open(str(error)) from error
    page = kit.attempt(lambda: write_timeline("watched"))
    if page.error is None:
        wrong += [f"timeline.html holds {raw!r}" for raw in RAW if raw in Path("watched/timeline.html").read_text()]
    elif not page.refused:
        wrong.append(f"timeline: {page.told()}")
    return "; ".join(wrong) or None


if __name__ == "__main__":
    kit.run(check, "pages without a raw payload")
