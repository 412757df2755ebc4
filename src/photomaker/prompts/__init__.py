"""Prompts: the trigger word, the class word, and their encoding by the SDXL text encoders."""

from photomaker.classes import CLASS_WORDS
from photomaker.prompts.encoding import (
    Copies,
    EncodedPrompts,
    Rows,
    TextEncoders,
    encode,
    encode_by,
    encode_rows,
    expand_rows,
    lengthened,
    weighed,
)
from photomaker.prompts.expand import ExpandedPrompt, expand, expand_plain, expand_subjects
from photomaker.prompts.trigger import TRIGGER, ParsedPrompt, insert_trigger, parse, with_person
from photomaker.prompts.weights import read_weights

__all__ = [
    "CLASS_WORDS",
    "TRIGGER",
    "Copies",
    "EncodedPrompts",
    "ExpandedPrompt",
    "ParsedPrompt",
    "Rows",
    "TextEncoders",
    "encode",
    "encode_by",
    "encode_rows",
    "expand",
    "expand_plain",
    "expand_rows",
    "expand_subjects",
    "insert_trigger",
    "lengthened",
    "parse",
    "read_weights",
    "weighed",
    "with_person",
]
