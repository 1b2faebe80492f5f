"""What a result depends on: the code of a function, the modules of the package behind it, the libraries' versions.

A function of the package counts as the files of its module and of all modules that this one imports. A function of
one's own (a notebook's, a script's) counts as its code in memory: with its defaults, what it closes over and the
globals that it reads, functions followed in turn. Comments, layout and place do not count. Functions of other
libraries count by name; NumPy, SciPy, torch and Python by version.
"""

from __future__ import annotations

import copyreg
import dis
import hashlib
import importlib
import platform
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from types import CellType, CodeType, FunctionType, MemberDescriptorType, ModuleType
from typing import Any

import grimp
import numpy as np

PACKAGE = "slowmanifold"
LIBRARIES = ("numpy", "scipy", "torch")


def digest(content: bytes | str) -> str:
    """A name of 32 hexadecimal digits that is another where ``content`` is."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:32]


def package_files() -> dict[str, str]:
    """The digest of every module's file in the package, by the module's name."""
    root = Path(__file__).parent
    names = {path: (PACKAGE, *path.relative_to(root).with_suffix("").parts) for path in root.rglob("*.py")}
    return {".".join(name).removesuffix(".__init__"): digest(path.read_bytes()) for path, name in names.items()}


# Python runs what it has imported, not what has been written to disk since.
AT_IMPORT = package_files()
VERSIONS = {"Python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


@cache
def imports() -> grimp.ImportGraph:
    """Which module of the package imports which."""
    return grimp.build_graph(PACKAGE, cache_dir=None)


def imported_modules(names: Iterable[str]) -> list[str]:
    """Those of ``names`` that are modules of the package, and all that they import, with the packages around."""
    named = {name for name in names if name in imports().modules}
    reached = named.union(*(imports().find_upstream_modules(name) for name in named))
    parents = {name.rsplit(".", depth)[0] for name in reached for depth in range(1, name.count(".") + 1)}
    return sorted(reached | parents)


def environment(modules: Iterable[str]) -> dict[str, str]:
    """The libraries' versions and the digests of ``modules`` of the package, as this process has imported them."""
    return VERSIONS | {name: AT_IMPORT[name] for name in modules}


def check_unchanged(modules: Iterable[str]) -> None:
    """Raise ``RuntimeError`` if a file of ``modules`` of the package is no longer the one that was imported."""
    now = package_files()
    if changed := [name for name in modules if now.get(name) != AT_IMPORT.get(name)]:
        raise RuntimeError(f"{', '.join(changed)}: changed on disk after this Python imported it; restart Python")


@dataclass(frozen=True)
class Sources:
    """What ``key`` was made of: modules of the package, and modules that are neither the package's nor a library's."""

    key: str
    modules: tuple[str, ...]
    own: tuple[ModuleType, ...]


def sources(value: Any, name: str) -> Sources:
    """The sources of ``value``: equal keys mean that it does, or is, the same, in this process and in another.

    ``value`` is a function or data, ``name`` what messages call it. Raises ``ValueError`` for what has no lasting
    description (an open file, a lock, a generator), saying where it was met.
    """
    walk = _Walk()
    try:
        description = walk.describe(value, name)
    except RecursionError:
        raise ValueError(f"{name} is data that contains itself; allowed is plain data") from None
    modules = tuple(imported_modules(walk.modules))
    if modules:
        check_unchanged(modules)
    key = digest(repr((description, [AT_IMPORT[name] for name in modules])))
    return Sources(key, modules, tuple(walk.own.values()))


