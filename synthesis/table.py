"""The table of synthesizers. A new one is one file and one line here."""

from collections.abc import Callable

from synthesis.back_translation import BackTranslation
from synthesis.dart import Dart
from synthesis.dynosaur.tables import Dynosaur
from synthesis.eda import Eda
from synthesis.evol import Evol
from synthesis.graded import Graded
from synthesis.grape_collect import GrapeCollect
from synthesis.length_curation import LongOutput
from synthesis.matched import Matched
from synthesis.open_recipe import OpenRecipe
from synthesis.protocol import Synthesizer
from synthesis.r_tuning import RTuning
from synthesis.s3ft import S3FT
from synthesis.sap import AskFromPassage
from synthesis.self_instruct.synthesizer import SelfInstruct
from synthesis.self_samples import SelfSamples
from synthesis.taco import Taco
from synthesis.think_patterns import ThinkPatterns
from synthesis.tint import Tint
from synthesis.world import World

SYNTHESIZERS: dict[str, Callable[..., Synthesizer]] = {
    "back_translation": BackTranslation,
    "dart": Dart,
    "deita_grades": Graded,
    "dynosaur": Dynosaur,
    "eda": Eda,
    "evol": Evol,
    "grape_collect": GrapeCollect,
    "long_output": LongOutput,
    "matched": Matched,
    "open_recipe": OpenRecipe,
    "r_tuning": RTuning,
    "s3ft": S3FT,
    "sap": AskFromPassage,
    "self_instruct": SelfInstruct,
    "self_samples": SelfSamples,
    "taco": Taco,
    "think_patterns": ThinkPatterns,
    "tint": Tint,
    "world": World,
}
