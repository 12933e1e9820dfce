"""What the checks share: a folder of their own, tiny networks whose answer is known by hand, pictures, and the verdict.

A check is a function that gives None when the product does the right thing, or a text of what it got instead. It runs in a
temporary folder with whatever `robustseg` the interpreter has. The last line printed is `right: …` (exit 0),
`wrong: got …, right is …` (exit 1) or `open: …` (exit 77: the check could not be made here, or a name that it needs is gone).
"""

import contextlib
import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.pop("COLUMNS", None)

NETS = '''
import torch
from torch import nn

def build(k=3, channels=3):
    """The class of a pixel is the brightest of its channels: red 0, green 1, blue 2."""
    c = nn.Conv2d(channels, k, 1, bias=False)
    with torch.no_grad():
        c.weight.zero_()
        for i in range(min(k, channels)):
            c.weight[i, i] = 10.0
    return c

def build2():
    return build(2)
'''
"""The module `nets` that every check can name: `module('nets:build', classes=3)`."""


class Open(Exception):
    """The check cannot be made here."""


def run(check: Callable[[], str | None], right: str, seconds: int = 90) -> None:
    """Run one check and leave with its verdict."""
    warnings.simplefilter("ignore")
    home = Path.cwd()
    if importlib.util.find_spec("robustseg") is None:
        print(f"open: {sys.executable} has no robustseg", flush=True)
        sys.exit(77)
    with tempfile.TemporaryDirectory(prefix="case-") as folder:
        os.chdir(folder)
        sys.path.insert(0, folder)
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        os.environ["PYTHONPATH"] = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH", "")])])
        Path("nets.py").write_text(NETS)
        signal.signal(signal.SIGALRM, _late)
        signal.alarm(seconds)
        try:
            got = check()
            code, line = (0, f"right: {right}") if got is None else (1, f"wrong: got {_short(got)}, right is {right}")
        except Open as error:
            code, line = 77, f"open: {_short(str(error))}"
        except Exception as error:  # the check's own means failed: no verdict on the product
            traceback.print_exc()
            code, line = 77, f"open: the check itself failed with {type(error).__name__}: {_short(str(error))}"
        finally:
            signal.alarm(0)
            os.chdir(home)
    sys.stderr.flush()
    print(line, flush=True)
    os._exit(code)


def _late(*_: Any) -> None:
    raise Open("no end within the time of a check")


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) < 400 else text[:280] + " … " + text[-100:]


class Ran(NamedTuple):
    """One call of the command line: exit code, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + "\n" + self.err

    @property
    def refused(self) -> bool:
        """It ended with an error that a user can read, and no traceback."""
        return self.code not in (0, 70) and self.code > 0 and "Traceback" not in self.text

    def told(self) -> str:
        """Exit code and the last line, for a verdict."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        return f"exit {self.code}, '{lines[-1] if lines else ''}'"


def command() -> list[str]:
    """The command line of the robustseg that this interpreter has."""
    for name in ("robustseg.__main__", "robustseg.cli.__main__"):
        if importlib.util.find_spec(name):
            return [sys.executable, "-m", name.removesuffix(".__main__")]
    raise Open("no command line of robustseg: neither robustseg.__main__ nor robustseg.cli.__main__")


