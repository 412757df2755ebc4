"""Depth of the synthetic people: the silhouettes of their pictures, nearest at the nose."""

import numpy as np
import pytest

from photomaker import synthetic
from photomaker.synthetic.dataset import WorldDataset, WorldPlan, write_world
from photomaker.synthetic.relief import depth_of


@pytest.mark.parametrize("index", [0, 5, 11])
def test_depth_has_the_silhouette_of_the_picture(index):
    person = synthetic.person(index)
    view = synthetic.view(person, index)
    picture, depth = synthetic.render(person, view), depth_of(person, view)
    mask = picture.mask > 0
    assert depth.shape == (128, 128) and depth.dtype == np.uint8
    assert ((depth > 30) & mask).sum() > 0.95 * ((depth > 30) | mask).sum()
    left, top, right, bottom = (int(edge) for edge in picture.box)
    face = depth[top:bottom, left:right]
    x, y = picture.landmarks[2]
    nose = depth[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3].max()
    assert nose >= np.quantile(face, 0.95) > np.median(depth[mask]) > 30
    assert depth[~mask].mean() < 3


def test_a_dataset_tells_the_depth_of_its_pictures(tmp_path):
    world = WorldDataset.open(write_world(tmp_path, WorldPlan(3, 2, 2)))
    for row in range(4):
        there = world.depth(row) > 30
        mask = world.masks[row] > 0
        assert (there & mask).sum() > 0.95 * (there | mask).sum()
