"""Report: one page that is whole, honest and opens in a browser without a network."""

import base64
import hashlib
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

import runs
from robustseg.core.errors import RobustsegError
from robustseg.core.files import append_line, sole_writer
from robustseg.core.labels import LabelSpace
from robustseg.report import page, q_figure, recall_figure, strength_figure, tables, words, write_report
from robustseg.report.figures import moved_apart, q_interval, q_panels, road_users
from robustseg.results import metrics
from robustseg.results.findings import Finding, subject_of
from robustseg.results.panels import save_panel, tiles
from robustseg.results.record import Record
from robustseg.results.summary import summary
from robustseg.results.worst import worst_cases

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
VOID_TAGS = {"meta", "link", "img", "br", "input"}


class Check(HTMLParser):
    """Collects links and open tags."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = runs.run()
    folder = runs.write(tmp_path_factory.mktemp("run"), records)
    attacked = next(r for r in records if r.perturbation.startswith("pgd(budget='linf:8"))
    save_panel(folder / "panels", "0", runs.panel(attacked))
    return write_report([folder], folder / "deep" / "report.html")


def test_the_page_is_whole_and_links_to_nothing_outside(report: Path) -> None:
    html = report.read_text("utf-8")
    check = Check()
    check.feed(html)
    assert check.open == []
    assert len(check.links) > 7
    assert all(link.startswith(("data:", "#")) for link in check.links)
    assert not re.search(r"https?://|@import|url\((?!data:)", html)
    assert "nan" not in re.sub(r"base64,[^\"]*", "", html).lower().replace("finance", "")


def test_the_page_says_what_it_must(report: Path) -> None:
    check = Check()
    check.feed(report.read_text("utf-8"))
    text = " ".join(" ".join(check.text).split())
    for wanted in (
        "What is left at which strength", "Every measurement", "Each sequence apart", "Classes: clean against",
        "recall of pedestrian", "images that lost most", "What it looks like", "To repeat this run", "difference x",
        "tier", "protocol", "robustseg evaluate", "--network zoo:first", "c0ffee", "ab" * 32, "0.1.0", "not checked",
        "classes without a labelled pixel are left out", "Seq05VD (30) mIoU %", "0001TP (10) mIoU %", "sky <far>",
        "of its clean mIoU",
    ):  # fmt: skip
        assert wanted in text, wanted


EVIL = "<img src=x onerror=alert(7)></script></style></title><script>alert(7)</script>'\"&lt;"


def test_nothing_that_a_record_says_is_markup(tmp_path: Path) -> None:
    """Names of classes, images, networks, files and flags, specs, messages and panels come from whoever made the record."""
    space = LabelSpace(tuple(f"{EVIL}{i} pedestrian" for i in range(4)), runs.SPACE.palette)
    records = []
    for name, change in (
        ("clean", "clean"),
        ("noise", "gaussian(rms='8/255')"),
        ("attack", "pgd(budget='linf:8/255')"),
        ("foreign", EVIL),
    ):
        one = runs.record(f"{EVIL}{'b' * (name == 'foreign')}", change, 0.3, rms=0.0 if name == "clean" else 0.02)
        counts = replace(one.counts, ids=tuple(f"{EVIL}{i % 3}_{i}" for i in range(len(one.ids))))
        told = {
            "versions": {EVIL: EVIL},
            "files": {EVIL: EVIL},
            "flags": {EVIL: EVIL, "a": [EVIL]},
            "verdicts": {EVIL: [EVIL] * 40},
        }
        texts = dict.fromkeys(("data", "device", "precision", "started", "commit", "weights"), EVIL)
        records.append(replace(one, label_space=space, counts=counts, **told, **texts))
    records[2] = replace(records[2], source=EVIL + "source")
    folder = runs.write(tmp_path / "run", records)
    shown = replace(runs.panel(records[1]), id=records[1].ids[0], label_space=space)
    save_panel(folder / "panels", "0", shown)
    finding = Finding(
        "noise", "suspicious", records[1].network, subject_of(records[1]), text=EVIL, advice=EVIL, control=EVIL
    )
    append_line(folder / "audit.jsonl", finding.to_json())
    html = write_report([folder], tmp_path / "page.html").read_text("utf-8")
    check = Check()
    check.feed(html)
    assert check.open == []
    assert all(link.startswith(("data:", "#")) for link in check.links)
    assert html.count("<script") == html.count("</script") == html.count("<title>robustseg") == 1
    assert html.count("<img") == len(tiles(shown))
    assert "onerror=alert(7)&gt;" in html
    for figure in (strength_figure(records), recall_figure(records, 0), q_figure(records)):
        ElementTree.fromstring(figure)


def test_only_the_script_of_the_house_runs(report: Path) -> None:
    html = report.read_text("utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    known = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)
    assert f"script-src 'sha256-{known}';" in policy
    assert "unsafe-inline" not in policy.replace("style-src 'unsafe-inline'", "")
    assert not re.search(r"<[^>]* on\w+=", html)


def test_a_panel_of_an_image_that_the_record_does_not_know_is_left_out(tmp_path: Path) -> None:
    (record,) = runs.run(("zoo:a",), n=2)[:1]
    folder = runs.write(tmp_path, [record])
    save_panel(folder / "panels", "0", replace(runs.panel(record), id="elsewhere"))
    assert "elsewhere" not in write_report([folder], folder / "report.html").read_text("utf-8")


def test_a_page_replaces_pages_only(report: Path, tmp_path: Path) -> None:
    assert write_report([report.parents[1]], report) == report
    other = tmp_path / "thesis.html"
    other.write_text("<html>mine</html>")
    for path in (other, tmp_path):
        with pytest.raises(RobustsegError, match=r"expected a new file or an older page, got .* of something else"):
            write_report([report.parents[1]], path)
    assert other.read_text() == "<html>mine</html>"


def test_a_folder_that_is_written_to_takes_no_page(report: Path) -> None:
    with ThreadPoolExecutor(1) as other, sole_writer(report.parent):
        refused = other.submit(write_report, [report.parents[1]], report)
        with pytest.raises(RobustsegError, match="another run that writes there"):
            refused.result()


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_page_opens_in_a_browser_sorts_and_complains_of_nothing(report: Path, tmp_path: Path) -> None:
    # a click on the column of mIoU, written into the title for --dump-dom to show
    probe = tmp_path / "probe.html"
    script = (
        "const t=document.querySelectorAll('table.sortable')[1];t.tHead.rows[0].cells[4].firstChild.click();"
        "document.title=[...t.tBodies[0].rows].map(r=>r.cells[4].textContent).join(' ')"
    )
    known = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()  # no other script would run
    page = report.read_text("utf-8").replace("script-src ", f"script-src 'sha256-{known}' ")
    probe.write_text(page.replace("</body>", f"<script>{script}</script></body>"), "utf-8")
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000", "--dump-dom", probe.as_uri(),
        ],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    found = re.search(r"<title>([\d. ]+)</title>", done.stdout)
    assert found, done.stderr[-2000:]
    values = [float(value) for value in found[1].split()]
    assert len(values) == len(runs.run())
    assert values == sorted(values)


def test_report_starts_without_torch() -> None:
    code = (
        "import sys, robustseg.report, robustseg.results.summary, robustseg.results.panels, robustseg.results.metrics;"
        "print([m for m in ('torch', 'torchvision', 'lightning') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_making_a_page_needs_no_torch(tmp_path: Path) -> None:
    runs.write(tmp_path, runs.run(n=8))
    code = (
        "import sys; sys.modules['torch'] = None; from robustseg.report import write_report;"
        f"write_report([{str(tmp_path)!r}], {str(tmp_path / 'report.html')!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_figures_are_well_formed_and_show_noise_and_attack_together() -> None:
    records = runs.run()
    for svg in (q_figure(records), recall_figure(records, 2)):
        root = ElementTree.fromstring(svg)
        titles = [t.text or "" for t in root.iter("{http://www.w3.org/2000/svg}title")]
        assert sum("pgd(budget='linf:8/255'" in t for t in titles) == 2  # one point a network
        names = [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")]
        assert {"gaussian", "FGSM", "PGD L∞", "PGD L2", "first", "second"} <= set(names)
    assert q_figure([records[0]]) == ""


def test_of_several_draws_the_mean_and_the_worst_of_each_image_are_drawn() -> None:
    records = runs.run(("zoo:first",))
    spec = "gaussian(rms='6/255')"
    draws = [runs.record("zoo:first", spec, 0.3, rms=(6 + i) / 255, seed=i) for i in range(3)]
    draws = [replace(draw, seed=i) for i, draw in enumerate(draws)]
    (panel,) = q_panels([*records, *draws])
    line = next(line for line in panel.lines if line.name == "gaussian")
    point = next(p for p in line.points if spec in p.text)
    assert len(line.points) == 4  # three records of one draw, and one point of three
    values = [metrics.q(draw.counts, records[0].counts) for draw in draws]
    assert point.y == pytest.approx(sum(values) / 3)
    assert point.x == pytest.approx(7)
    assert point.worst == metrics.worst([d.counts for d in draws]).miou / metrics.miou(records[0].counts)
    assert point.worst < min(values)
    assert "the mean of 3 draws; of the worst" in point.text
    assert strength_figure([*records, *draws]).count('class="rs-worst"') == 2  # beside mIoU and beside Q
    assert 'class="rs-worst"' not in strength_figure(records)


def test_miou_stands_beside_q_on_one_axis() -> None:
    svg = strength_figure(runs.run())
    root = ElementTree.fromstring(svg)
    assert 'aria-label="mIoU, % and Q, % of clean mIoU left against realised RMS, n/255"' in svg
    texts = [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")]
    assert [t for t in texts if t in ("first", "second")] == ["first", "first", "second", "second"]
    assert [t for t in texts if t and t.startswith(("mIoU,", "Q,"))][:2] == ["mIoU, %", "Q, % of clean mIoU left"]


def test_strength_zero_and_missing_strength_leave_the_figure_whole() -> None:
    records = runs.run(("zoo:first",))
    zero = runs.record("zoo:first", "gaussian(rms='0/255')", 0.2, rms=0.0)
    unknown = replace(runs.record("zoo:first", "fgsm(budget='linf:1/255')", 0.2), scores={})
    assert q_figure([*records, zero, unknown]) == q_figure(records)


def test_q_interval_is_paired_with_the_clean_run() -> None:
    records = runs.run(("zoo:first",))
    found = q_interval(records[-1], records[0])
    assert found.low < found.value < found.high
    assert q_interval(records[0], records[0]) == (1.0, 1.0, 1.0)


def test_label_spaces_sizes_and_images_never_share_a_table() -> None:
    records = runs.run(("zoo:first",))
    space = LabelSpace(("a", "b", "c", "d"), runs.SPACE.palette)
    others = [replace(r, label_space=space) for r in records]
    smaller = [replace(r, size=(6, 8)) for r in records]
    assert [len(g.records) for g in tables.groups([*records, *others, *smaller, *runs.run(("zoo:a",), n=8)])] == [
        16
    ] * 4
    html = page([*records, *others])
    assert html.count("Every measurement") == 2


def test_equal_records_of_two_folders_stand_once(tmp_path: Path) -> None:
    records = runs.run(("zoo:first",), n=8)
    folders = [runs.write(tmp_path / name, records) for name in ("a", "b")]
    html = write_report(folders, tmp_path / "r.html").read_text("utf-8")
    assert "<dt>measurements</dt><dd>16</dd>" in html


def test_of_many_panels_each_kind_of_perturbation_shows(tmp_path: Path) -> None:
    records = runs.run(("zoo:first",))
    folder = runs.write(tmp_path, records)
    shown = [r for r in records if "pgd(budget='linf" in r.perturbation] * 9 + [records[1]]
    for i, one in enumerate(shown):
        save_panel(folder / "panels", f"{i:02d}", runs.panel(one))
    html = write_report([folder], tmp_path / "r.html").read_text("utf-8")
    assert html.count('<div class="panel">') == 20
    assert "8 more are kept" in html
    assert html.count("<code>gaussian(") == 1
    second = html.split('<div class="panel">')[2]
    assert "gaussian" in second


def test_headline_names_the_worst_and_noise_of_its_size() -> None:
    text = words.headline(runs.run(("zoo:first",)))[0]
    assert re.fullmatch(
        r"PGD L∞ at 8/255 leaves first \d+ % of its clean mIoU \(\d\d\.\d to \d+\.\d %\); "
        r"noise of the same size \(salt and pepper\) leaves \d\d %\.",
        text,
    )
    assert words.headline([runs.record("zoo:a", "clean", 0.2)])[0].endswith("% mIoU on 40 clean images.")
    assert "without a clean run" in words.headline([runs.record("zoo:a", "fgsm(budget='linf:1/255')", 0.2)])[0]


def test_a_run_with_nan_says_so_first_and_has_no_relative_figure() -> None:
    def spoiled(which: str) -> list[Record]:
        return [
            replace(r, flags={"not_finite": 0.25}) if which in r.perturbation else r for r in runs.run(("zoo:first",))
        ]

    for records in (spoiled("clean"), spoiled("pgd")):
        flagged = [r for r in records if r.flags.get("not_finite")]
        for record, text in zip(flagged, words.headline(records), strict=False):
            assert text == (
                f"first gave NaN or infinity on 25 % of the images ({record.perturbation}): such pixels have no prediction and "
                "count as wrong, and no figure is relative to this run."
            )
            assert "gave NaN or infinity on 25" in page(records)
        assert [row["q"] for row in summary(records) if "not_finite" in row["flags"]] == [None] * len(flagged)
        (group,) = tables.groups(records, [])
        within = tables.within_budgets(group)
        assert within is not None
        assert {row[within.head.index("worst Q %")].text for row in within.rows} == {words.DASH}
    assert all(row["q"] is None for row in summary(spoiled("clean")))


def test_a_flagged_headline_says_so() -> None:
    records = runs.run(("zoo:first",))
    records = [replace(r, flags={"zero_gradients": 0.9}) if "pgd" in r.perturbation else r for r in records]
    assert "(flagged: zero gradients)" in words.headline(records)[0]
    assert '<td class="flag" data-v="1"' in page(records)


CPU = [*words.PROTOCOL_CPU.read_text("utf-8").split()]
TEST = [*(f"0001TP_{i:06d}" for i in range(62)), *(f"Seq05VD_{i:06d}" for i in range(171))]


@pytest.mark.parametrize(
    ("data", "size", "ids", "tier", "protocol"),
    [
        ("camvid(root='x')", (180, 240), CPU, "camvid", "cpu"),
        ("camvid(root='x')", (180, 240), runs.ids(40), "camvid", "40 images at 240 x 180"),
        ("camvid(root='x')", (360, 480), TEST, "camvid", "gpu"),
        ("camvid(root='x')", None, TEST, "camvid", "gpu"),
        ("folder(root='x')", (180, 240), CPU, "camvid", "cpu"),
        ("camvid(root='x')", (90, 120), CPU, "camvid", "40 images at 120 x 90"),
        (
            "camvid(root='x')",
            (180, 240),
            [f"streets-0001_{i:06d}" for i in range(40)],
            "synthetic",
            "40 images at 240 x 180",
        ),
        ("camvid(root='x')", None, ["mine_1", "mine_2"], "own data", "2 images at their own size"),
        ("streets(frames=8)", None, ["streets-0001_000000"], "synthetic", "1 image at their own size"),
        ("folder(root='x')", None, ["a", "b"], "own data", "2 images at their own size"),
    ],
)
def test_tier_and_protocol_are_named(
    data: str, size: tuple[int, int] | None, ids: list[str], tier: str, protocol: str
) -> None:
    one = runs.record("zoo:a", "clean", 0.1, n=len(ids))
    one = replace(one, data=data, size=size, counts=replace(one.counts, ids=tuple(ids)))
    assert (words.tier(one), words.protocol(one)) == (tier, protocol)


def test_families_are_told_apart_by_as_little_as_needed() -> None:
    specs = [
        "fgsm(budget='linf:2/255')", "pgd(budget='linf:2/255', steps=20)", "pgd(budget='linf:2/255', steps=5)",
        "pgd(budget='l2:1')", "gaussian(rms='2/255')",
    ]  # fmt: skip
    records = [runs.record("zoo:a", spec, 0.3) for spec in specs]
    moved = runs.record("zoo:a", specs[0], 0.3, source="zoo:b")
    names = list(words.family_names([*records, moved]).values())
    assert names == ["FGSM", "PGD L∞ (steps=20)", "PGD L∞ (steps=5)", "PGD L2", "FGSM of b", "gaussian"]
    assert [r.strength for r in records] == ["2/255", "2/255", "2/255", "255/255", "2/255"]


def test_trained_networks_are_called_by_the_folder_of_their_training() -> None:
    specs = [
        "weights('runs/multi-0/best.safetensors')",
        "weights('runs/single-0/best.safetensors')",
        "zoo:erfnet-camvid",
    ]
    records = [runs.record(spec, "clean", 0.1, n=4) for spec in specs]
    assert list(words.network_names(records).values()) == ["multi-0", "single-0", "erfnet-camvid"]


def test_the_halving_strength_is_read_off_between_two_points() -> None:
    assert tables._crossing([(1, 0.9), (4, 0.1)]).text == "2.00"
    assert tables._crossing([(1, 0.4), (4, 0.1)]).text == "< 1.00"
    assert tables._crossing([(1, 0.9), (4, 0.6)]).text == "> 4.00"


def test_the_table_shows_the_figures_of_metrics() -> None:
    records = runs.run(("zoo:first",))
    (group,) = tables.groups(records)
    row = dict(zip(tables.measurements(group).head, tables.measurements(group).rows[-1], strict=True))
    assert row["mIoU %"].value == metrics.miou(records[-1].counts)
    assert row["Q %"].value == metrics.q(records[-1].counts, records[0].counts)
    assert row["RMS /255"].text == "8.00"
    assert row["L∞ /255"].text == "16.00"
    assert row["PSNR dB"].text == "30.1"
    uneven = replace(records[-1], scores={"rms": [0.1] * 20 + [0.001] * 10 + [0.0] * 10})
    (cells,) = tables.measurements(replace(group, records=[uneven])).rows
    assert cells[13].value == pytest.approx((20 * 20 + 10 * 60) / 30), "PSNR is the mean over changed images"
    assert row["passes"].text == "80"
    assert row["flags"].text == "none"


def test_many_sequences_go_by_city() -> None:
    ids = [f"{city}_{i:06d}_000019" for city in ("munster", "frankfurt") for i in range(9)]
    assert {name: len(images) for name, images in tables.sequences_to_show(ids).items()} == {
        "munster": 9,
        "frankfurt": 9,
    }
    assert tables.sequences_to_show([f"c{i}_1_1" for i in range(9)]) == {}
    assert tables.sequences_to_show(["a_1", "a_2"]) == {}


def test_vulnerable_road_users_are_found_by_name() -> None:
    names = ("road", "person", "rider", "bicycle", "traffic light")
    space = LabelSpace(names, tuple((i, i, i) for i in range(5)))
    one = replace(runs.record("a", "clean", 0.1), label_space=space)
    assert road_users(one) == [1, 2, 3]


def test_labels_are_moved_apart() -> None:
    assert moved_apart([10, 11, 12], gap=5, low=0, high=100) == [10, 15, 20]
    assert moved_apart([98, 99, 100], gap=5, low=0, high=100) == [90, 95, 100]


def test_no_records_and_no_room_give_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RobustsegError, match="expected records in"):
        write_report([tmp_path], tmp_path / "r.html")
    runs.write(tmp_path, runs.run(n=4))
    (tmp_path / "file").touch()
    with pytest.raises(RobustsegError, match=r"expected to make .*try another --out"):
        write_report([tmp_path], tmp_path / "file" / "r.html")


def test_a_saved_perturbation_is_of_the_family_of_what_was_saved() -> None:
    plain = runs.record("a", "fgsm(budget='linf:8/255')", 0.2)
    saved = runs.record("a", f"saved(perturbation={plain.perturbation}, folder='images')", 0.2)
    assert words.family(saved) == words.family(plain)
    assert saved.strength == plain.strength == "8/255"


def test_two_states_of_a_network_stand_apart_and_stale_records_are_said(tmp_path: Path) -> None:
    """In one folder the present state is shown, in two folders each its own, in a section of its own."""

    def states(code: str, share: float, started: str) -> list[Record]:
        fields = {"code": code, "source_code": code, "content": "c", "started": started}
        specs = ("clean", "fgsm(budget='linf:8/255')", "pgd(budget='linf:8/255', steps=20)")
        return [runs.record("mine", spec, share * (1 + i), rms=i / 255, **fields) for i, spec in enumerate(specs)]

    old, new = states("a", 0.1, "2025-01-01T00:00:00Z"), states("b", 0.3, "2025-02-02T00:00:00Z")
    one = write_report([runs.write(tmp_path / "one", [*old, *new])], tmp_path / "one.html").read_text()
    assert "3 earlier records of other images, masks, weights or code are kept and not shown." in one
    assert "as of" not in one
    assert len(worst_cases([*old, *new])) == 2
    folders = [runs.write(tmp_path / name, records) for name, records in (("old", old), ("new", new))]
    two = write_report(folders, tmp_path / "two.html").read_text()
    assert "not shown" not in two
    for day in ("2025-01-01", "2025-02-02"):
        assert f"as of {day}T00:00:00Z</h2>" in two
