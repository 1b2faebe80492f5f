"""A measured number meets its record in ``claims.yml`` and gets a verdict.

A record says what a paper claims, the value that follows from it and the tolerance, and the status that we recorded:

- ``holds``: true as printed. ``corrected``: true once a misprint is mended or a missing condition supplied (the note
  says which).
- ``deviates``: we could not confirm it; ``instead`` gives what we find.
- ``open``: nobody has measured it yet.

A record says what the paper says, or, with ``ours: true``, what the book adds to it: a consequence, a condition, a
check. What we add ourselves must hold, and is counted apart from what the papers say.

``holds`` and ``corrected`` ask the measured value to meet the paper's expectation. ``deviates`` asks it to miss that
expectation and, where ``instead`` is given, to meet ours. So either status turns red when the result changes.
"""

from __future__ import annotations

import html
import math
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

SOURCES = ("graceful", "signals", "local")
STATUSES = ("holds", "corrected", "deviates", "open")
BOUNDS = ("expect", "within", "relative", "below", "above", "verdict_only")
OURS = ' <span class="claim-ours">ours</span>'  # beside the place of what the book adds
REPORT = "SLOWMANIFOLD_CLAIMS"  # in the environment, with the value "report": show a contradiction, do not raise it
FIELDS = ("id", "source", "where", "says", "status", "note", "instead", "ours", *BOUNDS)


class ClaimContradicted(AssertionError):
    """The measured value contradicts the status recorded in ``claims.yml``."""


@dataclass(frozen=True)
class Expectation:
    """What a measured value must meet: ``|value - expect| <= within``, or ``value < below`` and/or ``value > above``.

    ``within`` is absolute; ``relative`` is the same as a fraction of ``|expect|``. A statement (``verdict_only``) is
    met by ``True``.
    """

    expect: float | None = None
    within: float | None = None
    below: float | None = None
    above: float | None = None
    statement: bool = False

    @classmethod
    def from_record(cls, fields: dict[str, Any], where: str) -> Expectation:
        """Read the fields of a record or of its ``instead``; ``ValueError`` names what is missing or too much."""
        numbers = {name: fields[name] for name in BOUNDS if name != "verdict_only" and name in fields}
        for name, value in numbers.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{where}: {name} is {value!r}; a finite number is needed")
        names = set(numbers)
        if fields.get("verdict_only") is True and not names:
            return cls(statement=True)
        if names and names <= {"below", "above"} and "verdict_only" not in fields:
            if len(names) == 2 and fields["above"] >= fields["below"]:
                raise ValueError(f"{where}: nothing is above {fields['above']!r} and below {fields['below']!r}")
            return cls(below=fields.get("below"), above=fields.get("above"))
        if names in ({"expect", "within"}, {"expect", "relative"}) and "verdict_only" not in fields:
            within = fields.get("within", abs(fields["expect"]) * fields.get("relative", 0))
            if within < 0:
                raise ValueError(f"{where}: the tolerance is {within!r}; it must not be negative")
            return cls(expect=float(fields["expect"]), within=float(within))
        raise ValueError(
            f"{where}: has {sorted(names | ({'verdict_only'} & set(fields)))}; needs expect with within or relative, "
            "or below and/or above, or verdict_only: true"
        )

    def met_by(self, value: float | bool) -> bool:
        """Whether ``value`` meets the expectation; ``nan`` never does."""
        if self.statement:
            return value is True
        if self.expect is not None:
            return abs(value - self.expect) <= self.within
        return (self.below is None or value < self.below) and (self.above is None or value > self.above)

    def __str__(self) -> str:
        if self.statement:
            return "true"
        if self.expect is not None:
            return as_text(self.expect, self.within) + (f" ± {self.within:.3g}" if self.within else " exactly")
        return " and ".join(
            f"{sign} {bound:.6g}" for sign, bound in ((">", self.above), ("<", self.below)) if bound is not None
        )


