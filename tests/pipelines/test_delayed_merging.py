"""The hooks of delayed merging on a model that only tells what it was given."""

import pytest
import torch
from torch import nn

from photomaker.pipelines.steps.merging import Conditioning, DelayedMerging, steps_of


class Told(nn.Module):
    """Gives back what it was called with."""

    def forward(self, sample, encoder_hidden_states, added_cond_kwargs):
        return encoder_hidden_states, added_cond_kwargs["text_embeds"]


NEW = Conditioning(torch.full((2, 3, 4), 7.0), torch.full((2, 5), 8.0), torch.tensor([True, False]))


def call(model, given, pooled):
    return model(
        torch.zeros(1), encoder_hidden_states=given, added_cond_kwargs={"text_embeds": pooled, "time_ids": 1}
    )


def test_active_rows_change_in_the_last_rows_alone_and_only_after_the_merge_step():
    model, given, pooled = Told(), torch.arange(48.0).view(4, 3, 4), torch.arange(20.0).view(4, 5)
    merging = DelayedMerging(NEW, 0)
    with merging.attached(model):
        before = call(model, given, pooled)
        after = call(model, given, pooled)
    assert torch.equal(before[0], given) and torch.equal(before[1], pooled)
    expected, expected_pooled = given.clone(), pooled.clone()
    expected[2], expected_pooled[2] = 7, 8
    assert torch.equal(after[0], expected) and torch.equal(after[1], expected_pooled)
    assert (merging.calls, merging.steps, merging.merged_steps) == (2, 2, 1)
    assert torch.equal(call(model, given, pooled)[0], given)  # the hooks are gone


@pytest.mark.parametrize(("each", "merged"), [(1, [0, 0, 1, 1, 1, 1]), (2, [0, 0, 0, 0, 1, 1])])
def test_steps_are_counted_by_the_calls_of_each(each, merged):
    told, model = [], Told()
    merging = DelayedMerging(NEW, 1, each, told.append)
    with merging.attached(model):
        for _ in range(6):
            call(model, torch.zeros(2, 3, 4), torch.zeros(2, 5))
    assert told == [bool(one) for one in merged]
    assert (merging.merged_steps, merging.steps) == (sum(merged), 6 // each)


def test_every_call_is_a_step_where_nothing_is_said():
    merging = DelayedMerging(NEW, 0)
    with merging.attached(model := Told()):
        for _ in range(3):
            call(model, torch.zeros(2, 3, 4), torch.zeros(2, 5))
    assert (merging.steps, merging.merged_steps) == (3, 2)


def test_the_merge_step_may_be_asked_for_when_the_first_step_begins():
    asked = []
    merging = DelayedMerging(None, lambda: asked.append(1) or 1)
    with merging.attached(model := Told()):
        for _ in range(4):
            call(model, torch.zeros(2, 3, 4), torch.zeros(2, 5))
    assert asked == [1]
    assert merging.merged_steps == 2


def test_merged_tokens_are_one_tensor_until_the_given_ones_change():
    model, given, pooled = Told(), torch.zeros(2, 3, 4), torch.zeros(2, 5)
    with DelayedMerging(NEW, -1).attached(model):
        first, again = call(model, given, pooled)[0], call(model, given, pooled)[0]
        assert first is again
        other = call(model, given.clone(), pooled)[0]
        assert other is not first and torch.equal(other, first)
        given[1] = 5
        changed = call(model, given, pooled)[0]
    assert changed[1].unique().tolist() == [5] and changed[0].unique().tolist() == [7]


def test_a_controlnet_gets_the_pooled_embedding_and_keeps_its_tokens():
    unet, controlnet = Told(), Told()
    given, pooled = torch.zeros(2, 3, 4), torch.zeros(2, 5)
    with DelayedMerging(NEW, 0).attached(unet, controlnet):
        seen = []
        for _ in range(2):
            seen.append(call(controlnet, given, pooled))
            call(unet, given, pooled)
    assert torch.equal(seen[0][1], pooled)
    assert seen[1][1][:, 0].tolist() == [8, 0] and torch.equal(seen[1][0], given)


def test_precision_is_that_of_what_was_given():
    with DelayedMerging(NEW, -1).attached(model := Told()):
        tokens, pooled = call(
            model, torch.zeros(2, 3, 4, dtype=torch.float16), torch.zeros(2, 5, dtype=torch.float16)
        )
    assert tokens.dtype == pooled.dtype == torch.float16


def test_too_few_rows_are_told():
    with (
        DelayedMerging(NEW, -1).attached(model := Told()),
        pytest.raises(AssertionError, match=r"^1 rows of conditioning for 2 merged ones$"),
    ):
        call(model, torch.zeros(1, 3, 4), torch.zeros(2, 5))


def test_each_row_is_repeated_in_its_place():
    rows = Conditioning(
        torch.tensor([[[1.0]], [[2.0]]]), torch.tensor([[3.0], [4.0]]), torch.tensor([True, False])
    )
    twice = rows.repeated(2)
    assert twice.embeds.flatten().tolist() == [1, 1, 2, 2]
    assert twice.pooled.flatten().tolist() == [3, 3, 4, 4]
    assert twice.active.tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("told", "timesteps", "order", "steps"), [(0, 7, 2, 4), (0, 5, 1, 5), (3, 9, 1, 3), (5, 9, 2, 3)]
)
def test_steps_of_a_pipeline(told, timesteps, order, steps):
    scheduler = type("Scheduler", (), {"timesteps": range(timesteps), "order": order})
    assert steps_of(type("Pipeline", (), {"_num_timesteps": told, "scheduler": scheduler})) == steps
    if not told:
        assert steps_of(type("Pipeline", (), {"scheduler": scheduler})) == steps
