"""What tests of the studio share."""

import pytest


@pytest.fixture
def no_coach(monkeypatch):
    """Nothing said of photos: those of the fakes are one colour, with faces of ten pixels."""
    monkeypatch.setattr("photomaker.studio.engine.advised", lambda sitting, _: sitting)