@dataclass(frozen=True)
class Record:
    """One claim of a paper: its place, what it says, what we expect to measure and the status we recorded.

    One that is ``ours`` is not the paper's: its place is that to which the book adds it.
    """

    id: str
    source: str
    where: str
    says: str
    status: str
    expectation: Expectation
    note: str = ""
    instead: Expectation | None = None
    ours: bool = False

    def agrees(self, value: float | bool) -> bool:
        """Whether the measured value agrees with the recorded status."""
        if self.status == "open" or (not isinstance(value, bool) and not math.isfinite(value)):
            return False
        met = self.expectation.met_by(value)
        if self.status == "deviates":
            return not met and (self.instead is None or self.instead.met_by(value))
        return met

    @property
    def target(self) -> str:
        """The expectation in words; what we find comes first where it deviates from the paper."""
        if self.instead is not None:
            return f"{self.instead}, paper {self.expectation}"
        return f"not {self.expectation}" if self.status == "deviates" else str(self.expectation)

    @property
    def within(self) -> float | None:
        """The tolerance of what we expect to measure, if it has one."""
        return (self.instead or self.expectation).within


def find() -> Path:
    """The ``claims.yml`` of the book around the working directory, looked for upwards from there."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        for candidate in (folder / "claims.yml", folder / "book" / "claims.yml"):
            if candidate.is_file():
                return candidate
    raise FileNotFoundError(f"no claims.yml in {here}, above it, or in a book/ there: run this inside the book")


def load(path: Path) -> dict[str, Record]:
    """The records of ``claims.yml`` by id, in their order; ``ValueError`` names the record and the field at fault."""
    records: dict[str, Record] = {}
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        listed = yaml.load(path.read_text(), Loader=loader) or []
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name}: is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(listed, list):
        raise ValueError(f"{path.name}: has {type(listed).__name__} at its top; a list of records is needed")
    for number, fields in enumerate(listed, 1):
        if not isinstance(fields, dict):
            raise ValueError(f"{path.name}: record {number} is {fields!r}; fields are needed")
        where = f"{path.name}: {fields.get('id') or f'record {number}'}"
        if unknown := sorted(set(fields) - set(FIELDS)):
            raise ValueError(f"{where}: unknown field {unknown[0]!r}; known are {', '.join(FIELDS)}")
        if missing := [name for name in ("id", "source", "where", "says", "status") if not fields.get(name)]:
            raise ValueError(f"{where}: {missing[0]} is missing")
        for name, allowed in (("source", SOURCES), ("status", STATUSES)):
            if fields[name] not in allowed:
                raise ValueError(f"{where}: {name} is {fields[name]!r}; allowed are {', '.join(allowed)}")
        if not isinstance(fields["id"], str) or not re.fullmatch(r"[a-z0-9]+([.-][a-z0-9]+)*", fields["id"]):
            raise ValueError(f"{where}: an id is lower-case words and digits joined by dots and hyphens")
        if fields["id"] in records:
            raise ValueError(f"{where}: the id stands twice")
        if fields["status"] in ("corrected", "deviates") and not fields.get("note"):
            raise ValueError(f"{where}: a claim that is {fields['status']} needs a note")
        if "instead" in fields and fields["status"] != "deviates":
            raise ValueError(f"{where}: instead belongs to claims that deviate, this one {fields['status']}")
        if "instead" in fields and not (isinstance(fields["instead"], dict) and set(fields["instead"]) <= set(BOUNDS)):
            raise ValueError(f"{where}: instead is {fields['instead']!r}; its fields are {', '.join(BOUNDS)}")
        if fields.get("ours", True) is not True:
            raise ValueError(f"{where}: ours is {fields['ours']!r}; true is allowed, or leave it out")
        if "ours" in fields and fields["status"] != "holds":
            raise ValueError(f"{where}: what is ours holds, this one {fields['status']}")
        records[fields["id"]] = Record(
            **{name: one_line(fields[name]) for name in ("id", "source", "where", "says", "status")},
            expectation=Expectation.from_record(fields, where),
            note=one_line(fields.get("note", "")),
            instead=Expectation.from_record(fields["instead"], f"{where}: instead") if "instead" in fields else None,
            ours="ours" in fields,
        )
    return records


@lru_cache(maxsize=1)
def load_once(path: Path, changed: int, size: int) -> dict[str, Record]:
    """The records of a file in a given state: a chapter measures many claims, and reading them all takes a while."""
    return load(path)


def one_line(text: Any) -> str:
    """Words as a paragraph: how YAML broke its lines does not matter."""
    return " ".join(str(text).split())


def with_maths(text: str) -> str:
    """Escaped HTML in which ``$…$`` is typeset as mathematics."""
    return re.sub(r"\$([^$]+)\$", r'<span class="math notranslate nohighlight">\\(\1\\)</span>', html.escape(text))


def as_text(value: float | bool, within: float | None = None) -> str:
    """A value as readers see it, with six digits, or as many as the tolerance ``within`` asks for."""
    if isinstance(value, bool):
        return str(value).lower()
    digits = 6
    if within and value and math.isfinite(value):
        digits = max(digits, 2 + math.floor(math.log10(abs(value))) - math.floor(math.log10(within)))
    return f"{value:.{digits}g}"


def row(record: Record, value: float | bool, verdict: str) -> str:
    """The HTML row that a page shows for a measured claim."""
    numbers = [("expected" if record.ours else "paper", str(record.expectation))]
    if record.instead is not None:
        numbers.append(("we find", str(record.instead)))
    terms = "".join(f"<dt>{name}</dt><dd>{html.escape(text)}</dd>" for name, text in numbers)
    note = f'<p class="claim-note">{with_maths(record.note)}</p>' if record.note else ""
    return (
        f'<div class="claim claim-{verdict}" id="claim-{record.id}">'
        f'<span class="claim-verdict">{verdict}</span> '
        f'<span class="claim-says">{with_maths(record.says)}</span> '
        f'<span class="claim-where">{record.source}, {html.escape(record.where)}{OURS if record.ours else ""}</span>'
        f'<dl class="claim-numbers">{terms}<dt>measured</dt>'
        f"<dd><output>{as_text(value, record.within)}</output></dd></dl>{note}</div>"
    )


def claim(id: str, measured: Any) -> None:
    """Hand over what was measured for the claim ``id``: shows its row and raises if it contradicts the record.

    ``measured`` is one number, or a bool where the record says ``verdict_only``. The text of the output holds the
    verdict and the expectation, which are the same on any machine; the measured value stands in the HTML row and, in
    full, in the output's metadata, from which the ledger is made.

    Raises ``ClaimContradicted`` if the value does not agree with the recorded status, ``ValueError`` for an unknown
    id or a value of the wrong kind. With ``SLOWMANIFOLD_CLAIMS=report`` in the environment (a reader's own
    parameters) a contradiction is shown, not raised.
    """
    from IPython.display import display

    path = find()
    state = path.stat()
    records = load_once(path, state.st_mtime_ns, state.st_size)
    if id not in records:
        raise ValueError(f"claim {id!r} has no record in claims.yml")
    record = records[id]
    value = measured
    if hasattr(measured, "item"):
        with suppress(ValueError, RuntimeError):  # several numbers in an array or a tensor, refused below
            value = measured.item()
    if isinstance(value, bool) is not record.expectation.statement or not isinstance(value, bool | int | float):
        wanted = "True or False" if record.expectation.statement else "one number"
        raise ValueError(f"claim {id!r}: measured is {measured!r}; its record needs {wanted}")
    agrees = record.agrees(value)
    verdict = record.status if agrees else "contradicted"
    number = value if isinstance(value, bool) or math.isfinite(value) else str(value)
    line = f"{id}: {verdict}: {record.target}"
    display(
        {"text/plain": line, "text/html": row(record, value, verdict)},
        raw=True,
        metadata={"claim": {"id": id, "measured": number, "verdict": verdict}},
    )
    if not agrees and os.environ.get(REPORT) != "report":
        raise ClaimContradicted(f"{id} is recorded as {record.status!r} ({record.target}); measured {as_text(value)}")
