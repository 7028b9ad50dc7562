"""The door: `python -m pose3d_jax.main --config=configs/NAME.py --workdir=DIR`."""

import sys

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from pose3d_jax import evaluate, report, train
from pose3d_jax.errors import UserError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The experiment: a file, with an argument after a colon where it takes one."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where checkpoints, scalars, metrics and the report go.", required=True
)
_MODE = flags.DEFINE_enum(
    "mode", "train", ["train", "evaluate"], "evaluate: the workdir's latest checkpoint."
)


def _main(argv: list[str]) -> None:
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # libraries tell of their inner life at INFO
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    config = _CONFIG.value
    if not isinstance(config, ConfigDict | None):
        raise UserError("--config names no file that can be read; the configs are in configs/")
    if _MODE.value == "evaluate":
        metrics = evaluate.run(_WORKDIR.value, config)
    elif config is None:
        raise app.UsageError("--mode=train needs --config")
    else:
        metrics = train.run(config, _WORKDIR.value)
    print(report.table(metrics))
    print(f"\n{_WORKDIR.value}/report.html")


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError) as error:
        # An unknown key, a value of the wrong type, a config file that fails: the last line tells.
        last_line = str(error).strip().splitlines()[-1].strip()
        sys.exit(f"error: the flags do not fit the config or the command: {last_line}")


def main() -> None:
    """Parses the flags and runs; what a user can mend ends in one message and exit status 1."""
    try:
        app.run(_main, flags_parser=_parse)
    except (UserError, train.NonFiniteError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
