"""What a model is shown before it asks: passages with an extractive summary and a question about it."""

from collections.abc import Mapping
from dataclasses import dataclass

from warehouse.errors import InputError


@dataclass(frozen=True, slots=True)
class Exemplar:
    """`summary` is copied from `passage`; `question` is in the language to ask in."""

    passage: str
    summary: str
    question: str

    def __post_init__(self) -> None:
        if not (self.passage.strip() and self.summary.strip() and self.question.strip()):
            raise InputError("an exemplar has an empty passage, summary or question; give all three")


@dataclass(frozen=True, slots=True)
class _Shown:
    passage: str
    summary: str
    questions: Mapping[str, str]


SHOWN = (
    _Shown(
        "Lake Orvane lies in a valley that a glacier carved. It is 94 metres deep and freezes over in most "
        "winters. The village of Tessel, on its northern shore, was founded in 1612 by salt traders who needed a "
        "place to rest their mules.",
        "The village of Tessel, on its northern shore, was founded in 1612 by salt traders who needed a place to rest "
        "their mules.",
        {
            "en": "Why was the village of Tessel on Lake Orvane founded?",
            "de": "Warum wurde das Dorf Tessel am Orvane-See gegründet?",
            "es": "¿Por qué se fundó el pueblo de Tessel, a orillas del lago Orvane?",
            "fr": "Pourquoi le village de Tessel, au bord du lac Orvane, a-t-il été fondé ?",
            "zh": "奥尔瓦内湖畔的特塞尔村是为什么建立的？",
        },
    ),
    _Shown(
        "The lantern beetle lives in rotting birch wood. Females lay about forty eggs in a crack of the bark, and the "
        "larvae hatch after nine days. Adults glow only for the first week of their lives, because the fat that feeds "
        "the light is used up by then.",
        "Adults glow only for the first week of their lives, because the fat that feeds the light is used up by then.",
        {
            "en": "Why do adult lantern beetles stop glowing after a week?",
            "de": "Warum hören erwachsene Laternenkäfer nach einer Woche auf zu leuchten?",
            "es": "¿Por qué los escarabajos linterna adultos dejan de brillar al cabo de una semana?",
            "fr": "Pourquoi les scarabées lanternes adultes cessent-ils de briller au bout d'une semaine ?",
            "zh": "成年灯笼甲虫为什么一周后就不再发光？",
        },
    ),
    _Shown(
        "A dry-stone bridge is built without mortar. Each stone is held by the weight of those above it, so the arch "
        "needs a wooden frame only until the last stone is in. Bridges of this kind have carried carts for three "
        "hundred years.",
        "Each stone is held by the weight of those above it, so the arch needs a wooden frame only until the "
        "last stone is in.",
        {
            "en": "Until when does the arch of a dry-stone bridge need its frame?",
            "de": "Bis wann braucht der Bogen einer Brücke ohne Mörtel sein Holzgerüst?",
            "es": "¿Hasta cuándo necesita el arco de un puente de piedra seca su armazón de madera?",
            "fr": "Jusqu'à quand l'arc d'un pont en pierre sèche a-t-il besoin de son cintre en bois ?",
            "zh": "干砌石桥的桥拱在什么时候之前需要木架支撑？",
        },
    ),
    _Shown(
        "The ferry between Halm and Sund sails six times a day in summer and twice a day in winter. The crossing "
        "takes 35 minutes. Bicycles travel free of charge, but a place for a car has to be booked the day before.",
        "Bicycles travel free of charge, but a place for a car has to be booked the day before.",
        {
            "en": "How early must drivers reserve on the ferry between Halm and Sund?",
            "de": "Wann muss man auf der Fähre zwischen Halm und Sund einen Platz für ein Auto buchen?",
            "es": "¿Cuándo hay que reservar plaza para un coche en el transbordador entre Halm y Sund?",
            "fr": "Quand faut-il réserver une place pour une voiture sur le ferry entre Halm et Sund ?",
            "zh": "在哈尔姆和松德之间的渡轮上，汽车的位置需要什么时候预订？",
        },
    ),
    _Shown(
        "Ada Verrin trained as a clockmaker before she turned to weather instruments. In 1874 she built a rain "
        "gauge that emptied itself and wrote the amount on a paper drum. It was copied by harbours along the coast.",
        "In 1874 she built a rain gauge that emptied itself and wrote the amount on a paper drum.",
        {
            "en": "What was special about the rain gauge of Ada Verrin?",
            "de": "Was war das Besondere am Regenmesser von Ada Verrin?",
            "es": "¿Qué tenía de especial el pluviómetro de Ada Verrin?",
            "fr": "Qu'avait de particulier le pluviomètre d'Ada Verrin ?",
            "zh": "阿达·韦林制造的雨量计有什么特别之处？",
        },
    ),
)
LANGUAGES = tuple(SHOWN[0].questions)
ACROSS, WITHIN = 5, 3  # exemplars of the paper for questions in another language than the passage, and in its own


def default_exemplars(language: str, passage_language: str) -> tuple[Exemplar, ...]:
    """Exemplars for questions in `language` about passages in English.

    Raises `InputError` for another pair of languages: there are none to show.
    """
    if passage_language != "en" or language not in LANGUAGES:
        raise InputError(
            f"there are no exemplars for questions in {language!r} about passages in {passage_language!r}, only for "
            f"questions in {', '.join(LANGUAGES)} about passages in en; give `exemplars`: three to five, each with "
            "passage, summary and question"
        )
    count = WITHIN if language == passage_language else ACROSS
    return tuple(Exemplar(shown.passage, shown.summary, shown.questions[language]) for shown in SHOWN[:count])
