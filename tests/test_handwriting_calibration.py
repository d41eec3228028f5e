"""The calibration of several captures as one."""

from __future__ import annotations

import pytest

from episodes import InputError
from experiments.handwriting_calibration import mean_calibration
from metagvae.classifier.calibration import Calibration


def test_the_mean_of_calibrations_keeps_the_length_that_they_are_of() -> None:
    several = [Calibration(temperature, 4 * temperature, 2.0, "one", 1.0) for temperature in (0.1, 0.4)]
    found = mean_calibration(several, "all")
    assert (found.temperature, found.spread) == (pytest.approx(0.2), pytest.approx(0.8))
    assert (found.normalise, found.fitted_on) == (1.0, "all")
    with pytest.raises(InputError, match="no mean holds for both"):
        mean_calibration([*several, Calibration(0.1, 0.4)], "all")
