"""Kill runs at random system calls, repeat the command, and compare with a run that nobody killed: `make torture`.

Each of seven verbs runs once under strace, which lists its calls on the result folder (open, write, sync, rename, …). Then
it runs again and is killed (SIGKILL) on entry to one of these calls, drawn at random, up to three times in a row; the same
same command is repeated without a kill, must exit with 0, and must leave the same files. Times are left out of the
comparison, and the film of a stream, of which each run writes a part. Linux with strace only.

    python tests/torture.py [KILLS] [SEED]
"""

import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

CALLS = "open,openat,creat,write,pwrite64,writev,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,ftruncate,truncate,flock"
STREETS = "streets(seed=1, scenes=3, frames=2, size='48x96', split='test')"
TRAINED_ON = "streets(seed=2, scenes=3, frames=2, size='48x96', split='train')"
NETWORK = "zoo:erfnet-streets"
TIMES = {"started", "seconds", "time", "latency", "bare", "digest", "commit"}
"""Fields that differ between two runs of the same work; a line's digest covers them."""

TOLD = re.compile(r"[\d.]+ ms|<dt>(?:frames a second|bare forwards over everything)</dt><dd>[^<]*")
"""The same times on the page of a stream."""

STUDY = f'''"""A study that trains one network and measures it beside another."""

from robustseg.core.registry import study
from robustseg.studies.page import Table, percent
from robustseg.studies.study import Basis, Images, Row, Study, claim
from robustseg.studies.trainings import Training
from robustseg.studies.verdicts import exact

ATTACK = "fgsm(budget='linf:8/255')"
RECIPE = dict(epochs=2, check_every=1, batch_size=2, crop=(48, 96), ema=0.5)


@claim("U1", "both networks are measured")
def u1(f):
    return Basis([exact("measured", sum(f.record(who) is not None for who in ("old", "new")), 2)])


def tables(f):
    return [Table("mIoU in %", ("network", "clean"), [(who, percent(f.miou(who))) for who in ("old", "new")])]


@study("interrupted")
def interrupted(tier="synthetic", data="data"):
    """Interrupted: is a study the same when it is cut?"""
    networks = {{"old": "{NETWORK}", "new": Training("erfnet(classes='streets')", "{TRAINED_ON}", RECIPE)}}
    seen = {{name: Images("{STREETS}", counts=(2,), block=1) for name in ("report", "choose")}}
    rows = [Row(who, who, "report", change) for who in networks for change in ("clean", ATTACK)]
    return Study(title="Interrupted", source="made up", tier=tier, protocol="two images", networks=networks,
        images=seen, rows=rows, claims=(u1,), tables=tables)
'''


class Verb(NamedTuple):
    """A command to kill, with {out} for its result folder, and what is laid there before."""

    command: str
    prepared: Callable[[Path], object] = lambda out: None

    def arguments(self, out: Path) -> list[str]:
        return [part.format(out=out) for part in shlex.split(self.command)]


def verbs(shelf: Path) -> dict[str, Verb]:
    """The seven verbs, as small as they can be."""
    fgsm = "fgsm(budget='linf:8/255')"
    train = "--crop 48x96 --batch-size 2 --check-every 1 --device cpu --out {out}"
    return {
        "evaluate": Verb(
            f"""evaluate --network {NETWORK} --data "{STREETS}" --perturbation "{fgsm}" --perturbation "gaussian(rms='8/255')"
            --batch-size 1 --save-images {{out}}/saved --device cpu --out {{out}}"""
        ),
        "train": Verb(
            f"""train --network "erfnet(classes='streets')" --data "{TRAINED_ON}" --holdout "{STREETS}" --epochs 3 {train}"""
        ),
        "train-adaptive": Verb(
            f"""train-adaptive --teacher zoo:erfnet-streets-at --student {NETWORK} --data "{TRAINED_ON}"
            --holdout "{STREETS}" --updates 4 {train}"""
        ),
        "monitor": Verb(
            f"""monitor --triplet zoo:triplet-streets --input "{STREETS.replace("frames=2", "frames=6")}" --quiet 8
            --attack "{fgsm}" --from 12 --to 15 --no-video --device cpu --out {{out}}"""
        ),
        "reproduce": Verb("reproduce interrupted --device cpu --out {out}"),
        "inpaint": Verb(
            f"""inpaint --network {NETWORK} --image {shelf}/street.png --mask 10,10,30,40 --steps 4 --device cpu --out {{out}}"""
        ),
        "report": Verb(
            "report {out} --out {out}/report.html",
            lambda out: shutil.copytree(shelf / "records", out, dirs_exist_ok=True),
        ),
    }


def run(arguments: list[str], *, strace: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "robustseg.cli", *arguments]
    traced = ["strace", "-f", "-qq", "-y", *strace] if strace else []
    return subprocess.run([*traced, *command], capture_output=True, text=True, check=False)


