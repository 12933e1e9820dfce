"""Audits: six fakes are caught, an honest network is not, and a second audit costs nothing."""

import re
from contextlib import suppress
from dataclasses import replace
from html import escape
from pathlib import Path

import pytest
import torch
from torch import Tensor

from commands import run
from robustseg import api
from robustseg.audit import audit, costs, subjects
from robustseg.audit.controls import Left, controls, judge, tenfold
from robustseg.core.errors import LabelSpaceMismatch, RobustsegError, SpecError
from robustseg.core.files import append_line
from robustseg.core.types import Dataset, Network, Sample
from robustseg.datasets import Chosen
from robustseg.evaluation.run import evaluate
from robustseg.report import page, tables, words, write_report
from robustseg.results.findings import Finding, read_findings, suspicious
from robustseg.results.record import read_records
from robustseg.testing import gray_space

ATTACK = "cospgd(budget='linf:8/255', steps=10)"


class Honest(Network):
    """Undefended: reads its four classes from faint colours (5/255), averaged over 5x5 pixels. Seeds differ a little."""

    def __init__(self, seed: int = 0):
        super().__init__(gray_space(), f"honest-{seed}")
        generator = torch.Generator().manual_seed(seed)
        self.blur = torch.nn.Conv2d(3, 2, 5, padding=2, padding_mode="replicate")
        self.decide = torch.nn.Conv2d(4, 4, 1)
        with torch.no_grad():
            kernel = torch.rand((2, 5, 5), generator=generator) + 0.5
            self.blur.weight.fill_(0.01)[[0, 1], [0, 1]] = kernel / kernel.sum((1, 2), keepdim=True) * 255 / 5
            self.blur.bias.fill_(-0.5 * 255 / 5)
            self.decide.weight.copy_(torch.cat([CODES, -CODES], 1).view(4, 4, 1, 1))
            self.decide.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        seen = self.blur(images)
        return 2 * self.decide(torch.cat([seen, -seen], 1).relu())


CODES = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])


class Scenes(Dataset):
    """Patches of faint colour with texture, four images of 24x32 and a row of void."""

    spec = "patches"
    label_space = gray_space()
    ids = tuple(f"patches_{i}" for i in range(4))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        generator = torch.Generator().manual_seed(index)
        labels = torch.randint(4, (3, 4), generator=generator).repeat_interleave(8, 0).repeat_interleave(8, 1)
        image = 0.5 + 0.02 * torch.randn((3, 24, 32), generator=generator)
        image[:2] += 5 / 255 * CODES[labels].permute(2, 0, 1)
        labels[0] = 255
        return Sample(image.clamp(0, 1), labels, self.ids[index])


class Fake(Network):
    """A network that looks robust and is not, because its gradients mislead."""

    def __init__(self, name: str):
        super().__init__(gray_space(), name)
        self.voters = torch.nn.ModuleList(Honest(seed) for seed in range(3))
        self.name = name

    def forward(self, images: Tensor) -> Tensor:
        first = self.voters[0]
        if self.name == "loud":
            return 1000 * first(images)
        if self.name == "staircase":
            return first((images * 128).round() / 128)
        if self.name == "resized":
            size = (int(torch.randint(20, 24, ())), int(torch.randint(28, 32, ())))
            small = torch.nn.functional.interpolate(images, size, mode="bilinear", antialias=True)
            logits = first(small)
            return torch.nn.functional.interpolate(logits, images.shape[-2:], mode="bilinear")
        if self.name == "one_hot":
            return 10 * _one_hot(first(images))
        if self.name == "vote":
            return torch.stack([_one_hot(voter(images)) for voter in self.voters]).sum(0)
        if self.name == "detached":
            return first(images.detach())
        assert self.name == "half_detached"  # a whisper of another network is all that attacks hear
        return first(images).detach() + 1e-2 * self.voters[1](images.flip(1))


def _one_hot(logits: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1]).movedim(-1, 1).to(logits)


CAUGHT = {
    "loud": {"logits_scale"},
    "staircase": {"zero_gradients", "flat_output"},
    "resized": {"random_output"},
    "one_hot": {"output_values", "zero_gradients", "flat_output"},
    "vote": {"output_values", "zero_gradients", "flat_output"},
    "detached": {"zero_gradients"},
    "half_detached": {"gradient"},
}


def measured(folder: Path, network: Network, *attacks: str) -> Path:
    """A run of clean images and attacks; those that find no gradient leave no record."""
    for spec in ("clean", *attacks):
        with suppress(RobustsegError):
            evaluate(network, Scenes(), api.perturbation(spec), folder=folder, panels=0)
    return folder


