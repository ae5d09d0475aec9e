"""The closed word lists that problems are drawn from. Lower-case words are single tokens of winnow-tiny."""


def listed(text: str) -> tuple[str, ...]:
    return tuple(text.split())


THINGS = listed(
    "lamp box cup chair table door book pen coat shoe hat bag ball bell boat bread brush bucket candle card carpet "
    "clock comb curtain desk drum fan fork glass glove hammer jar kettle key knife ladder mirror nail needle oven pan "
    "pillow plate pot radio ring rope saw scarf shelf spoon stamp stool tent towel toy tray vase wheel whistle basket "
    "bench blanket bottle bowl button cake camera"
)
WORDS = listed(
    "sun moon star rain snow wind fire stone sand leaf tree grass river lake sea hill road bridge house farm bird "
    "fish horse cow sheep goat dog cat mouse wolf fox bear lion apple plum pear lemon onion rice salt milk tea honey "
    "corn gold iron silk wool wood clay paper glue soap oil paint red blue green black white brown grey pink dark "
    "light warm cold soft hard fast slow tall short old new"
)
NAMES = listed(
    "ann bob carl dora emma fred gina hugo ida jack kate leo mary nick olga paul rosa sam tina umar vera will zoe "
    "adam bella cora dan eva frank grace"
)
CITIES = listed("paris rome oslo cairo lima delhi tokyo berlin madrid vienna dublin athens lisbon prague seoul quito")
DAYS = listed("monday tuesday wednesday thursday friday saturday sunday")
LABELS = listed("red blue green black white brown grey pink gold tall short old new warm cold soft hard fast slow")
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

CONSONANTS = "BCDFGHKLMNPRSTVZ"
VOWELS = "AEIOU"
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
