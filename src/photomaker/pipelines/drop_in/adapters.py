"""The adapter of a pipeline: loading and unloading the ID encoder and the LoRA, beside other LoRAs."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from photomaker.encoders import AdapterFile, PhotoMakerIDEncoder, image_processor, read_adapter
from photomaker.encoders.adapter_file import official_lora
from photomaker.errors import SettingsError, WeightsError
from photomaker.hub import ADAPTER_FILES, hub_file, hub_options_known
from photomaker.pipelines.drop_in.arguments import refuse_unknown
from photomaker.pipelines.drop_in.auto import announce
from photomaker.pipelines.drop_in.fitting import check_base, check_lora
from photomaker.prompts import TRIGGER
from photomaker.weights import read_tensors

if TYPE_CHECKING:
    from diffusers import StableDiffusionXLPipeline as _Stock
else:
    _Stock = object  # the stock pipeline comes second in each task's class

ADAPTER_NAME = "photomaker"
LORA_FILE = "photomaker_lora.safetensors"
_OWN = ("weight_name", "subfolder", "trigger_word", "pm_version", "image_encoder")


class AdapterMixin(_Stock):
    """Makes the ID encoder a component of a stock SDXL pipeline class, and loads adapters.

    All that is known of the adapter is kept with the ID encoder, so that `from_pipe` and `**pipeline.components`
    carry it.
    """

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Make the ID encoder a component of the pipeline, so that moving, offloading and saving reach it."""
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls) or not hasattr(cls, "_optional_components"):
            return
        cls.__init__ = _with_id_encoder(cls.__init__)  # type: ignore[method-assign]
        cls._optional_components = [*cls._optional_components, "id_encoder"]
        cls.model_cpu_offload_seq = cls.model_cpu_offload_seq.replace("unet", "id_encoder->unet", 1)

    @property
    def config(self) -> Any:  # noqa: ANN401 - diffusers' frozen dictionary
        """The stock property; `AutoPipelineFor...from_pipe` reads it right before it looks for the class."""
        announce()
        return super().config

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
        image_encoder: bool = True,
        **hub_options: object,
    ) -> None:
        """Load ID encoder and LoRA; an adapter loaded before is replaced, and stays if this fails.

        Args:
            pretrained_model_name_or_path_or_dict: A file, a folder or hub id (with `weight_name`), or loaded weights.
            weight_name: File name in the folder or repository.
            subfolder: Folder inside it.
            trigger_word: The word behind the class word that marks the person.
            pm_version: Overrides the version, which is read from the weights' names otherwise.
            image_encoder: False leaves the image encoder out, which saved identities do not need.
            hub_options: Passed to `huggingface_hub.hf_hub_download`, for example `revision`, `token`.

        Raises:
            WeightsError: No such file; damaged or foreign weights; weights for another base model.
            SettingsError: The trigger word is empty or has spaces, or an option is none of the hub's.
        """
        if not trigger_word or trigger_word != "".join(trigger_word.split()):
            raise SettingsError(
                f"the trigger word is {trigger_word!r}; give one word without spaces, such as 'img'"
            )
        refuse_unknown("load_photomaker_adapter", hub_options, {*_OWN, *hub_options_known()})
        source: Any = pretrained_model_name_or_path_or_dict
        if not isinstance(source, Mapping):
            source = _locate(source, weight_name, subfolder, hub_options)
        adapter = read_adapter(source, pm_version)
        encoder = adapter.build_encoder()
        check_base(self, encoder.width, adapter.source)
        check_lora(self.unet, adapter.lora, adapter.source)
        if not image_encoder:
            encoder.leave_image_encoder_out()
        self._install(adapter, encoder, trigger_word)

    def unload_photomaker_adapter(self) -> None:
        """Unload ID encoder and LoRA; the base weights are restored, after `fuse_lora` up to rounding."""
        self._drop_lora()
        if not self._adapters():
            self.unload_lora_weights()
        self.register_modules(id_encoder=None)

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Save the pipeline with its ID encoder and PhotoMaker's LoRA; the base is written as it was without LoRA.

        A LoRA that was fused stays in the saved base; LoRA other than PhotoMaker's is not saved, with a warning.

        Args:
            save_directory: The folder.
            args: The stock method's.
            kwargs: The stock method's.

        Raises:
            WeightsError: The image encoder was left out when the adapter was loaded.
        """
        if self.id_encoder is not None and not self.id_encoder.sees:
            raise WeightsError(
                "the adapter was loaded without its image encoder and cannot be saved; load it again with it"
            )
        others = sorted(self._adapters() - {ADAPTER_NAME})
        if others:
            warnings.warn(
                f"the LoRA {', '.join(others)} is not saved; load it again after loading", stacklevel=2
            )
        encoder, lora = self.id_encoder, self._unfused_lora()
        if encoder is not None:
            encoder.config.lora_file = LORA_FILE if lora else None
        with _without_lora(self.unet):
            super().save_pretrained(save_directory, *args, **kwargs)
        if encoder is not None and lora:
            place = Path(save_directory) / "id_encoder" / LORA_FILE
            part = place.with_suffix(".part")
            save_file(lora, part, metadata={"format": "pt"})
            part.replace(place)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Load a base model, or a pipeline that was saved with its ID encoder and LoRA.

        Args:
            pretrained_model_name_or_path: A folder or hub id.
            args: The stock method's.
            kwargs: The stock method's.

        Raises:
            WeightsError: The saved LoRA is missing.
        """
        pipeline = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        encoder = pipeline.id_encoder
        name = None if encoder is None else getattr(encoder.config, "lora_file", None)
        if name and ADAPTER_NAME not in pipeline._adapters():
            place = _locate(pretrained_model_name_or_path, name, "id_encoder", {})
            pipeline._load_lora(read_tensors(place))
        return pipeline

    def _unfused_lora(self) -> dict[str, Tensor]:
        """PhotoMaker's LoRA under official names; empty if there is none or it is fused."""
        if self._fused() or ADAPTER_NAME not in self._adapters():
            return {}
        state = official_lora(get_peft_model_state_dict(self.unet, adapter_name=ADAPTER_NAME))
        return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}

    def _fused(self) -> bool:
        """Whether PhotoMaker's LoRA is in the base's weights."""
        return any(ADAPTER_NAME in layer.merged_adapters for layer in self._lora_layers())

    def _load_lora(self, lora: Mapping[str, Tensor]) -> None:
        state, alphas = self.lora_state_dict(dict(lora))
        with self._others_stay_active():
            self.load_lora_into_unet(state, alphas, self.unet, adapter_name=ADAPTER_NAME, _pipeline=self)

    def _install(self, adapter: AdapterFile, encoder: PhotoMakerIDEncoder, trigger_word: str) -> None:
        self._drop_lora()
        self._load_lora(adapter.lora)
        encoder.config.trigger_word = trigger_word
        self.register_modules(id_encoder=encoder.to(self.unet.device, self.unet.dtype))

    def _drop_lora(self) -> None:
        if ADAPTER_NAME not in self._adapters():
            return
        if self._fused():
            self.unfuse_lora(components=["unet"])
        self.delete_adapters(ADAPTER_NAME)

    def unload_lora_weights(self) -> None:
        """Unload all LoRA except PhotoMaker's own, which `unload_photomaker_adapter` unloads.

        The stock method makes no difference between them. What was fused stays in the weights, PhotoMaker's too, and
        drawing is then as quick as the base's.
        """
        alone = self._adapters() == {ADAPTER_NAME}
        if ADAPTER_NAME not in self._adapters() or (alone and self._fused()):
            super().unload_lora_weights()
            return
        others = self._adapters() - {ADAPTER_NAME}
        if not others:
            warnings.warn(
                "the only LoRA is PhotoMaker's own, which stays; unload_photomaker_adapter removes it",
                stacklevel=2,
            )
            return
        self.delete_adapters(sorted(others))
        with self._without_unet():
            super().unload_lora_weights()

    @contextmanager
    def _without_unet(self) -> Iterator[None]:
        """Have the stock methods for LoRA leave the UNet alone."""
        own = self.__dict__  # hides the class's list
        own["_lora_loadable_modules"] = [name for name in self._lora_loadable_modules if name != "unet"]
        try:
            yield
        finally:
            del own["_lora_loadable_modules"]

    def load_lora_weights(self, *args: Any, **kwargs: Any) -> None:
        """Load a LoRA beside PhotoMaker's. The stock method alone leaves only the newest one switched on."""
        with self._others_stay_active():
            super().load_lora_weights(*args, **kwargs)

    def load_ip_adapter(self, *args: Any, **kwargs: Any) -> None:
        """Load an IP-Adapter beside PhotoMaker; the FaceID kinds bring a LoRA of their own."""
        with self._others_stay_active():
            super().load_ip_adapter(*args, **kwargs)

    @contextmanager
    def _others_stay_active(self) -> Iterator[None]:
        """Leave the LoRAs that are switched on as they are while another one is loaded."""
        before = [(layer, list(layer.active_adapters)) for layer in self._lora_layers()]
        yield
        for layer, active in before:
            wanted = [name for name in active if name in layer.scaling]
            wanted += [name for name in layer.active_adapters if name not in wanted]
            if wanted != layer.active_adapters:
                layer.set_adapter(wanted, inference_mode=True)

    def _lora_layers(self) -> list[Any]:
        models = (getattr(self, name, None) for name in self._lora_loadable_modules)
        return [
            layer
            for model in models
            if model is not None
            for layer in model.modules()
            if isinstance(layer, BaseTunerLayer)
        ]

    def _adapters(self) -> set[str]:
        return {name for names in self.get_list_adapters().values() for name in names}

    def _loaded_encoder(self) -> PhotoMakerIDEncoder:
        if self.id_encoder is None:
            raise WeightsError("no PhotoMaker adapter is loaded; call load_photomaker_adapter first")
        return self.id_encoder


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
    if weight_name is None and str(place) in ADAPTER_FILES:
        weight_name = ADAPTER_FILES[str(place)]
    if weight_name is None:
        raise WeightsError(
            f"{place} is not an adapter file; give the file's path, or a folder or hub id with weight_name"
        )
    if path.is_dir():
        return path / subfolder / weight_name
    if path.is_absolute() or str(place).startswith("."):
        raise WeightsError(
            f"there is no folder {place}; give a folder or a hub id such as TencentARC/PhotoMaker"
        )
    return hub_file(str(place), weight_name, subfolder or None, hub_options)


@contextmanager
def _without_lora(unet: nn.Module) -> Iterator[None]:
    """Have a model's weights named and listed as if no LoRA layers were in it."""
    stock = unet.state_dict

    def plain(*args: Any, **kwargs: Any) -> dict[str, Tensor]:
        state = stock(*args, **kwargs)
        return {
            name.replace(".base_layer.", "."): tensor
            for name, tensor in state.items()
            if ".lora_" not in name
        }

    unet.state_dict = plain  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del unet.state_dict


@contextmanager
def execution_of(module: nn.Module) -> Iterator[torch.device]:
    """Have an offloaded module where it computes, as its own forward call would; yields the device."""
    hook = getattr(module, "_hf_hook", None)
    if hook is None:
        yield cast(torch.device, module.device)
        return
    hook.pre_forward(module)
    yield torch.device(getattr(hook, "execution_device", None) or cast(torch.device, module.device))
