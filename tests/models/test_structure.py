"""What somebody changed in the modules of a network is named, though its weights are the same."""

from __future__ import annotations

import pytest

from findnemo.errors import MismatchError


@pytest.mark.first(1)
@pytest.mark.parametrize("place", ["forward", "_conv_forward", "encode_prompt"])
def test_a_method_that_was_replaced_is_named(place, tiny, calibration):
    pipeline = tiny.pipeline
    thing = {
        "forward": pipeline.unet.mid_block,
        "_conv_forward": pipeline.unet.conv_in,
        "encode_prompt": pipeline,
    }[place]
    own = getattr(thing, place)
    setattr(thing, place, lambda *args, **kwargs: own(*args, **kwargs))
    with pytest.raises(MismatchError, match=f"{place} .*replaced by"):
        calibration.check(tiny)
    delattr(thing, place)
    calibration.check(tiny)
