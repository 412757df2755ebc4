"""PhotoMaker for any stock diffusers SDXL pipeline, as one mixin: adapter, identities, prompts, delayed merging."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from photomaker import registry
from photomaker.encoders import (
    AdapterFile,
    PhotoMakerIDEncoder,
    active_features,
    image_processor,
    preprocess,
    read_adapter,
)
from photomaker.encoders.preprocess import PhotoLike, as_picture
from photomaker.errors import IdentityError, PhotoError, PromptError, SettingsError, WeightsError
from photomaker.pipelines.fitting import check_base, check_lora
from photomaker.pipelines.merging import Conditioning, DelayedMerging
from photomaker.prompts import TRIGGER, EncodedPrompts, Rows, encode_rows, expand_rows
from photomaker.types import Identity

if TYPE_CHECKING:
    from diffusers import StableDiffusionXLPipeline as _Stock
else:
    _Stock = object  # the stock pipeline comes second in each task's class

ADAPTER_NAME = "photomaker"
DEFAULT_MERGE_STEP = {"v1": 0, "v2": 10}  # of the two official releases
METHOD = "photomaker-"
Photos = PhotoLike | Sequence[PhotoLike] | Sequence[Sequence[PhotoLike]]
FaceEmbeds = Tensor | np.ndarray | Sequence[Tensor | np.ndarray | Sequence[float]]


class PhotoMakerMixin(_Stock):
    """Put before a stock SDXL pipeline class; its `__call__` gains `input_id_images`, `identity`, `start_merge_step`.

    All that is known of the adapter is kept with the ID encoder, so that `from_pipe` and `**pipeline.components`
    carry it.

    Attributes:
        face_models: What embeds faces for V2 adapters where no `id_embeds` are given: the name of an InsightFace model
            pack, a folder of such models, or an object with `embed(photos)`, which gives an array or None a photo.
    """

    face_models: Any = "buffalo_l"

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Make the ID encoder a component of the pipeline, so that moving, offloading and saving reach it."""
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls) or not hasattr(cls, "_optional_components"):
            return
        cls.__init__ = _with_id_encoder(cls.__init__)  # type: ignore[method-assign]
        cls._optional_components = [*cls._optional_components, "id_encoder"]
        cls.model_cpu_offload_seq = cls.model_cpu_offload_seq.replace("unet", "id_encoder->unet", 1)

    # ---- adapter

    @property
    def pm_version(self) -> str | None:
        """Version of the loaded adapter, "v1" or "v2"; None without one."""
        return None if self.id_encoder is None else self.id_encoder.version

    @property
    def trigger_word(self) -> str:
        """The word behind the class word that marks the person."""
        return str(self._noted("trigger_word", TRIGGER))

    @property
    def encoder_sha256(self) -> str | None:
        """Hash of the loaded ID encoder, noted in identities."""
        known = self._noted("weights_sha256", None)
        return None if known is None else str(known)

    @property
    def adapter_notes(self) -> Mapping[str, Any]:
        """What the adapter file says of itself besides its weights."""
        return dict(self._noted("adapter_notes", {}))

    def _noted(self, name: str, default: object) -> Any:  # noqa: ANN401 - JSON data
        return default if self.id_encoder is None else getattr(self.id_encoder.config, name, default)

    @property
    def num_tokens(self) -> int:
        """Prompt tokens that each photo takes."""
        return self._loaded_encoder().num_tokens

    @property
    def id_image_processor(self) -> Any:  # noqa: ANN401 - a transformers processor, imported on use
        """CLIP preprocessing at the size of the loaded ID encoder."""
        return image_processor(self._loaded_encoder().config.image_size)

    def load_photomaker_adapter(
        self,
        pretrained_model_name_or_path_or_dict: str | os.PathLike[str] | Mapping[str, Any],
        weight_name: str | None = None,
        subfolder: str = "",
        trigger_word: str = TRIGGER,
        pm_version: str | None = None,
        **hub_options: object,
    ) -> None:
        """Load ID encoder and LoRA; an adapter loaded before is replaced, and stays if this fails.

        Args:
            pretrained_model_name_or_path_or_dict: A file, a folder or hub id (with `weight_name`), or loaded weights.
            weight_name: File name in the folder or repository.
            subfolder: Folder inside it.
            trigger_word: The word behind the class word that marks the person.
            pm_version: Overrides the version, which is read from the weights' names otherwise.
            hub_options: Passed to `huggingface_hub.hf_hub_download`, for example `revision`, `token`.

        Raises:
            WeightsError: No such file; damaged or foreign weights; weights for another base model.
            SettingsError: The trigger word is empty or has spaces.
        """
        if not trigger_word or trigger_word != "".join(trigger_word.split()):
            raise SettingsError(
                f"the trigger word is {trigger_word!r}; give one word without spaces, such as 'img'"
            )
        source: Any = pretrained_model_name_or_path_or_dict
        if not isinstance(source, Mapping):
            source = _locate(source, weight_name, subfolder, hub_options)
        adapter = read_adapter(source, pm_version)
        encoder = adapter.build_encoder()
        check_base(self, encoder.width, adapter.source)
        check_lora(self.unet, adapter.lora, adapter.source)
        self._install(adapter, encoder, trigger_word)

    def unload_photomaker_adapter(self) -> None:
        """Take ID encoder and LoRA out again; the base weights are as before."""
        if ADAPTER_NAME in self._adapters():
            self.delete_adapters(ADAPTER_NAME)
        if not self._adapters():
            self.unload_lora_weights()
        self.register_modules(id_encoder=None)

    def _install(self, adapter: AdapterFile, encoder: PhotoMakerIDEncoder, trigger_word: str) -> None:
        if ADAPTER_NAME in self._adapters():
            self.delete_adapters(ADAPTER_NAME)
        state, alphas = self.lora_state_dict(dict(adapter.lora))
        self.load_lora_into_unet(state, alphas, self.unet, adapter_name=ADAPTER_NAME, _pipeline=self)
        encoder.config.trigger_word = trigger_word
        self.register_modules(id_encoder=encoder.to(self.unet.device, self.unet.dtype))

    def _adapters(self) -> set[str]:
        return {name for names in self.get_list_adapters().values() for name in names}

    def _loaded_encoder(self) -> PhotoMakerIDEncoder:
        if self.id_encoder is None:
            raise WeightsError("no PhotoMaker adapter is loaded; call load_photomaker_adapter first")
        return self.id_encoder

    # ---- identities

    @torch.no_grad()
    def encode_identity(
        self,
        photos: PhotoLike | Sequence[PhotoLike],
        weights: Sequence[float] | None = None,
        notes: Mapping[str, Any] | None = None,
        id_embeds: FaceEmbeds | None = None,
    ) -> Identity:
        """The person in some photos, as a value.

        Args:
            photos: One or more photos of one person.
            weights: Weight of each photo, >= 0; 0 leaves it out. None is 1 everywhere.
            notes: Added to the identity's notes.
            id_embeds: For V2 adapters, a face embedding of each photo [refs, E], as the recogniser gives it, not
                normalised. None has them made by `face_models`; photos without a face are then left out.

        Returns:
            Identity with `id_features` float32 [refs, D], for V2 [refs, tokens, D], and `weights` float32 [refs].

        Raises:
            PhotoError: No photo, one of an unknown kind, or no face in any.
            SettingsError: Weights or face embeddings do not fit the photos or the adapter.
            WeightsError: The face models cannot be loaded.
        """
        encoder = self._loaded_encoder()
        pictures = _one_person(photos)
        pixels = preprocess(pictures, encoder.config.image_size)
        given = (
            torch.ones(len(pictures)) if weights is None else torch.tensor(list(weights), dtype=torch.float32)
        )
        if given.shape != (len(pictures),) or not bool((torch.isfinite(given) & (given >= 0)).all()):
            raise SettingsError(
                f"the photo weights are {given.tolist()}; give one number from 0 up for each photo"
            )
        faces, seen, told = self._faces(pictures, id_embeds)
        pixels, given = pixels[seen], given[seen]
        with _execution(encoder) as device:
            inputs = [one[None].to(device, encoder.dtype) for one in (pixels, *faces)]
            features = encoder.encode_photos(*inputs)[0]
        return Identity(
            METHOD + encoder.version,
            {"id_features": features.float().cpu(), "weights": given},
            {"encoder": f"{METHOD}{encoder.version}", "encoder_sha256": self.encoder_sha256}
            | told
            | dict(notes or {}),
        )

    def _faces(
        self, pictures: list[PhotoLike], id_embeds: FaceEmbeds | None
    ) -> tuple[list[Tensor], list[int], dict[str, Any]]:
        """Face embeddings [seen, E] in a list, empty for V1; the photos that have one; and notes."""
        encoder = self._loaded_encoder()
        everyone = list(range(len(pictures)))
        if not encoder.needs_faces:
            if id_embeds is not None:
                raise SettingsError(
                    f"the loaded adapter is {encoder.version} and takes no id_embeds; leave them out or load a V2 one"
                )
            return [], everyone, {}
        width = int(encoder.config.id_embeddings_dim)
        if id_embeds is not None:
            return [_face_tensor(id_embeds, len(pictures), width)], everyone, {}
        if isinstance(self.face_models, str | os.PathLike):
            self.face_models = registry.find("face embedder", "insightface").open(self.face_models)
        found = self.face_models.embed([as_picture(picture) for picture in pictures])
        seen = [place for place, face in enumerate(found) if face is not None]
        missing = [str(place + 1) for place in everyone if place not in seen]
        if not seen:
            raise PhotoError(
                "no face was found in any photo; give photos in which the face is large and clear"
            )
        if missing:
            warnings.warn(
                f"no face was found in photo {', '.join(missing)} of {len(pictures)}; it is left out",
                stacklevel=4,
            )
        embeds = _face_tensor([found[place] for place in seen], len(seen), width)
        return [embeds], seen, dict(getattr(self.face_models, "notes", {}))

    def _identities(
        self,
        rows: int,
        photos: Photos | None,
        identity: Identity | Sequence[Identity] | None,
        id_embeds: FaceEmbeds | None,
    ) -> list[Identity]:
        if (photos is None) == (identity is None):
            raise PhotoError(
                "give either input_id_images, the photos of the person, or identity, made from them"
            )
        if identity is not None and id_embeds is not None:
            raise PhotoError("an identity holds its face embeddings already; leave id_embeds out")
        if identity is not None:
            given = [identity] if isinstance(identity, Identity) else list(identity)
            for one in given:
                self._check_identity(one)
        else:
            assert photos is not None
            people = _people(photos)
            faces = _faces_of(people, id_embeds)
            given = [
                self.encode_identity(person, id_embeds=own) for person, own in zip(people, faces, strict=True)
            ]
        if len(given) == 1:
            return given * rows
        if len(given) != rows:
            raise PhotoError(
                f"there are {len(given)} people for {rows} prompts; give one, or one for each prompt"
            )
        return given

    def _check_identity(self, identity: Identity) -> None:
        encoder = self._loaded_encoder()
        if identity.method != METHOD + encoder.version or "id_features" not in identity.tensors:
            raise IdentityError(
                f"the identity was made by {identity.method}, the loaded adapter is {METHOD}{encoder.version}; "
                "make it again with this adapter"
            )
        width = identity.tensors["id_features"].shape[-1]
        known = identity.notes.get("encoder_sha256")
        foreign = known is not None and self.encoder_sha256 is not None and known != self.encoder_sha256
        if width != encoder.width or foreign:
            raise IdentityError(
                "the identity was made with another ID encoder; make it again with the loaded adapter"
            )

    # ---- conditioning

    def expand_prompts(
        self,
        prompts: Sequence[str],
        copies: Sequence[int] | None = None,
        prompts_2: Sequence[str] | None = None,
    ) -> Rows:
        """Prompts as token ids for both text encoders; no model runs.

        Args:
            prompts: One per row, with or without trigger.
            copies: Class tokens that each row's photos take; None is 1.
            prompts_2: Other texts for the second text encoder.

        Raises:
            PromptError: See `photomaker.prompts`; or the photos do not fit into a prompt.
        """
        encoder = self._loaded_encoder()
        # a row without an identity needs one class token, whose encoding is then not used
        wanted = [max(1, count) for count in copies or [1] * len(prompts)]
        rows = expand_rows(
            prompts,
            wanted,
            (self.tokenizer, self.tokenizer_2),
            prompts_2,
            self.trigger_word,
            cut_first=encoder.version != "v1",
            convert=getattr(self, "maybe_convert_prompt", None),
        )
        _check_slots(rows, wanted, encoder)
        return rows

    def condition(
        self, rows: Rows, identities: Sequence[Identity], clip_skip: int | None = None
    ) -> Conditioning:
        """The conditioning after merging.

        Args:
            rows: From `expand_prompts`, with as many copies as the identities have active photos times `num_tokens`.
            identities: One per row.
            clip_skip: As in diffusers.
        """
        encoders = (self.text_encoder, self.text_encoder_2)
        encoded = encode_rows(rows, encoders, clip_skip, self._execution_device)
        people = [active_features(identity) for identity in identities]
        active = torch.tensor([len(features) > 0 for features, _ in people], device=encoded.embeds.device)
        return Conditioning(self._fuse(encoded, people, active), encoded.pooled, active)

    def _fuse(self, encoded: EncodedPrompts, people: list[tuple[Tensor, Tensor]], active: Tensor) -> Tensor:
        encoder = self._loaded_encoder()
        features, weights = _padded(people, encoder.num_tokens, encoder.width)
        with _execution(encoder) as device:
            embeds = encoded.embeds.to(device, encoder.dtype)
            masks = [
                mask.to(device) & active.to(device)[:, None]
                for mask in (encoded.class_tokens, encoded.class_tokens_2)
            ]
            return _fuse_both(encoder, embeds, features.to(embeds), weights.to(embeds), masks)

    # ---- the call

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        prompt_2: str | list[str] | None = None,
        *args: Any,
        input_id_images: Photos | None = None,
        identity: Identity | Sequence[Identity] | None = None,
        start_merge_step: int | None = None,
        id_embeds: FaceEmbeds | None = None,
        **kwargs: Any,
    ) -> Any:  # noqa: ANN401 - what the stock pipeline returns
        """Draw pictures; arguments other than these are the stock pipeline's.

        Args:
            prompt: One prompt or a list. The trigger word behind the class word marks the person; where it is
                missing it is put behind the first class word.
            prompt_2: Other prompts for the second text encoder.
            args: The stock pipeline's further positional arguments.
            input_id_images: Photos of the person (PIL, array or tensor): one, or a list, or for a list of prompts a
                list of lists.
            identity: Identities instead of photos: one, or one for each prompt. An identity whose photos all have
                weight 0 leaves the text-only prompt as it is.
            start_merge_step: The identity takes part from the denoising step after this one; -1 is from the start.
                None is the official default, 0 for v1 and 10 for v2.
            id_embeds: Face embeddings of the photos for V2 adapters, see `encode_identity`; for several people a list
                of such.
            kwargs: The stock pipeline's further arguments.

        Returns:
            What the stock pipeline returns.

        Raises:
            PhotoMakerError: A child of it, one sentence on what was wrong, before any denoising.
        """
        prompts = _rows(prompt, "prompt")
        prompts_2 = None if prompt_2 is None else _rows(prompt_2, "prompt_2")
        if prompts_2 is not None and len(prompts_2) != len(prompts):
            raise PromptError(
                f"there are {len(prompts_2)} prompts in prompt_2 and {len(prompts)} in prompt; give as many"
            )
        self.expand_prompts(prompts, prompts_2=prompts_2)  # a bad prompt is told before any model runs
        identities = self._identities(len(prompts), input_id_images, identity, id_embeds)
        copies = [len(active_features(one)[0]) * self.num_tokens for one in identities]
        rows = self.expand_prompts(prompts, copies, prompts_2)
        conditioning = self.condition(rows, identities, kwargs.get("clip_skip"))
        if start_merge_step is None:
            start_merge_step = DEFAULT_MERGE_STEP[self._loaded_encoder().version]
        repeated = conditioning.repeated(int(kwargs.get("num_images_per_prompt") or 1))
        merging = DelayedMerging(repeated, start_merge_step, self.scheduler.order)
        text, text_2 = ([row.text_only for row in own] for own in rows)
        kwargs |= _as_lists(kwargs, len(prompts))
        with merging.attached(self.unet, getattr(self, "controlnet", None)):
            result = super().__call__(text, text_2 if prompts_2 else None, *args, **kwargs)  # type: ignore[misc]
        if merging.calls and not merging.merged_steps and bool(conditioning.active.any()):
            warnings.warn(
                f"start_merge_step is {start_merge_step} and only {merging.steps} steps were run, so the photos had no "
                "effect; give a smaller one",
                stacklevel=2,
            )
        return result


