"""JSON as it goes over the wire, with its descriptions and examples."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from photomaker.studio.kept import Job, Person, Picture, State

PERSON_ID, PICTURE_ID, JOB_ID = ("idn_" + "1f" * 16, "pic_" + "2e" * 16, "job_" + "3d" * 16)
PROMPT = "a photo of a woman img in the snow"


class Problem(BaseModel):
    """A mistake, as RFC 9457 has it."""

    type: str = Field(examples=["urn:photomaker:photo"])
    title: str = Field(examples=["Unprocessable Entity"])
    status: int = Field(examples=[422])
    detail: str = Field(
        description="One sentence: what was wrong and what to do.",
        examples=[
            "no face was found in 1.png; give photos in which the face is large and seen from the front"
        ],
    )
    error: dict[str, Any] = Field(description="The same sentence, where OpenAI's clients look for it.")


class PersonOut(BaseModel):
    """A saved person."""

    id: str = Field(examples=[PERSON_ID])
    name: str = Field(examples=["Ada"])
    made: float = Field(description="Seconds since 1970.", examples=[1795859119.2])
    method: str = Field(examples=["photomaker-v1"])
    photos: int = Field(description="How many photos it was made of.", examples=[4])
    report: dict[str, Any] | None = Field(
        description="What the coach says of each photo; null for a mixed person.",
        examples=[
            {
                "photos": [
                    {"name": "1.png", "keep": True, "likeness": 0.945, "worth": 0.004, "findings": []},
                    {
                        "name": "dark.png",
                        "keep": True,
                        "likeness": 0.81,
                        "worth": -0.002,
                        "findings": [
                            {
                                "kind": "dark",
                                "text": "the face is dark (its brightest parts are 51 of 255)",
                                "remedy": "give one with more light on the face",
                            }
                        ],
                    },
                ],
                "findings": [],
                "kept": 2,
            }
        ],
    )
    notes: list[str] = Field(examples=[[]])

    @classmethod
    def of(cls, person: Person) -> PersonOut:
        """A person for the wire."""
        return cls(
            id=person.id, name=person.name, made=person.made, method=person.method, photos=person.photos,
            report=None if person.report is None else dict(person.report), notes=list(person.notes),
        )  # fmt: skip


class MixIn(BaseModel):
    """Two people to make one between."""

    model_config = ConfigDict(extra="forbid")

    first: str = Field(description="Id or name of whom share 0 gives.", examples=["Ada"])
    second: str = Field(description="Id or name of whom share 1 gives.", examples=["Ben"])
    share: float = Field(0.5, ge=0, le=1, description="Share of the second.", examples=[0.3])
    name: str = Field("", description="What to call the new person.", examples=["Ada and Ben"])
    how: Literal["blend", "proportion"] = Field(
        "blend", description="Interpolate features, or take photos in proportion."
    )


class RenameIn(BaseModel):
    """Another name for a person."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(examples=["Ada Lovelace"])


class PictureOut(BaseModel):
    """A picture."""

    id: str = Field(examples=[PICTURE_ID])
    made: float = Field(description="Seconds since 1970.", examples=[1795859121.7])
    width: int = Field(examples=[1024])
    height: int = Field(examples=[1024])
    job: str | None = Field(description="Its job; null for one that was given.", examples=[JOB_ID])
    person: str = Field(examples=["Ada"])
    prompt: str = Field(description="What was drawn, with trigger and style.", examples=[PROMPT])
    seed: int | None = Field(examples=[7])
    likeness: float | None = Field(description="Mean cosine to the photos' faces.", examples=[0.71])
    verdict: str | None = Field(examples=["the same person (0.71, above the threshold 0.56)"])
    same: bool | None = Field(description="Whether it is the same person.", examples=[True])
    share: float | None = Field(
        description="How near it comes to what the photos reach among themselves: 0 a stranger, 1 another photo.",
        examples=[0.75],
    )
    url: str = Field(description="Where the PNG is.", examples=[f"/v1/images/{PICTURE_ID}"])

    @classmethod
    def of(cls, picture: Picture) -> PictureOut:
        """A picture for the wire."""
        return cls(**vars(picture), url=f"/v1/images/{picture.id}")


