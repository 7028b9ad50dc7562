"""The door: `python -m pose3d_jax.main --config=configs/NAME.py [--workdir=DIR]`."""

import sys

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from pose3d_jax import adapt, compare, compiled, evaluate, hosts, report, runs, train
from pose3d_jax.errors import Interrupted, NonFiniteError, UserError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The experiment: a file, with an argument after a colon where it takes one."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where checkpoints, scalars, metrics and the report go; default: runs/NAME."
)
_MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "evaluate", "adapt", "compare"],
    "evaluate, adapt: the workdir's latest checkpoint. compare: two work directories, given as "
    "arguments.",
)
_PROFILE = flags.DEFINE_bool("profile", False, "Leave a JAX trace of a few training steps.")
_OTHER_CODE = flags.DEFINE_bool(
    "other_code", False, "Go on with a run that another version of the package began."
)
_HOSTS = flags.DEFINE_string(
    "hosts", None, "Train on several hosts: `auto`, or COORDINATOR:PORT,PROCESSES,INDEX."
)


def _main(argv: list[str]) -> None:
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # libraries tell of their inner life at INFO
    compiled.keep()
    if _HOSTS.value:
        hosts.start(_HOSTS.value)
    mode, workdir, config = _MODE.value, _WORKDIR.value, _CONFIG.value
    if len(argv) != (3 if mode == "compare" else 1):
        wanted = "two work directories" if mode == "compare" else "no arguments but flags"
        raise app.UsageError(f"--mode={mode} takes {wanted}, not {' '.join(argv[1:]) or 'none'}")
    if mode == "compare":
        print(compare.table(compare.run(*argv[1:])))
        return
    if not isinstance(config, ConfigDict | None):
        raise UserError("--config names no file that can be read; the configs are in configs/")
    if mode == "train" and config is None:
        raise app.UsageError("--mode=train needs --config")
    if workdir is None:
        if config is None:
            raise app.UsageError(f"--mode={mode} needs --workdir, or a --config that names it")
        workdir = f"runs/{config.name}"
    if mode == "train":
        train.run(config, workdir, profile=_PROFILE.value, other_code=_OTHER_CODE.value)
    else:
        {"evaluate": evaluate, "adapt": adapt}[mode].run(workdir, config)
    if hosts.first():
        print(report.table(runs.read_runs(workdir)) + f"\n{workdir}/report.html")


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError) as error:
        # An unknown key, a value of the wrong type, a config file that fails: the last line tells.
        last_line = str(error).strip().splitlines()[-1].strip()
        sys.exit(f"error: the flags do not fit the config or the command: {last_line}")


def main() -> None:
    """Parses the flags and runs; what a user can mend ends in one message and exit status 1.

    A run that a signal ended has saved its state; its exit status is 143, as of SIGTERM.
    """
    try:
        app.run(_main, flags_parser=_parse)
    except (UserError, NonFiniteError) as error:
        sys.exit(f"error: {error}")
    except Interrupted as error:
        print(f"stopped: {error}", file=sys.stderr)
        sys.exit(143)


if __name__ == "__main__":
    main()
