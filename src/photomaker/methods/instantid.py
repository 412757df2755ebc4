"""InstantID: a recogniser's embedding as tokens in a second attention, and an IdentityNet that follows five landmarks.

The adapter is an IP-Adapter of the plus form over face embeddings, read by diffusers' own loader; the IdentityNet is a
ControlNet that reads the same tokens in place of the text. Both are beside the UNet only while a picture is drawn.

Source: arXiv 2401.07519.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from PIL.Image import Image
from torch import Tensor, nn

from photomaker.checks import number
from photomaker.encoders.instantid import (
    HUB,
    RECOGNISER,
    check_identity_net,
    instantid_file,
    net_folder,
    read_instantid,
    scaled,
)
from photomaker.encoders.ip_adapter import IPAdapterFile, check_fit
from photomaker.encoders.mixing import active_features
from photomaker.errors import PhotoError, SettingsError
from photomaker.images import to_tensor
from photomaker.methods.pretrained import (
    BATCH_SIZE,
    Faces,
    PretrainedMethod,
    bundled_weights,
    check_face_width,
    check_made_by,
    check_made_with,
    is_absent,
    opened_faces,
    recogniser_note,
    seen_faces,
)
from photomaker.pipelines.attention.ip_adapters import loaded_ip_adapter
from photomaker.pipelines.drawing.batches import (
    Defaults,
    draw,
    encoded_texts,
    in_batches,
    text_rows,
    with_guidance,
)
from photomaker.pipelines.drawing.changes import image_projection_in, processors_in
from photomaker.pipelines.drawing.opening import open_pipeline, unet_config
from photomaker.pipelines.steps.watching import Watch
from photomaker.pipelines.structures.identity_nets import Structured, open_identity_net
from photomaker.pipelines.structures.landmarks import (
    Pencil,
    check_inside,
    check_pose,
    draw_landmarks,
    landmarks_at,
)
from photomaker.types import PLAIN, POSES, Identity, Pose, Reference, Request
from photomaker.weights import sha256

MOST_SCALE = 2.0


class InstantID(PretrainedMethod):
    """InstantID on a stock SDXL pipeline.

    Of several photos the face embeddings are averaged by the photos' weights. The pose is that of the photo of largest
    weight, unless a request brings another.

    Args:
        pipeline: A pipeline without adapter.
        file: The adapter.
        net: Its IdentityNet.
        faces: What finds and embeds faces.
        scale: Weight of the second attention, 0 to 2.
        structure_scale: Weight of the IdentityNet, 0 to 2; 0 leaves the pose to the text.
        structure: Where the pose comes from, where a request says nothing: `photo`, `draft`, which is what the text
            alone draws, or `none`.
        defaults: Settings for requests that leave them open; None takes those noted in the file.
        batch_size: Most pictures drawn at once.

    Raises:
        SettingsError: A setting is outside its range.
        WeightsError: The adapter does not fit the base or the recogniser.
    """

    name: ClassVar[str] = "instantid"
    takes: ClassVar[frozenset[str]] = frozenset({"pose"})
    bundled_file: ClassVar[str] = "methods/instantid"
    published: ClassVar[str] = f"stabilityai/stable-diffusion-xl-base-1.0 and {HUB}"

    def __init__(
        self,
        pipeline: StableDiffusionXLPipeline,
        file: IPAdapterFile,
        net: nn.Module,
        faces: Faces,
        scale: float = 0.8,
        structure_scale: float = 0.8,
        structure: str = "photo",
        *,
        defaults: Defaults | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        """Read the adapter into processors that wait beside the UNet."""
        noted = defaults or Defaults.noted(file.config, merge=0.0)
        super().__init__(pipeline, noted, batch_size)
        _check_settings(scale, structure_scale, structure)
        check_fit(file, pipeline.unet)
        self.file, self.net, self.faces = file, net, faces
        self.scale, self.structure_scale, self.structure = scale, structure_scale, structure
        self.pencil = Pencil(**file.config.get("pencil", {}))
        self.sha256 = str(file.config.get("sha256", ""))
        self.processors, self.projection = loaded_ip_adapter(pipeline, file)

    @classmethod
    def open(
        cls,
        base: str | os.PathLike[str] | None = None,
        adapter: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        memory: str = "auto",
        *,
        face_models: str | os.PathLike[str] | None = None,
        scale: float = 0.8,
        structure_scale: float = 0.8,
        structure: str = "photo",
        variant: str | None = None,
    ) -> InstantID:
        """Load base model, adapter, IdentityNet and what reads faces.

        Args:
            base: Diffusers folder or hub id of an SDXL model; None is the bundled small one.
            adapter: `ip-adapter.bin` in the published layout, with `ControlNetModel/` beside it; the folder that holds
                both; or a hub id. None is the bundled one.
            device: Where to compute; None is CUDA if available, else the CPU.
            dtype: Precision of all models.
            memory: Where the parts of the pipeline stay, see `photomaker.pipelines.drawing.memory`.
            face_models: A folder of InsightFace's ONNX models or the name of a pack; `bundled` is the recogniser of the
                synthetic people. None takes what the file notes, else InsightFace's `antelopev2`.
            scale: Weight of the second attention.
            structure_scale: Weight of the IdentityNet.
            structure: Where the pose comes from, see the class.
            variant: Which form of the base's weights to load, such as `fp16`; None is the plain one, or the only one.

        Raises:
            SettingsError: A setting is out of range, or InsightFace is not installed.
            WeightsError: A file is missing, altered, damaged, or does not fit the others.
        """
        _check_settings(scale, structure_scale, structure)
        path = instantid_file(
            bundled_weights(cls.bundled_file, cls.name, cls.published) if adapter is None else adapter
        )
        file = read_instantid(path)
        file = replace(file, config={"sha256": sha256(path), **file.config})
        check_identity_net(net_folder(path), unet_config(base, variant))
        faces = opened_faces(face_models or file.config.get("recogniser") or RECOGNISER)
        check_face_width(getattr(faces, "width", None), file.image_width, file.source)
        pipeline = open_pipeline(StableDiffusionXLPipeline, base, dtype, variant)
        net = open_identity_net(net_folder(path), dtype)
        method = cls(pipeline, file, net, faces, scale, structure_scale, structure)
        return method.placed(device, memory, method.net)

    @classmethod
    def adapter_file(cls, place: str | os.PathLike[str]) -> Path:
        """See `Method.adapter_file`; the IdentityNet is looked for beside it, and on the hub fetched with it."""
        return instantid_file(place)

    # ---- the person

    def identity(
        self,
        pictures: Sequence[Image],
        references: Sequence[Reference],
        weights: Tensor,
        notes: Mapping[str, Any],
    ) -> Identity:
        """See `PretrainedMethod`.

        `id_features` is face embeddings [refs, E]; `landmarks` [refs, 5, 2] and `sizes` [refs, 2], width and height,
        are in pixels of the photos.
        """
        del pictures  # the recogniser sees the photos as they are
        seen = seen_faces(self.faces, references, self.file.image_width, self.file.source)
        embeddings = torch.from_numpy(np.stack([one.embedding for one in seen])).float()
        tensors = {
            "id_features": scaled(embeddings) if self.file.config.get("scaled") else embeddings,
            "weights": weights,
            "landmarks": torch.from_numpy(np.stack([one.face.landmarks for one in seen])).float(),
            "sizes": torch.tensor([one.image.size for one in references], dtype=torch.int64),
        }
        own = {"encoder": self.name, "encoder_sha256": self.sha256, **self.faces.notes}
        own |= recogniser_note(str(self.file.config.get("recogniser", RECOGNISER)), self.faces)
        return Identity(self.name, tensors, own | dict(notes))

    # ---- pictures

    def check_drawing(self, identity: Identity, requests: Sequence[Request]) -> None:
        """See `PretrainedMethod`; poses are checked too."""
        text_rows(self.pipeline, requests)
        self._check_identity(identity)
        for request in requests:
            if request.extras.pose is not None:
                check_pose(request.extras.pose, _size(request))

    def _check_identity(self, identity: Identity) -> None:
        check_made_by(identity, self.name, "id_features", "weights")
        fits = int(identity.tensors["id_features"].shape[-1]) == self.file.image_width
        check_made_with(identity, self.sha256, fits, "InstantID file")

    def generate(
        self, identity: Identity, requests: Sequence[Request], *, watch: Watch | None = None
    ) -> list[Image]:
        """See `PretrainedMethod.generate`; where the pose is a draft's, drafts are drawn first.

        Raises:
            IdentityError: The identity was made with a different method or other weights.
            PromptError: A prompt cannot be used.
            SettingsError: A pose has a different shape than the pictures.
            PhotoError: A pose shows no face.
        """
        asked = self.asked(identity, requests)
        structures = self._structures(identity, asked, watch)
        # requests are distinguished as objects: several may be equal
        points = {id(request): found for request, found in zip(asked, structures, strict=True)}
        return in_batches(
            self.pipeline,
            asked,
            self.batch_size,
            lambda some: self._drawn(identity, some, [points[id(one)] for one in some]),
            watch,
        )

    def draw_batch(self, identity: Identity, requests: Sequence[Request]) -> list[Image]:
        """See `PretrainedMethod`."""
        return self._drawn(identity, requests, self._structures(identity, requests, None))

    @torch.no_grad()
    def _drawn(
        self, identity: Identity, requests: Sequence[Request], points: Sequence[np.ndarray | None]
    ) -> list[Image]:
        """Draw a batch with the landmarks of each picture; None is no pose."""
        pipeline, sampling = self.pipeline, requests[0].sampling
        plain, negatives = encoded_texts(pipeline, requests)
        strength = self._strength(requests[0])
        follows = strength > 0 and any(one is not None for one in points)
        if is_absent(identity, sampling) or (not self.scale and not follows):
            return draw(pipeline, requests, plain, negatives)
        embeds = self._embeds(identity, with_guidance(sampling))
        with ExitStack() as stack:
            stack.enter_context(processors_in(pipeline.unet, self.processors))
            stack.enter_context(image_projection_in(pipeline.unet, self.projection))
            structured = self._structured(requests, points, embeds, strength) if follows else None
            if structured is not None:
                stack.enter_context(structured.attached(pipeline.unet))

            def switch(on: bool) -> None:
                for processor in self.processors.values():
                    processor.scale = [self.scale if on else 0.0]
                if structured is not None:
                    structured.on = on

            stack.callback(switch, False)
            more = {"ip_adapter_image_embeds": [embeds]}
            return draw(pipeline, requests, plain, negatives, None, switch, more)

    def _strength(self, request: Request) -> float:
        pose = request.extras.pose
        return self.structure_scale if pose is None or pose.scale is None else pose.scale

    def _embeds(self, identity: Identity, guided: bool) -> Tensor:
        """The person's embedding as the call takes it [1 or 2, 1, 1, E]; the empty condition is zeros."""
        features, weights = active_features(identity)
        share = weights / weights.sum()
        person = (features * share[:, None]).sum(0)[None, None, None]
        both = torch.cat([torch.zeros_like(person), person]) if guided else person
        return both.to(self.pipeline.unet.dtype)

    def _structured(
        self,
        requests: Sequence[Request],
        points: Sequence[np.ndarray | None],
        embeds: Tensor,
        strength: float,
    ) -> Structured:
        """The IdentityNet with the tokens and the drawings of a batch; without a pose the drawing is black."""
        unet, size = self.pipeline.unet, _size(requests[0])
        device = self.pipeline._execution_device
        layer = self.projection.image_projection_layers[0]
        place = next(layer.parameters()).device  # where the UNet is, which may be offloaded
        tokens = layer(embeds[:, 0].to(place)).to(device).repeat_interleave(len(requests), dim=0)
        drawings = [
            draw_landmarks(np.full((5, 2), -1e4) if one is None else one, size, self.pencil) for one in points
        ]
        pictures = torch.stack([to_tensor(one) for one in drawings]).to(device, unet.dtype)
        times = len(tokens) // len(pictures)
        return Structured(self.net.to(device), tokens, pictures.repeat(times, 1, 1, 1), strength)

    # ---- where the face should be

    def _structures(
        self, identity: Identity, requests: Sequence[Request], watch: Watch | None
    ) -> list[np.ndarray | None]:
        """Landmarks in pixels of each picture; None if there is no pose."""
        poses = [self._pose(identity, request) for request in requests]
        given = self._given(poses)
        drafts = [request for request, pose in zip(requests, poses, strict=True) if pose.source == "draft"]
        faces = iter(self._drafts(drafts, watch))
        found: list[np.ndarray | None] = []
        for request, pose in zip(requests, poses, strict=True):
            if pose.source == "none":
                found.append(None)
            elif pose.source == "photo":
                found.append(_of_photo(identity, _size(request)))
            elif pose.source == "draft":
                face = next(faces)
                # a draft without a face says nothing of its place: the photo does
                found.append(_of_photo(identity, _size(request)) if face is None else face)
            else:
                found.append(landmarks_at(given[id(pose.source)], pose.source.size, _size(request)))  # type: ignore[union-attr]
        return found

    def _pose(self, identity: Identity, request: Request) -> Pose:
        """What the request says, or the method; a mixed identity has no photo, so that the draft takes its place."""
        pose = request.extras.pose or Pose(self.structure)
        nothing = self._strength(request) == 0 or not bool((identity.tensors["weights"] > 0).any())
        if nothing:
            return Pose("none")
        return (
            Pose("draft", pose.scale)
            if pose.source == "photo" and "landmarks" not in identity.tensors
            else pose
        )

    def _given(self, poses: Sequence[Pose]) -> dict[int, np.ndarray]:
        """Landmarks in the pictures that were given as poses, each looked at once."""
        found: dict[int, np.ndarray] = {}
        for pose in poses:
            if isinstance(pose.source, str) or id(pose.source) in found:
                continue
            landmarks = pose.landmarks
            if landmarks is None:
                (seen,) = self.faces.see([pose.source], [None])
                if seen is None:
                    raise PhotoError("no face was found in the pose picture; give a picture with a face")
                landmarks = seen.face.landmarks
            check_inside(landmarks, pose.source.size, "the pose")
            found[id(pose.source)] = np.asarray(landmarks)
        return found

    def _drafts(self, requests: Sequence[Request], watch: Watch | None) -> list[np.ndarray | None]:
        """Landmarks in what the text alone draws for each request; None if it shows no face."""
        if not requests:
            return []
        texts = [replace(request, extras=PLAIN) for request in requests]
        pictures = in_batches(self.pipeline, texts, self.batch_size, self._text_only, watch)
        seen = self.faces.see(pictures, [None] * len(pictures))
        return [None if one is None else one.face.landmarks for one in seen]

    @torch.no_grad()
    def _text_only(self, requests: Sequence[Request]) -> list[Image]:
        return draw(self.pipeline, requests, *encoded_texts(self.pipeline, requests))


def _of_photo(identity: Identity, size: tuple[int, int]) -> np.ndarray | None:
    """Landmarks of the photo of largest weight, in a picture of a size; None if the identity has none."""
    if not {"landmarks", "sizes"} <= identity.tensors.keys():
        return None
    place = int(identity.tensors["weights"].argmax())
    own = identity.tensors["sizes"][place].tolist()
    return landmarks_at(identity.tensors["landmarks"][place].numpy(), (own[0], own[1]), size)


def _size(request: Request) -> tuple[int, int]:
    return int(request.sampling.width or 0), int(request.sampling.height or 0)


def _check_settings(scale: float, structure_scale: float, structure: str) -> None:
    number("scale", scale, 0, MOST_SCALE)
    number("structure_scale", structure_scale, 0, MOST_SCALE)
    if structure not in POSES:
        raise SettingsError(f"structure is {structure!r}; give one of {', '.join(POSES)}")
