"""The bundled captioner and judge of captions, on people that nothing was trained on."""

import numpy as np
import pytest
from PIL import Image

from photomaker.classes import class_words, fitting
from photomaker.faces.plugins import PlugIn
from photomaker.synthetic import TEST, person, render, view

pytestmark = pytest.mark.bundled


@pytest.fixture(scope="module")
def people():
    """Twelve pictures of different people: class noun, view, picture."""
    found = []
    for index in range(TEST + 300, TEST + 312):
        someone = person(index)
        seen = view(someone, 1, style="photo")
        picture = Image.fromarray(render(someone, seen, 128).image)
        found.append((someone.person_class.split()[-1], seen, picture))
    return found


def test_captions_tell_what_is_there(people):
    captioner = PlugIn().open("captioner")
    captions = captioner.caption_batch([picture for _, _, picture in people])
    assert captions == captioner.caption_batch([picture for _, _, picture in people])
    hats = [
        seen.hat in caption
        for (_, seen, _), caption in zip(people, captions, strict=True)
        if seen.hat != "none"
    ]
    assert np.mean(hats) > 0.7
    named = [
        any(word.word in fitting(noun) for word in class_words(caption))
        for (noun, _, _), caption in zip(people, captions, strict=True)
        if class_words(caption)
    ]
    assert len(named) > 6 and np.mean(named) > 0.7


def test_drawn_captions_differ_by_seed_alone_and_leave_work_to_do(people):
    captioner = PlugIn().open("captioner")
    pictures = [people[0][2]] * 150
    captions = captioner.caption_batch(pictures, range(150))
    assert captioner.caption_batch(pictures[:1], [149]) == captions[-1:]
    words = [len(class_words(caption)) for caption in captions]
    assert {0, 1, 2} == set(words)
    assert any("one of the" in caption for caption in captions)
    assert captioner.caption_batch([]) == []


def test_phrases_that_are_true_score_higher(people):
    scorer = PlugIn().open("text-image scorer")
    others = {"man": "girl", "woman": "boy", "boy": "woman", "girl": "man"}
    wins = [scorer.score(picture, [f"a {noun}", f"a {others[noun]}"]) for noun, _, picture in people]
    assert np.mean([right > wrong for right, wrong in wins]) > 0.8
    assert scorer.score(people[0][2], ["nothing that is known"]) == [0.5]
    assert all(0 <= value <= 1 for pair in wins for value in pair)
