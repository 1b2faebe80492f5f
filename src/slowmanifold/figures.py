"""One style for every figure of the book: light and dark from one call, with caption, alternative text and data.

A figure is drawn from data that is already computed, by a function of the axes alone::

    figure("fenichel-portraits", draw, shape=(2, 3), caption="…", alt="…", data={"x": x, "speed": speed})

It is drawn for the light and, in the same stroke, for the dark page. The notebook shows the light one; the dark one and
the data travel in the output's metadata, from which the press makes the figure of the page and its download.

With a ``Slider`` the reader of the page moves a parameter: ``draw`` gets the number of the frame too, all frames are
drawn beforehand, and the notebook shows the first of them.
"""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from string import ascii_lowercase
from typing import Any

import numpy as np
from matplotlib import rc_context, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image

from slowmanifold.themes import Canvas, style

DPI = 200
# What a colour means throughout the book; entries of the cycle, so that they follow the theme.
COLOUR = {
    "trajectory": "C0",
    "saddle": "C1",
    "stable": "C2",
    "manifold": "C3",
    "unstable": "C4",
    "nullcline": "C5",
    "reference": "C6",
}


def render(
    draw: Callable[[Any], None],
    shape: tuple[int, int],
    size: tuple[float, float],
    places: Sequence[Bbox] | None = None,
) -> tuple[dict[str, Image.Image], list[Bbox]]:
    """Draw on fresh axes; return the picture of each theme and the places of the axes.

    With the ``places`` of an earlier drawing the axes lie where they lay there; without, they are laid out anew, which
    takes as long as all the drawing.
    """
    with rc_context(style()):
        page = Figure(figsize=size, dpi=DPI)
        canvas = Canvas(page)
        if places is None:
            page.set_layout_engine("constrained")
        draw(page.subplots(*shape))
        if places is None:
            # By hand and then no more: to draw would lay out all once again.
            page.get_layout_engine().execute(page)
            page.set_layout_engine("none")
        else:
            for ax, place in zip(page.axes, places, strict=True):
                ax.set_position(place)
        pictures = canvas.pictures()
    return pictures, [ax.get_position(original=True) for ax in page.axes]


def encoded(picture: Image.Image) -> str:
    """The picture as base64 of a PNG."""
    png = io.BytesIO()
    # Little compression: a sixth more bytes for a tenth less time.
    picture.save(png, "PNG", dpi=(DPI, DPI), compress_level=6 if picture.mode == "P" else 1)
    return base64.b64encode(png.getvalue()).decode()


def reduced(picture: Image.Image) -> Image.Image:
    """The picture in 256 colours, far apart: a third of the bytes, and no colour further off than the eye can see."""
    return picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)


def render_all(
    drawings: Sequence[Callable[[Any], None]], shape: tuple[int, int], size: tuple[float, float]
) -> list[dict[str, str]]:
    """Each drawing in both themes, encoded, the axes of all where they are in the first one: nothing jumps.

    Frames are many, and a page loads them all: where there are several they are ``reduced``.
    """
    places, rendered = None, []
    for draw in drawings:
        pictures, places = render(draw, shape, size, places)
        if len(drawings) > 1:
            pictures = {theme: reduced(picture) for theme, picture in pictures.items()}
        rendered.append({theme: encoded(picture) for theme, picture in pictures.items()})
    return rendered


def table_or_archive(data: Mapping[str, Any]) -> tuple[str, bytes]:
    """``("csv", …)`` where every array is a column of the same length, else ``("npz", …)``; both keep every digit."""
    arrays = {name: np.asarray(array) for name, array in data.items()}
    if ragged := [name for name, array in arrays.items() if array.dtype == object]:
        raise ValueError(f"data {ragged[0]!r} is no array of numbers or words")
    if all(array.ndim == 1 for array in arrays.values()) and len({array.size for array in arrays.values()}) == 1:
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(arrays)
        writer.writerows(zip(*(array.tolist() for array in arrays.values()), strict=True))
        return "csv", table.getvalue().encode()
    archive = io.BytesIO()
    np.savez_compressed(archive, **arrays)
    return "npz", archive.getvalue()