class LoraIn(BaseModel):
    """A LoRA of the server's list."""

    name: str = Field(examples=["pixel-art"])
    weight: float = 1.0


class StructureIn(BaseModel):
    """A ControlNet or T2I-Adapter of the server's list."""

    model: str = Field(examples=["canny"])
    picture: str = Field(
        description="Id of the picture it follows, or upload:FIELD.", examples=["upload:edges"]
    )
    scale: float = 1.0
    start: float = 0.0
    stop: float = 1.0
    kind: str | None = Field(
        None, description="Read off the picture: landmarks, edges or mask; null follows it as it is."
    )


class StyleIn(BaseModel):
    """A picture whose look is taken over."""

    picture: str = Field(description="Id of the picture, or upload:FIELD.", examples=["upload:look"])
    adapter: str | None = Field(
        None, description="An IP-Adapter of the server's list; null is the bundled one."
    )
    scale: float = 0.6


class PoseIn(BaseModel):
    """Where the face shall be, for methods that follow landmarks."""

    source: str = Field(
        description="Id of a picture with a face, or upload:FIELD; or photo, draft, none.",
        examples=["upload:face"],
    )
    scale: float | None = Field(None, description="How closely, 0 to 2; null is the method's own.")


class OrderIn(BaseModel):
    """An order; pictures are named by their ids, or as `upload:FIELD` where the request is a form that has them."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"people": [PERSON_ID], "prompts": [PROMPT], "n": 4, "seed": 7}]},
    )

    people: list[str] = Field(description="Ids or names of saved people.")
    prompts: list[str] = Field(
        description="What the pictures show; the trigger img is put in where it is missing."
    )
    pairs: bool = Field(
        False, description="The first person with the first prompt, and so on, not each with each."
    )
    n: int = Field(1, description="Pictures of each person and prompt.")
    seed: int = Field(0, description="Of the first of them; each next one adds 1.")
    seeds: list[int] = Field([], description="Of these pictures, one each, in the place of seed.")
    best_of: int = Field(1, description="Draw so many times n, keep those most like the person.")
    negative: str | None = Field(None, description="What the pictures shall not show.")
    size: str | None = Field(
        None, description="portrait, landscape, square, or 640x480; null is the model's own."
    )
    style: str = Field("none", description="Name of a style preset; GET /v1/styles lists them.")
    scheduler: str | None = Field(
        None, description="euler, dpm++ 2m karras and so on; null is the model's own."
    )
    steps: int = Field(20, description="Denoising steps.")
    guidance: float | None = Field(None, description="Guidance scale; null is the model's own.")
    merge: float | None = Field(
        None, description="Share of the steps before the person joins; null is the model's own."
    )
    guidance_start: float = Field(0.0, description="Share of the steps before guidance begins.")
    guidance_stop: float = Field(1.0, description="Share of the steps after which it ends.")
    speed: str = Field(
        "exact", description="exact, fast, turbo or auto: how much work is left out; see docs/speed.md."
    )
    redraw: str | int = Field("off", description="Draw small faces again, larger: off, auto, or pixels.")
    together: bool = Field(False, description="All the people in each picture.")
    layout: list[str | list[float]] = Field(
        [], description="Where each of them is: left, middle, right, a box [0, 0, 0.5, 1], or a mask."
    )
    start: str | None = Field(None, description="A picture to start from.")
    strength: float = Field(0.6, description="How much of it is drawn anew, above 0 to 1.")
    mask: str | None = Field(None, description="White where it is drawn anew.")
    loras: list[LoraIn] = Field([], description="LoRA beside the person's.")
    controls: list[StructureIn] = Field([], description="ControlNets with their pictures.")
    t2i: StructureIn | None = Field(None, description="A T2I-Adapter with its picture.")
    style_picture: StyleIn | None = Field(None, description="A picture whose look is taken over.")
    pose: PoseIn | None = Field(
        None, description="Where the face shall be; only methods that follow landmarks take one."
    )


class JobOut(BaseModel):
    """A job as it stands."""

    id: str = Field(examples=[JOB_ID])
    state: State = Field(examples=["done"])
    place: int | None = Field(
        description="In the queue: 1 is next; null where it does not wait.", examples=[None]
    )
    made: float = Field(examples=[1795859120.3])
    started: float | None = Field(examples=[1795859120.4])
    ended: float | None = Field(examples=[1795859123.9])
    total: int = Field(description="Pictures that it keeps when it is done.", examples=[4])
    reason: str = Field(description="Why it failed or was cancelled, in one sentence.", examples=[""])
    pictures: list[PictureOut] = Field(description="Those that are finished.")
    order: OrderIn

    @classmethod
    def of(cls, job: Job) -> JobOut:
        """A job for the wire."""
        return cls(
            id=job.id, state=job.state, place=job.place, made=job.made, started=job.started, ended=job.ended,
            total=job.total, reason=job.reason, pictures=[PictureOut.of(one) for one in job.pictures],
            order=OrderIn(**job.order.as_json()),
        )  # fmt: skip


class StyleOut(BaseModel):
    """A style preset."""

    name: str = Field(examples=["watercolour"])
    prompt: str = Field(
        description="What the prompt becomes.", examples=["a watercolour painting of {subject}"]
    )
    negative: str = Field(examples=["photo, blurry"])
    works: bool = Field(description="Whether the model that is served can draw it.", examples=[True])


class Health(BaseModel):
    """How the server is."""

    status: Literal["ok", "stopping"] = Field(examples=["ok"])
    waiting: int = Field(description="Jobs that wait.", examples=[3])
    drawing: int = Field(description="Jobs that are being drawn.", examples=[1])
    model: str = Field(examples=["photomaker on photomaker small, cpu fp32"])


class ModelOut(BaseModel):
    """A model, or a saved person as one, in OpenAI's form."""

    id: str = Field(examples=["photomaker:Ada"])
    object: Literal["model"] = "model"
    created: int = Field(examples=[1795859119])
    owned_by: str = Field(examples=["photomaker"])