def _with_id_encoder(stock: Callable[..., None]) -> Callable[..., None]:
    """A stock pipeline's constructor with the ID encoder as one more optional component."""
    added = inspect.Parameter(
        "id_encoder", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=PhotoMakerIDEncoder | None
    )

    def __init__(self: Any, *args: Any, id_encoder: PhotoMakerIDEncoder | None = None, **kwargs: Any) -> None:  # noqa: ANN401
        stock(self, *args, **kwargs)
        self.register_modules(id_encoder=id_encoder)

    signature = inspect.signature(stock)
    __init__.__signature__ = signature.replace(parameters=[*signature.parameters.values(), added])  # type: ignore[attr-defined]
    # diffusers reads the component classes from the annotations
    __init__.__annotations__ = {**inspect.get_annotations(stock), "id_encoder": PhotoMakerIDEncoder | None}
    return __init__


def _locate(
    place: str | os.PathLike[str], weight_name: str | None, subfolder: str, hub_options: Mapping[str, Any]
) -> Path:
    path = Path(place)
    if path.is_file():
        return path
    if weight_name is None:
        raise WeightsError(
            f"{place} is no adapter file; give the file's path, or a folder or hub id with weight_name"
        )
    if path.is_dir():
        return path / subfolder / weight_name
    if path.is_absolute() or str(place).startswith("."):
        raise WeightsError(
            f"there is no folder {place}; give a folder or a hub id such as TencentARC/PhotoMaker"
        )
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(str(place), weight_name, subfolder=subfolder or None, **hub_options))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0][:150]
        raise WeightsError(
            f"{weight_name} of {place} cannot be fetched from the hub ({reason}); give a local path"
        ) from error


