"""ID encoders, stacked fusion, identity mixing and adapter files."""

from photomaker.encoders.adapter_file import (
    AdapterFile,
    export_adapter,
    infer_sizes,
    official_lora,
    read_adapter,
)
from photomaker.encoders.fusion import FuseModule, FusionMLP
from photomaker.encoders.id_encoder import FULL_SIZE, PhotoMakerIDEncoder, vision_config
from photomaker.encoders.id_encoder_v2 import (
    FULL_SIZE_V2,
    PhotoMakerIDEncoder_CLIPInsightfaceExtendtoken,
    vision_config_v2,
)
from photomaker.encoders.mixing import active_features, mix
from photomaker.encoders.preprocess import as_picture, cut_out, face_square, image_processor, preprocess
from photomaker.encoders.resampler import FacePerceiverResampler
from photomaker.encoders.together import apart, photos_of_each, together

__all__ = [
    "FULL_SIZE",
    "FULL_SIZE_V2",
    "AdapterFile",
    "FacePerceiverResampler",
    "FuseModule",
    "FusionMLP",
    "PhotoMakerIDEncoder",
    "PhotoMakerIDEncoder_CLIPInsightfaceExtendtoken",
    "active_features",
    "apart",
    "as_picture",
    "cut_out",
    "export_adapter",
    "face_square",
    "image_processor",
    "infer_sizes",
    "mix",
    "official_lora",
    "photos_of_each",
    "preprocess",
    "read_adapter",
    "together",
    "vision_config",
    "vision_config_v2",
]
