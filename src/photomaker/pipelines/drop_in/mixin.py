"""PhotoMaker for any stock diffusers SDXL pipeline, as one mixin: adapter, identities, prompts, delayed merging."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from photomaker import checks
from photomaker.errors import PromptError, SettingsError
from photomaker.pipelines.attention.projections import kept_projections
from photomaker.pipelines.attention.regions import Place
from photomaker.pipelines.drop_in.arguments import stock_arguments
from photomaker.pipelines.drop_in.call_texts import (
    TEXT_ONLY,
    WITH_EMBEDDINGS,
    are_weighted,
    as_lists,
    both_rows,
    check_masks,
    check_slots,
    check_texts,
    given_embeddings,
    negative_prompts,
    regional_attention,
    several_copies,
    subjects_of,
    tell_lost,
    weights_apart,
    with_text_only,
)
from photomaker.pipelines.drop_in.fusing import copies_of, merged
from photomaker.pipelines.drop_in.identities import FaceEmbeds, IdentityMixin, Photos
from photomaker.pipelines.steps.merging import Conditioning, DelayedMerging, Subjects
from photomaker.prompts import Copies, EncodedPrompts, Rows, encode_rows, expand_rows, lengthened, weighed
from photomaker.prompts.places import places_said
from photomaker.types import Identity

DEFAULT_MERGE_STEP = {"v1": 0, "v2": 10}  # of the two official releases


class PhotoMakerMixin(IdentityMixin):
    """Mixin for a stock SDXL pipeline class; its call gains `input_id_images`, `identity`, `start_merge_step`."""

    # ---- conditioning

    def expand_prompts(
        self,
        prompts: Sequence[str],
        copies: Sequence[Copies] | None = None,
        prompts_2: Sequence[str] | None = None,
        long_prompt: bool = False,
    ) -> Rows:
        """Prompts as token ids for both text encoders; no model runs.

        Args:
            prompts: One per row, with or without trigger.
            copies: Number of class tokens for each row's photos, for several people one number each; None is 1.
            prompts_2: Other texts for the second text encoder.
            long_prompt: Whether texts longer than the encoders can read go on in further chunks.

        Raises:
            PromptError: See `photomaker.prompts`; or the photos do not fit into a prompt.
        """
        # a row without an identity needs one class token, whose encoding is then not used
        wanted = [max(1, one) if isinstance(one, int) else one for one in copies or [1] * len(prompts)]
        rows = self._expanded(prompts, wanted, prompts_2, long_prompt)
        check_slots(rows, wanted, self._loaded_encoder())
        return rows

    def _expanded(
        self,
        prompts: Sequence[str],
        copies: Sequence[Copies],
        prompts_2: Sequence[str] | None,
        long_prompt: bool,
    ) -> Rows:
        return expand_rows(
            prompts,
            copies,
            (self.tokenizer, self.tokenizer_2),
            prompts_2,
            self.trigger_word,
            cut_first=self._loaded_encoder().version != "v1",
            convert=self._convert,
            long=long_prompt,
        )

    def is_long(
        self, prompts: Sequence[str], identity: Identity, negatives: Sequence[str] | None = None
    ) -> bool:
        """Whether words of some prompt would be cut off without `long_prompt`.

        Args:
            prompts: With or without trigger.
            identity: Whose photos take a token or two each.
            negatives: Negative prompts.
        """
        copies = self._copies(identity)
        if not isinstance(copies, int):
            return False  # prompts of several people are always read completely
        copies = max(1, copies)
        try:
            rows = self._expanded(prompts, [copies] * len(prompts), None, False)
        except PromptError:  # the class word would be left out
            return True
        both = [*rows, *(self._plain(negatives, None, False) if negatives else ())]
        cut = any(row.slots < copies for own in rows for row in own)
        return cut or any(row.lost.strip() for own in both for row in own)

    @property
    def _convert(self) -> Any:  # noqa: ANN401 - a method of the stock pipelines that read textual inversions
        return getattr(self, "maybe_convert_prompt", None)

    def _plain(self, texts: Sequence[str], texts_2: Sequence[str] | None, long_prompt: bool) -> Rows:
        """Texts without a person as token ids."""
        return expand_rows(
            texts, None, (self.tokenizer, self.tokenizer_2), texts_2, convert=self._convert, long=long_prompt
        )

    def _encoded(self, rows: Rows, clip_skip: int | None = None) -> EncodedPrompts:
        return encode_rows(rows, (self.text_encoder, self.text_encoder_2), clip_skip, self._execution_device)

    def _weighed(self, embeds: Tensor, weights: Tensor | None, clip_skip: int | None = None) -> Tensor:
        if weights is None:
            return embeds
        return weighed(embeds, weights, self._encoded(self._plain([""], None, False), clip_skip).embeds)

    def condition(
        self, rows: Rows, identities: Sequence[Identity], clip_skip: int | None = None
    ) -> Conditioning:
        """The conditioning after merging.

        Args:
            rows: From `expand_prompts`, with as many copies as the identities have active photos times `num_tokens`.
            identities: One per row.
            clip_skip: As in diffusers.
        """
        encoded = self._encoded(rows, clip_skip)
        merged = self._merged(encoded, identities)
        return replace(merged, embeds=self._weighed(merged.embeds, encoded.weights, clip_skip))

    def _merged(self, encoded: EncodedPrompts, identities: Sequence[Identity]) -> Conditioning:
        return merged(self._loaded_encoder(), encoded, identities)

    @torch.no_grad()
    def encode_prompts(
        self,
        prompt: str | list[str],
        prompt_2: str | list[str] | None = None,
        photos: int | Sequence[int] = 1,
        clip_skip: int | None = None,
        long_prompt: bool = False,
    ) -> dict[str, Tensor]:
        """Encode prompts for repeated use: `pipe(**pipe.encode_prompts(...), identity=...)`.

        Args:
            prompt: One prompt or a list.
            prompt_2: Other prompts for the second text encoder.
            photos: Number of photos of the person, or of each row's person.
            clip_skip: As in diffusers.
            long_prompt: As in the call.

        Returns:
            Arguments of the call: `prompt_embeds` [rows, length, D] and `pooled_prompt_embeds` [rows, P] with the class
            token repeated for each photo, `class_tokens_mask` and `class_tokens_mask_2` bool [rows, length], and
            `prompt_embeds_text_only` and `pooled_prompt_embeds_text_only` for the steps before merging. Prompt weights
            are in them already but for the class word's, which counts once the person is in its place: where there are
            weights, `class_token_weights` [rows, length, D] hold it, 1 elsewhere.

        Raises:
            PromptError: See `expand_prompts`.
        """
        prompts, prompts_2 = both_rows(prompt, prompt_2)
        counts = [photos] * len(prompts) if isinstance(photos, int) else list(photos)
        rows = self.expand_prompts(
            prompts, [count * self.num_tokens for count in counts], prompts_2, long_prompt
        )
        plain = self.expand_prompts(prompts, None, prompts_2, long_prompt)
        rows, plain = self._alike(rows, plain)
        encoded, before = self._encoded(rows, clip_skip), self._encoded(plain, clip_skip)
        own, later = weights_apart(encoded, int(self._loaded_encoder().config.projection_dim))
        return {
            **({} if later is None else {"class_token_weights": later}),
            "prompt_embeds": self._weighed(encoded.embeds, own, clip_skip),
            "pooled_prompt_embeds": encoded.pooled,
            "class_tokens_mask": encoded.class_tokens,
            "class_tokens_mask_2": encoded.class_tokens_2,
            "prompt_embeds_text_only": self._weighed(before.embeds, before.weights, clip_skip),
            "pooled_prompt_embeds_text_only": before.pooled,
        }

    def _alike(self, *several: Rows) -> list[Rows]:
        """Rows padded to one length, as guidance and merging need them."""
        length = max(len(rows[0][0].ids) for rows in several)
        return [lengthened(rows, (self.tokenizer, self.tokenizer_2), length) for rows in several]

    # ---- the call

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        prompt_2: str | list[str] | None = None,
        *args: Any,
        input_id_images: Photos | None = None,
        identity: Identity | Sequence[Identity] | None = None,
        start_merge_step: float | None = None,
        id_embeds: FaceEmbeds | None = None,
        exact_merge_step: bool = False,
        long_prompt: bool = False,
        layout: Sequence[Place] | None = None,
        **kwargs: Any,
    ) -> Any:  # noqa: ANN401 - what the stock pipeline returns
        """Draw pictures; arguments other than these are the stock pipeline's.

        Args:
            prompt: One prompt or a list. The trigger word behind the class word marks the person; where it is
                missing it is put behind the first class word. `(words:1.3)` weighs words.
            prompt_2: Other prompts for the second text encoder.
            args: Other positional arguments of the stock pipeline.
            input_id_images: Photos of the person (PIL, array, tensor, or the path of a file or folder): one, or a list,
                or for a list of prompts a list of lists.
            identity: Identities instead of photos: one, or one for each prompt. An identity whose photos all have
                weight 0 leaves the text-only prompt as it is.
            start_merge_step: The identity joins in the denoising step after this one; -1 is from the start.
                A fraction below 1, such as 0.2, is the share of the steps that stay text-only. None is the official
                default, 0 for v1 and 10 for v2.
            id_embeds: Face embeddings of the photos for V2 adapters, see `encode_identity`; for several people a list
                of such.
            exact_merge_step: Let the identity join in step `start_merge_step` itself, so that 0 is from the
                start. The official count, one later, is the default.
            long_prompt: Read prompts of any length, in chunks of 75 tokens. Without it words past the 77th token are
                left out with a warning, as in the official code.
            layout: Where each person is in a picture of several (`photomaker.encoders.together`), in the order of
                their triggers: `left`, `middle`, `right`, a box (left, top, right, bottom in 0..1) or a mask picture.
                None takes the places that the prompt gives them ("a man img on the left and a woman img on the right"),
                or else the attention of the text-only steps.
            kwargs: The stock pipeline's further arguments. For the steps before merging there may be
                `prompt_embeds_text_only` [rows, length, D] and `pooled_prompt_embeds_text_only` [rows, P]. In place of
                `prompt` there may be `prompt_embeds`, `pooled_prompt_embeds`, `class_tokens_mask` (bool [rows, length],
                true at the copies of the class token) and, where it is weighted, `class_token_weights`;
                `encode_prompts` makes all of these.

        Returns:
            The output of the stock pipeline.

        Raises:
            PhotoMakerError: A child of it, one sentence on what was wrong, before any denoising. An argument that
                neither this call nor the stock pipeline's knows is refused.
        """
        kwargs = stock_arguments(super().__call__, _own_arguments(), args, kwargs)  # type: ignore[misc]
        copies = checks.whole("num_images_per_prompt", kwargs.get("num_images_per_prompt", 1), 1)
        merge_step = self._merge_step(start_merge_step, exact_merge_step)
        people = (input_id_images, identity, id_embeds)
        embeddings = {name: kwargs.pop(name, None) for name in (*WITH_EMBEDDINGS, *TEXT_ONLY)}
        if kwargs.get("prompt_embeds") is None:
            check_texts(kwargs, embeddings)
            both = both_rows(prompt, prompt_2)
            text, conditioning = self._from_texts(both, people, long_prompt, embeddings, kwargs)
            layout = self._places(both[0], conditioning) if layout is None else layout
        else:
            text = None, None
            given = given_embeddings((prompt, prompt_2), kwargs, embeddings)
            conditioning = self._from_embeddings(given, people, long_prompt, kwargs)
        conditioning = conditioning.repeated(copies)
        regional = regional_attention(conditioning, layout)
        switch = None if regional is None else regional.switch
        merging = DelayedMerging(conditioning, merge_step, self.scheduler.order, switch)
        with ExitStack() as stack:
            stack.enter_context(kept_projections(self.unet))
            stack.enter_context(merging.attached(self.unet, getattr(self, "controlnet", None)))
            if regional is not None:
                stack.enter_context(regional.attached(self.unet))
            result = super().__call__(*text, **kwargs)  # type: ignore[misc]
        if merging.calls and not merging.merged_steps and bool(conditioning.active.any()):
            warnings.warn(
                f"start_merge_step is {merging.start_merge_step}, but only {merging.steps} steps were run, so the "
                "photos had no effect; give a smaller one",
                stacklevel=2,
            )
        return result

    def _from_texts(
        self,
        both: tuple[list[str], list[str] | None],
        people: tuple[Any, Any, Any],
        long_prompt: bool,
        embeddings: Mapping[str, Tensor | None],
        kwargs: dict[str, Any],
    ) -> tuple[tuple[list[str] | None, list[str] | None], Conditioning]:
        """The stock pipeline's prompts and the conditioning; `kwargs` are completed."""
        prompts, prompts_2 = both
        clip_skip = kwargs.get("clip_skip")
        # a bad prompt is reported before any model runs
        several = several_copies(people[1], len(prompts))
        before = self.expand_prompts(prompts, several, prompts_2, long_prompt)
        negatives = negative_prompts(kwargs, len(prompts))
        negative = None if negatives is None else self._plain(*negatives, long_prompt)
        identities = self.identities_of(len(prompts), *people)
        rows = self.expand_prompts(prompts, [self._copies(one) for one in identities], prompts_2, long_prompt)
        tell_lost(rows)
        text_only = [embeddings[name] for name in TEXT_ONLY]
        unlike_text = bool(several) or long_prompt or are_weighted(before) or are_weighted(negative)
        if not unlike_text and text_only == [None, None]:
            kwargs |= as_lists(kwargs, len(prompts))
            text, text_2 = ([row.text_only for row in own] for own in rows)
            return (text, text_2 if prompts_2 else None), self.condition(rows, identities, clip_skip)
        rows, before, *others = self._alike(rows, before, *([] if negative is None else [negative]))
        plain = self._encoded(before, clip_skip)
        plain = replace(plain, embeds=self._weighed(plain.embeds, plain.weights, clip_skip))
        plain = with_text_only(plain, *text_only)
        kwargs |= self._embedded(plain, others[0] if others else None, kwargs)
        conditioning = self.condition(rows, identities, clip_skip)
        if several:
            own = subjects_of(rows, [self._copies(one) for one in identities])
            conditioning = replace(conditioning, subjects=Subjects(own, subjects_of(before, several)))
        return (None, None), conditioning

    def _places(self, prompts: Sequence[str], conditioning: Conditioning) -> tuple[str, ...] | None:
        """The positions that the prompts give several people, if all agree."""
        if conditioning.subjects is None:
            return None
        people = conditioning.subjects.merged.shape[1]
        said = {places_said(prompt, people, self.trigger_word) for prompt in prompts}
        return said.pop() if len(said) == 1 else None

    def _from_embeddings(
        self,
        given: tuple[EncodedPrompts, EncodedPrompts],
        people: tuple[Any, Any, Any],
        long_prompt: bool,
        kwargs: dict[str, Any],
    ) -> Conditioning:
        """The conditioning of prompts that come as embeddings; `kwargs` are completed."""
        encoded, plain = given
        identities = self.identities_of(len(encoded.embeds), *people)
        if several_copies(people[1], len(encoded.embeds)):
            raise PromptError("prompts of several people cannot be given as prompt_embeds; give them as text")
        check_masks(encoded, [self._copies(one) for one in identities])
        negatives = negative_prompts(kwargs, len(identities))
        negative = None if negatives is None else self._plain(*negatives, long_prompt)
        kwargs |= self._embedded(plain, negative, kwargs)
        merged = self._merged(encoded, identities)
        return replace(merged, embeds=self._weighed(merged.embeds, encoded.weights, kwargs.get("clip_skip")))

    def _copies(self, identity: Identity) -> Copies:
        return copies_of(identity, self.num_tokens)

    def _embedded(
        self, plain: EncodedPrompts, negative: Rows | None, given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The stock pipeline's arguments for prompts that it cannot read itself."""
        made: dict[str, Any] = {
            "prompt_embeds": plain.embeds,
            "pooled_prompt_embeds": plain.pooled,
            "negative_prompt": None,
            "negative_prompt_2": None,
        }
        zeros = getattr(self.config, "force_zeros_for_empty_prompt", True)
        if negative is None and not zeros and given.get("negative_prompt_embeds") is None:
            negative = self._plain([""] * len(plain.embeds), None, False)
        if negative is not None:
            length = plain.embeds.shape[1]
            if len(negative[0][0].ids) > length:
                raise PromptError(
                    f"the negative prompt is longer than the {length} tokens of prompt_embeds; shorten it, or encode "
                    "the prompt to as many tokens"
                )
            encoded = self._encoded(lengthened(negative, (self.tokenizer, self.tokenizer_2), length))
            made["negative_prompt_embeds"] = self._weighed(encoded.embeds, encoded.weights)
            made["negative_pooled_prompt_embeds"] = encoded.pooled
        return made

    def _merge_step(self, given: float | None, exact: bool) -> int | Callable[[], int]:
        """The number of the last text-only step, or a function that gives it when the steps are known."""
        if given is None:
            return DEFAULT_MERGE_STEP[self._loaded_encoder().version]
        wanted = "a whole number from -1 up, or a share of the steps below 1"
        step = checks.number("start_merge_step", given, -1, wanted=wanted)
        if isinstance(given, float) and 0 <= step < 1:
            return lambda: round(step * self._steps()) - 1
        if step != int(step):
            raise SettingsError(f"start_merge_step is {given}; give {wanted}")
        return int(step) - (1 if exact and step >= 0 else 0)

    def _steps(self) -> int:
        """Number of denoising steps of the current call."""
        timesteps = getattr(self, "_num_timesteps", 0) or len(self.scheduler.timesteps)
        return -(-timesteps // self.scheduler.order)


def _own_arguments() -> set[str]:
    """Names of the call's arguments besides the stock pipeline's."""
    parameters = inspect.signature(PhotoMakerMixin.__call__).parameters.values()
    return {*WITH_EMBEDDINGS, *TEXT_ONLY, *(one.name for one in parameters if one.kind is one.KEYWORD_ONLY)}
