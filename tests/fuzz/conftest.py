"""How many examples: few and always the same, or, with POSE3D_FUZZ=20, 20 times as many others."""

import os

import pytest
from hypothesis import HealthCheck, settings

SCALE = int(os.environ.get("POSE3D_FUZZ", "1"))


def examples(count: int) -> settings:
    return settings(
        max_examples=count * SCALE,
        derandomize=SCALE == 1,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="session")
def data(synthetic_set):
    return synthetic_set
