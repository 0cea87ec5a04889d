"""Names of classes drawn at random: a name is its column and back, and targets of rows are rows of targets."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seewhy.engine.targets.classes import Counterfactual, Logit, Margin, Probability, Regression
from seewhy.engine.targets.contrasts import LogOdds
from seewhy.engine.targets.names import ClassNames
from seewhy.engine.targets.numbers import Numbers
from seewhy.engine.targets.resolve import one_each, part_of, resolve
from seewhy.engine.targets.rows import rows_of
from seewhy.engine.targets.target import Target

RANDOM = settings(max_examples=50, deadline=None, derandomize=True)
LOGITS = Numbers("logits")
PLAIN = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=8)
NAMES = st.lists(PLAIN, min_size=2, max_size=6, unique=True)


@RANDOM
@given(NAMES)
def test_a_name_is_its_column_and_back(names: list[str]) -> None:
    known = ClassNames.of(names)
    assert known is not None
    assert [known.column(name) for name in names] == list(range(len(names)))
    assert [known.label(column) for column in range(len(names))] == names


@RANDOM
@given(NAMES, st.randoms(use_true_random=False))
def test_a_mapping_says_the_same_in_any_order(names: list[str], random: st.randoms) -> None:
    columns = list(range(len(names)))
    random.shuffle(columns)
    assert ClassNames.of({column: names[column] for column in columns}) == ClassNames.of(names)
    assert ClassNames.of({str(column): names[column] for column in columns}) == ClassNames.of(names)


@RANDOM
@given(NAMES, st.data())
def test_a_name_is_resolved_to_its_columns_score(names: list[str], data: st.DataObject) -> None:
    column = data.draw(st.integers(0, len(names) - 1))
    output = torch.randn(2, len(names), generator=torch.Generator().manual_seed(len(names)))
    (by_name,) = resolve(Logit(names[column]), output, ClassNames.of(names), numbers=LOGITS)
    (by_number,) = resolve(column, output, ClassNames.of(names), numbers=LOGITS)
    assert by_name.indices == by_number.indices == (column, column)
    assert torch.equal(by_name.score(output), output[:, column])
    assert torch.equal(by_number.score(output), output[:, column])


@st.composite
def targets(draw: st.DrawFn, images: int, classes: int) -> Target:
    column = st.integers(0, classes - 1)
    each = st.one_of(column, st.tuples(*[column] * images))
    return draw(
        st.one_of(
            st.builds(Logit, each),
            st.builds(Probability, each, st.just(LOGITS)),
            st.builds(Counterfactual, each),
            st.builds(LogOdds, each, st.just(LOGITS)),
            st.builds(Margin, each, each),
            st.builds(Regression, each, st.sampled_from([None, 0.5])),
        )
    )


@RANDOM
@given(st.data(), st.integers(1, 4), st.integers(1, 5))
def test_the_target_of_some_rows_is_some_rows_of_the_target(
    data: st.DataObject, images: int, classes: int
) -> None:
    target = data.draw(targets(images, classes))
    rows = data.draw(st.lists(st.integers(0, images - 1), min_size=1, max_size=6))
    output: Tensor = torch.arange(images * classes).view(images, classes).cos()
    expected = target(output)[rows]
    torch.testing.assert_close(rows_of(target, rows, images)(output[rows]), expected)
    torch.testing.assert_close(part_of(target, rows)(output[rows]), expected)
    assert one_each(target) in (None, images)
