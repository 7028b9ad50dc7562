"""The API reference: built without a warning, with a page for every module."""

import os
import subprocess
import sys

import pytest

from tests.commands import ROOT


def pages():
    """Of every module that is not private, as a path below the site."""
    for package in ("pose3d_jax", "data_prep"):
        for path in (ROOT / package).rglob("*.py"):
            name = path.relative_to(ROOT).with_suffix("")
            yield f"{name.parent if name.name == '__init__' else name}.html"


@pytest.mark.slow
def test_every_module_has_its_page(tmp_path):
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", "docs.api", "--output", str(tmp_path)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert not result.stderr
    built = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.html")}
    assert built == {"index.html", *pages()}
    # Shapes are there, and the fields of flax's dataclasses.
    assert "'*batch axes'" in (tmp_path / "pose3d_jax/geometry.html").read_text()
    assert 'id="Camera.rotation"' in (tmp_path / "pose3d_jax/cameras.html").read_text()
