"""FlashFace: a second UNet reads crops of the face, and additional self-attention layers read its feature maps.

Nothing of the face goes through the prompt, so that age and gender are the prompt's. The base's UNet has FlashFace's
weights, and the reference UNet stands beside it, only while a picture is drawn.

Source: arXiv 2403.17008.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image
from torch import Tensor

from photomaker.checks import number
from photomaker.encoders.flashface import FlashFaceFile, check_fit, read_flashface, weights_for
from photomaker.encoders.mixing import active_features
from photomaker.errors import PhotoError, SettingsError
from photomaker.hub import adapter_file
from photomaker.methods.pretrained import (
    BATCH_SIZE,
    PretrainedMethod,
    bundled_weights,
    check_made_by,
    check_made_with,
    is_absent,
)
from photomaker.pipelines.attention.references import (
    Bank,
    Guidance,
    Referenced,
    placed,
    reading_processors,
    reference_unet,
    square_map,
)
from photomaker.pipelines.attention.regions import regions_of
from photomaker.pipelines.drawing.batches import Defaults, draw, encoded_texts, text_rows
from photomaker.pipelines.drawing.changes import processors_in, weights_in
from photomaker.pipelines.drawing.opening import open_pipeline, unet_config
from photomaker.prompts import EncodedPrompts
from photomaker.training.data.latents import encoded
from photomaker.types import Identity, Reference, Request
from photomaker.weights import sha256

MOST_SCALE = 4.0
CROP, SIDE = 1.5, 224
"""Of published files: side of the face's square in longer sides of its box, and in pixels."""
MOST_PHOTOS = 4
_CELLS = 64  # in which a box is checked before anything is drawn


@dataclass(frozen=True)
class FlashFaceSettings:
    """How much of the photos goes into a picture.

    Attributes:
        strength: Of the references in the further attention layers, 0 to 4.
        reference: Guidance of the references, 0 to 4.
        launch: Timestep, 0 to 1000, from which down references and text are guided apart; before it they are guided
            together.

    Raises:
        SettingsError: A value is outside its range.
    """

    strength: float = 0.85
    reference: float = 2.0
    launch: float = 750.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        number("strength", self.strength, 0, MOST_SCALE)
        number("reference", self.reference, 0, MOST_SCALE)
        number("launch", self.launch, 0, 1000)


