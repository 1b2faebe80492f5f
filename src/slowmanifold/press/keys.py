"""Keys: what a run depends on, part by part, so that equal keys mean equal results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

from slowmanifold import claims

CLAIM = "claim "  # before a claim's name in a key


def digest(content: bytes | str) -> str:
    """Twelve hexadecimal digits that change when ``content`` does."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:12]


def claims_measured(key: Mapping[str, str]) -> list[str]:
    """The claims whose records are part of the key of a run."""
    return [part.removeprefix(CLAIM) for part in key if part.startswith(CLAIM)]


def records_key(records: Mapping[str, claims.Record], measured: Iterable[str]) -> dict[str, str]:
    """The part of a key that only a run can tell: the records of the claims that it ``measured``."""
    return {f"{CLAIM}{name}": digest(repr(records.get(name))) for name in measured}


def short(key: Mapping[str, str]) -> str:
    """The key in twelve hexadecimal digits."""
    return digest(json.dumps(dict(key), sort_keys=True))


def changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """The parts in which two keys differ."""
    return sorted(part for part in {**old, **new} if old.get(part) != new.get(part))
