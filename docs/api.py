"""The API reference, made of the docstrings: `make docs` leaves it in `site/`.

python -m docs.api --output site
"""

import argparse
import platform
from pathlib import Path

import pdoc

PACKAGES = ("pose3d_jax", "data_prep")


def build(output: Path) -> None:
    """A page for every module whose name does not begin with an underscore, and a search."""
    platform.processor()  # h5py asks for it, by a process, which pdoc forbids while it imports
    pdoc.render.configure(docformat="google", show_source=False)
    pdoc.pdoc(*PACKAGES, output_directory=output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("site"))
    build(parser.parse_args().output)
