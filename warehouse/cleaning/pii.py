"""Personal data and secrets: found by pattern, then checked as what they claim to be.

Examples in documentation are none: example.com, 555 numbers, private networks, the test numbers of card makers.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from warehouse.block import Block
from warehouse.cleaning.findings import Action, Findings, Found, findings, of_turns
from warehouse.cleaning.parameters import check_switch, check_texts
from warehouse.errors import InputError
from warehouse.facts import matches


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind: what matches `pattern` is a candidate; `real` says whether it is one, given what stands before it."""

    pattern: str  # means the same to RE2 and to Python
    real: Callable[[str, str], bool]


def is_address(found: str, before: str) -> bool:
    """An e-mail address that may reach someone: no domain kept for examples, no file name, no git remote."""
    name, _, domain = found.lower().rpartition("@")
    top = domain.rpartition(".")[2]
    reserved = domain.startswith(EXAMPLE_DOMAINS) or ".example." in domain or top in NO_TOP_LEVEL
    return not reserved and name not in NO_NAMES and not before.endswith(("/", ":", "="))


def is_phone(found: str, before: str) -> bool:
    """7 to 15 digits in the form of a telephone number, not one of those kept for fiction."""
    digits = re.sub(r"\D", "", found)
    national = digits[-10:]
    fiction = "555" in (national[:3], national[3:6]) or "34567" in digits or len(set(digits)) < 4
    return 8 <= len(digits) <= 15 and not fiction and not _within_number(before)


def is_public_ipv4(found: str, before: str) -> bool:
    """An IPv4 address of the public network, not a version number or a well-known resolver."""
    named = re.search(r"(?i)(?:version|release|firmware|\bv|section|chapter)[ .:=]*$", before)
    version = named or found.split(".").count("0") > 1
    return _is_global(found) and found not in WELL_KNOWN and not version and not _within_number(before)


def is_public_ipv6(found: str, before: str) -> bool:
    """An IPv6 address of the public network (2000::/3)."""
    return found[0] in "23" and _is_global(found) and not before.endswith(":")


