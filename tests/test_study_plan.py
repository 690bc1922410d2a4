"""A study's TOML is understood, or refused with one line that says where and why."""

from dataclasses import replace

import pytest

from harness import candidates
from harness.errors import BadInput, HarnessError, UnknownName
from harness.study import expression, loading, plan, schedule
from tests.studies import TEXT


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "corpus_hash", lambda name: f"hash of {name}")

    def read(text=TEXT):
        path = tmp_path / "study.toml"
        path.write_text(text)
        return loading.load(path)

    return read


def test_every_trial_is_planned_once(load):
    points = plan.points(load())
    names = [(p.recipe.name, p.recipe.corpus, p.protocol, p.recipe.seed) for p in points]
    assert len(set(map(plan.key, points))) == len(points) == 3 * 2 * 2 + 2 + 2
    assert ("attention:nano@int8", "characters", "windows", 2) in names
    assert ("mcsd:nano", "characters", plan.STEP_TIME, 1) in names
    rates = [p.recipe.learning_rate for p in points if p.recipe.corpus == "characters-tuning"]
    assert rates == [1e-3, 3e-3]


def test_a_part_of_a_study_is_chosen_by_name(load):
    study = load()
    assert {p.recipe.name for p in plan.points(study, "att*")} == {
        "attention:nano",
        "attention:nano@int8",
    }
    assert [p.protocol for p in plan.points(study, "pace")] == [plan.STEP_TIME] * 2
    with pytest.raises(UnknownName, match="nothing is named 'x'; there are: attention, mcsd"):
        plan.points(study, "x")


def test_variants_stand_on_the_side_of_what_they_vary(load):
    study = load(TEXT.replace('"mcsd:nano"', '"mcsd-paper:nano"', 1))
    assert [plan.side(arm) for arm in study.arm] == ["attention", "mcsd"]
    assert {p.rates for p in plan.points(study, "mcsd")} == {(1e-3, 3e-3)}


def test_an_arm_knows_the_grid_its_learning_rate_came_from(load):
    points = {p.recipe.name: p for p in plan.points(load()) if p.protocol == "windows"}
    assert points["mcsd:nano@int8"].rates == (1e-3, 3e-3)
    assert points["mcsd:nano@int8"].rates_corpus == "characters-tuning"
    assert points["attention:nano"].rates == ()


def test_a_tuning_is_of_the_same_candidate_before_it_is_of_the_same_side(load):
    other = TEXT[TEXT.index("[[tuning]]") : TEXT.index("[[timing]]")].replace("3e-3", "9e-3")
    other = other.replace('"mcsd"', '"fixed"').replace('"mcsd:nano"', '"mcsd-paper:nano"')
    text = TEXT.replace('"mcsd:nano"', '"mcsd-paper:nano"', 1).replace(
        "[[timing]]", other + "[[timing]]"
    )
    study = load(text)
    assert plan.tuning_of(study, study.arm[1]).name == "fixed"
    assert plan.tuning_of(study, replace(study.arm[1], tuned="mcsd")).name == "mcsd"
    assert plan.tuning_of(study, study.arm[0]) is None