class _Walk:
    """Turns a function or data into nested lists of text, and notes the modules that it meets on the way."""

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self.own: dict[str, ModuleType] = {}
        self.met: dict[int, tuple[int, Any]] = {}

    def describe(self, value: Any, where: str) -> Any:
        """Equal descriptions mean equal values."""
        match value:
            case np.generic():
                return self.describe(value.item(), where)
            case None | bool() | int() | float() | complex() | str() if type(value).__module__ == "builtins":
                return repr(value)
            case bytes():
                return f"bytes {digest(value)}"
            case np.ndarray() if value.dtype != object:
                return f"array {value.dtype.str} {value.shape} {digest(value.tobytes())}"
            case _ if is_tensor(value):
                return ["tensor", value.requires_grad, self.describe(value.detach().cpu().numpy(), where)]
            case list() | tuple() if type(value) in (list, tuple):
                return [type(value).__name__, *(self.describe(v, f"{where}[{i}]") for i, v in enumerate(value))]
            case set() | frozenset():
                return ["set", *sorted(repr(self.describe(v, where)) for v in value)]
            case dict() if type(value) is dict:
                pairs = [(self.describe(k, where), self.describe(v, f"{where}[{k!r}]")) for k, v in value.items()]
                return ["dict", *sorted(pairs, key=repr)]
            case ModuleType() | FunctionType() | type():
                return self.named(value, where)
            case CodeType():
                return self.code(value, where)
            case CellType():
                return self.describe(value.cell_contents, where)
            case property() | staticmethod() | classmethod() | cached_property():
                parts = (getattr(value, part, None) for part in ("fget", "fset", "fdel", "__func__", "func"))
                return [type(value).__name__, *(self.describe(part, where) for part in parts)]
            case _:
                return self.reduced(value, where)

    def named(self, value: ModuleType | FunctionType | type, where: str) -> Any:
        """A module, function or class: by its name if it can be imported from the package or a library."""
        home = value if isinstance(value, ModuleType) else sys.modules.get(value.__module__ or "")
        name = value.__name__ if isinstance(value, ModuleType) else f"{value.__module__}.{value.__qualname__}"
        if home is not None and home.__name__.split(".")[0] == PACKAGE:
            self.note(home.__name__, whole=value is home)
        if home is not None and is_library(home) and "<" not in name:
            return name
        if id(value) in self.met:
            return f"{name} {self.met[id(value)][0]}"
        self.met[id(value)] = len(self.met), value
        if home is not None and not is_library(home):
            self.own[home.__name__] = home
        match value:
            case ModuleType():
                public = {k: v for k, v in vars(value).items() if not k.startswith("__")}
                return ["module", self.describe(public, name)]
            case FunctionType():
                parts = {
                    "code": value.__code__,
                    "defaults": [value.__defaults__, value.__kwdefaults__],
                    "closure": dict(zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)),
                    "globals": globals_of(value),
                }
                return ["function", *(self.describe(v, f"{where}: {k} of {name}") for k, v in parts.items())]
            case _:
                members = {k: v for k, v in vars(value).items() if is_member(k, v)}
                return ["class", self.describe(list(value.__bases__), where), self.describe(members, name)]

    def note(self, module: str, whole: bool) -> None:
        """Note a module of the package; of a package whose attributes are looked up, all that is in it."""
        self.modules.add(module)
        if whole:
            self.modules.update(imports().find_descendants(module))

    def code(self, code: CodeType, where: str) -> Any:
        """Bytecode, without the lines it came from."""
        for instruction in dis.get_instructions(code):
            if instruction.opname == "IMPORT_NAME" and instruction.argval:
                self.describe(importlib.import_module(instruction.argval), where)
        signature = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        return [code.co_code.hex(), repr(signature), repr(names), self.describe(code.co_consts, where)]

    def reduced(self, value: Any, where: str) -> Any:
        """Any other object, as pickle takes it apart."""
        try:
            reduce = copyreg.dispatch_table.get(type(value), lambda value: value.__reduce_ex__(4))
            parts = reduce(value)
        except Exception as error:
            raise ValueError(
                f"{where} is {value!r:.80}, which has no lasting description ({error}); allowed are functions and "
                "plain data: give it as a parameter, or make it inside the function"
            ) from None
        if isinstance(parts, str):
            return f"{getattr(value, '__module__', '')}.{parts}"
        whole = [list(part) if isinstance(part, Iterator) else part for part in parts]
        return ["object", *(self.describe(part, where) for part in whole)]


def is_library(module: ModuleType) -> bool:
    """Whether a module is the package's, installed or Python's own, rather than of the project at hand."""
    if module.__name__ == "__main__" or module.__name__.split(".")[0] == PACKAGE:
        return module.__name__ != "__main__"
    file = getattr(module, "__file__", None)
    places = [Path(place) for place in ([file] if file else getattr(module, "__path__", ()))]
    return all(
        {"site-packages", "dist-packages"} & set(place.parts) or place.is_relative_to(sysconfig.get_path("stdlib"))
        for place in places
    )


def is_tensor(value: Any) -> bool:
    """Whether ``value`` is a torch tensor; without loading torch, which takes seconds, to find out."""
    return "torch" in sys.modules and isinstance(value, sys.modules["torch"].Tensor)


def default_dtype() -> str:
    """The name of the type that torch gives a tensor unless told; it need not be loaded."""
    return str(sys.modules["torch"].get_default_dtype()).removeprefix("torch.") if "torch" in sys.modules else "float32"


def is_member(name: str, value: Any) -> bool:
    """Whether an entry of a class is of its author's making, rather than Python's bookkeeping."""
    if isinstance(value, MemberDescriptorType) or name == "_abc_impl":
        return False
    return not name.startswith("__") or isinstance(value, FunctionType | property | staticmethod | classmethod)


def globals_of(function: FunctionType) -> dict[str, Any]:
    """The globals that a function reads, in its own body or in a function within it."""

    def read(code: CodeType) -> Iterator[str]:
        for instruction in dis.get_instructions(code):
            if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                yield instruction.argval
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                yield from read(constant)

    names = sorted(set(read(function.__code__)) & set(function.__globals__))
    return {name: function.__globals__[name] for name in names}