class FlashFace(PretrainedMethod):
    """FlashFace on a stock SDXL pipeline.

    Args:
        pipeline: A pipeline without adapter.
        file: The checkpoint.
        own: How much of the photos goes into a picture; None takes what the file notes, else the paper's.
        defaults: Settings for requests that leave them open; None takes those noted in the file.
        batch_size: Most pictures drawn at once.

    Raises:
        SettingsError: `batch_size` is below 1.
        WeightsError: The checkpoint does not fit the base.
    """

    name: ClassVar[str] = "flashface"
    takes: ClassVar[frozenset[str]] = frozenset({"layout"})
    bundled_file: ClassVar[str] = "methods/flashface.safetensors"

    def __init__(
        self,
        pipeline: StableDiffusionXLPipeline,
        file: FlashFaceFile,
        own: FlashFaceSettings | None = None,
        *,
        defaults: Defaults | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        """Build the reference UNet and the further layers; the UNet's weights wait beside it."""
        super().__init__(pipeline, defaults or Defaults.noted(file.config, merge=0.0), batch_size)
        unet = pipeline.unet
        check_fit(file, unet.config)
        weights = weights_for(file, unet)
        self.file, self.unet, self.place = file, weights.unet, weights.place
        self.own = own or FlashFaceSettings(**file.config.get("flashface", {}))
        self.bank = Bank()
        self.reference = reference_unet(unet, self.bank).requires_grad_(False).eval()
        read = dict(self.reference.named_parameters())
        for name, tensor in weights.reference.items():
            read[name].data.copy_(tensor)
        self.processors = reading_processors(unet, self.bank)
        for name, processor in self.processors.items():
            state = weights.second[name.removesuffix(".processor")]
            processor.self_attn_first.load_state_dict(dict(state))
            processor.requires_grad_(False).eval()
        self.sha256 = str(file.config.get("sha256", ""))

    @classmethod
    def open(
        cls,
        base: str | os.PathLike[str] | None = None,
        adapter: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        memory: str = "auto",
        *,
        own: FlashFaceSettings | None = None,
        variant: str | None = None,
    ) -> FlashFace:
        """Load base model and checkpoint.

        Args:
            base: Diffusers folder or hub id of an SDXL model; None is the bundled small one.
            adapter: Checkpoint in the published layout, or a hub id with the file's name; None is the bundled one.
            device: Where to compute; None is CUDA if available, else the CPU.
            dtype: Precision of all models.
            memory: Where the parts of the pipeline stay, see `photomaker.pipelines.drawing.memory`.
            own: See the class.
            variant: Which form of the base's weights to load, such as `fp16`; None is the plain one, or the only one.

        Raises:
            SettingsError: `memory` is not a plan that the method can follow.
            WeightsError: A file is missing, altered, damaged, or does not fit the other.
        """
        path = bundled_weights(cls.bundled_file, cls.name) if adapter is None else adapter_file(adapter)
        file = read_flashface(path)
        file = replace(file, config={"sha256": sha256(path), **file.config})
        check_fit(file, unet_config(base, variant))
        method = cls(open_pipeline(StableDiffusionXLPipeline, base, dtype, variant), file, own)
        return method.placed(device, memory, method.reference)

    @property
    def own_notes(self) -> Mapping[str, Any]:
        """See `PretrainedMethod`; published files are of a crop around the face."""
        return {"crop": CROP, **self.file.config}

    @property
    def side(self) -> int:
        """Pixels of a side of a crop."""
        return int(self.file.config.get("side", SIDE))

    # ---- the person

    def identity(
        self,
        pictures: Sequence[Image.Image],
        references: Sequence[Reference],
        weights: Tensor,
        notes: Mapping[str, Any],
    ) -> Identity:
        """See `PretrainedMethod`: `id_features` is latents of the crops [refs, channels, h, w].

        Raises:
            PhotoError: There are more than four photos.
        """
        if len(pictures) > MOST_PHOTOS:
            raise PhotoError(
                f"FlashFace reads 1 to {MOST_PHOTOS} photos, got {len(pictures)}; leave some out"
            )
        del references
        side = (self.side, self.side)
        crops = np.stack(
            [np.asarray(one.convert("RGB").resize(side, Image.Resampling.LANCZOS)) for one in pictures]
        )
        pixels = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 127.5 - 1
        vae = self.pipeline.vae
        if vae.dtype != torch.float32:  # SDXL's overflows in half precision
            vae = copy.deepcopy(vae).float()
        latents = torch.from_numpy(encoded(vae, pixels)).float()
        own = {"encoder": self.name, "encoder_sha256": self.sha256}
        return Identity(self.name, {"id_features": latents, "weights": weights}, own | dict(notes))

    # ---- pictures

    def check_drawing(self, identity: Identity, requests: Sequence[Request]) -> None:
        """See `PretrainedMethod`; the place of the face is checked too."""
        text_rows(self.pipeline, requests)
        self._check_identity(identity)
        for request in requests:
            self._map(request, _CELLS, _CELLS)

    def _check_identity(self, identity: Identity) -> None:
        check_made_by(identity, self.name, "id_features")
        channels = int(self.pipeline.unet.config.in_channels)
        fits = identity.tensors["id_features"].shape[1] == channels
        check_made_with(identity, self.sha256, fits, "FlashFace checkpoint")

    def _map(self, request: Request, height: int, width: int) -> Tensor:
        """Region of the face [1, height, width]; empty if none is given."""
        places = request.extras.layout
        if not places:
            return torch.zeros(1, height, width)
        if len(places) != 1:
            raise SettingsError(
                f"the layout has {len(places)} places, but flashface draws one person; give one"
            )
        region = regions_of(places, height, width)[0] >= 0.5  # noqa: PLR2004 - half
        if not bool(region.any()):
            raise SettingsError("the face's region is smaller than a latent cell; give a larger one")
        down, across = region.any(1).nonzero(), region.any(0).nonzero()
        box = (int(across[0]), int(down[0]), int(across[-1]) + 1, int(down[-1]) + 1)
        return square_map(box, height, width)

    @torch.no_grad()
    def draw_batch(self, identity: Identity, requests: Sequence[Request]) -> list[Image.Image]:
        """See `PretrainedMethod`."""
        pipeline, sampling = self.pipeline, requests[0].sampling
        plain, negatives = encoded_texts(pipeline, requests)
        if is_absent(identity, sampling):
            return draw(pipeline, requests, plain, negatives)
        referenced = self._referenced(identity, requests, negatives)
        size = (int(sampling.height or 0) // 8, int(sampling.width or 0) // 8)
        maps = torch.stack([self._map(request, *size) for request in requests])

        def switch(on: bool) -> None:
            referenced.on = on

        def masks(rows: int) -> Tensor:
            return maps.repeat(-(-rows // len(maps)), 1, 1, 1)[:rows]

        with ExitStack() as stack:
            stack.enter_context(weights_in(pipeline.unet, self.unet))
            stack.enter_context(processors_in(pipeline.unet, self.processors))
            stack.enter_context(placed(pipeline.unet, self.place, masks))
            stack.enter_context(referenced.attached(pipeline.unet))
            return draw(pipeline, requests, plain, negatives, None, switch)

    def _referenced(
        self, identity: Identity, requests: Sequence[Request], negatives: EncodedPrompts | None
    ) -> Referenced:
        """The photos as the reference UNet reads them, under the negative prompts or nothing."""
        unet, sampling, device = self.pipeline.unet, requests[0].sampling, self.pipeline._execution_device
        features, weights = active_features(identity)
        given = [request.negative_prompt or "" for request in requests]
        texts = list(dict.fromkeys(given))
        width, pooled = (
            int(unet.config.cross_attention_dim),
            self.pipeline.text_encoder_2.config.projection_dim,
        )
        context = (torch.zeros(1, 77, width), torch.zeros(1, int(pooled)))
        if negatives is None:
            texts, given = [""], [""] * len(given)
        else:
            places = [given.index(text) for text in texts]
            context = (negatives.embeds[places], negatives.pooled[places])
        own = self.own
        guidance = Guidance(
            float(sampling.guidance or 1.0), own.strength, min(own.strength, 0.85), own.reference, own.launch
        )
        return Referenced(
            self.reference.to(device),
            self.bank,
            features.to(device, unet.dtype),
            weights / weights.sum(),
            (context[0].to(device, unet.dtype), context[1].to(device, unet.dtype)),
            [texts.index(text) for text in given],
            guidance,
        )
