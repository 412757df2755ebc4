"""Phrases by spaCy's dependency trees; needs the extra `words`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import spacy

from photomaker.classes import ClassWord
from photomaker.errors import WeightsError
from photomaker.faces.base import PhraseParser


class SpacyParser(PhraseParser):
    """The subtree of a class word in the dependency tree, without the subtrees of other class words."""

    def __init__(self, language: Any) -> None:  # noqa: ANN401 - a class of spaCy
        """Wrap a pipeline that has a parser.

        Raises:
            WeightsError: It has none.
        """
        if "parser" not in language.pipe_names:
            raise WeightsError(
                f"the spaCy model has no parser but {', '.join(language.pipe_names) or 'nothing'}; "
                "name one that has, such as en_core_web_sm"
            )
        self._language = language

    @classmethod
    def open(cls, place: str) -> SpacyParser:
        """Load a folder, or a model that is installed as a package.

        Raises:
            WeightsError: There is none, it cannot be loaded, or it has no parser.
        """
        try:
            return cls(spacy.load(place))
        except (OSError, ValueError) as error:
            raise WeightsError(
                f"the spaCy model {place} cannot be loaded; install it with: python -m spacy download {place}, "
                "name a folder, or take the parser named rules"
            ) from error

    def phrases(self, text: str, words: Sequence[ClassWord]) -> list[str]:
        """See `PhraseParser.phrases`."""
        document = self._language(text)
        heads = [_token_at(document, word) for word in words]
        return [
            self._phrase(document, head, {other.i for other in heads if other.i != head.i}) for head in heads
        ]

    @staticmethod
    def _phrase(document: Any, head: Any, others: set[int]) -> str:  # noqa: ANN401
        kept = {head.i}
        left = [head]
        while left:
            for child in left.pop().children:
                if child.i not in others and child.dep_ not in ("cc", "punct"):
                    kept.add(child.i)
                    left.append(child)
        first = last = head.i
        while first - 1 in kept:
            first -= 1
        while last + 1 in kept:
            last += 1
        return str(document[first : last + 1].text)


def _token_at(document: Any, word: ClassWord) -> Any:  # noqa: ANN401 - classes of spaCy
    return next(token for token in document if token.idx + len(token) > word.start)
