"""A second training is started by mistake in the folder of one that runs (another seed). Right: one of the two is refused in
a sentence; never two that end well and leave one history of two runs. Kind of report: mosaicml/composer#56, flairNLP/flair#1824."""

import json
import subprocess
import sys
from pathlib import Path

import kit

TRAIN = """
import sys, time
from pathlib import Path
import torch, robustseg as rs
from robustseg.training import Recipe, train
seed, waits = int(sys.argv[1]), sys.argv[2] == 'waits'
data = rs.data("folder(images='images', labels='labels', classes=3)")
torch.manual_seed(seed)
network = rs.network("module('nets:build', classes=3)")
def step(s):
    if waits:
        Path('here').touch()
        end = time.monotonic() + 60
        while not Path('go').exists() and time.monotonic() < end:
            time.sleep(0.1)
try:
    train(network, data, holdout=data, folder='run', recipe=Recipe(epochs=2, batch_size=2, crop=(32, 32), scale=(1, 1), check_every=1, seed=seed), on_step=step)
except Exception as error:
    named = any(c.__module__.startswith('robustseg') for c in type(error).__mro__) or isinstance(error, OSError)
    print('refused' if named else 'failed', type(error).__name__, str(error)[:150]); sys.exit(0)
print('finished')
"""


def check() -> str | None:
    import time

    kit.pairs("abcd", kit.halves(32, 32))  # two steps an epoch, so that the first waits before anything is kept
    Path("go.py").write_text(TRAIN)
    first = subprocess.Popen([sys.executable, "go.py", "0", "waits"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not Path("here").exists() and first.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    if not Path("here").exists():
        first.kill()
        raise kit.Open("the first training did not come to its first step")
    second = subprocess.run(
        [sys.executable, "go.py", "1", "goes"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60
    )
    Path("go").touch()
    told = [first.communicate(timeout=60)[0].decode().strip(), second.stdout.decode().strip()]
    if any(one.startswith("failed") for one in told) or "" in told:
        return f"first: {told[0] or 'died'}; second: {told[1] or 'died'}"
    if any(one.startswith("refused") for one in told):
        return None
    epochs = [json.loads(line)["epoch"] for line in Path("run/history.jsonl").read_text().splitlines()]
    return f"both finished in one folder; epochs of history.jsonl: {epochs}"


if __name__ == "__main__":
    kit.run(check, "one of them refused in a sentence")
