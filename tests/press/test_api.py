"""The page of the package: what is public, how it is called, and who uses it."""

import re

import pytest

from slowmanifold.press import api

SOURCE = '''
"""A module of $x_1$ and of ``code``."""

LIMIT = 3

class Thing(Base):
    """A thing
    of two lines.

        x' = -x * y

    Used in: a chapter, and
    another.
    """
    size: int = 3
    name: str

    @property
    def half(self) -> float:
        """Half its size."""

    def grow(self, by: Float[Tensor, "a, b"], *, times: int = 2, text="a=b") -> None:
        """Grow it, see :func:`other`."""

    def _hidden(self):
        """Not shown."""

def long(first_argument: tuple[int, str], second_argument: dict[str, int] | None = None, *rest: int) -> list[float]:
    """Many arguments."""

def _private():
    """Not shown."""

def undocumented():
    pass
'''


@pytest.fixture
def module():
    return api.module("slowmanifold.networks.thing", SOURCE)


def test_what_is_public_and_documented_is_listed_in_its_order(module):
    assert module.names == ["slowmanifold.networks.thing.Thing", "slowmanifold.networks.thing.long"]
    assert [member.name for member in module.entries[0].members] == ["half", "grow"]


def test_signatures_are_as_one_writes_them_and_broken_where_they_are_long(module):
    thing, long = module.entries
    assert thing.signature == "class Thing(Base)\n    size: int = 3\n    name: str"
    assert [member.signature for member in thing.members] == [
        "half -> float",
        "grow(by: Float[Tensor, 'a, b'], *, times: int = 2, text='a=b') -> None",
    ]
    assert long.signature == (
        "long(\n    first_argument: tuple[int, str],\n    second_argument: dict[str, int] | None = None,\n"
        "    *rest: int,\n) -> list[float]"
    )


def test_docstrings_become_words_and_blocks_of_code(module):
    assert api.prose(module.text) == r"A module of \$x\_1\$ and of `code`."
    said = api.prose(module.entries[0].text)
    assert said == "A thing\nof two lines.\n\n```text\nx' = -x * y\n```\n\nUsed in: a chapter, and\nanother."
    assert api.prose(module.entries[0].members[1].text) == "Grow it, see `other`."
    assert api.prose("As ``{role}`a_b```, a*b.") == r"As `` {role}`a_b` ``, a\*b."


def test_the_page_has_a_place_for_every_name_and_names_the_chapters_that_use_it(module, book):
    book.chapter("one", "from slowmanifold.networks.thing import Thing")
    book.chapter("two", "import numpy")
    used = api.uses(book.project.chapters.values(), module.names)
    assert used == {"slowmanifold.networks.thing.Thing": ["one"], "slowmanifold.networks.thing.long": []}
    text = api.page([module], used)
    labels = re.findall(r"^\((.*)\)=$", text, re.MULTILINE)
    assert labels == [api.anchor(name) for name in (module.name, *module.names[:1], f"{module.names[0]}.half",
                                                    f"{module.names[0]}.grow", module.names[1])]  # fmt: skip
    assert text.count("Used in: [](./one).") == text.count("Used in") == 1


def test_the_package_itself_is_listed_floor_by_floor():
    found = [module.name.split(".")[1] for module in api.modules(api.Path(__file__).parents[2] / "src/slowmanifold")]
    assert list(dict.fromkeys(found)) == [floor for floor in api.FLOORS if floor in found]
    assert {"networks", "dynamics", "learning", "sweep", "claims", "figures"} <= set(found)
