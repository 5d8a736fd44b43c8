"Pictures: tensors to PIL and back, grids, text inside PNG files"
import io, subprocess, sys

import pytest, torch
from PIL import Image

from minidiff.core import film, Pictures, corr, show_images, to_pil, to_tensor


@pytest.mark.parametrize("channels", [1, 3])
def test_there_and_back(channels):
    x = torch.rand(channels, 7, 5, generator=torch.manual_seed(0)) * 2 - 1
    picture = to_pil(x)
    assert picture.mode == {1: "L", 3: "RGB"}[channels] and picture.size == (5, 7)
    assert (to_tensor(picture) - x).abs().max() <= 1 / 255 + 1e-6


def test_out_of_range_half_and_nan():
    x = torch.tensor([-9., 9., float("nan"), float("inf")]).view(1, 1, 4)
    assert list(to_pil(x).tobytes()) == [0, 255, 128, 255]
    assert to_pil(torch.zeros(3, 2, 2, dtype=torch.bfloat16, requires_grad=True)).getpixel((0, 0)) == (128,) * 3


@pytest.mark.parametrize("shape", [(28, 28), (2, 4, 4), (1, 3, 4, 4)])
def test_wrong_shape_is_named(shape):
    with pytest.raises(ValueError, match=r"\[1,H,W\]"): to_pil(torch.zeros(shape))


@pytest.mark.parametrize("mode,channels", [("1", 1), ("L", 1), ("P", 3), ("RGBA", 3), ("CMYK", 3)])
def test_any_mode_of_picture(mode, channels):
    assert to_tensor(Image.new(mode, (4, 6))).shape == (channels, 6, 4)


def test_grid_sizes_and_titles():
    x = torch.zeros(12, 1, 8, 8)
    assert show_images(x, cols=6, zoom=2).size == (6 * 20 + 4, 2 * 20 + 4)
    titled = show_images(x, titles=["a long caption, wrapped"] * 12, cols=6)
    assert titled.height > 100 and titled.mode == "P"
    assert show_images([x[0], torch.zeros(3, 8, 8)], zoom=1).mode == "P"
    assert show_images(torch.zeros(200, 1, 64, 64)).width <= 1004 + 132
    with pytest.raises(ValueError, match="12 pictures but 2 titles"): show_images(x, titles=["a", "b"])
    with pytest.raises(ValueError, match="no pictures"): Pictures([]).grid()


def test_grey_levels_survive_the_palette():
    x = torch.linspace(-1, 1, 256).view(1, 16, 16)
    shown = to_tensor(show_images([x], zoom=1).convert("L"))[:, 4:20, 4:20]
    assert (shown - x).abs().max() <= 1 / 255 + 1e-6


def test_png_text(tmp_path):
    one = Pictures([Image.new("RGB", (5, 4), "red")])
    one.save(tmp_path / "one.png", caption="a red three", seed=7, accent="déjà vu ☃")
    read = Image.open(tmp_path / "one.png")
    assert read.size == (5, 4) and read.text == {"caption": "a red three", "seed": "7", "accent": "déjà vu ☃"}
    Pictures([to_pil(torch.zeros(1, 4, 4))] * 3, titles="abc").save(tmp_path / "three.png")
    assert Image.open(tmp_path / "three.png").width > 12
    assert one._repr_png_().startswith(b"\x89PNG")


def test_large_pictures_keep_their_colours():
    x = torch.rand(1, 3, 200, 200, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for size, keeps in ((200, True), (64, False)):
        shown = Image.open(io.BytesIO(show_images(x[..., :size, :size], zoom=1)._repr_png_())).convert("RGB")
        assert (len(shown.getcolors(10**6)) > 10_000) == keeps


def test_film_has_every_stop_and_a_slider_only_where_a_person_sits(monkeypatch):
    import ipywidgets
    sliders = []
    monkeypatch.setattr(ipywidgets, "interact", lambda f, **knobs: sliders.append((f, knobs["value"])))
    for name in ("JPY_SESSION_NAME", "VSCODE_PID", "COLAB_RELEASE_TAG"): monkeypatch.delenv(name, raising=False)
    frame = lambda v: torch.full((1, 8, 8), float(v))
    still = film(frame, [0, .5, 1], "k")
    assert still.size[0] == 3 * 20 + 4 and not sliders
    monkeypatch.setenv("JPY_SESSION_NAME", "chapter.ipynb")
    assert film(frame, [0, .5, 1], "k").tobytes() == still.tobytes() and len(sliders) == 1
    draw, slider = sliders[0]
    assert [v for _, v in slider.options] == [0, .5, 1] and draw(1).size == (40, 40)


def test_corr():
    a = torch.randn(1000, generator=torch.manual_seed(0))
    assert corr(a, 2 * a - 5) == pytest.approx(1) and corr(a, -a) == pytest.approx(-1)
    with pytest.raises(ValueError, match="equal sizes"): corr(a, a[:-1])


def test_import_is_light():
    code = "import sys, minidiff.core, minidiff.data; print([m for m in ('matplotlib', 'torchvision') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_modes_without_a_white(mode):
    with pytest.raises(ValueError, match=mode): to_tensor(Image.new(mode, (2, 2)))


def test_titles_of_a_list_that_has_grown():
    pictures = Pictures([Image.new("L", (8, 8))])
    pictures.append(Image.new("L", (8, 8)))
    with pytest.raises(ValueError, match="2 pictures but 1 titles"): pictures.grid()
