"""The factors of the synthetic world: what makes a person, and what may change from one picture to the next.

A `Person` holds identity: everything that must survive a change of scene, clothes, light, pose or style. A
`View` holds the
rest. Both are plain values, so that a picture can be drawn again from its factors at any size.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

PERSON_CLASSES = ("man", "woman", "boy", "girl", "old man", "old woman")
EYE_COLOURS = ("brown", "hazel", "green", "blue", "grey", "black")
HAIR_COLOURS = ("black", "brown", "chestnut", "blonde", "red", "auburn", "grey", "white")
HAIRSTYLES = (
    "cropped",
    "short",
    "parted",
    "swept",
    "curly",
    "round",
    "bob",
    "fringe",
    "long",
    "wavy",
    "tied",
    "receding",
)
BEARDS = ("none", "stubble", "moustache", "goatee", "beard")

SCENES = (
    "studio",
    "beach",
    "snow",
    "forest",
    "city",
    "desert",
    "space",
    "sunset",
    "library",
    "kitchen",
    "meadow",
    "mountains",
    "night",
    "sea",
)
HATS = ("none", "cap", "beanie", "cowboy hat", "top hat", "beret")
EYEWEAR = ("none", "glasses", "sunglasses")
CLOTHES = ("t-shirt", "shirt", "hoodie", "suit", "sweater")
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "purple", "orange")
STYLES = ("photo", "sketch", "painting", "pixel art", "watercolour")

CHILD = ("boy", "girl")
OLD = ("old man", "old woman")
FEMININE = ("woman", "girl", "old woman")


@dataclass(frozen=True)
class Person:
    """Identity factors. Sizes are in -1..1 around the average of the class unless stated otherwise.

    Attributes:
        seed: Where the pattern of freckles comes from, 0 or more.
        person_class: One of `PERSON_CLASSES`.
        skin: Skin tone, 0 (palest) .. 1 (darkest).
        undertone: Cool -1 .. warm 1.
        hair_colour: Index into `HAIR_COLOURS` (hair turns grey by itself in the old classes).
        hairstyle: Index into `HAIRSTYLES`.
        eye_colour: Index into `EYE_COLOURS`.
        beard: Index into `BEARDS`; grows on men and old men alone.
        mole: Where the mole is: 0 none, 1 left cheek, 2 right cheek, 3 above the lip, 4 chin.
        freckles: 0 none .. 1 many.
    """

    seed: int
    person_class: str
    skin: float
    undertone: float
    face_width: float
    face_length: float
    jaw: float
    chin: float
    cheeks: float
    eye_spacing: float
    eye_size: float
    eye_tilt: float
    eye_height: float
    brow_thickness: float
    brow_tilt: float
    brow_height: float
    nose_length: float
    nose_width: float
    mouth_width: float
    mouth_height: float
    lips: float
    ear_size: float
    hairline: float
    hair_volume: float
    hair_colour: int
    hairstyle: int
    eye_colour: int
    beard: int
    mole: int
    freckles: float

    @property
    def is_child(self) -> bool:
        """Whether the class is boy or girl."""
        return self.person_class in CHILD

    @property
    def is_old(self) -> bool:
        """Whether the class is old man or old woman."""
        return self.person_class in OLD

    @property
    def is_feminine(self) -> bool:
        """Whether the class is woman, girl or old woman."""
        return self.person_class in FEMININE


@dataclass(frozen=True)
class View:
    """What changes from picture to picture.

    Attributes:
        seed: Where the scene's details come from, 0 or more.
        yaw: Turn of the head in radians, positive towards the picture's right.
        roll: Tilt of the head in radians, clockwise.
        shift_x: Horizontal place of the head, in half pictures.
        shift_y: Vertical place of the head, in half pictures, downwards.
        scale: Size of the person, 1 is the usual framing.
        smile: -1 sad .. 1 smiling.
        mouth_open: 0 closed .. 1 open.
        gaze: -1 .. 1, where the eyes look.
        light: Azimuth of the key light in radians, positive from the right.
        light_height: Elevation of the key light in radians.
        warmth: -1 cold light .. 1 warm light.
        scene: One of `SCENES`.
        clothing: One of `CLOTHES`.
        clothing_colour: One of `COLOURS`.
        hat: One of `HATS`.
        hat_colour: One of `COLOURS`; means nothing where hat is "none".
        eyewear: One of `EYEWEAR`.
        style: One of `STYLES`.
    """

    seed: int
    yaw: float
    roll: float
    shift_x: float
    shift_y: float
    scale: float
    smile: float
    mouth_open: float
    gaze: float
    light: float
    light_height: float
    warmth: float
    scene: str
    clothing: str
    clothing_colour: str
    hat: str
    hat_colour: str
    eyewear: str
    style: str


SHAPE_FACTORS = tuple(
    field.name for field in fields(Person) if field.type == "float" and field.name not in ("skin", "freckles")
)
