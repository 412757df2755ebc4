"""What is measured on a face's place in a picture."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from photomaker.faces.crops import fine_power


def test_fine_power_is_what_blur_takes_and_noise_brings():
    rng = np.random.default_rng(0)
    noise = rng.normal(128, 20, (96, 96)).clip(0, 255)
    picture = np.repeat(noise[..., None], 3, 2).astype(np.uint8)
    box = (16, 8, 80, 88)
    sharp = fine_power(picture, box)
    # white noise has its variance spread over all frequencies, of which this share lies above a quarter
    grid = np.hypot(*np.meshgrid(np.fft.fftfreq(80), np.fft.fftfreq(64), indexing="ij"))
    assert sharp == pytest.approx(picture[..., 0].astype(float).var() * (grid > 0.25).mean(), rel=0.1)
    blurred = np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(1.5)))
    assert fine_power(blurred, box) < 0.05 * sharp
    ramp = np.repeat(np.tile(np.arange(96, dtype=np.uint8), (96, 1))[..., None], 3, 2)
    assert fine_power(ramp, box) < 1e-3 * sharp
    assert fine_power(picture, (10, 10, 16, 60)) == 0
    assert fine_power(picture, (-50, -50, 40, 40)) > 0
    assert fine_power(255 - picture, box) == pytest.approx(sharp)
