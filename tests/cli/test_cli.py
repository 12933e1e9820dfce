"""Every command in process: what it writes, and one sentence with exit code 2 for what a user can mend."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from commands import run
from robustseg import api, cli
from robustseg.core.files import file_name
from robustseg.networks.weights import notes_of, save
from robustseg.results.record import read_records

NETWORK = "erfnet(classes='camvid', width=0.25)"
DATA = "streets(scenes=3, frames=1, size='32x64')"
KEYS = "network source data perturbation images miou miou_per_image pixel_accuracy q rms linf flags seconds forwards backwards"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of weights: another draw of weights would be another network."""
    path = tmp_path_factory.mktemp("network") / "erfnet.safetensors"
    save(api.network(NETWORK), path)
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, network: str) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("run")
    changes = ("--perturbation", "gaussian(rms='8/255')", "--perturbation", "fgsm(budget='linf:0/255')")
    run("evaluate", "--network", network, "--data", DATA, *changes, "--out", str(out), "--panels", "1")
    return out


def test_evaluate_writes_records_and_summary(folder: Path) -> None:
    records = read_records(folder)
    rows = json.loads((folder / "summary.json").read_text())
    assert [r.perturbation for r in records] == ["clean", "gaussian(rms='8/255')", "fgsm(budget='linf:0/255')"]
    assert [list(row)[:15] for row in rows] == [KEYS.split()] * 3
    assert records[2].counts == records[0].counts
    assert rows[2]["q"] == 1.0
    assert rows[1]["images"] == 3


def test_evaluate_prints_the_worst_of_all_that_was_tried(network: str, tmp_path: Path) -> None:
    changes = [text for name in ("fgsm", "llcm") for text in ("--perturbation", f"{name}(budget='linf:8/255')")]
    text = run("evaluate", "--network", network, "--data", DATA, *changes, "--out", str(tmp_path), "--panels", "0")
    assert re.search(r"none below % .* linf:8/255 2 records \d", text)
    assert len(json.loads((tmp_path / "summary.json").read_text())) == 3


def test_evaluate_says_where_a_network_gave_nan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nan_net_of_cli_test.py").write_text(
        "import torch\nclass Net(torch.nn.Conv2d):\n    def forward(self, x): return super().forward(x) / 0\n"
        "def build(): return Net(3, 11, 1)\n"
    )
    monkeypatch.chdir(tmp_path)
    spec = "module('nan_net_of_cli_test:build', classes='camvid')"
    text = run("evaluate", "--network", spec, "--data", "streets(scenes=1, frames=2, size='32x64')", "--out", "run")
    assert "gave NaN or infinity on 100 % of the images (clean)" in text


def test_saved_images_are_what_is_measured(network: str, tmp_path: Path) -> None:
    command = ("evaluate", "--network", network, "--data", DATA, "--perturbation", "fgsm(budget='linf:8/255')")
    save = ("--save-images", str(tmp_path / "images"), "--out", str(tmp_path))
    run(*command, *save, "--dry-run")
    assert not list(tmp_path.rglob("*.png"))
    run(*command, *save)
    saved = read_records(tmp_path)[-1]
    assert saved.perturbation == f"saved(perturbation=fgsm(budget='linf:8/255'), folder='{tmp_path}/images')"
    assert sorted(file.stem for file in tmp_path.rglob("*.png")) == sorted(map(file_name, saved.ids))
    assert 7 / 255 < max(saved.scores["linf"]) <= 8 / 255 + 1e-6


