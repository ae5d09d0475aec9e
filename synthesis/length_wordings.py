"""How ten languages ask for a length, as regular expressions: the tables of `required_length`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Unit = Literal["words", "characters", "tokens", "paragraphs", "pages"]
UNITS: tuple[Unit, ...] = get_args(Unit)
DIGITS = r"\d{1,3}(?:[,.\u00a0\u202f’]\d{3})+(?!\d)|\d+(?:[.,]\d+)?(?:\s?[kK](?![a-zA-Z]))?"
HAN_SIGNS = "零〇一二两三四五六七八九十百千万"
HAN = rf"(?:\d+(?:[,，]\d{{3}})*(?:\.\d+)?\s*[百千万]?|[{HAN_SIGNS}]*[百千万][{HAN_SIGNS}]*)"
HAN_SMALL = r"(?:\d+|[一二两三四五六七八九十]+)"


@dataclass(frozen=True, slots=True)
class Wording:
    """How a language asks for a length, as regular expressions.

    units     what a unit is called
    least     "at least", before the number;  or_more  after the unit
    most      "at most", before the number;   or_less  after the unit
    to        between the two numbers of a range
    numbers   number words
    not_after what stands before words that are spoken of and not asked for: "the first 3 words"
    ends      what must follow the unit
    """

    units: Mapping[Unit, str]
    least: str
    most: str
    or_more: str
    or_less: str
    to: str
    numbers: Mapping[str, int]
    not_after: str = r"(?!)"
    ends: str = r"(?!\w)"

    def pattern(self) -> str:
        number = "|".join([DIGITS, *sorted(self.numbers, key=len, reverse=True)])
        unit = "|".join(f"(?P<{name}>{words})" for name, words in self.units.items())
        return (
            rf"(?<!\w)(?:(?P<least>{self.least})\s+|(?P<most>{self.most})\s+)?(?<![\w.,])"
            rf"(?:(?P<from>{number})\s*(?:[-–—~]|\b(?:{self.to})\b)\s*)?(?P<number>{number})(?P<plus>\+)?[\s-]*(?:{unit})"
            rf"{self.ends}(?:[\s,(-]*(?:(?P<or_more>{self.or_more})|(?P<or_less>{self.or_less})){self.ends})?"
        )


ENGLISH_NUMBERS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "twelve": 12, "fifteen": 15, "twenty": 20, "thirty": 30, "fifty": 50, "a hundred": 100, "one hundred": 100,
    "two hundred": 200, "three hundred": 300, "five hundred": 500, "a thousand": 1000, "one thousand": 1000,
    "two thousand": 2000, "three thousand": 3000, "five thousand": 5000, "ten thousand": 10000,
}  # fmt: skip
WORDINGS: Mapping[str, Wording] = {
    "en": Wording(
        {
            "words": r"words?", "characters": r"characters?|chars", "tokens": r"tokens?",
            "paragraphs": r"(?:[a-z-]{1,30}\s)?paragraphs?", "pages": r"pages?",
        },
        r"(?:at\s+least|(?:a\s+)?minimum(?:\s+of)?|no\s+(?:less|fewer|shorter)\s+than|more\s+than|over|upwards\s+of)",
        r"(?:at\s+most|(?:a\s+)?maximum(?:\s+of)?|(?:no|not)\s+(?:more|longer)\s+than|(?:less|fewer)\s+than|under|up\s+to"
        r"|within|below|not\s+exceed(?:ing)?)",
        r"or\s+(?:more|longer)|(?:at\s+)?minimum|min|at\s+least",
        r"or\s+(?:less|fewer)|(?:at\s+)?maximum|max|at\s+most",
        "to|and|or", ENGLISH_NUMBERS,
        r"(?:first|last|following|these|those|top|next|previous|any)",
    ),
    "de": Wording(
        {
            "words": r"W[öo]rter[n]?|Worte[n]?|Wort", "characters": r"Zeichen", "tokens": r"Tokens?",
            "paragraphs": r"Abs[äa]tz(?:e|en)?|Abs[äa]tze", "pages": r"Seiten?",
        },
        r"(?:mindestens|wenigstens|mehr\s+als|über|minimal)",
        r"(?:höchstens|maximal|bis\s+zu|weniger\s+als|unter|nicht\s+mehr\s+als)",
        r"oder\s+mehr|mindestens", r"oder\s+weniger|maximal|höchstens", "bis|und|oder",
        {"zwei": 2, "drei": 3, "vier": 4, "fünf": 5, "sechs": 6, "zehn": 10, "hundert": 100, "tausend": 1000},
    ),
    "fr": Wording(
        {
            "words": r"mots?", "characters": r"caractères?|signes", "tokens": r"tokens?|jetons?",
            "paragraphs": r"paragraphes?", "pages": r"pages?",
        },
        r"(?:au\s+moins|plus\s+de|(?:au\s+|un\s+)?minimum(?:\s+de)?)",
        r"(?:au\s+plus|moins\s+de|jusqu['’]à|pas\s+plus\s+de|(?:au\s+|un\s+)?maximum(?:\s+de)?)",
        r"ou\s+plus|(?:au\s+)?minimum|au\s+moins", r"ou\s+moins|(?:au\s+)?maximum|au\s+plus", "à|et|ou",
        {"deux": 2, "trois": 3, "quatre": 4, "cinq": 5, "six": 6, "dix": 10, "cent": 100, "mille": 1000},
    ),
    "es": Wording(
        {
            "words": r"palabras?", "characters": r"caracteres", "tokens": r"tokens?",
            "paragraphs": r"párrafos?", "pages": r"páginas?",
        },
        r"(?:al\s+menos|por\s+lo\s+menos|más\s+de|(?:como\s+|un\s+)?mínimo(?:\s+de)?)",
        r"(?:a\s+lo\s+sumo|menos\s+de|hasta|no\s+más\s+de|(?:como\s+|un\s+)?máximo(?:\s+de)?)",
        r"o\s+más|(?:como\s+)?mínimo|al\s+menos", r"o\s+menos|(?:como\s+)?máximo", "a|y|o",
        {"dos": 2, "tres": 3, "cuatro": 4, "cinco": 5, "seis": 6, "diez": 10, "cien": 100, "mil": 1000},
    ),
    "pt": Wording(
        {
            "words": r"palavras?", "characters": r"caracteres", "tokens": r"tokens?",
            "paragraphs": r"parágrafos?", "pages": r"páginas?",
        },
        r"(?:pelo\s+menos|no\s+mínimo|mais\s+de|(?:um\s+)?mínimo(?:\s+de)?)",
        r"(?:no\s+máximo|menos\s+de|até|não\s+mais\s+(?:de|que)|(?:um\s+)?máximo(?:\s+de)?)",
        r"ou\s+mais|no\s+mínimo", r"ou\s+menos|no\s+máximo", "a|e|ou",
        {"dois": 2, "duas": 2, "três": 3, "quatro": 4, "cinco": 5, "seis": 6, "dez": 10, "cem": 100, "mil": 1000},
    ),
    "it": Wording(
        {
            "words": r"parol[ae]", "characters": r"caratteri", "tokens": r"token",
            "paragraphs": r"paragraf[io]", "pages": r"pagin[ae]",
        },
        r"(?:almeno|più\s+di|(?:un\s+)?minimo(?:\s+di)?)",
        r"(?:al\s+massimo|meno\s+di|fino\s+a|non\s+più\s+di|(?:un\s+)?massimo(?:\s+di)?)",
        r"o\s+più|minimo|almeno", r"o\s+meno|(?:al\s+)?massimo", "a|e|o",
        {"due": 2, "tre": 3, "quattro": 4, "cinque": 5, "sei": 6, "dieci": 10, "cento": 100, "mille": 1000},
    ),
    "ru": Wording(
        {
            "words": r"слов[ао]?", "characters": r"символ(?:а|ов)|знак(?:а|ов)", "tokens": r"токен(?:а|ов)",
            "paragraphs": r"абзац(?:а|ев)", "pages": r"страниц[аы]?",
        },
        r"(?:не\s+менее|не\s+меньше|минимум|более|больше|свыше)",
        r"(?:не\s+более|не\s+больше|максимум|менее|меньше|до)",
        r"или\s+(?:более|больше)|минимум", r"или\s+(?:менее|меньше)|максимум", "до|и|или",
        {"два": 2, "две": 2, "три": 3, "четыре": 4, "пять": 5, "шесть": 6, "десять": 10, "сто": 100, "тысячу": 1000},
    ),
    "ko": Wording(
        {
            "words": r"단어", "characters": r"글자|자(?![녀동체신리료원])", "tokens": r"토큰",
            "paragraphs": r"문단|단락", "pages": r"페이지|쪽",
        },
        r"(?:최소|적어도)", r"(?:최대|많아도)", r"이상", r"이하|이내|미만", "에서|부터",
        {"두": 2, "세": 3, "네": 4, "다섯": 5},
        ends="",
    ),
}  # fmt: skip
EAST_ASIAN: Mapping[str, str] = {  # zh and ja: no spaces, and numbers in characters
    unit: r"(?:(?P<least>不少于|不低于|至少|最少|超过|少なくとも)|(?P<most>不超过|不多于|最多|至多|少于|最大))?"
    rf"[约大]*\s*(?:(?P<from>{number})\s*(?:字|文字)?\s*(?:[-–—~～]|到|至|から)\s*)?(?P<number>{number})\s*(?:个|個|の)?"
    rf"(?P<{unit}>{words})(?:[\s左右程度]*(?:(?P<or_more>以上)|(?P<or_less>以内|以下|之内)))?"
    for unit, number, words in (
        ("words", HAN, r"(?:汉字|漢字|文字|字(?![母符典段幕体])|词|詞|単語)"),
        ("characters", HAN, r"(?:字符|字元)"),
        ("tokens", HAN, r"(?:tokens?|トークン)"),
        ("paragraphs", HAN_SMALL, r"(?:段落|自然段|(?<![一1])段)"),
        ("pages", HAN_SMALL, r"(?:页|頁|ページ)"),
    )
}
