"""Figures: one call draws the light and the dark one, and carries caption, alternative text and data unchanged."""

import base64
import csv
import io

import matplotlib as mpl
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nst
from matplotlib.axes import Axes
from matplotlib.colors import same_color, to_rgb
from matplotlib.figure import Figure

from slowmanifold.figures import (
    COLOUR,
    Slider,
    figure,
    letter_panels,
    mark_fixed_points,
    render,
    table_or_archive,
)
from slowmanifold.themes import CYCLE, DARK, INK, style

GOOD = {
    "caption": "A line with $x^2$.",
    "alt": "A line rises from the left to the right.",
    "data": {"x": np.arange(3.0), "y": np.arange(3.0) ** 2},
    "size": (2.0, 1.5),
}


def line(ax):
    ax.plot([0, 1, 2], [0, 1, 4])


@pytest.fixture
def shown(monkeypatch):
    """What is displayed: data and metadata of each output."""
    outputs = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw, metadata: outputs.append((data, metadata)))
    return outputs


def pixels(encoded):
    return mpl.image.imread(io.BytesIO(base64.b64decode(encoded)), format="png")[..., :3]


def test_a_figure_is_a_light_image_with_all_the_rest_beside_it(shown):
    assert figure("a-line", line, seed=7, **GOOD) is None
    [(data, metadata)] = shown
    assert set(data) == {"text/plain", "image/png"}
    assert data["text/plain"] == "figure a-line"
    told = metadata["figure"]
    assert {name: told[name] for name in ("name", "caption", "alt", "seed", "width", "suffix")} == {
        "name": "a-line",
        "caption": GOOD["caption"],
        "alt": GOOD["alt"],
        "seed": 7,
        "width": 2.0,
        "suffix": "csv",
    }
    assert base64.b64decode(told["data"]).decode() == "x,y\n0.0,0.0\n1.0,1.0\n2.0,4.0\n"


def test_the_light_and_the_dark_image_differ_in_ink_and_paper_alone(shown):
    figure("a-line", line, **GOOD)
    [(data, metadata)] = shown
    light, dark = pixels(data["image/png"]), pixels(metadata["figure"]["dark"])
    assert light.shape == dark.shape == (300, 400, 3), "2 by 1.5 inches at 200 dots"
    for image, theme in ((light, "light"), (dark, "dark")):
        assert np.allclose(image[0, 0, :3], to_rgb(INK[theme][1]), atol=1 / 255)
        assert (np.abs(image[..., :3] - to_rgb(CYCLE[theme][0])).max(-1) < 1 / 255).any(), "the first of its colours"
    drawn = [np.abs(image[..., :3] - image[0, 0, :3]).max(-1) > 0.5 for image in (light, dark)]
    assert (drawn[0] == drawn[1]).mean() > 0.98


def test_a_slider_draws_each_frame_in_both_themes_and_shows_the_first(shown):
    slider = Slider("height", ["low", "middle", "high"], first=1)
    figure("a-line", lambda ax, k: ax.plot([0, 1], [k, k]) and ax.set_ylim(-1, 3), slider=slider, **GOOD)
    figure("a-line", lambda ax: ax.plot([0, 1], [1, 1]) and ax.set_ylim(-1, 3), **GOOD)
    (frames, told), (alone, plain) = shown
    same = [(frames["image/png"], alone["image/png"]), (told["figure"]["dark"], plain["figure"]["dark"])]
    for reduced, whole in same:
        assert len(reduced) < len(whole) / 2
        assert np.abs(pixels(reduced) - pixels(whole)).max() < 6 / 255, "no eye sees the difference"
        assert (pixels(reduced)[0, 0] == pixels(whole)[0, 0]).all(), "the paper is that of the page"
    others = told["figure"]["slider"].pop("others")
    assert told["figure"]["slider"] == {"parameter": "height", "values": ["low", "middle", "high"], "first": 1}
    assert [set(frame) for frame in others] == [{"light", "dark"}] * 2
    images = {frames["image/png"], told["figure"]["dark"], *(image for frame in others for image in frame.values())}
    assert len(images) == 6


@pytest.mark.parametrize(
    ("values", "first", "message"),
    [
        (["one"], 0, r"values is \['one'\]; a slider needs two texts or more"),
        (["one", "two"], 2, "first is 2; there are frames 0 to 1"),
    ],
)
def test_a_slider_that_cannot_be_is_refused(values, first, message):
    with pytest.raises(ValueError, match=message):
        Slider("height", values, first)


def test_the_same_data_give_the_same_bytes(shown):
    figure("a-line", line, **GOOD)
    figure("a-line", line, **{**GOOD, "data": {"x": np.ones((2, 2)), "y": np.arange(3)}})
    figure("a-line", line, **GOOD)
    figure("a-line", line, **{**GOOD, "data": {"x": np.ones((2, 2)), "y": np.arange(3)}})
    assert shown[:2] == shown[2:]


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 2)])
def test_draw_is_called_on_fresh_axes_of_the_shape(shown, shape):
    seen = []
    for _ in range(2):
        figure("panels", seen.append, shape=shape, **GOOD)
    assert len(seen) == 2
    for axes in seen:
        assert np.shape(axes) == (() if shape == (1, 1) else tuple(n for n in shape if n > 1))
        assert all(isinstance(ax, Axes) for ax in np.ravel(axes))
    assert not set(np.ravel(seen[0])) & set(np.ravel(seen[1]))


