"""The filter on what names or reaches a person: addresses, telephone numbers, and numbers of cards and accounts."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from typing import Literal

from pipeline.data.filters.registry import Drop, Filter, register_filter
from pipeline.data.filters.texts import all_texts, with_texts
from pipeline.data.rows import Reason, Row
from pipeline.errors import ConfigError

# Nobody's, by RFC 2606 and RFC 6761.
RESERVED_DOMAINS = ("example", "invalid", "test", "localhost", "example.com", "example.net", "example.org")
# What follows an @ in the name of a file, and who is behind one in the address of a repository.
FILE_ENDINGS = frozenset({"png", "jpg", "jpeg", "gif", "svg", "webp", "js", "css", "py", "md", "html", "json", "yaml"})
NOBODY = frozenset({"git"})

_EMAIL = re.compile(
    r"(?<![\w.+-])[A-Za-z0-9_%+-][A-Za-z0-9._%+-]{0,63}@((?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24})(?![\w-])"
)
# Seven digits close together, four numbers with dots between them, or the beginning of an IPv6 address: without one of
# these there is no number of interest.
_SOME_DIGITS = re.compile(r"\d(?:(?:[ ().:-]{0,2}\d){6}|\d{0,2}(?:\.\d{1,3}){3}|[0-9A-Fa-f]{3}:[0-9A-Fa-f]{0,4}:)")
_CARD = re.compile(r"(?<![\w.,-])\d(?:[ -]?\d){12,18}(?![\w-]|[.,]\d)")
# Lengths and first digits of the issuers' numbers (ISO/IEC 7812): Visa, Mastercard, American Express, Discover, JCB.
_ISSUED = re.compile(
    r"4\d{15}(?:\d{3})?|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|6(?:011|5\d\d|4[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}"
)
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)")
_SSN = re.compile(r"(?<![\w-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")
_PHONE = re.compile(
    r"""(?<![\w.,/+$€£\#=-])(?:
        \+\d{1,3}(?:[ .-]?\(?\d{1,4}\)?){2,6}                                   # with the country's code
      | (?:1[ .-])?(?:\([2-9]\d\d\)[ ]?|[2-9]\d\d[ .-])[2-9]\d\d[ .-]\d{4}      # North America
      | 0\d{2,4}[ -]\d{3,4}[ -]\d{3,4}                                          # with a trunk 0
    )(?![\w-]|[.,:/]\d)""",
    re.VERBOSE,
)
_CALLED = re.compile(
    r"(?<!\w)((?:tele)?phone|tel|mobile|cell|fax|whatsapp|call|text|ring)(\W{1,3}(?:(?:me|us|is|at|on|no|number)\W{1,2}){0,3})"
    r"(\d{10,11})(?!\d)",
    re.IGNORECASE,
)
_BARE_NUMBER = re.compile(r"\d{10}")
_FICTIONAL = re.compile(r"\D*1?\D*\d{3}\D*555\D*01\d\d")  # set aside for fiction in North America
_IPV4 = re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{2,34}(?![\w:])")
_VERSION = re.compile(r"(?:\bv|version|release|build|firmware|section|chapter)[ :.]*$", re.IGNORECASE)

Mask = Callable[[str, "set[str]"], str]  # replaces what it finds and adds its kind to the set


@register_filter("personal_data")
def personal_data(
    *,
    action: Literal["drop", "mask", "keep"] = "drop",
    kinds: list[str] | None = None,
    allow: list[str] | None = None,
    reserved: bool = False,
) -> Filter:
    """No text holds an e-mail address, a telephone number, or the number of a card, an account or a person.

    Numbers of cards and accounts must pass their checksum. E-mail addresses set aside for examples, telephone numbers
    set aside for fiction and private network addresses are nobody's. Names and postal addresses are not looked for.

    Args:
        action: `drop` the row; `mask` what is found as <EMAIL>, <PHONE>, <CARD>, <IBAN>, <IP> or <SSN>; `keep` the row,
            which records that somebody decided so.
        kinds: Some of email, phone, card, iban, ip, ssn. None is all of them.
        allow: E-mail addresses and domains that are no person's, such as a help desk's own.
        reserved: Whether e-mail addresses and telephone numbers that are nobody's count too, as in data that was made
            with them in a person's place.
    """
    allowed = frozenset(entry.casefold().removeprefix("@") for entry in allow or [])
    nobodys = () if reserved else RESERVED_DOMAINS
    masks: dict[str, Mask] = {
        "iban": _mask_ibans,
        "card": _mask_cards,
        "email": lambda text, found: _mask_emails(text, found, allowed, nobodys),
        "ssn": _mask_social_security_numbers,
        "ip": _mask_network_addresses,
        "phone": lambda text, found: _mask_phones(text, found, reserved),
    }
    unknown = sorted(set(kinds or []) - set(masks))
    if unknown or kinds == []:
        raise ConfigError(
            f"personal_data.kinds {f'names {unknown[0]!r}' if unknown else 'is empty'}; "
            f"it may name {', '.join(sorted(masks))}."
        )
    chosen = [mask for kind, mask in masks.items() if kinds is None or kind in kinds]

    def masked(text: str, found: set[str]) -> str:
        if "@" in text or _SOME_DIGITS.search(text):
            for mask in chosen:
                text = mask(text, found)
        return text

    def check(row: Row) -> Row | Drop:
        found: set[str] = set()
        for text in all_texts(row):
            masked(text, found)
        if not found:
            return row
        clean = with_texts(row, lambda text: masked(text, found))
        return clean if action == "mask" else Drop(Reason.personal_data, f"holds: {', '.join(sorted(found))}", clean)

    return (lambda row: row) if action == "keep" else check


def luhn(digits: str) -> bool:
    """Whether a card number's last digit fits the others (ISO/IEC 7812-1)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def iban_checksum(iban: str) -> bool:
    """Whether an account number's check digits fit the rest (ISO 13616: letters as 10 to 35, modulo 97 is 1)."""
    return int("".join(str(int(character, 36)) for character in iban[4:] + iban[:4])) % 97 == 1


def _replace(pattern: re.Pattern[str], text: str, kind: str, found: set[str], is_one: Callable[..., bool]) -> str:
    def replaced(match: re.Match[str]) -> str:
        if not is_one(match):
            return match[0]
        found.add(kind)
        return f"<{kind.upper()}>"

    return pattern.sub(replaced, text)


def _mask_emails(text: str, found: set[str], allowed: frozenset[str], nobodys: Sequence[str]) -> str:
    def is_one(match: re.Match[str]) -> bool:
        address, domain = match[0].casefold(), match[1].casefold()
        local, _, _ = address.partition("@")
        ending = domain.rpartition(".")[2]
        is_nobodys = any(domain == name or domain.endswith(f".{name}") for name in nobodys)
        return not (is_nobodys or ending in FILE_ENDINGS or local in NOBODY or {address, domain} & allowed)

    return _replace(_EMAIL, text, "email", found, is_one) if "@" in text else text


def _mask_cards(text: str, found: set[str]) -> str:
    def is_one(match: re.Match[str]) -> bool:
        digits = re.sub(r"[ -]", "", match[0])
        return _ISSUED.fullmatch(digits) is not None and luhn(digits)

    return _replace(_CARD, text, "card", found, is_one)


def _mask_ibans(text: str, found: set[str]) -> str:
    def is_one(match: re.Match[str]) -> bool:
        iban = match[0].replace(" ", "")
        return 15 <= len(iban) <= 34 and iban_checksum(iban)

    return _replace(_IBAN, text, "iban", found, is_one)


def _mask_social_security_numbers(text: str, found: set[str]) -> str:
    return _replace(_SSN, text, "ssn", found, lambda match: True)


def _mask_network_addresses(text: str, found: set[str]) -> str:
    def is_one(match: re.Match[str]) -> bool:
        try:
            address = ipaddress.ip_address(match[0])
        except ValueError:
            return False
        return address.is_global and not _VERSION.search(match.string[max(0, match.start() - 20) : match.start()])

    for pattern, mark in ((_IPV4, "."), (_IPV6, ":")):
        if text.count(mark) > 1:
            text = _replace(pattern, text, "ip", found, is_one)
    return text


def _mask_phones(text: str, found: set[str], reserved: bool) -> str:
    def is_one(match: re.Match[str]) -> bool:
        num_digits = sum(map(str.isdigit, match[0]))
        return 8 <= num_digits <= 13 and (reserved or not _FICTIONAL.fullmatch(match[0]))

    text = _replace(_PHONE, text, "phone", found, is_one)
    if not _BARE_NUMBER.search(text):
        return text

    def called(match: re.Match[str]) -> str:
        found.add("phone")
        return f"{match[1]}{match[2]}<PHONE>"

    return _CALLED.sub(called, text)
