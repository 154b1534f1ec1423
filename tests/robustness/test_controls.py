"""Pictures that a model never saw."""

import pytest
from PIL import Image

from findnemo.errors import InputError
from findnemo.robustness.controls import mirrored, pictures, scrambled


def test_controls_are_as_rich_and_not_the_same(tmp_path):
    picture = Image.effect_mandelbrot((16, 16), (-2, -1.5, 1, 1.5), 50).convert("RGB")
    assert sorted(mirrored(picture).getdata()) == sorted(picture.getdata())
    assert sorted(p for pixel in scrambled(picture).getdata() for p in pixel) == sorted(
        p for pixel in picture.getdata() for p in pixel
    )
    assert scrambled(picture).tobytes() != picture.tobytes() != mirrored(picture).tobytes()
    with pytest.raises(InputError, match=r"\(PNG, JPEG, WebP\): 0; as controls 1 are needed"):
        pictures(tmp_path)
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"a\.png is not a readable picture"):
        pictures(tmp_path)


@pytest.mark.parametrize("size", [(7100, 7100), (16, 16)])
def test_a_control_that_is_too_large_or_cut_off_is_named(tmp_path, size):
    file = tmp_path / "a.png"
    Image.new("1", size).convert("L").save(file)
    if size == (16, 16):
        file.write_bytes(file.read_bytes()[:45])
    with pytest.raises(InputError, match=r"a\.png is not a readable picture: "):
        pictures(tmp_path)
