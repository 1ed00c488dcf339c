"""Digests that show whether a file is still as it was written.

A record (a JSON object) carries the digest of its content under the key "digest". The digests of a run's lines and files include the
digest of the run's identity, so that files of two runs cannot be mixed up. A digest detects damage and mix-ups. It is not a signature:
anyone who forges a file can also forge its digest, so numbers that follow from others are derived again instead of trusted.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

DIGEST = "digest"
"""The key of a record's digest."""

RECORDED = "library"
"""The key of an identity that says which version of the library began the run: recorded, and never compared."""

HEX = 32
"""Hexadecimal digits of a record's digest: 128 bits of SHA-256."""

UNCHECKED = "written before files carried digests; not checked"
"""What is said of a file of an earlier version."""


def digest_of(value: Any, owner: str = "") -> str:
    """Return the digest of a JSON value, regardless of the order of its keys and of white space.

    Args:
        value: plain values.
        owner: whose it is.
    """
    return _digest_of_parsed(json.loads(json.dumps(value)), owner)


def _digest_of_parsed(value: Any, owner: str) -> str:
    """Return the digest of a JSON value that `json.loads` gave."""
    text = json.dumps([owner, value], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:HEX]


def signed(record: Mapping[str, Any], owner: str = "") -> dict[str, Any]:
    """Return a record with its digest as the last key; an existing digest is replaced."""
    content = {key: value for key, value in record.items() if key != DIGEST}
    return content | {DIGEST: digest_of(content, owner)}


def fits(record: Mapping[str, Any], owner: str = "") -> bool | None:
    """Return whether a record is as it was written; None: it carries no digest.

    Args:
        record: as `json.loads` gave it.
        owner: whose it is.
    """
    if DIGEST not in record:
        return None
    return record[DIGEST] == _digest_of_parsed({key: value for key, value in record.items() if key != DIGEST}, owner)


def run_digest(identity: Mapping[str, Any]) -> str:
    """Return the digest of a run's identity, which every file of the run carries."""
    return digest_of({key: value for key, value in identity.items() if key != RECORDED})
