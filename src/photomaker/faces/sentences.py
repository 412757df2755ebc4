"""Similarity of class words by sentence embeddings; needs the extra `words`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from photomaker.faces.base import TextSimilarity
from photomaker.faces.loading import device, load


class SentenceSimilarity(TextSimilarity):
    """The cosine between embeddings of the words (Sentence-BERT, arXiv 1908.10084), 0 if it is negative."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - a class of sentence-transformers
        """Wrap a model."""
        self._model = model

    @classmethod
    def open(cls, place: str) -> SentenceSimilarity:
        """Load a folder or a hub id.

        Raises:
            WeightsError: It cannot be loaded.
        """

        def make(folder: Path) -> SentenceTransformer:
            return SentenceTransformer(str(folder), device=str(device()), local_files_only=True)

        return cls(load(place, make))

    def similarity(self, words: Sequence[str], word: str) -> list[float]:
        """See `TextSimilarity.similarity`."""
        vectors = self._model.encode([word, *words], normalize_embeddings=True, show_progress_bar=False)
        return [max(0.0, min(1.0, float(value))) for value in vectors[1:] @ vectors[0]]