def is_card(found: str, before: str) -> bool:
    """A card number: prefix and length of a maker, and the check digit (Luhn); no published test number."""
    digits = re.sub(r"\D", "", found)
    if not CARD_MAKERS.fullmatch(digits) or digits in TEST_CARDS or _within_number(before):
        return False
    doubled = [int(digit) * (1 + at % 2) for at, digit in enumerate(reversed(digits))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0 and len(set(digits)) > 2


def is_iban(found: str, before: str) -> bool:
    """An IBAN of 15 to 34 characters whose check digits fit (ISO 7064, mod 97); none of the published examples."""
    plain = found.replace(" ", "")
    if not 15 <= len(plain) <= 34 or plain in TEST_IBANS:
        return False
    return int("".join(str(int(letter, 36)) for letter in plain[4:] + plain[:4])) % 97 == 1


def is_ssn(found: str, before: str) -> bool:
    """A US social security number that may have been given out."""
    area, group, serial = found.split("-")
    possible = area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"
    return possible and found not in TEST_SSNS and not _within_number(before)


def is_secret(found: str, before: str) -> bool:
    """A key or token that is no obvious example."""
    return "EXAMPLE" not in found.upper() and (found.startswith("-----") or len(set(found)) > 8) and "xxxx" not in found


def _is_address(found: str) -> bool:
    try:
        ipaddress.ip_address(found)
    except ValueError:
        return False
    return True


def _is_global(found: str) -> bool:
    return _is_address(found) and ipaddress.ip_address(found).is_global


def _within_number(before: str) -> bool:
    """Whether what stands before shows that a number goes on to the left: `1.`, `3-`, `$`, `#`."""
    return re.search(r"[\d$#=/][-.,_:]?$|[-.,_/]$|\w$", before) is not None


BEFORE = 20  # characters before a candidate that are looked at
EXAMPLE_DOMAINS = (
    "example.",
    "test.",
    "domain.",
    "yourdomain.",
    "mydomain.",
    "company.",
    "email.",
    "mail.com",
    "site.",
)
NO_TOP_LEVEL = frozenset({
    "example", "test", "invalid", "localhost", "local", "png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "json",
    "py", "html", "txt", "pdf", "service", "timer",
})  # fmt: skip
NO_NAMES = frozenset(
    {"git", "user", "username", "your", "your.name", "name", "you", "me", "someone", "noreply", "no-reply"}
)
WELL_KNOWN = frozenset({"8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "1.2.3.4", "5.6.7.8", "123.45.67.89"})
CARD_MAKERS = re.compile(r"4\d{12}(?:\d{3})?|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|6(?:011|5\d\d)\d{12}|35\d{14}")
TEST_CARDS = frozenset({
    "4111111111111111", "4242424242424242", "4012888888881881", "4222222222222", "5555555555554444",
    "5105105105105100", "378282246310005", "371449635398431", "6011111111111117", "4000056655665556",
    "4532015112830366", "4539578763621486",
})  # fmt: skip
TEST_IBANS = frozenset({
    "GB82WEST12345698765432", "GB29NWBK60161331926819", "DE89370400440532013000", "FR1420041010050500013M02606",
    "FR7630006000011234567890189", "ES9121000418450200051332", "NL91ABNA0417164300", "IT60X0542811101000000123456",
    "BE68539007547034", "CH9300762011623852957", "DE75512108001245126199",
})  # fmt: skip
TEST_SSNS = frozenset({"123-45-6789", "078-05-1120", "219-09-9999", "987-65-4321"})
KINDS: Mapping[str, Kind] = {
    "pii_secret": Kind(
        r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{20,}|\bgh[pousr]_[A-Za-z0-9]{36,}"
        r"|\bgithub_pat_\w{50,}|\bglpat-[\w-]{20}|\bxox[abprs]-[\w-]{10,}|\bAIza[\w-]{35}|\bhf_[A-Za-z]{34}"
        r"|-----BEGIN (?:RSA |EC |DSA |OPENSSH |ENCRYPTED |PGP )?PRIVATE KEY(?: BLOCK)?-----",
        is_secret,
    ),
    "pii_card": Kind(r"\b\d{4}[ -]?\d{4,6}[ -]?\d{4,5}(?:[ -]?\d{4})?\b", is_card),
    "pii_iban": Kind(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", is_iban),
    "pii_ssn": Kind(r"\b\d{3}-\d{2}-\d{4}\b", is_ssn),
    "pii_phone": Kind(
        r"\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{2,4}(?:[ .-]?\d{2,4}){1,4}\b"
        r"|\(\d{3}\) ?\d{3}[-. ]\d{4}\b|\b\d{3}-\d{3}-\d{4}\b|\b\d{3}\.\d{3}\.\d{4}\b",
        is_phone,
    ),
    "pii_email": Kind(
        r"[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,24}\b", is_address
    ),
    "pii_ipv4": Kind(r"\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?:\.\d+)*\b", is_public_ipv4),
    "pii_ipv6": Kind(r"\b[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{3,35}[0-9A-Fa-f]", is_public_ipv6),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pii:
    """Of `kinds`: keys and tokens, card numbers, IBANs, US social security numbers, telephone numbers, e-mail
    addresses, public IP addresses. `private_addresses` counts IPv4 addresses of private networks too.

    The details name the kind and show two characters of what was found, never more.
    """

    kinds: Sequence[str] = tuple(KINDS)
    private_addresses: bool = False

    reasons: ClassVar[tuple[str, ...]] = tuple(KINDS)
    reads: ClassVar[tuple[str, ...]] = ()
    default_action: ClassVar[Action] = "flag"

    def __post_init__(self) -> None:
        check_texts("kinds", self.kinds, known=tuple(KINDS))
        check_switch("private_addresses", self.private_addresses)
        if not self.kinds:
            raise InputError(f"kinds is empty: the filter would do nothing; known kinds: {', '.join(KINDS)}")

    def __call__(self, block: Block) -> Findings:
        return findings([self._found(reason, block) for reason in KINDS if reason in self.kinds])

    def _found(self, reason: str, block: Block) -> Found:
        kind = KINDS[reason]
        real = is_any_ipv4 if reason == "pii_ipv4" and self.private_addresses else kind.real
        pattern = re.compile(kind.pattern, re.ASCII)
        likely = np.flatnonzero(matches(block.contents, kind.pattern))
        turns, details = [], []
        for turn, text in zip(likely.tolist(), block.contents.take(pa.array(likely)).to_pylist(), strict=True):
            candidates = ((at.group(), text[max(at.start() - BEFORE, 0) : at.start()]) for at in pattern.finditer(text))
            first = next((found for found, before in candidates if real(found, before)), None)
            if first is not None:
                turns.append(turn)
                details.append(masked(first))
        return of_turns(reason, block, np.array(turns, np.int64), details)


def is_any_ipv4(found: str, before: str) -> bool:
    """An IPv4 address of any network, or a public one."""
    return is_public_ipv4(found, before) or (_is_address(found) and ipaddress.ip_address(found).is_private)


def masked(found: str) -> str:
    """`found` with every letter and digit but the first two as `*`, at most 40 characters."""
    return found[:2] + re.sub(r"\w", "*", found[2:40])