def test_a_drawing_sees_the_style_and_leaves_the_settings_as_they_were(shown):
    before = dict(mpl.rcParams)
    inks = []
    figure("a-line", lambda ax: inks.append(mpl.rcParams["text.color"]), **GOOD)
    assert inks == [INK["light"][0]]
    assert dict(mpl.rcParams) == before

    def broken(ax):
        raise RuntimeError("while drawing")

    with pytest.raises(RuntimeError, match="while drawing"):
        figure("a-line", broken, **GOOD)
    assert dict(mpl.rcParams) == before
    assert len(shown) == 1, "a figure that is not drawn is not shown"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_colour_can_be_told_from_the_paper_and_from_the_others(theme):
    """WCAG's contrast of graphics, 3 to 1, against the paper."""

    def luminance(colour):
        parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
        return np.dot(parts, [0.2126, 0.7152, 0.0722])

    for colour in (*CYCLE[theme], INK[theme][0]):
        dark, light = sorted([luminance(colour), luminance(INK[theme][1])])
        assert (light + 0.05) / (dark + 0.05) >= 3, colour
    assert len(set(CYCLE[theme])) == len(CYCLE[theme]) == len(COLOUR)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "A line"}, "name is 'A line'; allowed are"),
        ({"name": ""}, "name is ''"),
        ({"name": "../line"}, "name is '../line'"),
        ({"name": "line-"}, "name is 'line-'"),
        ({"caption": " \n"}, "figure a-line: caption is empty"),
        ({"alt": ""}, "figure a-line: alt is ''"),
        ({"alt": "figures/line.png"}, "figure a-line: alt is 'figures/line.png'; it must say"),
        ({"data": {}}, "figure a-line: data is empty"),
        ({"data": {"x": [1.0, None]}}, "data 'x' is no array"),
    ],
)
def test_a_figure_that_lacks_something_is_refused_before_it_is_drawn(shown, changes, message):
    def never(ax):
        raise AssertionError

    with pytest.raises(ValueError, match=message):
        figure(**{"name": "a-line", "draw": never, **GOOD, **changes})
    assert not shown


# Data


def columns(content):
    head, *rows = csv.reader(io.StringIO(content.decode()))
    return dict(zip(head, zip(*rows, strict=True), strict=True))


same_length = st.integers(1, 5).flatmap(
    lambda size: st.tuples(
        nst.arrays(np.float64, size, elements=st.floats()),
        nst.arrays(np.int64, size),
        nst.arrays(np.float32, size, elements=st.floats(width=32)),
    )
)


@given(same_length)
def test_a_table_keeps_every_digit(arrays):
    names = ("x", "n, or how many", 'the "fast" one')
    suffix, content = table_or_archive(dict(zip(names, arrays, strict=True)))
    assert suffix == "csv"
    found = columns(content)
    assert tuple(found) == names
    for name, array in zip(names, arrays, strict=True):
        np.testing.assert_array_equal(np.array(found[name]).astype(array.dtype), array)


def test_a_table_may_have_words():
    kinds = ["stable", "saddle, of index 1", 'a "ghost"', ""]
    suffix, content = table_or_archive({"kind": kinds, "x": torch.arange(4)})
    assert suffix == "csv"
    assert columns(content) == {"kind": tuple(kinds), "x": ("0", "1", "2", "3")}


@pytest.mark.parametrize(
    "data",
    [
        {"x": np.arange(3.0), "y": np.arange(4)},
        {"x": np.linspace(0, 1, 6).reshape(2, 3)},
        {"x": np.arange(3.0), "scale": 0.1},
        {"x": torch.rand(2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), "kinds": ["a", "b"]},
    ],
)
def test_what_is_no_table_is_an_archive_that_keeps_every_array(data):
    suffix, content = table_or_archive(data)
    assert suffix == "npz"
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        assert set(archive) == set(data)
        for name, array in data.items():
            np.testing.assert_array_equal(archive[name], np.asarray(array))
            assert archive[name].dtype == np.asarray(array).dtype


# Parts of figures


def test_fixed_points_are_marked_by_what_they_are_on_any_ground():
    kinds = ["stable", "saddle", "unstable"]
    with mpl.rc_context(style()):
        ax = Figure().subplots()
        mark_fixed_points(ax, torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]), kinds)
    assert len(ax.lines) == 9
    for at, kind in enumerate(kinds):
        halo, edge, mark = ax.lines[3 * at : 3 * at + 3]
        for part in (halo, edge, mark):
            assert (*np.ravel(part.get_xdata()), *np.ravel(part.get_ydata())) == (2 * at, 2 * at + 1)
        assert halo.get_markersize() > edge.get_markersize() > mark.get_markersize()
        assert same_color(halo.get_markerfacecolor(), INK["light"][1])
        assert same_color(edge.get_markeredgecolor(), INK["light"][0])
        assert mark.get_color() == COLOUR[kind]
    assert [mark.get_fillstyle() for mark in ax.lines[2::3]] == ["full", "left", "none"]
    with pytest.raises(ValueError, match="zip"):
        mark_fixed_points(ax, np.zeros((2, 2)), ["stable"])
    with pytest.raises(KeyError, match="centre"):
        mark_fixed_points(ax, np.zeros((1, 2)), ["centre"])


