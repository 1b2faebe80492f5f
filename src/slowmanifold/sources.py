"""What a result depends on: the code of a function, the modules of the package behind it, the libraries' versions.

What comes from the package counts as the file of its module and the files of all modules that this one imports. What
comes from an installed library counts by name, and NumPy, SciPy, torch and Python by version. A function of one's own
(a notebook's, a script's) counts as its code in memory, with its defaults, what it closes over and the globals that it
reads, functions followed in turn. Comments and layout do not count.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import pickle
import platform
import sys
import sysconfig
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from types import CellType, CodeType, FunctionType, MemberDescriptorType, ModuleType
from typing import Any

import grimp
from joblib.hashing import NumpyHasher

PACKAGE = "slowmanifold"
VERSIONS = {"Python": platform.python_version(), **{name: version(name) for name in ("numpy", "scipy", "torch")}}
READS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
# A property, a static method, a cached function: what they hold is the function.
HOLDERS = (property, staticmethod, classmethod, functools.cached_property, type(functools.cache(len)))
HELD = ("fget", "fset", "fdel", "func", "__wrapped__")


def import_graph() -> grimp.ImportGraph:
    """Which module of the package imports which."""
    return grimp.build_graph(PACKAGE, cache_dir=None)


def imported_modules(names: Iterable[str], graph: grimp.ImportGraph) -> list[str]:
    """Those of ``names`` that are modules of ``graph``, what they import, directly or not, and the packages around."""
    waiting = [name for name in names if name in graph.modules]
    reached: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name and name not in reached:
            reached.add(name)
            # Python runs the package around a module before the module.
            waiting += [name.rpartition(".")[0], *graph.find_modules_directly_imported_by(name)]
    return sorted(reached)


def package_files() -> dict[str, str]:
    """The digest of every module's file in the package, by the module's name."""
    root = Path(__file__).parent
    names = {path: ".".join((PACKAGE, *path.relative_to(root).with_suffix("").parts)) for path in root.rglob("*.py")}
    return {
        name.removesuffix(".__init__"): hashlib.sha256(path.read_bytes()).hexdigest() for path, name in names.items()
    }


# Python runs what it has imported, not what has been written to disk since.
AT_IMPORT = package_files()
imports = functools.cache(import_graph)


def fingerprint(value: Any, name: str) -> tuple[str, dict[str, str]]:
    """A digest of ``value``, a function or data, that is the same in every process; and the versions that it rests on.

    These are the libraries' and, by their files' digests, those of the modules of the package that the value uses.
    ``ValueError``, which calls the value ``name``, for what has no lasting description: an open file, a lock.
    """
    hasher = Fingerprint()
    try:
        content = hasher.hash(value)
    except RecursionError:
        raise ValueError(f"{name} is data that contains itself; allowed is plain data") from None
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    modules = imported_modules(hasher.modules, imports()) if hasher.modules else []
    versions = VERSIONS | {module: AT_IMPORT[module] for module in modules}
    return hashlib.sha256(repr((content, versions)).encode()).hexdigest(), versions


class Fingerprint(NumpyHasher):
    """joblib's hash, which follows functions and classes into their code where pickle would note a name."""

    def __init__(self) -> None:
        super().__init__()
        self.fast = True  # no memory of what was pickled: equal values, shared or not, are equal
        self.modules: set[str] = set()
        self.met: dict[int, tuple[int, Any]] = {}

    def save(self, obj: Any) -> None:
        """Add ``obj`` to the hash."""
        match obj:
            case ModuleType() | FunctionType() | type():
                obj = self.described(obj)
            case CodeType():
                counts = obj.co_argcount, obj.co_posonlyargcount, obj.co_kwonlyargcount, obj.co_flags
                names = obj.co_names, obj.co_varnames, obj.co_freevars, obj.co_cellvars
                obj = ("code", obj.co_code, obj.co_exceptiontable, obj.co_consts, *names, *counts)
            case CellType():
                obj = ("cell", obj.cell_contents)
            case frozenset():
                obj = ("frozenset", set(obj))
            case _ if "torch" in sys.modules and isinstance(obj, sys.modules["torch"].Tensor):
                obj = ("tensor", obj.requires_grad, obj.detach().cpu().numpy())
            case _ if isinstance(obj, HOLDERS):
                obj = (type(obj).__name__, [getattr(obj, part, None) for part in HELD])
        try:
            super().save(obj)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{obj!r:.80} has no lasting description ({error}); allowed are functions and plain data: "
                "give it as a parameter, or make it inside the function"
            ) from None

    def described(self, value: ModuleType | FunctionType | type) -> tuple[Any, ...]:
        """A module, function or class: by its name if it can be imported from the package or a library."""
        whole = isinstance(value, ModuleType)
        module = value.__name__ if whole else value.__module__
        name = module if whole else f"{module}.{value.__qualname__}"
        if belongs(module):
            # Of a package whose attributes are looked up, all that is in it.
            self.modules |= {module, *(imports().find_descendants(module) if whole else ())}
        importable = belongs(module) or is_library(module)
        if importable and "<" not in name:
            return "named", name
        if id(value) in self.met:
            return "met", self.met[id(value)][0]
        self.met[id(value)] = len(self.met), value
        if whole:
            return "module", {key: entry for key, entry in vars(value).items() if not key.startswith("__")}
        if isinstance(value, type):
            return "class", value.__bases__, {key: entry for key, entry in vars(value).items() if is_member(key, entry)}
        read = {} if importable else {key: value.__globals__[key] for key in self.read(value.__code__, value)}
        return "function", value.__code__, value.__defaults__, value.__kwdefaults__, value.__closure__, read

    def read(self, code: CodeType, function: FunctionType) -> set[str]:
        """The globals that ``function`` reads, in its body or in a function within; what it imports is noted."""
        names, imported = set(), ""
        for instruction in dis.get_instructions(code):
            if instruction.opname in READS and instruction.argval in function.__globals__:
                names.add(instruction.argval)
            elif instruction.opname == "IMPORT_NAME":
                imported = instruction.argval
                self.modules.add(imported)
            elif instruction.opname == "IMPORT_FROM":
                self.modules.add(f"{imported}.{instruction.argval}")
        return names.union(*(self.read(part, function) for part in code.co_consts if isinstance(part, CodeType)))


def belongs(module: str) -> bool:
    """Whether a module is the package's."""
    return module.partition(".")[0] == PACKAGE


@functools.cache
def is_library(module: str) -> bool:
    """Whether a module is installed or Python's own, rather than of the project at hand."""
    if module == "__main__" or module not in sys.modules:
        return False
    file = getattr(sys.modules[module], "__file__", None)
    place = Path(file or sysconfig.get_path("stdlib"))
    return bool({"site-packages", "dist-packages"} & set(place.parts)) or place.is_relative_to(
        sysconfig.get_path("stdlib")
    )


def is_member(name: str, value: Any) -> bool:
    """Whether an entry of a class is of its author's making, rather than Python's bookkeeping."""
    if isinstance(value, MemberDescriptorType) or name == "_abc_impl":
        return False
    return not name.startswith("__") or isinstance(value, (FunctionType, *HOLDERS))