def audited(folder: Path, network: Network, **options: object) -> list[Finding]:
    known: dict[str, Network] = {n.spec: n for n in (Honest(), Honest(9), network)}
    options = {"transfer": "honest-9", "images": 2, **options}
    return audit(folder, build_network=known.__getitem__, build_data={"patches": Scenes()}.__getitem__, **options)


def checks(findings: list[Finding]) -> set[str]:
    return {found.check for found in findings}


@pytest.mark.parametrize("name", CAUGHT)
def test_fakes_are_caught(name: str, tmp_path: Path) -> None:
    found = suspicious(audited(measured(tmp_path, Fake(name), ATTACK), Fake(name), images=1))
    assert CAUGHT[name] <= checks(found)
    assert all(f.text.endswith(".") and f.advice for f in found)
    assert any(f.masking for f in found)


def test_undefended_networks_raised_no_masking_flag() -> None:
    """Three networks at three eps, as measured by `studies/audit/run.sh`."""
    found = read_findings(Path(__file__).parents[2] / "studies" / "audit")
    attacks = {(f.network, f.perturbation) for f in found if f.perturbation}
    assert len({network for network, _ in attacks}) == 3
    assert len(attacks) == 9
    assert len(found) == 3 * 7 + 9 * 5
    assert not [(f.network, f.perturbation, f.check) for f in found if f.masking]
    assert {f.check for f in found if f.status != "ok"} <= {"more_steps"}


def test_an_honest_network_raises_no_doubt(tmp_path: Path) -> None:
    network = Honest()
    found = audited(measured(tmp_path, network, *(ATTACK.replace("8/", f"{n}/") for n in (4, 8))), network)
    assert len(found) == 8 + 2 * 5
    assert {f.status for f in found} == {"ok"}, [f.text for f in found if f.status != "ok"]


def test_a_second_audit_runs_and_writes_nothing(tmp_path: Path) -> None:
    network = Honest()
    measured(tmp_path, network, ATTACK)
    first = audited(tmp_path, network)
    assert first[0].ids == ("patches_1", "patches_3")
    kept = [(tmp_path / name).read_bytes() for name in ("audit.jsonl", "audit/records.jsonl", "records.jsonl")]
    new: list[Finding] = []
    assert audited(tmp_path, network, on_finding=new.append) == first
    assert not new
    assert kept == [(tmp_path / name).read_bytes() for name in ("audit.jsonl", "audit/records.jsonl", "records.jsonl")]


def test_a_cut_audit_goes_on(tmp_path: Path) -> None:
    network = Honest()
    measured(tmp_path, network, ATTACK)

    def cut(finding: Finding) -> None:
        if finding.check == "noise":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audited(tmp_path, network, images=1, on_finding=cut)
    assert [f.check for f in read_findings(tmp_path)][-1] == "noise"
    new: list[Finding] = []
    assert len(audited(tmp_path, network, images=1, on_finding=new.append)) == 13
    assert [f.check for f in new] == ["single_step", "transfer", "search", "more_steps"]


def test_what_is_audited(tmp_path: Path) -> None:
    weak, strong = (f"pgd(budget='linf:8/255', steps={n})" for n in (1, 10))
    other, still = "pgd(budget='l2:127.5/255', steps=2)", "pgd(budget='linf:0/255', steps=2)"
    measured(
        tmp_path, Honest(), weak, strong, other, still, "sign(rms='8/255')", "search(budget='linf:8/255', queries=9)"
    )
    evaluate(Honest(), Scenes(), api.perturbation(strong), Honest(1), folder=tmp_path, panels=0)
    (subject,) = subjects(read_records(tmp_path))
    assert [r.perturbation for r in subject.attacks] == [strong, other]
    assert [c.perturbation for c in costs(tmp_path)] == ["", strong, other]


def test_controls_are_spelled(tmp_path: Path) -> None:
    attacks = (
        "fgsm(budget='linf:8/255')",
        "ifgsm(budget='linf:7/255')",
        "pgd(budget='l2:0.5', steps=3, judge='margin')",
    )
    measured(tmp_path, Honest(), *attacks)
    _, *records = read_records(tmp_path)
    assert [tenfold(r) for r in records] == [
        "pgd(budget='linf:8/255', steps=10)",
        "ifgsm(budget='linf:7/255', steps=90)",
        "pgd(budget='l2:127.5/255', steps=30, judge='margin')",
    ]
    noise = controls(records[2])[0].spec
    assert float(noise.split("'")[1].split("/")[0]) / 255 == pytest.approx(0.5 / (3 * 24 * 32) ** 0.5, rel=0.05)