def _rows(prompt: str | Sequence[str] | None, name: str) -> list[str]:
    if isinstance(prompt, str):
        return [prompt]
    if not prompt or not all(isinstance(row, str) for row in prompt):
        raise PromptError(f"{name} is {prompt!r}; give a text or a list of texts")
    return list(prompt)


def _as_lists(kwargs: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """The text arguments beside the prompt, one for each row, because the prompt goes on as a list."""
    names = ("negative_prompt", "negative_prompt_2")
    return {name: [kwargs[name]] * rows for name in names if isinstance(kwargs.get(name), str)}


def _is_photo(value: object) -> bool:
    from PIL.Image import Image

    dimensions = 3
    return isinstance(value, Image) or (isinstance(value, np.ndarray | Tensor) and value.ndim == dimensions)


def _one_person(photos: PhotoLike | Sequence[PhotoLike]) -> list[PhotoLike]:
    return [cast(PhotoLike, photos)] if _is_photo(photos) else list(cast(Sequence[PhotoLike], photos))


def _people(photos: Photos) -> list[list[PhotoLike]]:
    """Photos by person: of one photo or a flat list, one person; of a list of lists, as many as it has."""
    if _is_photo(photos):
        return [[cast(PhotoLike, photos)]]
    several = cast(Sequence[Any], photos)
    return (
        [list(several)]
        if all(_is_photo(photo) for photo in several)
        else [_one_person(one) for one in several]
    )


def _faces_of(people: Sequence[object], id_embeds: FaceEmbeds | None) -> list[FaceEmbeds | None]:
    """Face embeddings by person."""
    if id_embeds is None or len(people) == 1:
        return [id_embeds] * len(people)
    if len(id_embeds) != len(people):
        raise SettingsError(
            f"there are {len(people)} people and id_embeds for {len(id_embeds)}; give a list with those of each"
        )
    return [cast(FaceEmbeds, one) for one in id_embeds]


def _face_tensor(given: FaceEmbeds, photos: int, width: int) -> Tensor:
    """Face embeddings as float32 [photos, width]."""
    sentence = f"give one face embedding of {width} numbers for each of {photos} photos"
    try:
        embeds = torch.stack([torch.as_tensor(one, dtype=torch.float32).cpu() for one in given])
    except (TypeError, ValueError, RuntimeError) as error:
        raise SettingsError(f"id_embeds are of unequal lengths or no numbers; {sentence}") from error
    if embeds.dim() == 3 and len(embeds) == 1:  # noqa: PLR2004 - a batch of one, as the official code has it
        embeds = embeds[0]
    if embeds.shape != (photos, width):
        raise SettingsError(f"id_embeds have shape {tuple(embeds.shape)}; {sentence}")
    if not bool(torch.isfinite(embeds).all()):
        raise SettingsError(f"id_embeds hold numbers that are not finite; {sentence}")
    return embeds


def _padded(people: list[tuple[Tensor, Tensor]], tokens: int, width: int) -> tuple[Tensor, Tensor]:
    """Features [rows, most * tokens, width] and weights [rows, most * tokens], short rows padded with zeros."""
    most = max(1, *(len(features) for features, _ in people)) * tokens
    features = torch.zeros(len(people), most, width)
    weights = torch.ones(len(people), most)
    for row, (own, own_weights) in enumerate(people):
        features[row, : len(own) * tokens] = own.reshape(-1, width)
        weights[row, : len(own) * tokens] = own_weights.repeat_interleave(tokens)
    return features, weights


def _fuse_both(
    encoder: PhotoMakerIDEncoder, embeds: Tensor, features: Tensor, weights: Tensor, masks: list[Tensor]
) -> Tensor:
    """Fuse where the class word may stand at different places in the two text encoders' halves of the embeddings."""
    if torch.equal(masks[0], masks[1]):
        return encoder.fuse(embeds, features, masks[0], weights=weights)
    cut = encoder.config.projection_dim
    # the second half is brought to the places of the first, fused there, and taken back to its own places
    aligned = embeds.clone()
    aligned[..., cut:][masks[0]] = embeds[..., cut:][masks[1]]
    fused = encoder.fuse(aligned, features, masks[0], weights=weights)
    result = torch.cat([fused[..., :cut], embeds[..., cut:]], dim=-1)
    result[..., cut:][masks[1]] = fused[..., cut:][masks[0]]
    return result


def _check_slots(rows: Rows, copies: Sequence[int], encoder: PhotoMakerIDEncoder) -> None:
    for number, (wanted, first, second) in enumerate(zip(copies, *rows, strict=True), start=1):
        room = min(first.slots, second.slots)
        if wanted == room:
            continue
        sentence = (
            f"the photos take {wanted} tokens and only {room} fit behind the class word of prompt {number}; "
            "move the class word forward or give fewer photos"
        )
        # the first official release leaves photos out, which works; where the encoders' halves differ it cannot
        if encoder.version != "v1" or first.slots != second.slots:
            raise PromptError(sentence)
        warnings.warn(f"{sentence}; the last photos are left out", stacklevel=4)


@contextmanager
def _execution(module: nn.Module) -> Iterator[torch.device]:
    """Have an offloaded module where it computes, as its own forward call would; yields the device."""
    hook = getattr(module, "_hf_hook", None)
    if hook is None:
        yield cast(torch.device, module.device)
        return
    hook.pre_forward(module)
    yield torch.device(getattr(hook, "execution_device", None) or cast(torch.device, module.device))
