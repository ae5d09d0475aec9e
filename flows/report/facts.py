"""All that a report says about one run, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.report.advice_given import Given, advice_of
from flows.report.book import open_book
from flows.report.calibrated import Calibrated, calibrated_of
from flows.report.cards import Card, cards_of
from flows.report.chosen import Overlap, Picks, ScoreSection, overlaps_of, picks_of, scores_of
from flows.report.failures import FailureSection, failures_of
from flows.report.growing import Growing, growing_of
from flows.report.head import Again, Head, again_of, head_of
from flows.report.loss_curves import TrainingSection, training_of
from flows.report.made import Made, made_of
from flows.report.mixture import Mixture, mixtures_of
from flows.report.results import Board, Group, boards, grouped
from flows.report.sliced import SliceSection, sliced_of
from flows.report.stages import Funnel, Timings, candidates, funnel_of, timings_of


@dataclass(frozen=True, slots=True)
class Facts:
    """One field per section; an empty tuple or None where the run has nothing of it."""

    head: Head
    advice: tuple[Given, ...]
    made: Made
    picks: Picks
    boards: tuple[Board, ...]
    groups: tuple[Group, ...]
    sliced: SliceSection | None
    growing: tuple[Growing, ...]
    calibrated: tuple[Calibrated, ...]
    scores: ScoreSection
    mixtures: Mapping[str, Mixture | None]
    overlaps: tuple[Overlap, ...]
    cards: tuple[Card, ...]
    funnel: Funnel
    timings: Timings
    training: TrainingSection
    failures: FailureSection | None
    again: Again

    @property
    def only_made(self) -> bool:
        """Whether the run's job was a synthesis: the one selection that it has takes every row."""
        return self.head.command == "synth"


def collect(home: Path, run_id: str | None) -> Facts:
    """Read everything from the warehouse of `home`. Raises `InputError` for a run that is not there."""
    with open_book(home, run_id) as book:
        head, picks, results = head_of(book), picks_of(book), boards(book)
        made, advice = made_of(book), advice_of(book)
        return Facts(
            head=head,
            advice=advice,
            made=made,
            picks=picks,
            boards=results,
            groups=grouped(results),
            sliced=sliced_of(book, results),
            growing=growing_of(book, results),
            calibrated=calibrated_of(book, results),
            scores=scores_of(book, picks),
            mixtures=mixtures_of(book, picks),
            overlaps=overlaps_of(book, picks, candidates(book)),
            cards=cards_of(book, picks),
            funnel=funnel_of(book),
            timings=timings_of(book),
            training=training_of(book, picks),
            failures=failures_of(book, results),
            again=again_of(head, picks, results, made.syntheses, advice, book),
        )
