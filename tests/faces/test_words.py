"""Phrases and likeness of class words: by rules, by a small spaCy parser trained here, by a random sentence model."""

import random

import pytest
from tests.faces import tiny_models

from photomaker.classes import class_words
from photomaker.errors import SettingsError, WeightsError
from photomaker.faces.plugins import PlugIn
from photomaker.faces.words import RuleParser, RuleSimilarity

TEXT = "a tall man in a red hat and a woman with long hair near two boys on the beach"


def phrases(parser, text):
    return parser.phrases(text, class_words(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TEXT, ["a tall man in a red hat", "a woman with long hair", "two boys on the beach"]),
        ("man", ["man"]),
        ("a photo of a person, a lady in a suit.", ["a person", "a lady in a suit"]),
        ("one of the very old men with his kid", ["the very old men", "his kid"]),
        ("a close up of a smiling face", []),
    ],
)
def test_the_window_around_a_class_word(text, expected):
    assert phrases(RuleParser.open(), text) == expected


def test_a_phrase_holds_its_own_class_word_and_no_other():
    rng = random.Random(0)
    words = [
        "a",
        "the",
        "man",
        "woman",
        "boys",
        "and",
        "with",
        "in",
        ",",
        "red",
        "old",
        "guy",
        "of",
        ";",
        "ladies",
    ]
    for _ in range(300):
        text = " ".join(rng.choices(words, k=12))
        found = class_words(text)
        for word, phrase in zip(found, phrases(RuleParser.open(), text), strict=True):
            assert [one.word for one in class_words(phrase)] == [word.word], text
            assert phrase in text


def test_rules_for_likeness():
    assert RuleSimilarity.open().similarity(["man", "guy", "girl"], "man")[0] == 1


@pytest.fixture(scope="module")
def parser_folder(tmp_path_factory):
    """A tagger and parser trained on trees of captions, saved as spaCy saves its own."""
    spacy = pytest.importorskip("spacy")
    from spacy.tokens import Doc
    from spacy.training import Example

    rng = random.Random(1)
    language = spacy.blank("en")
    language.add_pipe("parser")

    def person():
        words, heads, kinds = ["a"], [1], ["det"]
        if rng.random() < 0.5:
            words, heads, kinds = ["a", rng.choice(["tall", "young"])], [2, 2], ["det", "amod"]
        noun = len(words)
        words.append(rng.choice(["man", "woman", "boy", "girl", "lady", "person"]))
        heads.append(noun)
        kinds.append("ROOT")
        if rng.random() < 0.8:
            words += [
                rng.choice(["in", "with"]),
                "a",
                rng.choice(["red", "blue"]),
                rng.choice(["hat", "coat"]),
            ]
            heads += [noun, noun + 4, noun + 4, noun + 1]
            kinds += ["prep", "det", "amod", "pobj"]
        return words, heads, kinds, noun

    examples = []
    for _ in range(80):
        words, heads, kinds, noun = person()
        if rng.random() < 0.7:
            others, other_heads, other_kinds, other = person()
            shift = len(words) + 1
            words, heads, kinds = [*words, "and"], [*heads, noun], [*kinds, "cc"]
            words += others
            heads += [noun if place == other else head + shift for place, head in enumerate(other_heads)]
            kinds += ["conj" if kind == "ROOT" else kind for kind in other_kinds]
        document = Doc(language.vocab, words=words)
        examples.append(Example.from_dict(document, {"words": words, "heads": heads, "deps": kinds}))
    language.initialize(lambda: examples)
    for _ in range(5):
        rng.shuffle(examples)
        for start in range(0, len(examples), 8):
            language.update(examples[start : start + 8])
    folder = tmp_path_factory.mktemp("spacy") / "parser"
    language.to_disk(folder)
    return folder


def test_phrases_by_a_dependency_tree(parser_folder):
    parser = PlugIn("spacy", str(parser_folder)).open("phrase parser")
    text = "a tall man in a red hat and a woman with a blue coat"
    assert phrases(parser, text) == ["a tall man in a red hat", "a woman with a blue coat"]
    assert phrases(parser, "a boy") == ["a boy"]
    assert phrases(parser, "nothing") == []


def test_spacy_models_that_cannot_be_used(tmp_path):
    spacy = pytest.importorskip("spacy")
    with pytest.raises(WeightsError, match="python -m spacy download no_such_model"):
        PlugIn("spacy", "no_such_model").open("phrase parser")
    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(WeightsError, match="has no parser but nothing"):
        PlugIn("spacy", str(tmp_path / "blank")).open("phrase parser")


@pytest.mark.slow  # the library takes long to import
def test_likeness_by_a_sentence_model(tmp_path):
    pytest.importorskip("sentence_transformers")
    place = tiny_models.sentences(tmp_path / "sentences")
    similarity = PlugIn("sentence-transformers", str(place)).open("text similarity")
    same, other = similarity.similarity(["man", "woman"], "man")
    assert same == pytest.approx(1, abs=1e-5)
    assert 0 <= other < 0.999
    with pytest.raises(WeightsError, match="not a model folder"):
        PlugIn("sentence-transformers", str(tmp_path / "nothing")).open("text similarity")


def test_names_and_licences():
    assert PlugIn().licence == "Apache-2.0" and PlugIn("rules").model is None
    assert PlugIn("insightface").licence == "non-commercial research only"
    assert PlugIn("insightface", "/models/own").licence.startswith("unknown")
    assert PlugIn("ours:Captioner").licence.startswith("unknown")
    with pytest.raises(SettingsError, match="did you mean 'rules'"):
        PlugIn("rule").open("phrase parser")