class ModelsOut(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[ModelOut]


class GenerationIn(BaseModel):
    """What OpenAI's clients send to draw; fields that mean nothing here are let be."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={"examples": [{"model": "photomaker:Ada", "prompt": PROMPT, "n": 2}]},
    )

    prompt: str = Field(min_length=1)
    model: str | None = Field(None, description="photomaker, or photomaker:PERSON.")
    identity: str | None = Field(
        None, description="Id or name of a saved person, where the model names none."
    )
    n: int | None = Field(1, ge=1, description="Pictures.")
    size: str | None = Field("auto", description="1024x1024 and so on; auto is the model's own.")
    response_format: Literal["b64_json", "url"] | None = Field(
        None, description="Left out, an answer has both."
    )
    output_format: Literal["png"] | None = Field(None, description="Pictures are PNG.")
    stream: bool | None = Field(None, description="Answer by events, each picture as it is finished.")
    partial_images: int | None = Field(
        None, ge=0, le=3, description="Of a stream: looks at each picture while it is drawn."
    )
    strength: float | None = Field(
        None, description="Of an edit of a scene: how much is drawn anew, above 0 to 1."
    )
    seed: int = 0
    steps: int = 20
    guidance: float | None = None
    speed: str = Field("exact", description="exact, fast, turbo or auto; see docs/speed.md.")
    merge: float | None = None
    negative: str | None = None
    preset: str = Field("none", description="Name of a style preset.")


class ImageOut(BaseModel):
    """A picture in OpenAI's form."""

    b64_json: str | None = Field(None, description="The PNG in base64.")
    url: str | None = Field(None, description="Where the PNG is, for an hour and without a token.")
    revised_prompt: str = Field(description="What was drawn.", examples=[PROMPT])


class ImagesOut(BaseModel):
    """Pictures in OpenAI's form."""

    created: int = Field(examples=[1795859123])
    data: list[ImageOut]
