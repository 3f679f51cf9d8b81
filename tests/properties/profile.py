"""How many examples the properties get: few and always the same, or many and new ones each night.

`HYPOTHESIS_PROFILE=nightly pytest tests/properties` looks further.
"""

import os

from hypothesis import HealthCheck, settings

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
MORE = 30
"""How many times as many examples a night has."""


def examples(number: int, **options: int) -> settings:
    """As a decorator, or as the settings of a state machine."""
    return settings(
        max_examples=number * MORE if NIGHTLY else number,
        derandomize=not NIGHTLY,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        **options,  # type: ignore[arg-type]
    )
