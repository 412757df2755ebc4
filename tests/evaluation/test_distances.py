"""Distances between pictures and sets of pictures, each beside another way to compute it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image
from torch.nn import functional

from photomaker.errors import WeightsError
from photomaker.evaluation import metrics
from photomaker.evaluation.judges.inception import FidInception
from photomaker.evaluation.judges.networks import imagenet_pixels
from photomaker.evaluation.judges.perceptual import Lpips, SmallDistance, mean_pairwise
from photomaker.faces.networks import ConvConfig, ConvRecogniser

CHANNELS = (64, 192, 384, 256, 256)


@pytest.fixture
def sets():
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 7)) @ rng.normal(size=(7, 7)), rng.normal(1, 2, size=(45, 7))


def test_frechet_distance_equals_scipys_root(sets):
    one, two = sets
    first, second = np.cov(one.T), np.cov(two.T)
    root = scipy.linalg.sqrtm(first @ second).real
    wanted = ((one.mean(0) - two.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root)
    assert metrics.frechet_distance(one, two) == pytest.approx(wanted, rel=1e-9)
    assert metrics.frechet_distance(one, one) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_fewer_pictures_than_features_is_a_number():
    rng = np.random.default_rng(1)
    one, two = rng.normal(size=(4, 30)), rng.normal(size=(5, 30))
    assert 0 < metrics.frechet_distance(one, two) < 1000


def test_kernel_distance_equals_loops(sets):
    one, two = sets

    def kernel(x, y):
        return (sum(a * b for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3

    def within(rows):
        return np.mean([kernel(rows[i], rows[j]) for i, j in itertools.permutations(range(len(rows)), 2)])

    wanted = within(one) + within(two) - 2 * np.mean([kernel(x, y) for x in one for y in two])
    assert metrics.kernel_distance(one, two) == pytest.approx(wanted, rel=1e-9)


def test_kernel_distance_of_one_kind_is_about_zero():
    rng = np.random.default_rng(2)
    values = [metrics.kernel_distance(*rng.normal(size=(2, 40, 5))) for _ in range(100)]
    assert abs(np.mean(values)) < 2 * np.std(values) / 10


@pytest.mark.parametrize("distance", [metrics.frechet_distance, metrics.kernel_distance])
def test_sets_that_do_not_fit_are_refused(distance):
    with pytest.raises(ValueError, match="at least two"):
        distance(np.zeros((1, 3)), np.zeros((5, 3)))
    with pytest.raises(ValueError, match="shapes"):
        distance(np.zeros((4, 3)), np.zeros((5, 2)))


def test_resamples_can_be_moved_to_the_figure():
    found = metrics.interval(5.0, np.arange(101.0), 3, recentre=True)
    assert (found.low, found.high) == (pytest.approx(5 - 47.5), pytest.approx(5 + 47.5))
    with pytest.raises(ValueError, match="level"):
        metrics.interval(1.0, np.zeros(3), 3, level=2)


def test_two_statistics_see_the_same_people_drawn():
    values = np.arange(9.0)
    assert np.array_equal(
        metrics.draws(np.mean, values, samples=20), metrics.draws(np.mean, values * 2, samples=20) / 2
    )


@pytest.fixture(scope="module")
def lpips_files(tmp_path_factory):
    """Random weights under the names of torchvision's AlexNet and of LPIPS's heads."""
    folder = tmp_path_factory.mktemp("lpips")
    rng = torch.Generator().manual_seed(0)
    shapes = {
        0: (64, 3, 11, 11),
        3: (192, 64, 5, 5),
        6: (384, 192, 3, 3),
        8: (256, 384, 3, 3),
        10: (256, 256, 3, 3),
    }
    trunk = {}
    for number, shape in shapes.items():
        scale = 1.5 / np.sqrt(shape[1] * shape[2] * shape[3])
        trunk[f"features.{number}.weight"] = torch.randn(shape, generator=rng) * scale
        trunk[f"features.{number}.bias"] = torch.randn(shape[0], generator=rng) * 0.1
    trunk["classifier.1.weight"] = torch.zeros(2, 2)
    heads = {
        f"lin{depth}.model.1.weight": torch.rand(1, width, 1, 1, generator=rng)
        for depth, width in enumerate(CHANNELS)
    }
    torch.save(trunk, folder / "alexnet.pth")
    torch.save(heads, folder / "alex.pth", _use_new_zipfile_serialization=False)
    return folder / "alexnet.pth", folder / "alex.pth"


def test_lpips_equals_a_computation_place_by_place(lpips_files):
    network = Lpips.open(*lpips_files)
    trunk, heads = (torch.load(path, weights_only=True) for path in lpips_files)
    first, second = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(1))

    def maps(image):
        x = (image * 2 - 1 - torch.tensor([-0.030, -0.088, -0.188])[:, None, None]) / torch.tensor(
            [0.458, 0.448, 0.450]
        )[:, None, None]
        found = []
        for number, (stride, padding, pool) in {
            0: (4, 2, 0),
            3: (1, 2, 1),
            6: (1, 1, 1),
            8: (1, 1, 0),
            10: (1, 1, 0),
        }.items():
            if pool:
                x = functional.max_pool2d(x, 3, 2)
            weight, bias = trunk[f"features.{number}.weight"], trunk[f"features.{number}.bias"]
            x = functional.conv2d(x, weight, bias, stride, padding).clamp(min=0)
            found.append(x[0].numpy())
        return found

    wanted = 0.0
    for depth, (one, two) in enumerate(zip(maps(first), maps(second), strict=True)):
        weights, places = heads[f"lin{depth}.model.1.weight"].flatten().numpy(), []
        for y, x in np.ndindex(one.shape[1:]):
            f, g = one[:, y, x], two[:, y, x]
            f, g = f / (np.linalg.norm(f) + 1e-10), g / (np.linalg.norm(g) + 1e-10)
            places.append((weights * (f - g) ** 2).sum())
        wanted += np.mean(places)
    assert float(network(first, second)) == pytest.approx(wanted, rel=1e-4)
    assert float(network(first, first)) == 0


def test_lpips_files_that_do_not_belong_together_are_refused(lpips_files, tmp_path):
    trunk, heads = lpips_files
    with pytest.raises(WeightsError, match="no trunk and heads"):
        Lpips.open(heads, trunk)
    with pytest.raises(WeightsError, match="there is no model file"):
        Lpips.open(trunk, tmp_path / "nowhere.pth")


def test_vgg_has_torchvisions_names():
    names = {name.split(".")[1] for name in Lpips("vgg").state_dict() if name.startswith("features")}
    assert names == {str(number) for number in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)}
    assert [len(head) for head in Lpips("vgg").heads] == [64, 128, 256, 512, 512]


def test_the_small_distance_equals_a_computation_stage_by_stage():
    torch.manual_seed(0)
    network = ConvRecogniser(ConvConfig(size=32, width=8, channels=(4, 6, 8), depths=(1, 2, 1))).eval()
    distance = SmallDistance(network)
    images = torch.rand(3, 3, 32, 32)
    assert len(distance.stages) == 3
    with torch.inference_mode():
        x, wanted = images * 2 - 1, torch.zeros(3, 3)
        for place, layer in enumerate(network.trunk):
            x = layer(x)
            if place in (1, 4, 6):
                unit = functional.normalize(x, dim=1)
                for a, b in itertools.product(range(3), repeat=2):
                    wanted[a, b] += (1 - (unit[a] * unit[b]).sum(0)).mean() / 3
    found = mean_pairwise(distance, images)
    assert found == pytest.approx([float(row.sum()) / 2 for row in wanted], abs=1e-5)
    assert np.isnan(mean_pairwise(distance, images[:1])[0])


@pytest.fixture(scope="module")
def inception():
    torch.manual_seed(0)
    network = FidInception().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network


def test_inception_has_the_sizes_and_names_of_the_published_weights(inception):
    assert sum(one.numel() for one in inception.parameters()) == 23_834_568 + 8 * 2049
    shapes = {name: tuple(one.shape) for name, one in inception.state_dict().items()}
    for name, shape in {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3), "Mixed_5b.branch5x5_2.bn.running_var": (64,),
        "Mixed_6a.branch3x3dbl_3.conv.weight": (96, 96, 3, 3), "Mixed_6c.branch7x7dbl_2.conv.weight": (160, 160, 7, 1),
        "Mixed_7a.branch7x7x3_2.conv.weight": (192, 192, 1, 7),
        "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
        "Mixed_7c.branch_pool.conv.weight": (192, 2048, 1, 1), "fc.weight": (1008, 2048),
    }.items():  # fmt: skip
        assert shapes[name] == shape, name


def test_inceptions_blocks_equal_a_computation_by_hand(inception):
    state = inception.state_dict()

    def step(x, name, stride=1, padding=0):
        x = functional.conv2d(x, state[f"{name}.conv.weight"], None, stride, padding)
        mean, var, weight, bias = (
            state[f"{name}.bn.{one}"] for one in ("running_mean", "running_var", "weight", "bias")
        )
        scale = weight / (var + 0.001).sqrt()
        return ((x - mean[:, None, None]) * scale[:, None, None] + bias[:, None, None]).clamp(min=0)

    def average(x):
        count = functional.avg_pool2d(torch.ones_like(x), 3, 1, 1) * 9
        return functional.avg_pool2d(x, 3, 1, 1) * 9 / count

    with torch.inference_mode():
        x, b = torch.rand(1, 192, 9, 9), "Mixed_5b."
        wanted = [
            step(x, b + "branch1x1"),
            step(step(x, b + "branch5x5_1"), b + "branch5x5_2", padding=2),
            step(
                step(step(x, b + "branch3x3dbl_1"), b + "branch3x3dbl_2", padding=1),
                b + "branch3x3dbl_3",
                padding=1,
            ),
            step(average(x), b + "branch_pool"),
        ]
        assert torch.allclose(inception.Mixed_5b(x), torch.cat(wanted, 1), atol=1e-5)
        x, b = torch.rand(1, 2048, 5, 5), "Mixed_7c."
        three, double = (
            step(x, b + "branch3x3_1"),
            step(step(x, b + "branch3x3dbl_1"), b + "branch3x3dbl_2", padding=1),
        )
        wanted = [
            step(x, b + "branch1x1"),
            step(three, b + "branch3x3_2a", padding=(0, 1)),
            step(three, b + "branch3x3_2b", padding=(1, 0)),
            step(double, b + "branch3x3dbl_3a", padding=(0, 1)),
            step(double, b + "branch3x3dbl_3b", padding=(1, 0)),
            step(functional.max_pool2d(x, 3, 1, 1), b + "branch_pool"),
        ]
        assert torch.allclose(inception.Mixed_7c(x), torch.cat(wanted, 1), atol=1e-5)


def test_inception_reads_its_file_and_refuses_others(inception, tmp_path):
    torch.save(inception.state_dict(), tmp_path / "fid.pth")
    network = FidInception.open(tmp_path / "fid.pth")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8))
    features = network.features([picture])
    assert features.shape == (1, 2048)
    assert np.isfinite(features).all()
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="other weights than FID's Inception"):
        FidInception.open(tmp_path / "other.pth")


def test_pictures_for_vision_transformers_are_the_middle_in_imagenets_scale():
    picture = Image.new("RGB", (300, 200), (124, 116, 104))
    pixels = imagenet_pixels(picture, 56)
    assert pixels.shape == (3, 56, 56)
    assert abs(float(pixels.mean())) < 0.02
