"""Languages by their codes: their English names, and whether a text is in one of them."""

import pyarrow as pa
import regex

from synthesis.protected import without_protected
from warehouse.errors import InputError
from warehouse.language import UNDETERMINED, languages

NAMES = {
    "af": "Afrikaans", "am": "Amharic", "ar": "Arabic", "as": "Assamese", "az": "Azerbaijani", "be": "Belarusian",
    "bg": "Bulgarian", "bho": "Bhojpuri", "bn": "Bengali", "br": "Breton", "bs": "Bosnian", "ca": "Catalan",
    "ceb": "Cebuano", "cs": "Czech", "cy": "Welsh", "da": "Danish", "de": "German", "doi": "Dogri", "dz": "Dzongkha",
    "el": "Greek", "en": "English", "eo": "Esperanto", "es": "Spanish", "et": "Estonian", "eu": "Basque",
    "fa": "Persian", "fi": "Finnish", "fr": "French", "fy": "Frisian", "ga": "Irish", "gd": "Scottish Gaelic",
    "gl": "Galician", "gn": "Guarani", "gom": "Konkani", "gu": "Gujarati", "ha": "Hausa", "he": "Hebrew",
    "hi": "Hindi", "hr": "Croatian", "ht": "Haitian Creole", "hu": "Hungarian", "hy": "Armenian", "id": "Indonesian",
    "ig": "Igbo", "is": "Icelandic", "it": "Italian", "ja": "Japanese", "jv": "Javanese", "ka": "Georgian",
    "kk": "Kazakh", "km": "Khmer", "kn": "Kannada", "ko": "Korean", "ku": "Kurdish", "ky": "Kyrgyz", "la": "Latin",
    "lb": "Luxembourgish", "lg": "Luganda", "ln": "Lingala", "lo": "Lao", "lt": "Lithuanian", "lv": "Latvian",
    "mai": "Maithili", "mg": "Malagasy", "mi": "Maori", "mk": "Macedonian", "ml": "Malayalam", "mn": "Mongolian",
    "mr": "Marathi", "ms": "Malay", "mt": "Maltese", "my": "Burmese", "ne": "Nepali", "nl": "Dutch",
    "nn": "Norwegian Nynorsk", "no": "Norwegian", "ny": "Chichewa", "oc": "Occitan", "om": "Oromo", "or": "Odia",
    "pa": "Punjabi", "pl": "Polish", "ps": "Pashto", "pt": "Portuguese", "qu": "Quechua", "ro": "Romanian",
    "ru": "Russian", "rw": "Kinyarwanda", "sa": "Sanskrit", "sd": "Sindhi", "si": "Sinhala", "sk": "Slovak",
    "sl": "Slovenian", "sm": "Samoan", "sn": "Shona", "so": "Somali", "sq": "Albanian", "sr": "Serbian",
    "st": "Sesotho", "su": "Sundanese", "sv": "Swedish", "sw": "Swahili", "ta": "Tamil", "te": "Telugu", "tg": "Tajik",
    "th": "Thai", "ti": "Tigrinya", "tk": "Turkmen", "tl": "Tagalog", "tr": "Turkish", "tt": "Tatar", "ug": "Uyghur",
    "uk": "Ukrainian", "ur": "Urdu", "uz": "Uzbek", "vi": "Vietnamese", "xh": "Xhosa", "yi": "Yiddish", "yo": "Yoruba",
    "zh": "Chinese", "zu": "Zulu",
}  # fmt: skip
NOT_IDENTIFIED = frozenset({"bho", "ceb", "doi", "gom", "mai", "mi", "ny", "sd", "sm", "su", "ti", "yi"})
LETTERS = 20  # of prose; shorter texts are too little to tell a language by
CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # written without spaces: a character counts as a word
LETTER = r"[\p{L}\p{M}\p{N}\u200c\u200d]"  # vowel signs and joiners are parts of words in many scripts
WORD = regex.compile(rf"[{CJK}]|(?:(?![{CJK}]){LETTER})+(?:['’.-](?:(?![{CJK}]){LETTER})+)*")


def language_name(code: str) -> str:
    """The English name of a language. Raises `InputError` for a code that is not known."""
    if code not in NAMES:
        raise InputError(f"unknown language {code!r}; known codes: {', '.join(NAMES)}")
    return NAMES[code]


def language_of(text: str) -> str:
    """The ISO 639-1 code of the language of the prose in `text`; "und" where there is too little to tell."""
    prose = " ".join(without_protected(text).split())
    if sum(letter.isalpha() for letter in prose) < LETTERS:
        return UNDETERMINED
    return str(languages(pa.array([prose], pa.string()))[0])


def in_other_language(text: str, code: str) -> str | None:
    """The language of `text` where it is another one than `code`; None where it is not, or cannot be told.

    Languages of `NOT_IDENTIFIED` cannot be told from others, so a text is never found to be in another one.
    """
    if code in NOT_IDENTIFIED:
        return None
    found = language_of(text)
    return None if found in (code, UNDETERMINED) else found


def words(text: str) -> list[str]:
    """The words of `text`, each Chinese or Japanese character one of its own; signs are no words."""
    return list(WORD.findall(text))
