"""What `--quick` forms begin with: a lifter of a few steps, of synthetic people."""

from pathlib import Path

from configs import demo
from data_prep import synthetic
from pose3d_jax import train


def lifter(folder: Path) -> tuple[Path, Path]:
    """The prepared data and the trained run, both below a folder."""
    data, run = folder / "data", folder / "run"
    synthetic.main(["--output", str(data), "--scale", "0.05"])
    config = demo.get_config("multiview-tiny")
    config.data.path = str(data)
    train.run(config, run)
    return data, run
