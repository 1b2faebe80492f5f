"""Numbers and words of claims as readers see them."""

import pytest

from slowmanifold.claims import with_maths
from slowmanifold.press.typography import signs, typeset


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("0 ± 1e-14", "0 ± 10⁻¹⁴"),
        ("-2.5e-07 ± 1.1e-9", "−2.5·10⁻⁷ ± 1.1·10⁻⁹"),
        ("> 1e+06", "> 10⁶"),
        ("<dd>3e-5</dd>", "<dd>3·10⁻⁵</dd>"),
        ("0.25, 1000, e-3, one1e-3", "0.25, 1000, e-3, one1e-3"),
        ("< -20, (-1.5", "< −20, (−1.5"),
        ("1-2, (a)-3, x-4, [5]-6", "1-2, (a)-3, x-4, [5]-6"),
        ("Glorot's, Glorot&#x27;s, f' and 'so'", "Glorot’s, Glorot’s, f' and 'so'"),
        ("eq. 3, eqs. 4 and 5, Fig. S2", "eq.\u00a03, eqs.\u00a04 and 5, Fig. S2"),
    ],
)
def test_signs_are_set_and_nothing_else_is_touched(text, read):
    assert signs(text) == read


def test_formulas_stay_as_they_are_and_hold_their_punctuation():
    prime, x, y = map(with_maths, ("$f'-1$", "$x$", "$y$"))
    assert typeset(with_maths("NumPy's -1 ($f'-1$), $x$ or $y$: -2")) == (
        f'NumPy’s −1 <span class="held">({prime}),</span> {x} or <span class="held">{y}:</span> −2'
    )


def test_tags_stay_as_they_are():
    assert typeset('<a id="one-1" title="x -1">-1</a>') == '<a id="one-1" title="x -1">−1</a>'
