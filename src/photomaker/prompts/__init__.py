"""Prompts: the trigger word, the class word, and their encoding by the SDXL text encoders."""

from photomaker.prompts.encoding import EncodedPrompts, Rows, encode, encode_rows, expand_rows
from photomaker.prompts.expand import ExpandedPrompt, expand
from photomaker.prompts.trigger import CLASS_WORDS, TRIGGER, ParsedPrompt, insert_trigger, parse

__all__ = [
    "CLASS_WORDS",
    "TRIGGER",
    "EncodedPrompts",
    "ExpandedPrompt",
    "ParsedPrompt",
    "Rows",
    "encode",
    "encode_rows",
    "expand",
    "expand_rows",
    "insert_trigger",
    "parse",
]
