"""The example workflows fit the nodes: every name, input, choice and wire of ours, and the drawn form says the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from integrations.comfyui import NODE_CLASS_MAPPINGS
from tests.integrations import stand_ins

FOLDER = Path(__file__).parents[2] / "integrations/comfyui/workflows"
WORKFLOWS = sorted(FOLDER.glob("*_api.json"))
CORE = {
    "CheckpointLoaderSimple": ("MODEL", "CLIP", "VAE"),
    "CLIPTextEncode": ("CONDITIONING",),
    "EmptyLatentImage": ("LATENT",),
    "KSampler": ("LATENT",),
    "VAEDecode": ("IMAGE",),
    "SaveImage": (),
    "PreviewAny": (),
}
"""Outputs of the nodes of ComfyUI's own that the workflows use."""


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def outputs(kind):
    return NODE_CLASS_MAPPINGS[kind].RETURN_TYPES if kind in NODE_CLASS_MAPPINGS else CORE[kind]


def test_there_are_three():
    assert [path.name for path in WORKFLOWS] == ["bundled_api.json", "mixing_api.json", "sdxl_api.json"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_wires_lead_to_outputs_of_the_right_type(path, monkeypatch, tmp_path):
    stand_ins.install(monkeypatch, tmp_path)
    graph = read(path)
    for node in graph.values():
        own = NODE_CLASS_MAPPINGS.get(node["class_type"])
        told = {} if own is None else {k: v for part in own.INPUT_TYPES().values() for k, v in part.items()}
        if own is not None:
            assert node["inputs"].keys() == told.keys()
        for name, value in node["inputs"].items():
            if not isinstance(value, list):
                continue
            source, place = value
            given = outputs(graph[source]["class_type"])[place]
            if own is not None:
                assert given == told[name][0]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_choices_and_numbers_are_allowed(path, monkeypatch, tmp_path):
    stand_ins.install(monkeypatch, tmp_path)
    for node in read(path).values():
        own = NODE_CLASS_MAPPINGS.get(node["class_type"])
        if own is None:
            continue
        for part in own.INPUT_TYPES().values():
            for name, (kind, *more) in part.items():
                value = node["inputs"][name]
                if kind in ("INT", "FLOAT"):
                    assert more[0]["min"] <= value <= more[0]["max"]
                elif isinstance(kind, list) and name in ("dtype", "memory", "faces", "how"):
                    assert value in kind


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_drawn_form_says_the_same(path):
    graph, drawn = read(path), read(path.with_name(path.name.replace("_api", "")))
    links = {link[0]: [str(link[1]), link[2]] for link in drawn["links"]}
    assert {str(node["id"]) for node in drawn["nodes"]} == set(graph)
    for node in drawn["nodes"]:
        told = graph[str(node["id"])]
        assert node["type"] == told["class_type"]
        wired = {one["name"]: links[one["link"]] for one in node["inputs"] if one.get("link") is not None}
        assert wired == {name: value for name, value in told["inputs"].items() if isinstance(value, list)}
        for value in told["inputs"].values():
            assert isinstance(value, list) or value in node["widgets_values"]
