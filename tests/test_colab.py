"""The notebooks run from top to bottom, at a small size, and stand in the repository unrun."""

import importlib.util
import json

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from tests.commands import ROOT

NOTEBOOKS = sorted((ROOT / "colab").glob("*.ipynb"))


def read(name):
    return nbformat.read(ROOT / "colab" / f"{name}.ipynb", as_version=4)


def executed(name, folder, monkeypatch, **parameters):
    """The notebook's outputs, all in one text; its parameters' cell is followed by other values."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    notebook = read(name)
    (place,) = [
        n for n, cell in enumerate(notebook.cells) if cell.source.startswith("## 2. Choose")
    ]
    names = {line.partition(" = ")[0] for line in notebook.cells[place + 1].source.splitlines()}
    assert set(parameters) <= names
    values = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    notebook.cells.insert(place + 2, nbformat.v4.new_code_cell(values))
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return json.dumps([cell.get("outputs") for cell in notebook.cells])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_are_committed_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_install_only_where_nothing_is(path):
    (cell,) = [cell for cell in nbformat.read(path, as_version=4).cells if "%pip" in cell.source]
    head, _, install = cell.source.partition('if importlib.util.find_spec("pose3d_jax") is None:\n')
    assert importlib.util.find_spec("pose3d_jax") is not None
    assert all(line.startswith("    ") for line in install.splitlines())
    assert all(line.startswith("import ") for line in head.split("\n") if line)


@pytest.mark.slow
def test_training_runs(tmp_path, monkeypatch):
    outputs = executed(
        "train_tpu", tmp_path, monkeypatch, EPOCHS=1, WIDTH=32, SIZE=0.1, PRECISION="bfloat16",
        FOLDER=str(tmp_path),
    )  # fmt: skip
    (run,) = tmp_path.glob("multiview_*")
    metrics = json.loads((run / "metrics.json").read_text())
    p1 = 1000 * metrics["splits"]["test"]["rows"]["multiview"]["p1"]["frames"]
    assert f"{p1:.1f}" in outputs  # the table
    assert outputs.count("image/png") == 2  # the curves and the picture


@pytest.mark.slow
def test_predicting_runs(tmp_path, monkeypatch):
    """Where there was no demo: it trains, too."""
    found = tmp_path / "predicted"
    outputs = executed(
        "predict", tmp_path, monkeypatch, EPOCHS=1, SIZE=0.1, CHECKPOINT=str(tmp_path / "run"),
        KEYPOINTS=[str(tmp_path / "example/keypoints.npz")], OUTPUT=str(found),
        CAMERAS=str(tmp_path / "example/cameras.toml"),
    )  # fmt: skip
    expected = {"person_0.npz", "person_0.trc", "person_0.bvh", "viewer.html"}
    assert expected <= {path.name for path in found.iterdir()}
    with np.load(found / "person_0.npz") as file:
        assert str(file["joints"].shape) in outputs
    assert "<iframe srcdoc=" in outputs
    assert (tmp_path / "predicted.zip").exists()
