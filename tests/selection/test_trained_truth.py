"""What is trained before the tables of known truth, and the sweep over growing pools."""

from itertools import pairwise

import numpy as np
import pytest

from benchmarks import bench_sweep, trained_here, truth
from warehouse.errors import InputError


def test_the_stand_in_for_a_judge_grades_what_it_wrote():
    replies = list(trained_here.better(1))
    assert len(replies) == 4 * trained_here.REPLIES
    for right, chatter, wrong, other in zip(*(replies[i::4] for i in range(4)), strict=True):
        assert [each.grade for each in (right, chatter, wrong, other)] == [6, 4, 2, 1]
        assert len({each.asked for each in (right, chatter, wrong, other)}) == 1
        assert right.reply in chatter.reply
        assert wrong.reply != right.reply
    asked = list(trained_here.harder(1))
    assert [each.grade for each in asked[:6]] == [1, 2, 3, 4, 5, 6]
    assert all(later.asked.startswith(each.asked) for each, later in pairwise(asked[:6]))


def test_what_was_trained_is_made_once_and_whole(tmp_path):
    made = []
    folder = trained_here.once(tmp_path / "a", lambda out: made.append(out.mkdir(exist_ok=True)))
    trained_here.once(folder, lambda out: pytest.fail("made again"))
    assert len(made) == 1
    with pytest.raises(KeyError):
        trained_here.once(tmp_path / "b", lambda out: {}["stopped"])
    assert not (tmp_path / "b").exists()


def test_the_damaged_skills_are_those_that_lost_most(monkeypatch):
    lost = {skill: (1.0, 1.0 - place / 20) for place, skill in enumerate(truth.SKILLS)}
    monkeypatch.setattr(truth, "damage", lambda folder, seed: trained_here.Damage(folder, folder, lost))
    made = truth.damaged_skills(0)
    hurt = truth.SKILLS[-truth.HURT :]
    assert made.worth([each for each in made.pool if each.meta["skill"] in hurt]) == 1
    assert made.worth(made.pool) == pytest.approx(truth.HURT / len(truth.SKILLS))


# the sweep


def test_a_sweep_of_small_pools_reads_shards_and_says_what_each_took(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_sweep, "SHARD", 300)
    bench_sweep.write(tmp_path, 700)
    ids = bench_sweep.ids_of(700)
    assert len(set(ids.tolist())) == 700
    assert np.array_equal(bench_sweep.ids_of(500), ids[:500])
    rows = bench_sweep.SignalStore(tmp_path).read(bench_sweep.VECTORS, ids)
    assert rows.shape == (700, bench_sweep.D)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert not np.allclose(rows[:300], rows[300:600])
    found = bench_sweep.cost(tmp_path, "k_center", 500)
    assert min(found.cpu, found.wall) > 0
    assert found.memory >= 0


def test_a_sweep_wants_room(tmp_path):
    with pytest.raises(InputError, match="GB free"):
        bench_sweep.check_disk(tmp_path, 10**12)