def test_panels_are_lettered_in_their_order_with_what_titles_there_are():
    axes = Figure().subplots(2, 2)
    letter_panels(axes.flat, ["first", "second"])
    assert [[text.get_text() for text in ax.texts if text.get_text()] for ax in axes.flat] == [
        ["a", "first"],
        ["b", "second"],
        ["c"],
        ["d"],
    ]


def lines(ax):
    ax.plot([0, 1, 2], [0, 1, 4], "--o", mfc=mpl.rcParams["axes.facecolor"], alpha=0.6)
    ax.axhline(1, color=mpl.rcParams["text.color"])
    ax.axvspan(0.5, 1, color="C3", alpha=0.2, lw=0)
    ax.bar([0, 1], [1, 2], color="C2", hatch="//", edgecolor="C1")


def meshes(ax):
    x = np.linspace(-1, 1, 12)
    ax.contourf(x, x, np.add.outer(x**2, x), levels=[-9, 0], colors=[mpl.rcParams["axes.facecolor"]])
    ax.contour(x, x, np.add.outer(x**2, x), levels=[0, 0.5], colors=["C4", mpl.rcParams["text.color"]])
    mesh = ax.pcolormesh(x, x, np.multiply.outer(x, x), cmap="coolwarm", alpha=0.5)
    ax.pcolormesh(x + 2, x, np.multiply.outer(x, x), cmap="coolwarm", shading="gouraud")
    ax.figure.colorbar(mesh, ax=ax)


def clouds(ax):
    ax.scatter([0, 1, 2], [0, 1, 4], c=["C0", "C1", "C5"], ec=mpl.rcParams["text.color"])
    ax.scatter([0, 1, 2], [1, 2, 3], c=[0.0, 0.5, 1.0], cmap="twilight", lw=0)
    ax.fill_between([0, 1, 2], [0, 0, 0], [1, 2, 1], color="C6", alpha=0.3)
    ax.quiver([0, 1], [0, 1], [1, 1], [0, 1], color="C2")
    ax.imshow(np.arange(6.0).reshape(2, 3), extent=(2, 3, 0, 1))


def words(ax):
    ax.set(xlabel="$x_1^2$", ylabel="two\nlines", xscale="log", xlim=(0.1, 100))
    ax.text(1, 0.5, "label", bbox={"facecolor": mpl.rcParams["axes.facecolor"], "edgecolor": "none", "alpha": 0.8})
    ax.annotate("", (1, 0), (10, 1), arrowprops={"arrowstyle": "->", "color": "C1"})
    mark_fixed_points(ax, np.array([[1, 0.2], [3, 0.4], [9, 0.6]]), ["stable", "saddle", "unstable"])
    ax.plot([1], [1], "+", color="black", label=r"$\alpha$")
    ax.legend()


@pytest.mark.parametrize("draw", [lines, meshes, clouds, words])
def test_the_picture_of_a_theme_is_what_matplotlib_draws_in_its_style(draw):
    def dark(value):
        colours = {mpl.colors.to_hex(light): mpl.colors.to_hex(other) for light, other in DARK.items()}
        for light, other in colours.items():
            value = value.replace(light, other) if isinstance(value, str) else value
        return value

    pictures, places = render(draw, (1, 1), (4.0, 3.0))
    for theme, settings in {"light": style(), "dark": {name: dark(value) for name, value in style().items()}}.items():
        png = io.BytesIO()
        with mpl.rc_context(settings):
            page = Figure(figsize=(4.0, 3.0), dpi=200)
            draw(page.subplots())
            for ax, place in zip(page.axes, places, strict=True):
                ax.set_position(place)
            page.savefig(png, format="png", facecolor=mpl.rcParams["figure.facecolor"])
        png.seek(0)
        expected = mpl.image.imread(png)[..., :3] * 255
        assert np.abs(np.asarray(pictures[theme]) - expected).max() < 0.5, theme


@pytest.mark.parametrize("shape", [(1, 1), (2, 2)])
def test_axes_in_the_places_of_an_earlier_drawing_give_the_same_picture(shape):
    def draw(axes):
        for ax in np.ravel(axes):
            image = ax.imshow(np.arange(6.0).reshape(2, 3), extent=(0, 3, 0, 2))
            ax.set(xlabel="$x_1$", ylabel="two\nlines")
        ax.figure.colorbar(image, ax=axes, shrink=0.7, label="speed")

    laid_out, places = render(draw, shape, (4.0, 3.0))
    again, same_places = render(draw, shape, (4.0, 3.0), places)
    assert again == laid_out
    np.testing.assert_allclose([place.bounds for place in same_places], [place.bounds for place in places])
