"""Random models of the plug-ins' architectures, saved in the layout in which real ones are published."""

from __future__ import annotations

from pathlib import Path

import torch
from tests.tiny import WORDS

LABELS = {0: "person", 1: "bicycle", 2: "sky"}


def mask2former(folder: Path) -> Path:
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig
    from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil

    torch.manual_seed(0)
    backbone = SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, image_size=64,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16,
        encoder_layers=1, decoder_layers=2, num_attention_heads=2, dim_feedforward=16, num_queries=6,
        id2label=LABELS, label2id={name: number for number, name in LABELS.items()},
    )  # fmt: skip
    Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)
    Mask2FormerImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def eomt(folder: Path, labels=LABELS) -> Path:
    from transformers import EomtConfig, EomtForUniversalSegmentation
    from transformers.models.eomt.image_processing_pil_eomt import EomtImageProcessorPil

    torch.manual_seed(0)
    config = EomtConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=64, patch_size=8,
        num_queries=6, num_blocks=1, num_upscale_blocks=1,
        id2label=labels, label2id={name: number for number, name in labels.items()},
    )  # fmt: skip
    EomtForUniversalSegmentation(config).save_pretrained(folder)
    EomtImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 64}, do_pad=True).save_pretrained(folder)
    return folder


def word_tokenizer(special: dict[str, str]):
    """A tokenizer whose tokens are the words of the tests."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "<s>", "</s>", "<unk>", *WORDS]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        **special,
    )


def blip2(folder: Path) -> Path:
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        Blip2QFormerConfig,
        Blip2VisionConfig,
        OPTConfig,
    )  # fmt: skip
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    torch.manual_seed(0)
    processor = Blip2Processor(
        BlipImageProcessorPil(size={"height": 32, "width": 32}), word_tokenizer({}), num_query_tokens=3
    )
    words = len(processor.tokenizer)
    config = Blip2Config(
        vision_config=Blip2VisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32,
            patch_size=8, initializer_range=0.3,
        ).to_dict(),
        qformer_config=Blip2QFormerConfig(
            vocab_size=words, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            encoder_hidden_size=16,
        ).to_dict(),
        text_config=OPTConfig(
            vocab_size=words, hidden_size=16, num_hidden_layers=1, ffn_dim=16, num_attention_heads=2,
            max_position_embeddings=128, word_embed_proj_dim=16, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        ).to_dict(),
        num_query_tokens=3,
        image_token_index=processor.tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    model = Blip2ForConditionalGeneration(config)
    torch.nn.init.normal_(model.query_tokens)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def florence2(folder: Path) -> Path:
    from transformers import (
        BartConfig,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
        Florence2VisionConfig,
    )  # fmt: skip
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    torch.manual_seed(0)
    tokenizer = word_tokenizer({"extra_special_tokens": {"image_token": "<image>"}})
    words = len(tokenizer)
    pictures = CLIPImageProcessorPil(
        size={"height": 64, "width": 64}, crop_size={"height": 64, "width": 64}, do_center_crop=False
    )
    # a feature map of 2 x 2, and their mean
    pictures.image_seq_length = 5
    config = Florence2Config(
        vision_config=Florence2VisionConfig(
            depths=[1, 1, 1, 1], embed_dim=[8, 8, 16, 16], num_heads=[1, 1, 2, 2], num_groups=[1, 1, 2, 2],
            window_size=4, projection_dim=16, max_temporal_embeddings=4, max_position_embeddings=8,
        ).to_dict(),
        text_config=BartConfig(
            vocab_size=words, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16, decoder_ffn_dim=16,
            encoder_attention_heads=2, decoder_attention_heads=2, max_position_embeddings=128, pad_token_id=0,
            bos_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=None, init_std=0.5,
        ).to_dict(),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    Florence2ForConditionalGeneration(config).save_pretrained(folder)
    Florence2Processor(pictures, tokenizer).save_pretrained(folder)
    return folder


def clip(folder: Path) -> Path:
    from tests.tiny import _write_tokenizer
    from transformers import CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    torch.manual_seed(0)
    words = _write_tokenizer(folder, "<|endoftext|>")
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes = text | {"image_size": 32, "patch_size": 8}
    config = CLIPConfig(
        text_config=text
        | {"vocab_size": words, "bos_token_id": 0, "eos_token_id": words - 1, "initializer_range": 0.5},
        vision_config=sizes | {"initializer_range": 0.5},
        projection_dim=16,
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
        folder
    )
    return folder


def sentences(folder: Path) -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    inner = folder.with_name(folder.name + "-bert")
    tokenizer = word_tokenizer({})
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(tokenizer), initializer_range=0.5, **sizes)).save_pretrained(inner)
    tokenizer.save_pretrained(inner)
    words = Transformer(str(inner), max_seq_length=16)
    pooling = Pooling(words.get_embedding_dimension())
    SentenceTransformer(modules=[words, pooling], device="cpu").save(str(folder))
    return folder