@dataclass(frozen=True)
class Slider:
    """A parameter that the reader of the page moves: its name, the value that each frame shows, and the first frame."""

    parameter: str
    values: Sequence[str]
    first: int = 0

    def __post_init__(self) -> None:
        if len(self.values) < 2:
            raise ValueError(f"values is {self.values!r}; a slider needs two texts or more, one a frame")
        if not 0 <= self.first < len(self.values):
            raise ValueError(f"first is {self.first!r}; there are frames 0 to {len(self.values) - 1}")


def figure(
    name: str,
    draw: Callable[..., None],
    *,
    caption: str,
    alt: str,
    data: Mapping[str, Any],
    shape: tuple[int, int] = (1, 1),
    size: tuple[float, float] = (6.4, 4.0),
    seed: int | None = None,
    slider: Slider | None = None,
) -> None:
    """Show a figure of the book.

    ``draw`` gets the axes (one, or an array of ``shape``); colours of the style ("C0", what ``rcParams`` names) follow
    the theme of the page, any other is the same in both; ``caption`` is MyST text;
    ``alt`` says in a sentence what one sees; ``data`` are the arrays shown, offered for download; ``seed`` is the
    seed behind them, if any; ``size`` is in inches. The page can refer to it as ``{numref}`fig-NAME```. With a
    ``slider`` it is called as ``draw(axes, k)``, once for each frame k.

    Raises ``ValueError`` for a name that is no file name, and for a missing caption, alternative text or data.
    """
    from IPython.display import display

    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ValueError(f"name is {name!r}; allowed are lower-case words and digits joined by hyphens")
    if not caption.strip():
        raise ValueError(f"figure {name}: caption is empty")
    if len(alt.split()) < 5:
        raise ValueError(f"figure {name}: alt is {alt!r}; it must say in a sentence what one sees")
    if not data:
        raise ValueError(f"figure {name}: data is empty; give the arrays that the figure shows")
    suffix, content = table_or_archive(data)
    drawings = [draw] if slider is None else [lambda axes, k=k: draw(axes, k) for k in range(len(slider.values))]
    frames = render_all(drawings, shape, size)
    shown = frames.pop(slider.first if slider else 0)
    extras = {
        "name": name,
        "caption": caption,
        "alt": alt,
        "seed": seed,
        "width": size[0],
        "dark": shown["dark"],
        "data": base64.b64encode(content).decode(),
        "suffix": suffix,
    }
    if slider is not None:
        extras["slider"] = asdict(slider) | {"others": frames}
    display({"text/plain": f"figure {name}", "image/png": shown["light"]}, raw=True, metadata={"figure": extras})


def letter_panels(axes: Iterable[Axes], titles: Iterable[str] = ()) -> None:
    """Letter the panels of a figure a, b, c, …, with a few words after the letter where ``titles`` has some."""
    for ax, letter, title in zip_longest(axes, ascii_lowercase, titles):
        if ax is None:
            break
        above = {"xycoords": "axes fraction", "textcoords": "offset points"}
        ax.annotate(letter, (0, 1), (0, 6), weight="bold", **above)
        ax.annotate(title or "", (0, 1), (14, 6), **above)


def mark_fixed_points(ax: Axes, points: Any, kinds: Iterable[str]) -> None:
    """Mark fixed points (n, 2) of each of ``kinds``: ``stable`` filled, ``saddle`` half filled, ``unstable`` open.

    An edge in the colour of the ink within a halo in that of the paper makes a mark show on any ground.
    """
    fill = {"stable": "full", "saddle": "left", "unstable": "none"}
    ink, paper = rcParams["text.color"], rcParams["axes.facecolor"]
    for (x, y), kind in zip(np.asarray(points), kinds, strict=True):
        ax.plot(x, y, "o", ms=11.5, mew=0, color=paper, zorder=5, clip_on=False)
        ax.plot(x, y, "o", ms=8.5, mfc=paper, mec=ink, mew=0.9, zorder=5, clip_on=False)
        ax.plot(x, y, "o", ms=7, mew=0, color=COLOUR[kind], fillstyle=fill[kind], mfcalt=paper, zorder=5, clip_on=False)