def cli(*words: str, seconds: float = 80, cpu: bool = True, **environment: str) -> Ran:
    """Run the command line in a process of its own."""
    words = with_device(words) if cpu else words
    try:
        done = subprocess.run(
            [*command(), *words],
            capture_output=True,
            timeout=seconds,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        return Ran(-1, _text(error.stdout), _text(error.stderr) + f"\nno end after {seconds:.0f} s")
    return Ran(done.returncode, _text(done.stdout), _text(done.stderr))


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode(errors="replace")


def with_device(words: tuple[str, ...]) -> tuple[str, ...]:
    """On the CPU, whatever the machine has."""
    takes = words[0] in ("evaluate", "train", "monitor", "audit")
    return (*words, "--device", "cpu") if takes and "--device" not in words else words


def inside(*words: str) -> Ran:
    """Run the command line in this process: quicker where a check calls it often."""
    import robustseg.cli as module

    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["robustseg", *with_device(words)]
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            module.main()
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
    except Exception:
        code = 70
        err.write(traceback.format_exc())
    finally:
        sys.argv = before
    return Ran(code, out.getvalue(), err.getvalue())


class Tried(NamedTuple):
    """What a call gave, or the error."""

    value: Any
    error: BaseException | None

    @property
    def refused(self) -> bool:
        """The package itself said no, in words of its own."""
        return self.error is not None and any(c.__module__.startswith("robustseg") for c in type(self.error).__mro__)

    def told(self) -> str:
        return repr(self.value) if self.error is None else f"{type(self.error).__name__}: {self.error}"


def attempt(call: Callable[[], Any]) -> Tried:
    """The value of a call, or its error."""
    try:
        return Tried(call(), None)
    except Open:
        raise
    except (Exception, RecursionError) as error:
        return Tried(None, error)


def colour(labels: Any, noise: int = 12) -> Any:
    """A picture that `nets:build` labels exactly so; a little noise, so that it is no poster of two colours."""
    import numpy as np

    labels = np.asarray(labels)
    picture = np.full((*labels.shape, 3), 60, np.int64)
    for channel in range(3):
        picture[labels == channel, channel] = 190
    picture += np.random.default_rng(0).integers(-noise, noise + 1, picture.shape)
    return picture.clip(0, 255).astype(np.uint8)


def halves(height: int = 48, width: int = 64) -> Any:
    """Labels: 0 left, 1 right."""
    import numpy as np

    labels = np.zeros((height, width), np.uint8)
    labels[:, width // 2 :] = 1
    return labels


def save(path: str | Path, array: Any, **options: Any) -> Path:
    """An array as an image file; missing folders are made."""
    from PIL import Image

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def pairs(names: Any = "ab", labels: Any = None, root: str = ".") -> None:
    """`images/NAME.png` that the tiny network labels right, and `labels/NAME.png`."""
    labels = halves() if labels is None else labels
    for name in names:
        save(Path(root) / f"images/{name}.png", colour(labels))
        save(Path(root) / f"labels/{name}.png", labels)


def folder(root: str = "", classes: Any = 3, more: str = "") -> str:
    """The data spec of `images` and `labels`."""
    root = f"{root}/" if root else ""
    return f"folder(images='{root}images', labels='{root}labels', classes={classes!r}{more})"


def tiny(name: str = "nets:build", classes: Any = 3, more: str = "") -> str:
    """The network spec of a module."""
    return f"module('{name}', classes={classes!r}{more})"


def miou(record: Any) -> float:
    """Of a record."""
    from robustseg.results import metrics

    return float(metrics.miou(record.counts))


def raised(record: Any) -> set[str]:
    """The flags that a record raises."""
    return {name for name, value in dict(record.flags).items() if value}


def evaluate(network: str, data: str, perturbation: str | None = None, **more: Any) -> Any:
    """One record, through the Python interface."""
    import robustseg as rs

    change = None if perturbation is None else rs.perturbation(perturbation)
    return rs.evaluate(rs.network(network), rs.data(data), change, **more)


def summary(place: str | Path) -> list[dict[str, Any]]:
    """The rows of `summary.json`."""
    return json.loads((Path(place) / "summary.json").read_text())


def film(
    path: str | Path, frames: Any, codec: str = "libx264", rate: int = 10, pixels: str = "yuv420p", **options: Any
) -> None:
    """Frames, uint8 `[h, w, 3]`, as a video file."""
    try:
        import av
    except ImportError as error:
        raise Open("PyAV is not installed") from error
    try:
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=rate, options=options.pop("options", {}))
            stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], pixels
            for name, value in options.items():
                setattr(stream, name, value)
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    except (av.FFmpegError, ValueError) as error:
        raise Open(f"this PyAV cannot write {path}: {error}") from error


def level(image: Any) -> int:
    """The mean of an image in [0, 1], 0 to 255."""
    return round(float(image.mean()) * 255)
