"""`photomaker generate` and `photomaker styles`: what can be asked for, with fakes behind them."""

import os

import pytest
from PIL import Image
from tests.studio import fakes

PROMPT = "a photo of a woman img in the snow"


@pytest.fixture
def ben(tmp_path):
    folder = tmp_path / "ben"
    folder.mkdir()
    fakes.save(folder / "b.png", who=255)
    return folder


def text_of(path):
    with Image.open(path) as image:
        image.load()
        return dict(image.text)


def test_every_prompt_is_drawn(shell, ada):
    result = shell.run(*shell.generate("--prompt", "a sketch of a woman", "-n", 1, photos=[ada]))
    assert result.exit_code == 0, result.output
    prompts = [text_of(shell.folder / "out" / name)["prompt"] for name in ("0001.png", "0002.png")]
    assert prompts == [PROMPT, "a sketch of a woman img"]
    assert "the trigger word was added: a sketch of a woman img" in result.stderr


def test_several_people_go_with_each_prompt(shell, ada, ben):
    people = ("--person", f"ada={ada}", "--person", f"ben={ben}")
    result = shell.run(*shell.generate(*people, "-n", 1, "--sheet"))
    assert result.exit_code == 0, result.output
    assert [text_of(shell.folder / "out" / name)["person"] for name in ("0001.png", "0002.png")] == [
        "ada",
        "ben",
    ]
    assert "0001-0002-sheet.png" in result.stdout
    assert (shell.folder / "out" / "0001-0002-sheet.png").is_file()


def test_saved_people_and_pairs(shell, ada, ben):
    for name, folder in (("ada", ada), ("ben", ben)):
        assert shell.run("identity", "make", "-p", folder, "--out", f"{name}.safetensors").exit_code == 0
    saved = ("--identity", "ada.safetensors", "--identity", "ben.safetensors", "--pairs")
    result = shell.run(*shell.generate(*saved, "--prompt", "a man img", "-n", 1))
    assert result.exit_code == 0, result.output
    told = [text_of(shell.folder / "out" / name) for name in ("0001.png", "0002.png")]
    assert [(one["person"], one["prompt"]) for one in told] == [("ada", PROMPT), ("ben", "a man img")]


def test_seeds_may_be_given_one_by_one(shell, ada):
    result = shell.run(*shell.generate("--seed", 5, "--seed", 2, "--seed", 4, photos=[ada]))
    assert result.exit_code == 0, result.output
    assert [text_of(path)["seed"] for path in sorted((shell.folder / "out").iterdir())] == ["5", "2", "4"]
    shell.loaded.clear()
    assert "there are 2 seeds for 3" in shell.refused(
        *shell.generate("-n", 3, "--seed", 1, "--seed", 2, photos=[ada], out=shell.folder / "other")
    )


