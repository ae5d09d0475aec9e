"""What a recipe can be asked for under Prefect, by the command that asks."""

from collections.abc import Callable
from dataclasses import dataclass

from flows import evaluate, race
from flows.advice import advise
from flows.advice.outcome import AdviceOutcome
from flows.outcome import Outcome, RaceOutcome
from flows.recipes import Recipe
from flows.scoring import scorers
from flows.scoring.outcome import ScorerOutcome
from flows.synth import job
from flows.synth.outcome import SynthOutcome


@dataclass(frozen=True, slots=True)
class Job:
    """`check` raises `InputError` for what is known to be wrong before work starts; `work` does it, as `race` does."""

    check: Callable[[Recipe], None]
    work: Callable[..., Outcome]
    outcome: type[Outcome]


RACE = Job(race.check_race, race.race, RaceOutcome)
JOBS = {
    "run": RACE,
    "demo": RACE,
    "scheduled": RACE,
    "evaluate": Job(evaluate.check, evaluate.evaluate, RaceOutcome),
    "advise": Job(advise.check, advise.advise, AdviceOutcome),
    "synth": Job(job.check, job.synth, SynthOutcome),
    "scorers": Job(scorers.check, scorers.scorers, ScorerOutcome),
}
