"""Names of plug-ins: found lazily, near misses named, missing extras named."""

from pathlib import Path

import pytest

import photomaker
from photomaker import registry
from photomaker.errors import SettingsError


@pytest.fixture
def places(monkeypatch):
    monkeypatch.setattr(registry, "_PLACES", {"method": {"photomaker": ("json:dumps", None)}})


@pytest.mark.usefixtures("places")
def test_a_name_is_imported_when_it_is_asked_for():
    import json

    registry.register("method", "absent", "no_such_module:Thing")
    assert registry.names("method") == ["absent", "photomaker"]
    assert registry.find("method", "photomaker") is json.dumps


@pytest.mark.usefixtures("places")
@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("method", "photomakr", "did you mean 'photomaker'"),
        ("method", "zzz", "known are photomaker"),
        ("x", "y", "none"),
    ],
)
def test_an_unknown_name_is_told_with_what_is_near(kind, name, words):
    with pytest.raises(SettingsError, match=words):
        registry.find(kind, name)


@pytest.mark.usefixtures("places")
def test_a_missing_extra_is_named():
    registry.register("detector", "insightface", "no_such_module.inside:Detector", extra="faces")
    with pytest.raises(SettingsError, match=r"needs no_such_module; .*photomaker\[faces\]"):
        registry.find("detector", "insightface")
    registry.register("detector", "ours", "no_such_module:Detector")
    with pytest.raises(ImportError):
        registry.find("detector", "ours")


@pytest.mark.parametrize("kind", sorted(set(registry._PLACES) - {"face embedder"}))
def test_everything_registered_can_be_imported(kind):
    assert registry.names(kind)
    for name in registry.names(kind):
        place, extra = registry._PLACES[kind][name]
        module, _, attribute = place.partition(":")
        if extra is None:
            assert callable(registry.find(kind, name))
        else:  # what it needs may be missing
            path = Path(photomaker.__file__).parents[1] / (module.replace(".", "/") + ".py")
            assert f"class {attribute}(" in path.read_text(encoding="utf-8")


def test_a_plug_in_of_ones_own_is_named_by_its_place():
    import json

    assert registry.find("captioner", "json:dumps") is json.dumps
    for place in ("no_such_module:Captioner", "json:Captioner", ":Captioner"):
        with pytest.raises(SettingsError, match="cannot be imported"):
            registry.find("captioner", place)
