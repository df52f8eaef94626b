"""The picture encoder of the rivals."""

from __future__ import annotations

import pytest
import torch

from mufin.baselines.outfits.backbone import Architecture, Backbone, as_floats

PIXELS = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit3"])
def test_vectors_come_with_the_maps_of_the_middle(name):
    options = {"img_size": 32} if "vit" in name else {}
    model = Backbone(5, Architecture(name, options)).eval()
    vectors, maps = model.with_maps(PIXELS)
    torch.testing.assert_close(vectors, model(PIXELS))
    assert vectors.shape == (3, 5)
    assert maps.shape[:2] == (3, model.maps_width) and maps.dim() == 4


def test_pixels_may_come_as_bytes_or_floats():
    model = Backbone(5, Architecture()).eval()
    torch.testing.assert_close(model(as_floats(PIXELS)), model(PIXELS))
    assert as_floats(PIXELS)[1, 2, 3, 4] == PIXELS[1, 3, 4, 2] / 255