@pytest.mark.parametrize(
    ("check", "attack", "control", "status"),
    [
        ("noise", 0.50, 0.51, "ok"),
        ("noise", 0.50, 0.50, "suspicious"),
        ("noise", 0.01, 0.01, "ok"),
        ("search", 0.50, 0.49, "ok"),
        ("search", 0.50, 0.47, "suspicious"),
        ("transfer", 0.50, 0.47, "suspicious"),
        ("single_step", 0.50, 0.47, "suspicious"),
        ("more_steps", 0.50, 0.46, "ok"),
        ("more_steps", 0.50, 0.44, "suspicious"),
    ],
)
def test_verdicts(check: str, attack: float, control: float, status: str) -> None:
    verdict = judge(check, Left(attack, attack), Left(control, control))
    assert verdict.status == status
    assert bool(verdict.advice) == (status == "suspicious")
    assert verdict.numbers["control"] == control


def test_what_cannot_be_checked_says_why(tmp_path: Path) -> None:
    network = Fake("staircase")
    measured(tmp_path, network, ATTACK)
    found = audit(
        tmp_path,
        images=1,
        build_network={network.spec: network}.__getitem__,
        build_data={"patches": Scenes()}.__getitem__,
    )
    (transfer,) = [f for f in found if f.check == "transfer"]
    assert transfer.status == "not checked"
    assert "--transfer" in transfer.advice
    again = audited(tmp_path, network, images=1)
    assert [f.status for f in again if f.check == "transfer"] == ["suspicious"], "asked again with a network"
    blurred = audited(measured(tmp_path / "r", Fake("resized")), Fake("resized"), images=1)
    assert {f.check for f in blurred if f.status == "not checked"} == {"batch_dependent", "flat_output", "gradient"}


def test_another_network_than_measured_is_refused(tmp_path: Path) -> None:
    measured(tmp_path, Honest(), ATTACK)
    wrong = Honest(5)
    wrong.spec = "honest-0"
    with pytest.raises(RobustsegError, match="got other weights or code for 'honest-0'"):
        audited(tmp_path, wrong)
    with pytest.raises(LabelSpaceMismatch, match="11 classes in zoo:erfnet-streets and 4 in patches"):
        audit(
            tmp_path,
            transfer="zoo:erfnet-streets",
            build_network=lambda spec: Honest() if spec == "honest-0" else api.network(spec),
            build_data={"patches": Scenes()}.__getitem__,
        )
    with pytest.raises(RobustsegError, match="at least 1 image"):
        costs(tmp_path, images=0)
    with pytest.raises(SpecError, match="expected 'a' in patches, got 4 other images"):
        Chosen(Scenes(), ["a"])


def test_what_has_changed_since_is_left_out(tmp_path: Path) -> None:
    """Code of a network, images and a spec that builds nothing: each costs its own records alone."""

    class Brighter(Scenes):
        spec = "brighter"
        shift = 0.0

        def __getitem__(self, index: int) -> Sample:
            sample = super().__getitem__(index)
            return replace(sample, image=(sample.image + self.shift).clamp(0, 1))

    wrong, gone = Honest(5), Honest(6)
    for network in (Honest(), wrong, gone):
        evaluate(network, Scenes(), folder=tmp_path, panels=0)
    evaluate(Honest(), Brighter(), folder=tmp_path, panels=0)
    changed = Honest(7)
    changed.spec = wrong.spec
    bright = Brighter()
    bright.shift = 0.01

    def build(spec: str) -> Network:
        if spec == gone.spec:
            raise SpecError("expected a module that Python can import, got none")
        return {"honest-0": Honest(), wrong.spec: changed}[spec]

    skipped: list[str] = []
    options = {"build_network": build, "build_data": {"patches": Scenes(), "brighter": bright}.__getitem__}
    found = audit(tmp_path, images=1, on_skip=skipped.append, **options)
    assert {f.network for f in found} == {"honest-0"}
    assert len(found) == 8
    assert [s.partition(";")[0] for s in skipped] == [
        "left out: expected the network of the records, got other weights or code for 'honest-5'",
        "left out: expected a module that Python can import, got none",
        "left out: expected the images and masks of the records, got others for brighter",
    ]
    with pytest.raises(RobustsegError, match="got other weights or code"):
        audit(tmp_path, images=1, **{**options, "build_network": lambda spec: changed})


