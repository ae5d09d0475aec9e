"""Licences of rows and data sets, spelt one way: lower-case identifiers in the manner of SPDX (`cc-by-sa-4.0`)."""

import re
from pathlib import Path
from typing import Any

import yaml

SPELLINGS = {
    "apache": "apache-2.0", "apache2": "apache-2.0", "apache-2": "apache-2.0", "apache2.0": "apache-2.0",
    "asl-2.0": "apache-2.0", "mit-x11": "mit", "expat": "mit",
    "cc0": "cc0-1.0", "cc-0": "cc0-1.0", "cc-zero": "cc0-1.0", "cc0-1.0-universal": "cc0-1.0", "cc-0-1.0": "cc0-1.0",
    "bsd-2": "bsd-2-clause", "bsd-3": "bsd-3-clause", "new-bsd": "bsd-3-clause", "simplified-bsd": "bsd-2-clause",
    "gpl3": "gpl-3.0", "gplv3": "gpl-3.0", "gpl-3": "gpl-3.0", "gpl2": "gpl-2.0", "gplv2": "gpl-2.0",
    "gpl-2": "gpl-2.0", "lgpl3": "lgpl-3.0", "lgplv3": "lgpl-3.0", "lgpl-3": "lgpl-3.0",
    "agpl3": "agpl-3.0", "agplv3": "agpl-3.0", "agpl-3": "agpl-3.0",
    "mpl2": "mpl-2.0", "mpl-2": "mpl-2.0", "mozilla-public-2.0": "mpl-2.0",
    "odc-by-1.0": "odc-by", "odbl-1.0": "odbl", "openrail-m": "openrail",
}  # fmt: skip  # after the folding of `normalised_licence`; families and parts as a hub's data set cards spell them
TOGETHER = " and "  # between the licences of a row that was made from several
CREATIVE_COMMONS = (
    ("creative-commons", "cc"), ("attribution", "by"), ("non-commercial", "nc"), ("noncommercial", "nc"),
    ("share-alike", "sa"), ("sharealike", "sa"), ("no-derivatives", "nd"), ("noderivatives", "nd"), ("noderivs", "nd"),
)  # fmt: skip
FILLERS = re.compile(r"\b(?:the|license|licence|licensed|version|software|foundation|international|unported|generic)\b")
CC_ADDRESS = re.compile(r"creativecommons\.org/(licenses|publicdomain)/([a-z-]+)/(\d\.\d)")
CC_PARTS = re.compile(r"cc-?((?:by|nc|sa|nd)(?:-?(?:by|nc|sa|nd))*)(?:-?v?(\d(?:\.\d)?))?")
VERSION = re.compile(r"(?<=[a-z-])v(?=\d)")
HEADER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
HEADER_CHARS = 100_000  # cards list every split and feature before the licence at times


def normalised_licence(text: str) -> str:
    """`text` as a lower-case identifier: "Apache 2.0" and "apache-2.0" are `apache-2.0`.

    What is not recognised stays as it is, lower-cased and trimmed.
    """
    plain = " ".join(text.lower().split())
    if address := CC_ADDRESS.search(plain):
        kind, parts, version = address.groups()
        return f"cc0-{version}" if kind == "publicdomain" and parts == "zero" else f"cc-{parts}-{version}"
    folded = re.sub(r"[\s_,()/-]+", "-", FILLERS.sub(" ", plain)).strip("-.")
    for long, short in CREATIVE_COMMONS:
        folded = folded.replace(long, short)
    if parts := CC_PARTS.fullmatch(folded):
        return _creative_commons(*parts.groups())
    folded = VERSION.sub("", folded)
    named = SPELLINGS.get(folded, folded)
    return named if IDENTIFIER.fullmatch(named) else plain


IDENTIFIER = re.compile(
    r"apache-[12]\.[01]|mit|mit-0|isc|zlib|wtfpl|unlicense|unknown|other|bsd(?:-[234]-clause)?|cc0-1\.0|cc|odc-by|odbl|pddl"
    r"|(?:a|l)?gpl(?:-[123]\.[01])?(?:-only|-or-later)?|mpl-[12]\.[01]|epl-[12]\.0|eupl-1\.[12]|afl-3\.0|artistic-2\.0"
    r"|bsl-1\.0|ms-pl|ncsa|openrail|bigscience-openrail|cdla-(?:permissive|sharing)-[12]\.0|gfdl(?:-1\.[123])?"
)


def card_licence(folder: Path) -> str | None:
    """The licence that the card of a data set folder (`README.md` with a YAML header) names; None without one.

    A card that cannot be read names none: it is prose beside the data, and no reason to refuse them.
    """
    try:
        with (folder / "README.md").open(encoding="utf-8", errors="replace") as card:
            header = HEADER.match(card.read(HEADER_CHARS))
        found = yaml.safe_load(header.group(1)) if header else None
    except (OSError, ValueError, RecursionError, yaml.YAMLError):  # ValueError: a date like 2024-13-45
        return None
    stated = found.get("license", found.get("licence")) if isinstance(found, dict) else None
    text = first_text(stated)
    return None if text is None else normalised_licence(text)


def first_text(value: Any) -> str | None:
    """`value`, or the first of it where it is a list, trimmed; None where that is no text or blank."""
    first = value[0] if isinstance(value, list) and value else value
    return first.strip() or None if isinstance(first, str) else None


def _creative_commons(parts: str, version: str | None) -> str:
    named = [part for part in ("by", "nc", "sa", "nd") if part in re.findall("by|nc|sa|nd", parts)]
    number = [] if version is None else [version if "." in version else f"{version}.0"]
    return "-".join(["cc", *named, *number])
