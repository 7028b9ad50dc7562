import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from pose3d_jax import log, report, skeleton, tables
from pose3d_jax.errors import UserError
from pose3d_jax.runs import Run, read_run

pytestmark = pytest.mark.filterwarnings("error")
METRICS = ("p1", "p2", "n_mpjpe", "absolute", "mpjpe_report")
HOSTILE = '<script>alert("x")</script> $& {title}'


def _row(first):
    return {m: {"frames": first + i / 100, "groups": None} for i, m in enumerate(METRICS)}


def _part(first, frames):
    rows = {"multiview": first, "triangulation": 0.01, "mean_pose": 0.2}
    return {"frames": frames, "rows": {row: {"p1": p, "p2": None} for row, p in rows.items()}}


def _metrics(p1=0.04544, triangulation=0.0081, name="mv", **changes):
    rows = {"multiview": _row(p1), "triangulation": _row(triangulation), "mean_pose": _row(0.17)}
    rows["mean_pose"]["absolute"] = {"frames": None, "groups": None}
    rows["multiview"]["p1"]["groups"] = 0.05126
    rows["multiview"]["pck"] = {"frames": 0.912, "groups": 0.934, "actions": 0.934}
    rows["multiview"]["acceleration"] = {"frames": 1.2345, "groups": 2.0}
    breakdown = {
        "action": {"Walking": _part(p1 + 0.001, 1200), "Sitting": _part(p1 - 0.001, 34)},
        "subject": {"S9": _part(p1, 1234)},
        "group": {"S9/Walking": _part(p1, 1200)},
    }
    split = {"frames": 1234, "clips": 5, "rows": rows, "breakdown": breakdown}
    return {
        "unit": "m",
        "method": "multiview",
        "config_name": name,
        "version": "0.1.0",
        "steps": 8340,
        "wall_s": 912.3,
        "dataset": "cmu_mv_v1",
        "fingerprint": "ab",
        "splits": {"test": split},
        "config": {"method": {"name": name}},
        **changes,
    }


def _examples(names=("one", "two"), offset=0.1):
    joints = skeleton.get("h36m17")
    truth = np.random.default_rng(0).normal((0, 0, 4), 0.4, (len(names), 17, 3))
    prediction = truth.copy()
    prediction[:, 1:, 2] += offset  # 16 of 17 joints, the root stays
    return {
        "names": np.array(names),
        "split": np.array(["test"] * len(names)),
        "keypoints": truth[..., :2] * 300 + 500,
        "confidence": np.ones((len(names), 17)),
        "size": np.full((len(names), 2), 1000.0),
        "truth": truth,
        "truth_valid": np.ones((len(names), 17)),
        "prediction": prediction,
        "triangulation": truth,
        "keypoint_skeleton": np.array(joints.name),
        "joint_skeleton": np.array(joints.name),
        "method": np.array("multiview"),
    }


def _workdir(path, metrics, examples=None):
    with log.ScalarLog(path) as scalars:
        scalars.write(10, {"epoch": 1.0, "phase": 0, "train/all/two_d": 0.5, "train/loss": 0.5})
        scalars.write(20, {"epoch": 2.0, "phase": 1, "train/loss": 0.25, "validation/p1": 0.08})
    (path / "metrics.json").write_text(json.dumps(metrics))
    if examples:
        np.savez(path / "examples.npz", **examples)
    return path


class _Page(HTMLParser):
    """Tags with their attributes, and the cells of every table by row."""

    VOID = ("meta", "br", "link", "img")

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self.open, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []  # all closed, in order

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += f"*{data}*" if self.open[-1] == "b" else data


def _written(tmp_path, runs, title="Report"):
    path = tmp_path / "out" / "report.html"
    report.write_html(path, runs, title)
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    return _Page(path.read_text(encoding="utf-8")), path.read_text(encoding="utf-8")


# -- tables


def test_millimetres_have_one_decimal_and_nothing_is_a_dash():
    assert [tables.millimetres(x) for x in (0.04544, 0.0, 1.23456, None, float("nan"))] == [
        "45.4",
        "0.0",
        "1234.6",
        "–",
        "–",
    ]


def test_the_text_table_has_every_number_under_its_heading():
    text = report.table([Run("multiview", _metrics())])
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "cmu_mv_v1 · test · 1,234 frames, 5 clips" in text
    assert (
        "multiview 45.4 51.3 55.4 – 65.4 – – – 75.4 – 85.4 – 1.23 2.00 91.2 93.4 – – – –" in lines
    )
    assert "triangulation 8.1 – 18.1 – 28.1 – – – 38.1 – 48.1 –" + 8 * " –" in lines
    assert "mean pose 170.0 – 180.0 – 190.0 – – – – – 210.0 –" + 8 * " –" in lines
    assert "Walking 1,200 46.4 10.0 200.0 – – –" in lines
    assert [f"by {kind}" in text for kind in ("action", "subject", "group")] == [True] * 3
    blocks = [block.splitlines()[1:] for block in text.split("\n\n")[1:]]
    for spans, *rows in blocks:
        assert {len(row) for row in (spans, *rows)} == {len(spans)}  # all end at the right edge


def test_a_run_that_has_collapsed_is_named(tmp_path):
    fine, flat = _metrics(), _metrics(name="flat")
    fine["splits"]["test"]["collapse"] = {"relief": 0.9, "verdict": "none"}
    flat["splits"]["test"]["collapse"] = {"relief": 0.0123, "verdict": "flat"}
    runs = [Run("fine", fine), Run("flat", flat), Run("old", _metrics(name="old"))]
    text, (_, page) = report.table(runs), _written(tmp_path, runs)
    assert text.count("collapsed") == page.count("has collapsed") == 1
    assert "flat has collapsed (flat) on cmu_mv_v1 · test" in text
    assert "its depths vary 0.012 times as much as its widths" in page


