"""All settings of a build, as one settings file gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from photomaker.dataset.base import Step
from photomaker.dataset.caption import Caption
from photomaker.dataset.dedupe import Dedupe
from photomaker.dataset.detect import Detect
from photomaker.dataset.executors import Run
from photomaker.dataset.gather import Gather
from photomaker.dataset.listing import Input
from photomaker.dataset.mark import Mark
from photomaker.dataset.segment import Segment
from photomaker.dataset.stages import Shard
from photomaker.dataset.verify import Verify
from photomaker.errors import SettingsError


@dataclass(frozen=True)
class BuildSettings:
    """A build.

    Attributes:
        input: Where the photos come from.
        out: Folder of the dataset; made if missing.
        unit: Photos of a unit of work, 1 or more: what a worker does at once and what a killed run does again.
        paper: Whether to take the paper's values over those of the steps: 512 pixels at the short side, faces of 256,
            a face on at least a tenth of the crop, and 8 standard deviations to tell other people.
        gather: Settings of the steps, in their order.
        dedupe: The same.
        detect: The same.
        verify: The same.
        segment: The same.
        caption: The same.
        mark: The same.
        shard: Settings of the last stage.
        run: Who builds.

    Raises:
        SettingsError: A value is outside its range.
    """

    input: Input
    out: Path
    unit: int = 1000
    paper: bool = False
    gather: Gather = field(default_factory=Gather)
    dedupe: Dedupe = field(default_factory=Dedupe)
    detect: Detect = field(default_factory=Detect)
    verify: Verify = field(default_factory=Verify)
    segment: Segment = field(default_factory=Segment)
    caption: Caption = field(default_factory=Caption)
    mark: Mark = field(default_factory=Mark)
    shard: Shard = field(default_factory=Shard)
    run: Run = field(default_factory=Run)

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.unit < 1:
            raise SettingsError(f"unit is {self.unit}; give 1 photo or more")

    def steps(self) -> Sequence[Step]:
        """The steps in their order, without the last stage.

        Source of the values that `paper` sets: arXiv 2312.04461, section 3.3 and appendix.
        """
        gather, detect, verify, segment = self.gather, self.detect, self.verify, self.segment
        if self.paper:
            gather = replace(gather, short_side=512)
            detect = replace(detect, smallest=256)
            verify = replace(verify, rule="paper", k=8.0)
            segment = replace(segment, face_share=0.1)
        return gather, self.dedupe, detect, verify, segment, self.caption, self.mark