def test_a_file_says_all_that_makes_it_again(shell, ada):
    settings = (
        "--size", "64x128", "--scheduler", "DPM++ 2M Karras", "--guidance", 3, "--guidance-stop", 0.5, "--merge", 0.3,
        "--style", "Sketch", "--negative", "hats", "--steps", 7, "--seed", 9,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("photomaker.studio.orders.sizes.base_size", lambda *_: __import__(
            "photomaker.studio.orders.sizes", fromlist=["BaseSize"]).BaseSize(128, 8, True))  # fmt: skip
        result = shell.run(*shell.generate(*settings, "-n", 1, photos=[ada]))
    assert result.exit_code == 0, result.output
    told = text_of(shell.folder / "out" / "0001.png")
    expected = {
        "prompt": "a pencil sketch of a woman img in the snow", "negative_prompt": "hats", "seed": "9", "steps": "7",
        "guidance": "3.0", "guidance_stop": "0.5", "merge": "0.3", "scheduler": "dpm++ 2m karras", "width": "64",
        "height": "128", "style": "Sketch", "person": "ada",
    }  # fmt: skip
    assert {name: told.get(name) for name in expected} == expected
    assert "the size is 64 x 128, but the bundled model has only seen 128 x 128" in result.stderr


def test_one_picture_may_have_a_name(shell, ada):
    out = shell.folder / "new" / "ada.png"
    result = shell.run(*shell.generate("-n", 1, photos=[ada], out=out))
    assert result.exit_code == 0, result.output
    assert out.is_file()
    shell.loaded.clear()
    assert "exists already" in shell.refused(*shell.generate("-n", 1, photos=[ada], out=out))
    several = shell.refused(*shell.generate("-n", 2, photos=[ada], out=shell.folder / "b.png"))
    assert "is a single file, but there will be 2 pictures" in several
    assert "end it in .png, .jpg or .webp" in shell.refused(
        *shell.generate("-n", 1, photos=[ada], out=shell.folder / "b.bmp")
    )
    # a folder that is there and has such a name is still a folder
    (shell.folder / "odd.png").mkdir()
    assert shell.run(*shell.generate("-n", 2, photos=[ada], out=shell.folder / "odd.png")).exit_code == 0
    assert sorted(os.listdir(shell.folder / "odd.png")) == ["0001.png", "0002.png"]


def test_words_that_the_bundled_model_has_never_seen_are_told(shell, ada):
    result = shell.run(
        *shell.generate("-n", 1, photos=[ada], prompt="a photo of a woman img riding a dragon over a volcano")
    )
    assert "the bundled model has never seen: riding, dragon, volcano" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--style", "crayon"), "there is no style 'crayon'"),
        (("--style", "anime"), "the bundled model cannot draw the style 'anime'"),
        (("--scheduler", "eulr"), "did you mean 'euler'"),
        (("--person", "ada"), "give either --photos or --identity"),
        (("--guidance-start", "0.9", "--guidance-stop", "0.1"), "let it start first"),
        (
            ("--method", "dreambooth", "--lora", "x.safetensors"),
            "the method dreambooth cannot draw with a LoRA",
        ),
        (("--mask", "m.png"), "there is a mask (m.png) but no start picture"),
        (("--control", "net"), "is not MODEL=PICTURE"),
        (("--control", "net=none.png:0.5"), "there is no photo none.png"),
        (("--start", "none.png"), "there is no photo none.png"),
        (("--style-adapter", "x.bin"), "there is a style adapter (x.bin) but no style picture"),
        (("--preview", "x.jpg"), "the preview is x.jpg"),
        (("--orders", "o.yaml"), "--prompt cannot be combined with --orders"),
        (("--set", "n=2"), "--set needs --orders"),
        (("--strength", "0.6"), "--strength needs --start"),
        (("--styles", "none.yaml"), "cannot read the settings file none.yaml"),
    ],
)
def test_what_cannot_be_is_refused(shell, ada, words, message):
    assert message in shell.refused(*shell.generate(*words, photos=[ada]))


@pytest.mark.parametrize(
    "words",
    [("--steps", "20"), ("-n", "4"), ("--pairs",), ("--lora", "x.safetensors"), ("--photos", "a"), ("--seed", "0")],
)  # fmt: skip
def test_what_stands_in_a_file_of_orders_is_not_said_beside_it(shell, words):
    said = shell.refused("generate", "--orders", "o.yaml", *words)
    assert f"{words[0]} cannot be combined with --orders; put it into the file of orders" in said
    # while what does not stand in it may be
    assert "cannot read the settings file o.yaml" in shell.refused(
        "generate", "--orders", "o.yaml", "--sheet"
    )


def test_without_a_prompt(shell, ada):
    assert "there is no prompt" in shell.refused("generate", "--photos", ada, "--out", "out")


def test_a_file_of_orders_is_drawn_and_gone_on_with(shell, ada, ben):
    (shell.folder / "orders.yaml").write_text(
        "orders: [{prompts: [a man img, a woman img], n: 2, style: [none, sketch]}]\n"
        f"people: {{ada: {ada}, ben: {ben}}}\n"
    )
    words = (
        "generate",
        "--orders",
        "orders.yaml",
        "--out",
        "many",
        "--set",
        "orders=[{prompts: a man img, n: 3}]",
    )
    result = shell.run(*words)
    assert result.exit_code == 0, result.output
    assert "6 pictures are in many" in result.stdout
    first = sorted(os.listdir("many"))
    assert len(first) == 7
    loaded = len(shell.loaded)
    assert shell.run(*words).exit_code == 0
    assert sorted(os.listdir("many")) == first
    assert len(shell.loaded) == loaded  # nothing was left to draw
    assert shell.run(*words[:-2]).exit_code == 0
    # of the sixteen, four are the same as before
    assert len(os.listdir("many")) == 7 + 16 - 4 + 1


def test_styles_are_listed(shell, tmp_path):
    (tmp_path / "mine.yaml").write_text("crayon: {prompt: 'a crayon drawing of {subject}'}")
    result = shell.run("styles", "--styles", "mine.yaml")
    assert result.exit_code == 0
    assert "crayon" in result.stdout
    assert "watercolour" in result.stdout
