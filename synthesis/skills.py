"""The table of skills. A new skill is one `Skill` value in its file and one line here."""

from collections.abc import Mapping

from synthesis.letters import LETTER_SKILLS
from synthesis.numbers import NUMBER_SKILLS
from synthesis.reading import READING_SKILLS
from synthesis.skill import Skill

SKILLS: Mapping[str, Skill] = {skill.name: skill for skill in (*LETTER_SKILLS, *NUMBER_SKILLS, *READING_SKILLS)}