def test_removed_pictures_are_written_again_and_a_dry_run_knows(network: str, tmp_path: Path) -> None:
    kept, out = tmp_path / "images", tmp_path / "run"
    command = ("evaluate", "--network", network, "--data", DATA, "--perturbation", "fgsm(budget='linf:8/255')")
    saving = (*command, "--panels", "0", "--out", str(out), "--save-images", str(kept))
    run(*command, "--panels", "0", "--out", str(out))
    assert re.search(r"erfnet\S+ [1-9]\d* [1-9]\d* ", run(*saving, "--dry-run")), (
        "measured as it was, not as files hold it"
    )
    assert not kept.exists()
    run(*saving)
    pictures = {file: file.read_bytes() for file in kept.rglob("*.png")}
    records = (out / "records.jsonl").read_bytes()
    assert "in all 0.0 minutes" in run(*saving, "--dry-run")
    assert not re.search(r"erfnet\S+ [1-9]\d* [1-9]\d* ", run(*saving, "--dry-run"))
    for file in list(pictures)[:2]:
        file.unlink()
    assert re.search(r"erfnet\S+ [1-9]\d* [1-9]\d* ", run(*saving, "--dry-run"))
    run(*saving)
    assert {file: file.read_bytes() for file in kept.rglob("*.png")} == pictures
    assert (out / "records.jsonl").read_bytes() == records


def test_evaluate_again_runs_nothing_and_appends_nothing(folder: Path, network: str) -> None:
    before = (folder / "records.jsonl").read_bytes()
    change = ("--perturbation", "gaussian(rms='8/255')")
    run("evaluate", "--network", network, "--data", DATA, *change, "--out", str(folder))
    assert (folder / "records.jsonl").read_bytes() == before


def test_dry_run_counts_and_writes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "never"
    change = ("--perturbation", "pgd(budget='linf:8/255', steps=2)", "--batch-size", "1")
    text = run("evaluate", "--network", NETWORK, "--data", DATA, *change, "--out", str(out), "--dry-run")
    assert "minutes" in text
    assert not out.exists()


def test_report_and_compare(folder: Path) -> None:
    run("report", str(folder))
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    assert "no clear difference" in run("compare", str(folder), str(folder)) or "undecided" in run(
        "compare", str(folder), str(folder)
    )


def test_list_and_doctor() -> None:
    assert "pgd" in run("list", "perturbation")
    assert "3 images" in run("doctor", "--data", DATA)
    assert "class_pixels=(" in run("doctor", "--data", DATA, "--all")


def test_streets_are_written_and_read_back(tmp_path: Path) -> None:
    out = tmp_path / "made"
    run("data", "streets", "--frames", "2", "--size", "32x48", "--out", str(out))
    spec = f"camvid(root={str(out)!r}, split='test')"
    assert "2 images" in run("doctor", "--data", spec)


def test_train_resumes_and_its_weights_are_a_network(tmp_path: Path) -> None:
    common = ["--network", NETWORK, "--data", DATA, "--holdout", DATA, "--out", str(tmp_path), "--crop", "32x32"]
    common += ["--epochs", "2", "--batch-size", "2", "--check-every", "1"]
    run("train", *common)
    kept = (tmp_path / "best.safetensors").read_bytes()
    run("train", *common)
    assert (tmp_path / "best.safetensors").read_bytes() == kept
    run("evaluate", "--network", str(tmp_path / "best.safetensors"), "--data", DATA, "--out", str(tmp_path / "run"))
    (record,) = read_records(tmp_path / "run")
    assert len(next(iter(record.files.values()))) == 64


def test_the_next_line_of_train_is_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_net_of_cli_test.py").write_text("from torch import nn\ndef build(): return nn.Conv2d(3, 11, 1)\n")
    monkeypatch.chdir(tmp_path)
    given = ["--network", "module('own_net_of_cli_test:build', classes='camvid')", "--data", DATA, "--holdout", DATA]
    given += ["--crop", "32x32", "--epochs", "1", "--no-flip", "--colour", "0", "--no-balance", "--ema", "0"]
    text = run("train", *given, "--weight-decay", "0", "--out", "own")
    (spec,) = re.findall(r'next: robustseg evaluate --network "(.*)" …', text)
    assert spec == "module('own_net_of_cli_test:build', classes='camvid', weights='own/best.safetensors')"
    recipe = notes_of("own/best.safetensors")["recipe"]
    assert [recipe[name] for name in ("flip", "balance", "colour", "ema", "weight_decay")] == [False, False, 0, 0, 0]
    run("evaluate", "--network", spec, "--data", DATA, "--out", "own/run")


