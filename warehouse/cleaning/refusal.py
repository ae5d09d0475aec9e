"""Replies that refuse the task, or speak of being a language model."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow.compute as pc

from warehouse.block import Block
from warehouse.cleaning.findings import Action, Findings, findings, of_pattern
from warehouse.cleaning.parameters import check_texts
from warehouse.facts import matches

BEGINNING = 200  # characters of a reply in which a refusal stands
HELP = (
    r"(?:assist|help(?: you| with|[.,!])|provide|fulfil|comply|answer|create|generate|write|engage|discuss"
    r"|do that|support|offer|complete|process|perform|access|browse|book|order|give (?:you|advice)|share"
    r"|make (?:a )?(?:reservation|booking|call|purchase))(?:\b|$)"
)
NO = r"(?:can['’]?t|can ?not)"
UNABLE = rf"(?:{NO}|am (?:not able|unable) to|am not (?:capable|programmed|designed)|(?:won['’]t|will not) be able to)"
LACKING = r"(?:do not|don['’]t) have (?:access|(?:the |any )(?:capability|capabilities|ability|access|external))"
SORRY = r"\bI(?:['’]m| am)? (?:truly |really |very |so )?(?:sorry|apologi[sz]e)"
REFUSALS = (
    rf"{SORRY}[^.!?\n]{{0,60}}\bI (?:\w+ )?(?:{UNABLE} |{LACKING})",
    rf"{SORRY}[^.!?\n]{{0,30}}\bI['’]m (?:not able|unable) to",
    rf"\bI(?: {UNABLE}|(?:['’]m| am) (?:not able|unable) to| must decline to| have to decline to) {HELP}",
    rf"\bI {NO} (?:fulfil|comply with) (?:this|that|your)",
    rf"\bit (?:is|would be) (?:unethical|inappropriate|illegal|against \w+ \w+)(?: and \w+)? (?:for me )?to {HELP}",
    rf"\b(?:Unfortunately|Sorry|Regrettably), (?:but )?I (?:\w+ )?(?:{NO}|am unable|am not able|don['’]t have access)",
    r"\bI (?:do not|don['’]t) have personal (?:opinions|beliefs|experiences|feelings|preferences)",
    r"\b(?:es tut mir leid|leider)\b[^.!?\n]{0,40}\b(?:kann ich|ich kann)\b[^.!?\n]{0,60}\bnicht\b",
    r"\b(?:je suis désolé|désolé)[^.!?\n]{0,40}\bje ne (?:peux|suis) pas\b",
    r"\blo siento\b[^.!?\n]{0,40}\bno (?:puedo|es posible)\b",
    r"\b(?:desculpe|sinto muito)\b[^.!?\n]{0,40}\bnão posso\b",
    r"\bmi dispiace\b[^.!?\n]{0,40}\bnon posso\b",
    r"извините[^.!?\n]{0,40}не могу|к сожалению, я не могу",
    r"(?:抱歉|对不起|很遗憾|對不起)[^。！？\n]{0,20}(?:无法|不能|無法)",
    r"(?:申し訳(?:ありません|ございません)|すみません)[^。\n]{0,40}(?:できません|お答えできません)",
    r"죄송(?:하지만|합니다)[^.\n]{0,40}(?:수 없|없습니다)",
)
MACHINE = r"(?:AI|artificial intelligence|language model|large language model)\b"
IDENTITIES = (
    rf"\bas an? (?:\w+ )?{MACHINE}",
    rf"\bI(?:['’]m| am) (?:just |only |simply )?an? (?:\w+ )?{MACHINE}",
    r"\bals (?:ein )?(?:KI|künstliche Intelligenz|Sprachmodell)\b",
    r"\ben tant qu['’](?:IA|intelligence artificielle|assistant IA)\b|\ben tant que modèle de langage",
    r"\bcomo (?:un |uma? )?(?:modelo de (?:lenguaje|linguagem)|IA\b|inteligencia artificial)",
    r"\bcome modello linguistico|как (?:языковая модель|искусственный интеллект|ИИ\b)",
    r"作为(?:一个|一名|一款)?(?:人工智能|AI|语言模型|大型语言模型)|AI言語モデルとして",
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Refusals in the first `BEGINNING` characters of a reply, and anywhere in it "as an AI language model".

    `phrases` are further texts that count as a refusal there, whatever their case.
    """

    phrases: Sequence[str] = ()

    reasons: ClassVar[tuple[str, ...]] = ("refusal", "ai_disclaimer")
    reads: ClassVar[tuple[str, ...]] = ()
    default_action: ClassVar[Action] = "drop"

    def __post_init__(self) -> None:
        check_texts("phrases", self.phrases)

    def __call__(self, block: Block) -> Findings:
        refusal = "(?i)" + "|".join([*REFUSALS, *map(re.escape, self.phrases)])
        identity = "(?i)" + "|".join(IDENTITIES)
        turns = block.reply_turns
        starts = pc.utf8_slice_codeunits(block.replies, 0, BEGINNING)
        refuses = matches(starts, refusal)
        disclaims = matches(block.replies, identity)
        return findings(
            [
                of_pattern("refusal", block, turns, starts, refuses, refusal),
                of_pattern("ai_disclaimer", block, turns, block.replies, disclaims, identity),
            ]
        )