def calls(log: Path, out: Path) -> list[tuple[str, int]]:
    """The calls of the first thread on a folder, each as (name, how many of that name came before it, plus 1)."""
    found, seen, first = [], Counter[str](), None
    for line in log.read_text(errors="replace").splitlines():
        match = re.match(r"(\d+) +(\w+)\(", line)
        first = first or (match and match[1])
        if match and match[1] == first:
            seen[match[2]] += 1
            if str(out) in line:
                found.append((match[2], seen[match[2]]))
    return found


def state(folder: Path) -> dict[str, Any]:
    """What a folder holds, without times: file -> its content."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".ckpt")
    return {str(p.relative_to(folder)): _content(p) for p in files}


def _content(path: Path) -> Any:
    if path.suffix in (".json", ".jsonl"):
        try:
            return [_timeless(json.loads(line)) for line in path.read_text().splitlines()]
        except ValueError:
            return _timeless(json.loads(path.read_text()))
    if path.suffix == ".html":
        return TOLD.sub("", path.read_text())
    return path.read_bytes()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(v) for name, v in value.items() if name not in TIMES}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def differences(whole: dict[str, Any], cut: dict[str, Any]) -> list[str]:
    """The files that are not the same."""
    return [name for name in sorted(whole.keys() | cut.keys()) if whole.get(name) != cut.get(name)]


def torture(name: str, verb: Verb, kills: int, place: Path, rng: random.Random) -> tuple[int, list[str]]:
    """Kill one verb so many times; the number of kills, and what went wrong."""
    out = place / name / "out"  # one path for all runs: records name it
    log = place / name / "calls.log"

    def begin() -> None:
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(exist_ok=True)
        verb.prepared(out)

    begin()
    done = run(verb.arguments(out), strace=["-e", f"trace={CALLS}", "-o", str(log)])
    if done.returncode:
        return 0, [f"the uninterrupted run failed: {done.stderr[-400:]}"]
    whole, places = state(out), calls(log, out)
    killed, wrong = 0, list[str]()
    for _ in range(3 * kills):
        if killed >= kills:
            break
        begin()
        story = []
        for _ in range(rng.randint(1, 3)):
            call, nth = rng.choice(places)
            injected = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={nth}", "-o", os.devnull]
            cut = run(verb.arguments(out), strace=injected)
            if cut.returncode not in (-9, 137):
                break  # a repeated run that has less to do need not come to this call
            killed += 1
            story.append(f"{call} {nth}")
        last = run(verb.arguments(out))
        if last.returncode:
            wrong.append(f"killed at {', '.join(story)}: exit {last.returncode}: {last.stderr.strip()[-300:]}")
        elif apart := differences(whole, state(out)):
            wrong.append(f"killed at {', '.join(story)}: other {', '.join(apart)}")
    return killed, wrong


def main(kills: int = 100, seed: int | None = None, only: str = "") -> int:
    """Run all verbs, print a table, and return the exit code."""
    seed = random.randrange(10**6) if seed is None else seed
    rng, total, failures = random.Random(seed), 0, 0
    print(f"{kills} kills, seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        place = Path(name)
        package = place / "interrupted-1.0.dist-info"
        package.mkdir()
        (package / "METADATA").write_text("Metadata-Version: 2.1\nName: interrupted\nVersion: 1.0\n")
        (package / "entry_points.txt").write_text("[robustseg]\npapers = interrupted_study\n")
        (place / "interrupted_study.py").write_text(STUDY)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(place), os.environ.get("PYTHONPATH")]))
        known = verbs(place)
        _prepare(place)
        chosen = {only: known[only]} if only else known
        for index, (verb, what) in enumerate(chosen.items()):
            share = kills * (index + 1) // len(chosen) - kills * index // len(chosen)
            started = time.perf_counter()
            killed, wrong = torture(verb, what, share, place, rng)
            total, failures = total + killed, failures + len(wrong)
            print(f"{verb:16} {killed:4} kills {len(wrong):4} wrong {time.perf_counter() - started:6.0f} s", flush=True)
            print("".join(f"    {line}\n" for line in wrong), end="", flush=True)
    print(f"{total} kills, {failures} wrong")
    return int(failures > 0)


def _prepare(place: Path) -> None:
    """A folder of records to report on, and a photograph to paint in."""
    from PIL import Image

    from robustseg.api import data
    from robustseg.core.levels import to_8bit

    Image.fromarray(to_8bit(data(STREETS)[0].image).permute(1, 2, 0).numpy()).save(place / "street.png")
    fgsm = ["--perturbation", "fgsm(budget='linf:8/255')", "--device", "cpu"]
    done = run(["evaluate", "--network", NETWORK, "--data", STREETS, *fgsm, "--out", str(place / "records")])
    if done.returncode:
        raise SystemExit(done.stderr)


if __name__ == "__main__":
    if not shutil.which("strace"):
        raise SystemExit("expected strace on this machine; try: apt-get install strace")
    numbers = [int(text) for text in sys.argv[1:3]]
    sys.exit(main(*numbers, **({"only": sys.argv[3]} if len(sys.argv) > 3 else {})))
