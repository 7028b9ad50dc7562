"""benchmarks/images.py: the JSON says how quick the loader is beside the step."""

import json

import pytest

from benchmarks import images
from data_prep import writer
from tests import scenes


@pytest.mark.slow
def test_the_quick_form_prints_rates_and_json(tmp_path, monkeypatch, capsys):
    made = [scenes.photographed(scenes.record(f"c{n}", views=1, seed=n)) for n in range(4)]
    writer.write(tmp_path / "data", "scene", {"train": made}, description="small")
    monkeypatch.setattr("sys.argv", ["images", "--quick", "--data", str(tmp_path / "data")])
    images.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["images"]
    assert found["loader_over_step"] == pytest.approx(found["loader_per_s"] / found["step_per_s"])
    assert found["multiply_adds"] > 1e7
