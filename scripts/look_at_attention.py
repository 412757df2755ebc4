"""Where a face looks: what share of cross-attention goes to the person, to the other words, and to the padding.

python scripts/look_at_attention.py                                     # the bundled adapter
python scripts/look_at_attention.py --adapter runs/adapter/export/photomaker.safetensors

A first pass draws each picture, in which the face is found; a second draws it again and keeps the attention of the
places in the face. People are of the validation split.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from photomaker.encoders.ip_adapter import cross_attentions
from photomaker.evaluation.people.references import FaceReferences
from photomaker.evaluation.plans.compare.people import People, world_of
from photomaker.evaluation.plans.compare.settings import ComparisonSettings
from photomaker.faces import BundledFaces, largest
from photomaker.methods.photomaker import PhotoMaker
from photomaker.types import Request, Sampling

STEPS = 20
THIRDS = ("early", "middle", "late")
KINDS = ("person", "words", "padding")
Shares = dict[tuple[str, str], list[np.ndarray]]


@contextmanager
def recorded(unet: Any, kinds: Tensor, box: np.ndarray, into: Shares) -> Iterator[None]:  # noqa: ANN401 - a diffusers UNet
    """Keep attention by kind of token while the context lasts.

    Args:
        unet: A diffusers UNet.
        kinds: [3, length], 1 where a token is of a kind.
        box: The face as shares of the picture's side: left, top, right, bottom.
        into: By side of the feature map and third of the steps, [3] shares a layer and step.
    """
    names = list(cross_attentions(unet).values())
    before = dict(unet.attn_processors)
    calls: dict[str, int] = defaultdict(int)

    def watch(name: str, layer: Any) -> None:  # noqa: ANN401 - a diffusers attention layer
        scores = layer.get_attention_scores

        def keep(query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
            found = scores(query, key, mask)
            side = round(found.shape[1] ** 0.5)
            # with guidance the second half of the batch is the one with the prompt
            maps = found.unflatten(0, (-1, layer.heads)).chunk(2)[1].float().mean((0, 1))
            left, top, right, bottom = (round(edge * side) for edge in box)
            face = maps.unflatten(0, (side, side))[top:bottom, left:right].flatten(0, 1).mean(0)
            third = THIRDS[min(2, calls[name] * 3 // STEPS)]
            into[f"{side} x {side}", third].append((kinds @ face).numpy())
            calls[name] += 1
            return found

        layer.get_attention_scores = keep

    for name in names:
        watch(name, unet.get_submodule(name))
    unet.set_attn_processor(AttnProcessor())
    try:
        yield
    finally:
        unet.set_attn_processor(before)
        for name in names:
            del unet.get_submodule(name).get_attention_scores


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adapter", default=None, help="adapter file; default: the bundled one")
    parser.add_argument("--people", type=int, default=8)
    given = parser.parse_args()
    settings = ComparisonSettings(
        split="validation",
        people=given.people,
        tuned_people=2,
        curve_people=0,
        gallery=given.people,
    )
    people, faces, references = (
        People(settings, world_of(settings)),
        BundledFaces.open(),
        FaceReferences.open(),
    )
    method = PhotoMaker.open(adapter=given.adapter)
    shares: Shares = defaultdict(list)
    for row in range(given.people):
        identity = method.fit(references(people.references(row, settings.references), str(row)))
        request = Request(
            f"a photo of a {people.class_of(row)} img in the snow", Sampling(steps=STEPS, seed=row)
        )
        picture = method.generate(identity, [request])[0]
        face = largest(faces.detect(picture))
        if face is None:
            continue
        expanded = method.pipeline.expand_prompts([request.prompt], [settings.references])[0][0]
        person = torch.tensor(expanded.class_tokens)
        end = torch.tensor(expanded.ids) == method.pipeline.tokenizer.eos_token_id
        padding = end.cumsum(0) > 0
        kinds = torch.stack([person, ~person & ~padding, padding]).float()
        with recorded(method.pipeline.unet, kinds, np.asarray(face.box) / picture.width, shares):
            method.generate(identity, [request])
    print("cells   steps   " + "  ".join(f"{kind:>8}" for kind in KINDS))
    for (side, third), found in sorted(shares.items(), key=lambda one: (one[0][0], THIRDS.index(one[0][1]))):
        print(f"{side:7} {third:7} " + "  ".join(f"{share:8.3f}" for share in np.mean(found, axis=0)))


if __name__ == "__main__":
    main()
