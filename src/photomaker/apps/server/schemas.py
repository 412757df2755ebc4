"""The JSON of requests and responses, with descriptions and examples."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from photomaker.studio.desk.records import Job, Person, Picture, State

PERSON_ID, PICTURE_ID, JOB_ID = ("idn_" + "1f" * 16, "pic_" + "2e" * 16, "job_" + "3d" * 16)
PROMPT = "a photo of a woman img in the snow"


class Problem(BaseModel):
    """An error, as in RFC 9457."""

    type: str = Field(examples=["urn:photomaker:photo"])
    title: str = Field(examples=["Unprocessable Entity"])
    status: int = Field(examples=[422])
    detail: str = Field(
        description="One sentence: what is wrong and what to do.",
        examples=[
            "no face was found in 1.png; give photos in which the face is large and seen from the front"
        ],
    )
    error: dict[str, Any] = Field(description="The same sentence, for OpenAI's clients.")


class PersonOut(BaseModel):
    """A saved person."""

    id: str = Field(examples=[PERSON_ID])
    name: str = Field(examples=["Ada"])
    made: float = Field(description="Seconds since 1970.", examples=[1795859119.2])
    method: str = Field(examples=["photomaker-v1"])
    photos: int = Field(description="Number of photos it was made from.", examples=[4])
    report: dict[str, Any] | None = Field(
        description="The coach's report on each photo; null for a mix.",
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
        """A person as JSON."""
        return cls(
            id=person.id, name=person.name, made=person.made, method=person.method, photos=person.photos,
            report=None if person.report is None else dict(person.report), notes=list(person.notes),
        )  # fmt: skip


class MixIn(BaseModel):
    """Two people to mix."""

    model_config = ConfigDict(extra="forbid")

    first: str = Field(description="Id or name of the first person.", examples=["Ada"])
    second: str = Field(description="Id or name of the second person.", examples=["Ben"])
    share: float = Field(0.5, ge=0, le=1, description="Share of the second person, 0 to 1.", examples=[0.3])
    name: str = Field("", description="Name of the mix.", examples=["Ada and Ben"])
    how: Literal["blend", "proportion"] = Field(
        "blend", description="Interpolate features, or take photos in proportion."
    )


class RenameIn(BaseModel):
    """A new name for a person."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(examples=["Ada Lovelace"])


class PictureOut(BaseModel):
    """A picture."""

    id: str = Field(examples=[PICTURE_ID])
    made: float = Field(description="Seconds since 1970.", examples=[1795859121.7])
    width: int = Field(examples=[1024])
    height: int = Field(examples=[1024])
    job: str | None = Field(description="Its job; null for an uploaded picture.", examples=[JOB_ID])
    person: str = Field(examples=["Ada"])
    prompt: str = Field(description="The prompt, with trigger and style.", examples=[PROMPT])
    seed: int | None = Field(examples=[7])
    likeness: float | None = Field(description="Mean cosine to the photos' faces.", examples=[0.71])
    verdict: str | None = Field(examples=["the same person (0.71, above the threshold 0.56)"])
    same: bool | None = Field(description="Whether it is the same person.", examples=[True])
    share: float | None = Field(
        description="Likeness relative to that of the photos to each other: 0 a stranger, 1 another photo.",
        examples=[0.75],
    )
    url: str = Field(description="Address of the PNG.", examples=[f"/v1/images/{PICTURE_ID}"])

    @classmethod
    def of(cls, picture: Picture) -> PictureOut:
        """A picture as JSON."""
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
        None,
        description="Structure to extract from the picture: landmarks, edges or mask; null uses it as it is.",
    )


class StyleIn(BaseModel):
    """A picture whose style is copied."""

    picture: str = Field(description="Id of the picture, or upload:FIELD.", examples=["upload:look"])
    adapter: str | None = Field(
        None, description="An IP-Adapter of the server's list; null is the bundled one."
    )
    scale: float = 0.6


class PoseIn(BaseModel):
    """The pose of the face, for methods that follow landmarks."""

    source: str = Field(
        description="Id of a picture with a face, or upload:FIELD; or photo, draft, none.",
        examples=["upload:face"],
    )
    scale: float | None = Field(None, description="Strength, 0 to 2; null is the method's default.")


