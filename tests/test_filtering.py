"""Filtering: the rows that pandas would keep, and nothing but expressions is ever run."""

from contextlib import suppress

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sureloc.analysis.filtering import columns_of, rows_that_satisfy
from sureloc.errors import InputError

NUMBERS = ("frame", "x_nm", "sigma_x_nm", "p_exists")


def example(rows=60):
    rng = np.random.default_rng(1)
    table = pd.DataFrame(
        {
            "frame": rng.integers(0, 9, rows),
            "x_nm": rng.normal(0, 20, rows).round(),
            "sigma_x_nm": rng.uniform(0, 40, rows),
            "p_exists": rng.random(rows),
            "trusted": rng.random(rows) < 0.5,
            "reason": rng.choice(["", "out of focus", "crowded"], rows),
        }
    )
    table.loc[3, "sigma_x_nm"] = np.nan
    table.loc[4, "sigma_x_nm"] = np.inf
    return table


TABLE = example()


def numbers():
    leaf = st.sampled_from(NUMBERS) | st.integers(-30, 30).map(str) | st.floats(0, 30).map(repr)

    def grown(inner):
        return st.one_of(
            st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"({' '.join(t)})"),
            inner.map(lambda a: f"(-{a})"),
            inner.map(lambda a: f"abs({a})"),
            inner.map(lambda a: f"sqrt({a})"),
        )

    return st.recursive(leaf, grown, max_leaves=5)


def truths():
    # Of plain numbers pandas makes Python's, whose "~" is another "not": every side names a column.
    side = numbers().map("({} + 0 * frame)".format)
    comparison = st.tuples(
        side, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), numbers()
    ).map(" ".join)
    chained = st.tuples(side, st.sampled_from(["<", "<="]), side, numbers()).map(
        lambda t: f"{t[0]} {t[1]} {t[2]} > {t[3]}"
    )
    leaf = comparison | chained | st.just("trusted")

    def grown(inner):
        return st.one_of(
            st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(
                lambda t: f"({' '.join(t)})"
            ),
            inner.map(lambda a: f"(not ({a}))"),
        )

    return st.recursive(leaf, grown, max_leaves=6)


@given(truths())
@settings(max_examples=120, deadline=None)
def test_rows_are_those_that_pandas_keeps(expression):
    # float64 throughout: pandas would count in whole numbers where both sides are.
    floats = TABLE.astype(dict.fromkeys(NUMBERS, "float64"))
    with np.errstate(all="ignore"):
        try:
            expected = floats.eval(expression, engine="python")
        except ZeroDivisionError:  # two plain numbers, which pandas leaves to Python
            return
    expected = np.broadcast_to(np.asarray(expected), (len(TABLE),))
    np.testing.assert_array_equal(rows_that_satisfy(TABLE, expression), expected)


@pytest.mark.parametrize(
    ("expression", "same"),
    [
        ("sigma_x_nm < 20 and p_exists > 0.9", lambda t: (t.sigma_x_nm < 20) & (t.p_exists > 0.9)),
        ("0.2 <= p_exists < 0.4 < x_nm", lambda t: t.p_exists.between(0.2, 0.4) & (t.x_nm > 0.4)),
        ("not trusted", lambda t: ~t.trusted),
        ("trusted == False", lambda t: ~t.trusted),
        ("reason == 'crowded' or frame == 3", lambda t: (t.reason == "crowded") | (t.frame == 3)),
        ("max(x_nm, sigma_x_nm, 3) < 20", lambda t: t.x_nm.combine(t.sigma_x_nm, np.fmax) < 20),
        ("x_nm ** 2 + sigma_x_nm ** 2 < 15 ** 2", lambda t: np.hypot(t.x_nm, t.sigma_x_nm) < 15),
        ("True", lambda t: t.frame > -1),
        ("p_exists > 1 / 0", lambda t: t.frame < 0),
    ],
)
def test_the_examples(expression, same):
    expected = same(TABLE).to_numpy()
    if expression.startswith("max"):
        expected = expected & TABLE.sigma_x_nm.notna().to_numpy()  # NaN is no maximum below 20
    np.testing.assert_array_equal(rows_that_satisfy(TABLE, expression), expected)


def test_what_is_kept_and_its_contrary_make_the_table():
    kept = rows_that_satisfy(TABLE, "sigma_x_nm < 20")
    left = rows_that_satisfy(TABLE, "not sigma_x_nm < 20")
    assert (kept ^ left).all()
    assert not kept[3]
    assert left[3]  # a width that is not known is not below 20


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("sigma_x < 20", "no column 'sigma_x' (did you mean sigma_x_nm?); it has"),
        ("zzz < 20", "it has frame, x_nm, sigma_x_nm"),
        ("p_exists > 0.5 & trusted", "write 'and'"),
        ("~trusted", "write 'not'"),
        ("trusted && trusted", "Write 'and', 'or' and 'not'"),
        ("frame = 3", "=="),
        ("frame is 3", "write '=='"),
        ("x_nm", "gives a number"),
        ("'a'", "gives a text"),
        ("trusted < 3", "compares true or false with a number"),
        ("reason < 'b'", "compare numbers with numbers"),
        ("x_nm and trusted", "'x_nm' is a number where"),
        ("sqrt(1, 2) < 3", "takes one"),
        ("sqr(x_nm) < 3", "is not allowed in an expression (did you mean sqrt?)"),
        ("max(x_nm) < 3", "takes two or more"),
        ("x_nm < 1" + "0" * 400, "too large"),
        ("", "cannot be read"),
        ("x_nm < 3 AND y_nm < 4", "near 'AND y_nm < 4'). Write 'and', 'or' and 'not'"),
        ("x_nm < 3 || y_nm < 4", "near '| y_nm < 4'). Write 'and', 'or' and 'not'"),
        ("(x_nm < 3) and", "at the end"),
        ("x_nm < ", "cannot be read"),
        ("x_nm < 3\0", "cannot be read"),
        ("(" * 900 + "x_nm" + ")" * 900 + " < 3", "cannot be read"),
        ("not " * 480 + "trusted", "nested too deeply"),
        ("x_nm < 3 or " * 300 + "trusted", "characters"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(expression, words):
    with pytest.raises(InputError) as refusal:
        rows_that_satisfy(TABLE, expression)
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('true')",
        "x_nm.__class__ == 3",
        "(lambda: True)()",
        "[x_nm for x_nm in (1, 2)]",
        "x_nm[0] < 3",
        "f'{x_nm}' == 'a'",
        "(frame := 3) < 4",
        "open('a') == 3",
        "abs(a=3) < 3",
        "max(*(1, 2)) < 3",
        "x_nm in (1, 2)",
        "x_nm < 3j",
        "x_nm == None",
        "b'a' == b'a'",
        "trusted if trusted else trusted",
        "x_nm % 3 < 1",
        "x_nm @ x_nm < 3",
    ],
)
def test_nothing_else_of_python_is_understood(expression):
    with pytest.raises(InputError, match=r"not allowed|no column|it takes two"):
        rows_that_satisfy(TABLE, expression)


@given(st.text(max_size=60))
@settings(max_examples=100, deadline=None)
def test_any_text_gives_rows_or_a_refusal(text):
    with suppress(InputError):
        assert rows_that_satisfy(TABLE, text).shape == (len(TABLE),)


def test_the_columns_of_an_expression():
    assert columns_of("abs(x_nm) < 3 and not trusted or x_nm > 4") == ["trusted", "x_nm"]