def test_two_arms_of_one_recipe_share_their_trials(load):
    arms = TEXT[TEXT.index("[[arm]]") : TEXT.index("[[tuning]]")]
    twins = arms.replace('"attention"', '"other"').replace('"mcsd"', '"another"')
    again = TEXT.replace("[[tuning]]", f"{twins}\n[[tuning]]")
    assert set(map(plan.key, plan.points(load(again)))) == set(map(plan.key, plan.points(load())))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('value = "mcsd - attention"\nbar', 'value = "mcsd - other"\nbar', "unknown arm 'other'"),
        ('"mcsd@int8 - mcsd"', '"mcsd@int4 - mcsd"', "has no step 'int4'; it has int8"),
        ('"mcsd@int8 - mcsd"', '"mcsd@int8:carried"', "not scored by 'carried'"),
        ('"mcsd@int8 - mcsd"', '"mcsd@int8 -"', "ends too soon"),
        ('"mcsd@int8 - mcsd"', '"(mcsd"', "lacks a ')'"),
        ('"mcsd@int8 - mcsd"', '"mcsd mcsd"', "left over: 'mcsd'"),
        ('"<= 0.001"', '"< 0.001"', "a bar is written '<= -0.06' or '>= 0.95', not '< 0.001'"),
        ('steps = ["int8"]', 'steps = ["int9"]', "unknown step 'int9'"),
        ("seeds = 3", 'protocols = ["loudly"]', "unknown protocol 'loudly'"),
        ("seeds = 3", "seeds = 0", "needs a seed and a protocol"),
        ("seeds = 3", 'tuned = "x"', "unknown tuning 'x'"),
        ("seeds = 3", "sedes = 3", "arm.0.sedes"),
        ("hidden = 304", "hiden = 304", "there is no 'hiden' to set"),
        ('name = "mcsd"', 'name = "attention"', "two arms or timings of the name 'attention'"),
        ('name = "mcsd"', 'name = "MCSD"', "small letters"),
        ('theirs = "attention"', 'theirs = "nobody"', "unknown arm 'nobody'"),
        ('arms = ["mcsd", ', 'arms = ["x", ', "unknown arm 'x'"),
        ("rates = [1e-3, 3e-3]", "rates = []", "has no learning rates"),
    ],
)
def test_each_mistake_is_one_line_that_names_the_file(load, old, new, says):
    assert old in TEXT
    with pytest.raises(HarnessError) as error:
        load(TEXT.replace(old, new, 1))
    assert says in str(error.value)
    assert "study.toml" in str(error.value)
    assert "\n" not in str(error.value)


def test_expressions_pair_by_seed_and_bind_as_in_arithmetic():
    values = {
        "a": {0: 1.0, 1: 2.0, 2: 4.0},
        "b": {1: 10.0, 2: 20.0},
        "b.sliding": {1: 5.0, 2: 99.0},
    }

    def known(reference):
        assert not reference.step
        return values[".".join(filter(None, (reference.arm, reference.protocol)))]

    def worth(text):
        return expression.evaluate(expression.parse(text), known)

    assert worth("a - b") == {1: -8.0, 2: -16.0}
    assert worth("a - min(b, b:sliding)") == {1: -3.0, 2: -16.0}
    assert worth("2 + 3 * (4 - 1) / 3") == 5.0
    assert worth("10 - 2 - 3") == 5.0
    assert worth("a / 2 - 1") == {0: -0.5, 1: 0.0, 2: 1.0}


def test_a_name_in_an_expression_carries_step_protocol_and_figure():
    node = expression.parse("accuracy(hybrid@prune50+int8:windows) - other@int4")
    first, second = expression.references(node)
    assert first == expression.Reference("hybrid", "prune50+int8", "windows", "accuracy")
    assert second == expression.Reference("other", "int4")
    with pytest.raises(BadInput, match="takes the name of one arm"):
        expression.parse("accuracy(a - b)")


def test_what_derives_from_one_base_is_one_task_and_teachers_come_first(load, tmp_path):
    text = TEXT.replace('steps = ["int8"]', 'steps = ["int8", "distil", "distil+int8"]', 1)
    tasks = schedule.tasks(plan.points(load(text)), tmp_path / "rows")
    assert next(t.base.name for t in tasks if t.base) == "attention:micro"
    assert tasks[0].shared
    assert tasks[0].points == ()
    attention = [t for t in tasks if t.base and t.base.name == "attention:nano"]
    assert [len(t.points) for t in attention] == [4, 4, 4]
    assert all(t.needs == attention[0].needs and len(t.needs) == 1 for t in attention)
    assert [t.base for t in tasks[-2:]] == [None, None]
    assert all(map(schedule.alone, tasks[-2:]))
    assert not any(map(schedule.alone, tasks[:-2]))


def test_a_teacher_has_the_students_window_and_its_own_budget():
    taught = candidates.parse(
        "mcsd:nano@distil", corpus="characters", changes={"context": 64, "teacher_tokens": 5000}
    )
    teacher = candidates.teacher(taught)
    assert (teacher.name, teacher.shape.context, teacher.tokens) == ("mcsd:micro", 64, 5000)
    plain = candidates.parse("mcsd:nano", corpus="characters", changes={"context": 64})
    assert candidates.base(taught) == plain
    assert candidates.teacher(plain) is None
    alike = candidates.parse(
        "mcsd:nano", corpus="characters", changes={"context": 64, "teacher_tokens": 5000}
    )
    assert alike == replace(plain, teacher_tokens=None)
