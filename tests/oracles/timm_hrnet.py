"""What timm's HRNet-W32 makes of an image, and a file of `torch.save`. Run by hand, with both:

    python tests/oracles/timm_hrnet.py

Weights are numbers that each tensor's name decides (`weight` below), so that the answer alone is
kept: `timm_hrnet_w32.npz`. timm 1.0.31, torch 2.13.0. timm asks for torchvision, of which it needs
names alone; where that is not installed, something stands for it.
"""

import sys
import types
import zlib
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SHAPE = (1, 3, 64, 96)


def weight(name, shape):
    """A tensor's numbers, such that no layer dies or explodes."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) == 4:
        value = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith("bias") or name.endswith("running_mean"):
        value = 0.1 * rng.standard_normal(shape)
    else:
        value = rng.uniform(0.5, 1.5, shape)
    return value.astype(np.float32)


def image():
    return np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)


class Anything(type):
    """A class of any attributes."""

    def __getattr__(cls, name):
        return anything(name)

    def __hash__(cls):
        return id(cls)


def anything(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return Anything(name, (), {})


def stand_in(parts):
    """Modules of torchvision that hold anything."""
    for part in ("", *parts.split()):
        name = f"torchvision.{part}".rstrip(".")
        module = sys.modules.setdefault(name, types.ModuleType(name))
        module.__getattr__ = anything
        module.__path__ = []
        above, _, own = name.rpartition(".")
        if above:
            setattr(sys.modules[above], own, module)


def main():
    import torch

    try:
        import torchvision  # noqa: F401
    except ImportError:
        stand_in("ops ops.misc models models.feature_extraction transforms transforms.functional")
        stand_in("datasets io")
    import timm

    network = timm.create_model("hrnet_w32", features_only=False).eval()
    state = {
        name: torch.tensor(weight(name, tuple(x.shape))) if x.ndim else x
        for name, x in network.state_dict().items()
    }
    network.load_state_dict(state)
    with torch.no_grad():
        fine = network.stages(network.act2(network.bn2(network.conv2(
            network.act1(network.bn1(network.conv1(torch.tensor(image()))))))))[0]  # fmt: skip
    heads = ("incre_modules", "downsamp_modules", "final_layer", "classifier")
    shapes = [
        f"{name}:{','.join(map(str, x.shape))}"
        for name, x in state.items()
        if not name.startswith(heads)
    ]
    np.savez_compressed(HERE / "timm_hrnet_w32.npz", fine=fine.numpy()[:, ::4], shapes=shapes)
    base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    held = {
        "plain": base,
        "seen_from_the_side": base.permute(2, 0, 1)[1:],
        "half": base.half(),
        "bfloat": base.bfloat16(),
        "parameter": torch.nn.Parameter(base[0]),
        "count": torch.tensor(7),
        "none": torch.zeros(0, 3),
    }
    state = torch.nn.Linear(2, 3).state_dict()
    torch.save({"epoch": 3, "state_dict": state | held}, HERE / "torch_save.pth")


if __name__ == "__main__":
    main()