def test_runs_share_a_table_in_which_the_lowest_is_bold(tmp_path):
    runs = [Run("slow", _metrics(0.05)), Run("good", _metrics(0.03))]
    page, _ = _written(tmp_path, runs)
    rows = {row[0]: row[1:] for row in reversed(page.rows) if row and len(row) == 21}
    assert list(reversed(rows)) == ["", "slow", "good", "triangulation", "mean pose"]
    assert rows["slow"][:2] == ["50.0", "*51.3*"]  # a draw: both
    assert rows["good"][:2] == ["*30.0*", "*51.3*"]
    assert rows["triangulation"][:2] == ["8.1", "–"]  # baselines are never the best method
    assert "15 min 12 s" in page.text


def test_a_single_method_has_nothing_to_be_bold_against(tmp_path):
    page, _ = _written(tmp_path, [Run("mv", _metrics())])
    assert "b" not in [tag for tag, _ in page.tags]


def test_baselines_that_differ_are_shown_for_each_run(tmp_path):
    runs = [Run("a", _metrics()), Run("b", _metrics(triangulation=0.02))]
    page, _ = _written(tmp_path, runs)
    labels = [row[0] for row in page.rows if len(row) == 21]
    assert labels[1:] == ["a", "b", "triangulation (a)", "triangulation (b)", "mean pose"]


def test_other_data_of_the_same_name_have_a_table_of_their_own(tmp_path):
    runs = [Run("a", _metrics()), Run("b", _metrics(fingerprint="cd"))]
    page, _ = _written(tmp_path, runs)
    labels = [row[0] for row in page.rows if len(row) == 21]
    assert labels == [*["", "a", "triangulation", "mean pose"], *["", "b"], *labels[2:4]]


# -- the page


def test_the_page_is_whole_and_needs_nothing_else(tmp_path):
    runs = [
        read_run(_workdir(tmp_path / name, _metrics(p1), _examples()))
        for name, p1 in (("a", 0.05), ("b", 0.03))
    ]
    page, text = _written(tmp_path, runs)
    tags = [tag for tag, _ in page.tags]
    assert not {"script", "link", "iframe", "object", "embed"} & set(tags)
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
    assert not re.search(r"@import|url\((?!#)", text)
    assert tags.count("svg") == 3  # curves, one picture for both runs, errors by action
    assert "validation/p1 (mm)" in text
    assert "P1 94.1 mm" in text  # 100 mm at 16 of 17 joints
    assert "P1 0.0 mm" in text  # the triangulation


def test_runs_with_other_examples_have_pictures_of_their_own(tmp_path):
    runs = [
        Run("a", _metrics(), examples=_examples()),
        Run("b", _metrics(), examples=_examples(names=("one", "three"))),
    ]
    _, text = _written(tmp_path, runs)
    assert text.count("half from the side") == 2


def test_a_prediction_up_to_scale_is_scaled_and_one_without_root_has_no_error(tmp_path):
    metrics = _metrics()
    metrics["splits"]["test"]["rows"]["multiview"]["p1"] = {"frames": None, "groups": None}
    examples = _examples()
    examples["prediction"] = 7 * examples["truth"]
    examples["truth_valid"][1, 0] = 0
    _, text = _written(tmp_path, [Run("a", metrics, examples=examples)])
    assert "N-MPJPE 0.0 mm" in text
    assert "N-MPJPE – mm" in text


def test_all_text_is_escaped(tmp_path):
    run = Run(HOSTILE, _metrics(name=HOSTILE), examples=_examples(names=(HOSTILE, "x")))
    run.metrics["dataset"] = HOSTILE
    run.metrics["splits"] = {HOSTILE: run.metrics["splits"]["test"]}
    action = run.metrics["splits"][HOSTILE]["breakdown"]["action"]
    action[HOSTILE] = action.pop("Walking")
    run.scalars.append({"step": 1, f"train/{HOSTILE}": 1.0})
    page, text = _written(tmp_path, [run], title=HOSTILE)
    assert "<script" not in text
    assert HOSTILE in page.text
    assert "script" not in [tag for tag, _ in page.tags]


def test_runs_of_one_name_are_told_apart(tmp_path):
    runs = [Run("mv", _metrics(), [{"step": 1, "train/loss": x}]) for x in (1.0, 2.0)]
    page, _ = _written(tmp_path, runs)
    assert [row[0] for row in page.rows if len(row) == 21][1:3] == ["mv", "mv (2)"]


def test_no_run_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no run to report"):
        report.write_html(tmp_path / "report.html", [], "Report")
    assert list(tmp_path.iterdir()) == []


def test_runs_under_other_noise_share_no_table(tmp_path):
    """They saw other keypoints: side by side their errors would say nothing."""
    for name, noise in (("quiet", "clean"), ("loud", "typical")):
        (tmp_path / name).mkdir()
        _workdir(tmp_path / name, _metrics(name=name, noise=noise))
    text = report.table([read_run(tmp_path / name) for name in ("quiet", "loud")])
    assert text.count("cmu_mv_v1 · test · 1,234 frames") == 1
    assert text.count("cmu_mv_v1 · test · typical noise · 1,234 frames") == 1


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ("triangulation", "triangulation"),
        ("triangulation_robust", "triangulation, robust"),
        ("triangulation_smooth_bones", "triangulation, smooth + bones"),
        ("mean_pose", "mean pose"),
        ("multiview", None),
        ("triangulations", None),
        ("my_triangulation", None),
    ],
)
def test_what_is_a_method_and_what_it_is_held_to(row, label):
    assert tables.baseline(row) == label