def test_train_under_attack_from_given_weights(tmp_path: Path) -> None:
    given = ["--network", NETWORK, "--data", DATA, "--holdout", DATA, "--crop", "32x32", "--batch-size", "2"]
    run("train", *given, "--epochs", "1", "--out", str(tmp_path / "plain"))
    given += ["--adversary", "pgd(budget='linf:4/255', steps=2, keep='last')", "--epochs", "1"]
    start = ["--start", str(tmp_path / "plain" / "best.safetensors")]
    text = run("train", *given, *start, "--out", str(tmp_path / "robust"))
    assert re.search(r"took over (\d+) of \1 tensors", text)
    assert re.search(r"held-out mIoU \S+%, under attack \S+%, after one step \S+%, 6\.0 passes an image", text)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--precision", "foo"), "expected a precision of 32-true"),
        (("--devices", "0"), "expected at least 1 devices of 'cpu', got 0"),
        (("--ema", "1"), "0 <= ema < 1"),
        (("--weight-decay", "-1"), "a weight decay >= 0"),
        (("--share", "0.5"), "expected --adversary beside --share"),
        (("--moving", "car"), "expected --video beside --depth-weight, --video-scale or --moving"),
        (("--adversary", "gaussian(rms='4/255')"), "expected an attack with a budget"),
        (("--start", "nowhere.pth"), "expected a file of weights"),
        (("--out", "/dev/null/run"), "expected to make the folder"),
    ],
)
def test_bad_input_of_train_is_one_sentence(arguments: tuple[str, str], sentence: str, tmp_path: Path) -> None:
    given = {"--network": NETWORK, "--data": DATA, "--holdout": DATA, "--out": str(tmp_path), "--device": "cpu"}
    text = run("train", *(part for pair in {**given, **dict([arguments])}.items() for part in pair), code=2)
    assert sentence in text
    assert "error:" in text


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (PermissionError(13, "Permission denied", "/root/x"), 2, "error: [Errno 13] Permission denied: '/root/x'"),
        (RuntimeError("a foreign network fell"), 70, "RuntimeError: a foreign network fell"),
        (KeyError("bug"), 70, "KeyError: 'bug'"),
    ],
)
def test_what_is_unexpected_is_not_worse(
    error: Exception, code: int, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fall() -> None:
        raise error

    monkeypatch.setattr("robustseg.core.registry.table", fall)
    monkeypatch.setattr(sys, "argv", ["robustseg", "list"])
    monkeypatch.setattr(cli.logging, "captureWarnings", lambda on: None)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == code
    text = capsys.readouterr().err
    assert sentence in text
    assert ("Traceback" in text) == (code == 70)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--network", "erfnett()"), "try erfnet"),
        (("--network", "erfnet(classes='cityscapes')"), "one label space"),
        (("--perturbation", "gausian(rms=1)"), "try gaussian"),
        (("--perturbation", "gaussian(rms='x')"), "a number or a fraction"),
        (("--data", "camvid(root='/nowhere')"), "try this tree"),
        (("--data", "streets(split='tset')"), "split"),
        (("--size", "12"), "HxW"),
        (("--size", "1x1"), "at least 8x8"),
        (("--size", "0x64"), "at least 8x8"),
        (("--size", "1000000x1000000"), "of which one needs 11,176 GiB"),
        (("--size", "²x²"), "HxW"),
        (("--images", "0"), "expected --images to be at least 1"),
        (("--images", "-4"), "expected --images to be at least 1"),
        (("--batch-size", "0"), "expected --batch-size to be at least 1"),
        (("--seed", "-1"), "expected --seed to be at least 0"),
        (("--seed", "9223372036854775808"), "below 2**63"),
        (("--panels", "-1"), "expected --panels to be at least 0"),
        (("--perturbation", "pgd(budget='linf:8/255', steps=0)"), "steps >= 1"),
        (("--perturbation", "pgd(budget='linf:8/255', steps=-3)"), "steps >= 1"),
        (("--network", "erfnet(" * 30_000), "at most 50000 characters"),
        (("--data", "folder(images='" + "i" * 999 + "', labels='l', classes=3)"), "expected"),
        (("--precision", "float8"), "precision"),
        (("--device", "gpu7"), "device"),
        (("--source", "zoo:nothing"), "expected"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(
    arguments: tuple[str, str], sentence: str, tmp_path: Path
) -> None:
    given = {"--network": NETWORK, "--data": DATA, **dict([arguments])}
    out = tmp_path / "never"
    flat = [part for pair in given.items() for part in pair]
    text = run("evaluate", *flat, "--out", str(out), code=2)
    assert sentence in text
    assert "error:" in text
    assert not out.exists() or not list(out.rglob("*.jsonl"))


def test_a_pickled_checkpoint_is_refused(tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, ("raise SystemError('ran')",))

    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(Evil()))
    spec = f"enet(classes='camvid', weights={str(path)!r})"
    text = run("evaluate", "--network", spec, "--data", DATA, "--out", str(tmp_path / "o"), code=2)
    assert "expected" in text
    assert "ran" not in text.split()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").symlink_to("/dev/full")
    text = run("evaluate", "--network", NETWORK, "--data", DATA, "--out", str(tmp_path), code=2)
    assert "No space left" in text


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    for name in ("test", "testannot"):
        (tmp_path / name).mkdir()
        Image.new("L", (64, 48)).save(tmp_path / name / "a_0.png")
    whole = (tmp_path / "test" / "a_0.png").read_bytes()
    (tmp_path / "test" / "a_0.png").write_bytes(whole[: len(whole) // 2])
    spec = f"camvid(root={str(tmp_path)!r}, split='test')"
    assert "a_0.png" in run("evaluate", "--network", NETWORK, "--data", spec, "--out", str(tmp_path / "o"), code=2)


def test_the_installed_command_says_errors_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "robustseg.cli", "report", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: expected records")


def test_markup_and_control_characters_of_a_spec_are_shown_as_they_are(tmp_path: Path) -> None:
    for spec, shown in (
        ("[bold]x[/bold]", "'[bold]x[/bold]'"),
        ("[/]", "'[/]'"),
        ("a\\[red]b", "a\\[red]b"),
        ("\x1b[31mx", "\\x1b[31mx"),
    ):
        assert shown in run("evaluate", "--network", spec, "--data", DATA, "--out", str(tmp_path / "x"), code=2)


def test_wherever_specs_are_copied_from_it_says_that_module_runs_code() -> None:
    said = "module('x:y') imports and runs x.py"
    assert said in run("list", "network")
    assert said not in run("list", "data")
    for verb in ("evaluate", "train", "inpaint", "gradients"):
        assert said in " ".join(re.sub("[│╭╮╰╯─]", " ", run(verb, "--help")).split())


@pytest.mark.parametrize(
    "command",
    [
        "evaluate --network x --data y --out OUT",
        "monitor --triplet x --input y --out OUT",
        "inpaint --network x --image y --mask z --out OUT",
        "report OUT",
        "audit OUT",
        "demo --out OUT",
        "reproduce baer2020 --out OUT",
        "data streets --out OUT",
        "depth x --data y --size 8x8 --out OUT",
    ],
)
def test_one_of_several_processes_does_no_work_of_its_own(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    text = run(*command.replace("OUT", str(tmp_path / "out")).split(), code=2)
    assert "expected one process, got 2 started by torchrun" in text
    assert not (tmp_path / "out").exists()


def test_one_of_several_processes_may_read_and_must_join_a_training(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    run("list", "study")
    known = ("--data", DATA, "--holdout", DATA, "--device", "cpu", "--out", str(tmp_path / "out"))
    text = run("train", "--network", network, *known, code=2)
    assert "expected the 2 processes that MPI started to train together, got training in 1; try --devices 2" in text
    assert not (tmp_path / "out").exists()
