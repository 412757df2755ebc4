"""Limits on the requests to a desk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from photomaker.errors import PhotoError, SettingsError

if TYPE_CHECKING:
    from photomaker.studio.orders.order import Order
    from photomaker.studio.orders.plain import PlainOrder


@dataclass(frozen=True)
class Limits:
    """Limits for one caller.

    Attributes:
        upload_bytes: Bytes of all files in a request.
        photos: Photos of one person.
        pixels: Pixels of a given photo or picture.
        pictures: Pictures drawn for one job, including those that `best_of` discards.
        steps: Denoising steps.
        drawn_pixels: Width times height of a drawn picture.
        people: People in one job.
        models: LoRA, and ControlNets, in one job.
        text: Characters of a prompt.
        waiting: Waiting jobs of all callers.
        waiting_each: Waiting jobs of one caller.
    """

    upload_bytes: int = 64 << 20
    photos: int = 16
    pixels: int = 50_000_000
    pictures: int = 64
    steps: int = 100
    drawn_pixels: int = 2048 * 2048
    people: int = 16
    models: int = 4
    text: int = 4000
    waiting: int = 256
    waiting_each: int = 64

    def check_photos(self, count: int) -> None:
        """Check the number of a person's photos.

        Raises:
            PhotoError: There are none, or too many.
        """
        if not count:
            raise PhotoError("there are no photos; send picture files of the person")
        if count > self.photos:
            raise PhotoError(f"there are {count} photos of one person; send at most {self.photos}")

    def check_bytes(self, name: str, count: int) -> None:
        """Check the size of a file.

        Raises:
            PhotoError: It is too large.
        """
        if count > self.upload_bytes:
            raise PhotoError(f"{name} is larger than {self.upload_bytes / 2**20:.3g} MB; send a smaller copy")

    def check_plain(self, order: PlainOrder) -> None:
        """Check what is known before files are opened.

        Raises:
            SettingsError: A limit is exceeded.
        """
        longest = max(map(len, (*order.prompts, order.negative or "")), default=0)
        for what, count, most in (
            ("people", len(order.people), self.people),
            ("LoRA", len(order.loras), self.models),
            ("ControlNets", len(order.controls), self.models),
            ("characters in a prompt", longest, self.text),
            ("steps", order.steps, self.steps),
        ):
            if count > most:
                raise SettingsError(f"there are {count} {what}; ask for at most {most}")

    def check(self, order: Order) -> None:
        """Check an order whose size in pixels is known.

        Raises:
            SettingsError: A limit is exceeded.
        """
        if order.total > self.pictures:
            raise SettingsError(
                f"the job draws {order.total} pictures; ask for at most {self.pictures} at a time"
            )
        width, height = order.sampling.width or 0, order.sampling.height or 0
        if width * height > self.drawn_pixels:
            side = int(self.drawn_pixels**0.5)
            raise SettingsError(
                f"the size is {width} x {height}; ask for at most as many pixels as {side} x {side}"
            )