class OrderIn(BaseModel):
    """An order; pictures are named by id, or as `upload:FIELD` if the request is a form with files."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"people": [PERSON_ID], "prompts": [PROMPT], "n": 4, "seed": 7}]},
    )

    people: list[str] = Field(description="Ids or names of saved people.")
    prompts: list[str] = Field(description="The prompts; the trigger img is added if it is missing.")
    pairs: bool = Field(
        False,
        description="Pair the first person with the first prompt, and so on, instead of all with all.",
    )
    n: int = Field(1, description="Pictures of each person and prompt.")
    seed: int = Field(0, description="Seed of the first picture; each next one adds 1.")
    seeds: list[int] = Field([], description="One seed for each picture, instead of seed.")
    best_of: int = Field(1, description="Draw this many times n, and keep those with the highest likeness.")
    negative: str | None = Field(None, description="What the pictures should not show.")
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
    guidance_stop: float = Field(1.0, description="Share of the steps after which guidance ends.")
    speed: str = Field(
        "exact", description="exact, fast, turbo or auto: how much computation is skipped; see docs/speed.md."
    )
    redraw: str | int = Field("off", description="Redraw small faces: off, auto, or a limit in pixels.")
    together: bool = Field(False, description="Put all people into each picture.")
    layout: list[str | list[float]] = Field(
        [], description="Region of each person: left, middle, right, a box [0, 0, 0.5, 1], or a mask."
    )
    start: str | None = Field(None, description="A picture to start from.")
    strength: float = Field(0.6, description="How much of it to redraw, above 0 to 1.")
    mask: str | None = Field(None, description="White pixels are redrawn.")
    loras: list[LoraIn] = Field([], description="Additional LoRA.")
    controls: list[StructureIn] = Field([], description="ControlNets with their pictures.")
    t2i: StructureIn | None = Field(None, description="A T2I-Adapter with its picture.")
    style_picture: StyleIn | None = Field(None, description="A picture whose style is copied.")
    pose: PoseIn | None = Field(None, description="Pose of the face; only for methods that follow landmarks.")


class JobOut(BaseModel):
    """The state of a job."""

    id: str = Field(examples=[JOB_ID])
    state: State = Field(examples=["done"])
    place: int | None = Field(
        description="Place in the queue: 1 is next; null if it is not waiting.", examples=[None]
    )
    made: float = Field(examples=[1795859120.3])
    started: float | None = Field(examples=[1795859120.4])
    ended: float | None = Field(examples=[1795859123.9])
    total: int = Field(description="Number of pictures when it is done.", examples=[4])
    reason: str = Field(description="Why it failed or was cancelled, in one sentence.", examples=[""])
    pictures: list[PictureOut] = Field(description="Finished pictures.")
    order: OrderIn

    @classmethod
    def of(cls, job: Job) -> JobOut:
        """A job as JSON."""
        return cls(
            id=job.id, state=job.state, place=job.place, made=job.made, started=job.started, ended=job.ended,
            total=job.total, reason=job.reason, pictures=[PictureOut.of(one) for one in job.pictures],
            order=OrderIn(**job.order.as_json()),
        )  # fmt: skip


class StyleOut(BaseModel):
    """A style preset."""

    name: str = Field(examples=["watercolour"])
    prompt: str = Field(description="The resulting prompt.", examples=["a watercolour painting of {subject}"])
    negative: str = Field(examples=["photo, blurry"])
    works: bool = Field(description="Whether the served model can draw it.", examples=[True])


class Health(BaseModel):
    """Health of the server."""

    status: Literal["ok", "stopping"] = Field(examples=["ok"])
    waiting: int = Field(description="Waiting jobs.", examples=[3])
    drawing: int = Field(description="Running jobs.", examples=[1])
    model: str = Field(examples=["photomaker on photomaker small, cpu fp32"])


class ModelOut(BaseModel):
    """A model, or a saved person as a model, in OpenAI's format."""

    id: str = Field(examples=["photomaker:Ada"])
    object: Literal["model"] = "model"
    created: int = Field(examples=[1795859119])
    owned_by: str = Field(examples=["photomaker"])


class ModelsOut(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[ModelOut]


class GenerationIn(BaseModel):
    """A request from OpenAI's clients; unsupported fields are ignored."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={"examples": [{"model": "photomaker:Ada", "prompt": PROMPT, "n": 2}]},
    )

    prompt: str = Field(min_length=1)
    model: str | None = Field(None, description="photomaker, or photomaker:PERSON.")
    identity: str | None = Field(None, description="Id or name of a saved person, if the model names none.")
    n: int | None = Field(1, ge=1, description="Pictures.")
    size: str | None = Field("auto", description="1024x1024 and so on; auto is the model's own.")
    response_format: Literal["b64_json", "url"] | None = Field(
        None, description="By default, a response has both."
    )
    output_format: Literal["png"] | None = Field(None, description="Pictures are PNG.")
    stream: bool | None = Field(None, description="Respond with events, one for each finished picture.")
    partial_images: int | None = Field(
        None, ge=0, le=3, description="For a stream: number of previews of each picture."
    )
    strength: float | None = Field(
        None, description="For an edit of a scene: how much to redraw, above 0 to 1."
    )
    seed: int = 0
    steps: int = 20
    guidance: float | None = None
    speed: str = Field("exact", description="exact, fast, turbo or auto; see docs/speed.md.")
    merge: float | None = None
    negative: str | None = None
    preset: str = Field("none", description="Name of a style preset.")


class ImageOut(BaseModel):
    """A picture in OpenAI's format."""

    b64_json: str | None = Field(None, description="The PNG in base64.")
    url: str | None = Field(None, description="Address of the PNG, valid for an hour without a token.")
    revised_prompt: str = Field(description="The prompt.", examples=[PROMPT])


class ImagesOut(BaseModel):
    """Pictures in OpenAI's format."""

    created: int = Field(examples=[1795859123])
    data: list[ImageOut]
