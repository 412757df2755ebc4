"""IP-Adapters by diffusers' own loader, beside the UNet instead of in it."""

from __future__ import annotations

from typing import Any

from photomaker.encoders import image_processor
from photomaker.encoders.ip_adapter import IPAdapterFile
from photomaker.errors import WeightsError
from photomaker.pipelines.drawing.opening import quietly


def loaded_ip_adapter(pipeline: Any, file: IPAdapterFile) -> tuple[dict[str, Any], Any]:  # noqa: ANN401
    """What diffusers' loader makes of the file: processors and image projection, taken out of the UNet again.

    Raises:
        WeightsError: diffusers cannot read it.
    """
    unet = pipeline.unet
    before, projection = dict(unet.attn_processors), unet.encoder_hid_proj
    kind, extractor = unet.config.encoder_hid_dim_type, pipeline.feature_extractor
    if extractor is None:  # the loader would make one that needs torchvision
        pipeline.feature_extractor = image_processor(224)
    try:
        with quietly():
            pipeline.load_ip_adapter(file.sections(), None, None, image_encoder_folder=None)
        made = {
            name: processor
            for name, processor in unet.attn_processors.items()
            if name.endswith("attn2.processor")
        }
        return made, unet.encoder_hid_proj
    except (KeyError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:200]
        raise WeightsError(
            f"diffusers cannot load the IP-Adapter {file.source} ({reason}); give a file in the published layout"
        ) from error
    finally:
        # first, for a resampler has attention layers of its own, which the UNet would count among its
        unet.encoder_hid_proj = projection
        unet.set_attn_processor(before)
        unet.config.encoder_hid_dim_type = kind
        pipeline.feature_extractor = extractor