def test_findings_are_plain_lines(tmp_path: Path) -> None:
    one = Finding("noise", "ok", "n", "s", "r", numbers={"control": 0.5}, ids=("a",))
    for finding in (one, replace(one, status="suspicious", ids=("a", "b"))):
        append_line(tmp_path / "audit.jsonl", finding.to_json())
    assert read_findings(tmp_path) == [replace(one, status="suspicious", ids=("a", "b"))], "the later one counts"
    assert read_findings(tmp_path / "nowhere") == []
    with pytest.raises(RobustsegError, match="format 1 or 2, got 3"):
        Finding.from_json({"format": 3})


def test_the_report_shows_findings_beside_the_numbers(tmp_path: Path) -> None:
    network = Fake("staircase")
    weak = "sign(rms='8/255')", "fgsm(budget='linf:8/255')"
    measured(tmp_path, network, *weak, ATTACK)
    records = read_records(tmp_path)

    def column() -> dict[str, str]:
        (group,) = tables.groups(records, read_findings(tmp_path))
        found = tables.measurements(group)
        return {row[2].text: row[found.head.index("audit")].text for row in found.rows}

    before = column()
    assert before == {"clean": tables.DASH, weak[0]: tables.DASH, weak[1]: "not checked", ATTACK: "not checked"}
    assert "can these numbers be trusted" not in page(records).lower()
    found = audited(tmp_path, network, images=1)
    assert "transfer" in column()[ATTACK]
    assert "not checked" not in column()[ATTACK]
    assert column()[weak[1]].endswith("not checked"), "the weaker attack of the same size is not audited"
    html = write_report([tmp_path], tmp_path / "report.html").read_text("utf-8")
    assert all(escape(f.text) in html and escape(f.advice) in html for f in found)
    (sentence,) = words.headline([r for r in records if "rms" not in r.perturbation], found)
    assert re.search(r"\(flagged: zero gradients, .*transfer", sentence)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cut_net_of_audit_test.py").write_text(
        "import torch\nclass Cut(torch.nn.Conv2d):\n    def forward(self, x): return super().forward(x.detach())\n"
        "def build(): return Cut(3, 11, 1).requires_grad_(False)\n"
    )
    monkeypatch.chdir(tmp_path)
    spec = "module('cut_net_of_audit_test:build', classes='camvid')"
    data = "streets(scenes=2, frames=1, size='32x64')"
    run("audit", "nowhere", code=2)
    run("evaluate", "--network", spec, "--data", data, "--out", "run")
    assert "about" in run("audit", "run", "--dry-run")
    assert not Path("run/audit.jsonl").exists()
    text = run("audit", "run", "--images", "1", code=1)
    assert "1 of 8 findings are suspicious, 1 of them hint at masked gradients" in text
    assert "zero_gradients, next: remove what cuts it" in text
    assert "The control could not be run: expected an objective with a gradient" in text
    assert "no attack that follows gradients in this run" in text


def test_an_audit_leaves_the_buffers_of_the_network(tmp_path: Path) -> None:
    class Moves(Honest):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, images: Tensor) -> Tensor:
            self.seen += 1
            return super().forward(images)

    network = Moves()
    found = audited(measured(tmp_path, network, ATTACK), network)
    assert {f.status for f in found} == {"ok"}
    assert network.seen == 0

    def fail(finding: Finding) -> None:
        raise KeyboardInterrupt

    for at in (lambda f: None, fail):
        (tmp_path / "audit.jsonl").unlink()
        with suppress(KeyboardInterrupt):
            audited(tmp_path, network, on_finding=at)
        assert network.seen == 0


def test_one_network_on_two_data_sets_is_audited_on_each(tmp_path: Path) -> None:
    class Few(Scenes):
        spec = "few"
        ids = Scenes.ids[:1]

    network = Honest()
    for data in (Scenes(), Few()):
        evaluate(network, data, folder=tmp_path)
    options = {
        "build_network": {network.spec: network}.__getitem__,
        "build_data": {"patches": Scenes(), "few": Few()}.__getitem__,
    }
    found = audit(tmp_path, images=1, **options)
    assert [f.ids for f in found] == [("patches_2",)] * 8 + [("patches_0",)] * 8
    new: list[Finding] = []
    audit(tmp_path, images=1, on_finding=new.append, **options)
    assert not new
