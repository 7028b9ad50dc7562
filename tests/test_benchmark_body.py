"""benchmarks/body.py: both implementations agree, and the JSON says how fast they are."""

import json

import jax
import pytest

from benchmarks import body


@pytest.mark.slow
def test_the_quick_form_prints_rates_and_json(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["body", "--quick"])
    monkeypatch.setattr(body, "VERTICES", 200)
    with jax.numpy_rank_promotion("allow"):  # the independent one is broadcast
        body.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["body"]
    for way in ("forward", "backward"):
        rates = found["rates"]["1"]
        speed = rates[f"ours_{way}"] / rates[f"independent_{way}"]
        assert found["speed_over_independent"]["1"][way] == pytest.approx(speed)
