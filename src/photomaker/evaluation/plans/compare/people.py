"""Who is compared on: people by row, 0, 1, ..., of whom the first ones are scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from PIL import Image

from photomaker.evaluation.people.folder import FolderPeople
from photomaker.evaluation.people.world import SyntheticWorld, World, stable_seed
from photomaker.evaluation.plans.compare.settings import ComparisonSettings
from photomaker.evaluation.prompts import BenchPrompt


def world_of(settings: ComparisonSettings) -> World:
    """Where people come from: drawn ones, or those in a folder.

    Raises:
        PhotoError: Photos are missing; see `FolderPeople`.
        SettingsError: A class word is missing.
    """
    if settings.photos is None:
        return SyntheticWorld()
    given = settings.people, settings.references, settings.unseen
    return FolderPeople(settings.photos, settings.classes, *given)  # type: ignore[return-value] # asked for photos alone


@dataclass(frozen=True)
class People:
    """The people of a comparison.

    Attributes:
        settings: How many, and how many photos of each.
        world: Where they come from.
    """

    settings: ComparisonSettings
    world: World

    @cached_property
    def _people(self) -> list[int]:
        return self.world.people(self.settings.split, self.settings.gallery)

    def names(self) -> list[str]:
        """Everybody among whom a picture must find its person."""
        return [self.world.name_of(person) for person in self._people]

    def class_of(self, row: int) -> str:
        """The person's class phrase, for example `old man`."""
        return self.world.class_of(self._people[row])

    def references(self, row: int, count: int) -> list[Image.Image]:
        """The first `count` reference photos; as many as there are where there are fewer."""
        return self.world.photos(self._people[row], "references", count)

    def unseen(self, row: int) -> list[Image.Image]:
        """Photos that no method gets; may be empty."""
        return self.world.photos(self._people[row], "unseen", self.settings.unseen)

    def real(self, row: int, prompts: Sequence[BenchPrompt], seeds: int) -> list[Image.Image]:
        """Real pictures in the circumstances of the prompts, by prompt and then by seed; empty if there are none."""
        if self.settings.photos is not None:
            return []
        return [
            self.world.context(self._people[row], self.seed(row, prompt, seed), prompt.states)
            for prompt in prompts
            for seed in range(seeds)
        ]

    def seed(self, row: int, prompt: BenchPrompt, number: int) -> int:
        """The seed of a picture, which depends on nothing but its arguments."""
        return stable_seed(self._people[row], prompt.name, number)
