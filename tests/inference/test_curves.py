"""Measured curves: what is shipped, what a file may hold, what is refused."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jaxkinetic.inference import RetrievalCurve, list_models, load_baselines, load_curves, read_curves
from jaxkinetic.inference.data.curves import by_model

QA_MODELS = [
    "Claude-1.3",
    "Claude-1.3 (100K)",
    "GPT-3.5-Turbo",
    "GPT-3.5-Turbo (16K)",
    "MPT-30B-Instruct",
    "LongChat-13B (16K)",
    "Llama-2-70b-chat-hf",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("csv")


def written(folder: Path, text: str) -> Path:
    path = folder / "curve.csv"
    path.write_text(text, encoding="utf-8")
    return path


# The published curves ---------------------------------------------------------------------------------


def test_shipped_table_is_whole():
    curves = load_curves(task=None)
    assert len(curves) == 20
    assert sum(c.sources.size for c in curves) == 98
    assert {c.task for c in curves} == {"multi-document-qa", "key-value-retrieval"}
    assert list_models() == QA_MODELS
    assert list_models(task="key-value-retrieval") == ["mpt-30b-instruct", "longchat-13b-16k"]
    assert len(list_models(task=None)) == 9
    assert all("2307.03172" in c.origin or "lost-in-the-middle" in c.origin for c in curves)
    assert all(c.n_questions is not None for c in curves)


def test_shipped_values_are_those_of_the_tables():
    ten, twenty, thirty = load_curves("liu2024", model="MPT-30B-Instruct")
    assert [c.n_items for c in (ten, twenty, thirty)] == [10, 20, 30]
    np.testing.assert_array_equal(ten.sources, np.array([0.5, 4.5, 9.5]) / 10)
    np.testing.assert_array_equal(twenty.sources, np.array([0.5, 4.5, 9.5, 14.5, 19.5]) / 20)
    np.testing.assert_array_equal(thirty.sources, np.array([0.5, 4.5, 9.5, 14.5, 19.5, 24.5, 29.5]) / 30)
    np.testing.assert_allclose(twenty.accuracy, [0.537, 0.518, 0.522, 0.527, 0.563], rtol=1e-15)
    assert twenty.n_questions is not None
    assert set(twenty.n_questions) == {2655.0}
    (claude, *_) = load_curves(model="Claude-1.3")
    np.testing.assert_allclose(claude.accuracy, [0.629, 0.583, 0.597], rtol=1e-15)


def test_tasks_are_kept_apart():
    assert len(load_curves(task="key-value-retrieval")) == 2
    assert {c.task for c in load_curves()} == {"multi-document-qa"}
    assert load_curves(task="key-value-retrieval")[0].n_items == 140


@pytest.mark.parametrize(
    ("call", "known"),
    [
        (lambda: load_curves(model="GPT-9"), "MPT-30B-Instruct"),
        (lambda: load_curves(task="chess"), "key-value-retrieval"),
        (lambda: load_curves("nobody1999"), "liu2024"),
        (lambda: load_baselines("MPT-30B-Instruct", "nobody1999"), "liu2024"),
    ],
)
def test_unknown_names_list_the_known_ones(call, known):
    with pytest.raises(ValueError, match=known):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: load_curves(model="longchat-13b-16k"),
            "longchat-13b-16k has no curves of multi-document-qa, but of",
        ),
        (lambda: load_curves(model="LongChat 13B (16K)"), r"the nearest is LongChat-13B \(16K\)"),
        (lambda: load_curves(model="MPT-30b-instruct"), "may be MPT-30B-Instruct or mpt-30b-instruct: write"),
        (lambda: load_curves(task="key-value"), "the nearest is key-value-retrieval"),
        (lambda: load_baselines("claude"), "the nearest is Claude-1.3"),
    ],
)
def test_a_selection_of_nothing_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_names_are_found_in_any_case():
    (exact,) = load_curves(model="mpt-30b-instruct", task="Key-Value-Retrieval")
    assert (exact.name, exact.task) == ("mpt-30b-instruct", "key-value-retrieval")
    assert [c.name for c in load_curves("LIU2024", "claude-1.3")] == ["Claude-1.3"] * 3
    assert load_baselines("CLAUDE-1.3", "Liu2024") == load_baselines("Claude-1.3") != []


def test_control_characters_in_a_file_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("sigma,accuracy,model\n0.2,0.5,plain\n0.8,0.7,\x1b[31mred\n")
    with pytest.raises(ValueError, match=r"row 3: model must not hold control characters, but is '\\x1b\[31mred'"):
        read_curves(tmp_path / "a.csv")


def test_baselines_are_those_of_the_table():
    by_setting = {b.setting: b for b in load_baselines("MPT-30B-Instruct")}
    assert set(by_setting) == {"closed_book", "oracle"}
    assert by_setting["closed_book"].accuracy == pytest.approx(0.315, rel=1e-15)
    assert by_setting["closed_book"].n_questions == 2655
    assert load_baselines("LongChat-13B (16K)")[-1].accuracy == pytest.approx(0.834, rel=1e-15)


# One curve --------------------------------------------------------------------------------------------


def test_curve_is_sorted_with_all_its_columns():
    curve = RetrievalCurve([0.9, 0.1, 0.5], [0.3, 0.1, 0.2], [30, 10, 20])
    np.testing.assert_array_equal(curve.sources, [0.1, 0.5, 0.9])
    np.testing.assert_array_equal(curve.accuracy, [0.1, 0.2, 0.3])
    np.testing.assert_array_equal(curve.n_questions, [10, 20, 30])


def test_percents_become_fractions_and_fractions_stay():
    sources = [0.2, 0.4, 0.6]
    np.testing.assert_allclose(RetrievalCurve(sources, [0, 1, 50]).accuracy, [0, 0.01, 0.5], rtol=1e-15)
    np.testing.assert_array_equal(RetrievalCurve(sources, [0, 1, 0.5]).accuracy, [0, 1, 0.5])


def test_standard_error_is_binomial_and_never_zero():
    curve = RetrievalCurve([0.2, 0.5, 0.8], [0.0, 0.25, 1.0], 400)
    assert curve.standard_error[1] == pytest.approx(math.sqrt(0.25 * 0.75 / 400), rel=2e-3)
    # Half a question of 401 on either side.
    edge = 0.5 / 401
    np.testing.assert_allclose(curve.standard_error[[0, 2]], math.sqrt(edge * (1 - edge) / 400), rtol=1e-12)
    assert np.isnan(RetrievalCurve([0.2], [0.5]).standard_error).all()


def test_label_tells_model_and_length():
    assert RetrievalCurve([0.5], [0.5]).label == "curve"
    assert RetrievalCurve([0.5], [0.5], n_items=20, name="A").label == "A, 20 items"


@pytest.mark.usefixtures("as_installed")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (([], []), "non-empty"),
        (([0.1, 0.2], [0.1]), "one length"),
        (([[0.1], [0.2]], [[0.1], [0.2]]), "one length"),
        (([0.0, 0.5], [0.1, 0.2]), r"\(0, 1\]"),
        (([0.5, 1.1], [0.1, 0.2]), r"\(0, 1\]"),
        (([0.5, math.nan], [0.1, 0.2]), r"\(0, 1\]"),
        (([0.5, 0.5], [0.1, 0.2]), "repeat"),
        (([0.1, 0.5], [0.1, -0.2]), r"\[0, 100\]"),
        (([0.1, 0.5], [10, 100.1]), r"\[0, 100\]"),
        (([0.1, 0.5], [0.5, math.nan]), r"\[0, 100\]"),
        (([0.1, 0.5], [0.5, 50]), "all fractions or all percents"),
        (([0.1, 0.5], [0.1, 0.2], 0), "at least 1"),
        (([0.1, 0.5], [0.1, 0.2], [100, math.inf]), "at least 1"),
        (([0.1, 0.5], [0.1, 0.2], [100, 0]), "at least 1"),
    ],
)
def test_bad_curves_are_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        RetrievalCurve(*arguments)


# Files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "n_items", "sources", "accuracy", "questions"),
    [
        ("sigma,accuracy\n0.5,0.4\n0.1,0.6\n", None, [0.1, 0.5], [0.6, 0.4], None),
        ("position,accuracy,n_items\n0,0.4,4\n3,0.6,4\n", None, [0.125, 0.875], [0.4, 0.6], None),
        ("position,accuracy\n0,0.4\n3,0.6\n", 4, [0.125, 0.875], [0.4, 0.6], None),
        ("position,accuracy,n_items\n0,0.4,\n3,0.6,\n", 4, [0.125, 0.875], [0.4, 0.6], None),
        # The file knows better than the argument.
        ("position,accuracy,n_items\n0,0.4,4\n3,0.6,4\n", 9, [0.125, 0.875], [0.4, 0.6], None),
        ("sigma,accuracy\n0.1,40\n1,100\n", None, [0.1, 1.0], [0.4, 1.0], None),
        # All right is a fraction where the others are.
        ("sigma,accuracy\n0.1,0.5\n1,1\n", None, [0.1, 1.0], [0.5, 1.0], None),
        # Named percents are percents, however small.
        ("sigma,accuracy_percent\n0.1,0.4\n1,1\n", None, [0.1, 1.0], [0.004, 0.01], None),
        ("sigma,accuracy,n_questions\n0.1,0.4,7\n1,0.5,9\n", None, [0.1, 1.0], [0.4, 0.5], [7, 9]),
        ("sigma,accuracy,n_questions\n0.1,0.4,\n1,0.5,\n", None, [0.1, 1.0], [0.4, 0.5], None),
        ("\ufeffsigma,accuracy\r\n0.1,0.4\r\n\r\n1,0.5\r\n", None, [0.1, 1.0], [0.4, 0.5], None),
        (" sigma , accuracy,note\n0.1, 0.4,x\n 1,0.5,y\n", None, [0.1, 1.0], [0.4, 0.5], None),
        ("accuracy,sigma,position\n0.4,0.1,7\n0.5,1,8\n", None, [0.1, 1.0], [0.4, 0.5], None),
    ],
)
def test_columns(tmp_path, text, n_items, sources, accuracy, questions):
    curve = RetrievalCurve.from_csv(written(tmp_path, text), n_items)
    np.testing.assert_allclose(curve.sources, sources, rtol=1e-15)
    np.testing.assert_allclose(curve.accuracy, accuracy, rtol=1e-15)
    if questions is None:
        assert curve.n_questions is None
    else:
        np.testing.assert_array_equal(curve.n_questions, questions)


def test_rows_are_grouped_into_curves(tmp_path):
    text = (
        "model,task,n_items,position,accuracy,source\n"
        "A,qa,10,9,0.5,here\nB,qa,10,0,0.7,here\nA,qa,10,0,0.6,here\nA,qa,20,0,0.8,here\nA,kv,10,0,0.9,here\n"
    )
    path = written(tmp_path, text)
    curves = read_curves(path)
    assert [(c.name, c.task, c.n_items, c.origin) for c in curves] == [
        ("A", "qa", 10, "here"),
        ("B", "qa", 10, "here"),
        ("A", "qa", 20, "here"),
        ("A", "kv", 10, "here"),
    ]
    np.testing.assert_array_equal(curves[0].accuracy, [0.6, 0.5])
    with pytest.raises(ValueError, match=r"holds 4: A, 10 items; B, 10 items.*read_curves"):
        RetrievalCurve.from_csv(path)


def test_curves_go_together_by_model_and_task():
    names = [("A", "qa"), ("B", "qa"), ("A", "kv"), ("A", "qa")]
    curves = [
        RetrievalCurve([0.2, 0.5], [0.3, 0.4], n_items=i + 1, name=name, task=task)
        for i, (name, task) in enumerate(names)
    ]
    assert [[c.n_items for c in group] for group in by_model(curves)] == [[1, 4], [2], [3]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "column position or sigma and accuracy, but has none"),
        ("\n\n", "column position or sigma and accuracy"),
        ("sigma,accuracy\n", "must have rows"),
        ("sigma,precision\n0.1,0.2\n", "column accuracy, but has sigma, precision"),
        ("where,accuracy\n0.1,0.2\n", "column position or sigma"),
        ("position,accuracy\n0,0.2\n", "column n_items"),
        ("position,accuracy,n_items\n0,0.2,\n", "row 2: n_items is missing"),
        ("position,accuracy,n_items\n0,0.2,0\n", "n_items must be a positive integer"),
        ("position,accuracy,n_items\n0,0.2,2.5\n", "n_items must be a positive integer"),
        ("position,accuracy,n_items\n0,0.2,many\n", "n_items must be a number, but is 'many'"),
        ("position,accuracy,n_items\n0,0.2,5\n5,0.2,5\n", "row 3: position must be an integer from 0 to 4"),
        ("position,accuracy,n_items\n-1,0.2,5\n", "position must be an integer from 0 to 4"),
        ("position,accuracy,n_items\n0.5,0.2,5\n", "position must be an integer from 0 to 4"),
        ("sigma,accuracy\n0.1,0.2\n\n0.2\n", "row 4: accuracy must be a number, but is None"),
        ("sigma,accuracy\n0.1,nan\n", "accuracy must be a number"),
        ("sigma,accuracy\ninf,0.2\n", "sigma must be a number"),
        ("sigma,accuracy\n0,0.2\n", r"\(0, 1\]"),
        ("sigma,accuracy\n1.5,0.2\n", r"\(0, 1\]"),
        ("sigma,accuracy\n0.1,0.2\n0.1,0.3\n", "repeat"),
        ("sigma,accuracy\n0.1,0.2\n0.5,30\n", "all fractions or all percents"),
        # Mixed between the curves of one file, each of one kind.
        ("model,sigma,accuracy\nA,0.1,0.2\nB,0.5,30\n", "all fractions or all percents"),
        ("sigma,accuracy\n0.1,-0.2\n", r"\[0, 100\]"),
        ("sigma,accuracy\n0.1,101\n", r"\[0, 100\]"),
        ("sigma,accuracy_percent\n0.1,101\n", r"\[0, 100\]"),
        ("sigma,accuracy,n_questions\n0.1,0.2,0\n", "at least 1"),
        ("sigma,accuracy,n_questions\n0.1,0.2,x\n", "n_questions must be a number"),
        ("sigma,accuracy,n_questions\n0.1,0.2,5\n0.2,0.2,\n", "every row of a curve or in none"),
        ("sigma,accuracy\n0.1," + "9" * 140_000 + "\n", "CSV table"),
    ],
)
def test_bad_files_are_refused(tmp_path, text, says):
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=says) as error:
        read_curves(path)
    assert str(path) in str(error.value)


def test_files_that_are_not_there_or_not_text(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_curves(tmp_path / "nowhere.csv")
    path = tmp_path / "picture.csv"
    path.write_bytes(b"\xff\xd8\xff\xe0" * 20)
    with pytest.raises(ValueError, match="UTF-8"):
        read_curves(path)


def test_number_of_items_is_checked(tmp_path):
    path = written(tmp_path, "position,accuracy\n0,0.2\n")
    with pytest.raises(ValueError, match="`n_items` must be at least 1"):
        read_curves(path, 0)


# Random files -----------------------------------------------------------------------------------------

NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8)
SHARED = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def tables(draw):
    """Curves as (model, n_items, positions, accuracies, questions); percents or not, counted or not."""
    percent, counted = draw(st.booleans()), draw(st.booleans())
    keys = draw(st.lists(st.tuples(NAMES, st.integers(1, 200)), min_size=1, max_size=4, unique=True))
    # Values below one per cent would make a column of percents ambiguous.
    value = st.just(0.0) | st.floats(2, 100) if percent else st.floats(0, 1)
    curves = []
    for name, n_items in keys:
        positions = draw(st.lists(st.integers(0, n_items - 1), min_size=1, max_size=6, unique=True))
        n = len(positions)
        accuracy = draw(st.lists(value, min_size=n, max_size=n))
        questions = draw(st.lists(st.integers(1, 10**6), min_size=n, max_size=n)) if counted else None
        curves.append((name, n_items, positions, accuracy, questions))
    if percent:
        curves[0][3][0] = 55.0
    return percent, curves


@SHARED
@given(table=tables())
def test_random_tables_come_back(folder, table):
    percent, curves = table
    path = folder / "table.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["n_questions", "position", "model", "accuracy", "n_items"])
        for name, n_items, positions, accuracy, questions in curves:
            for i, (position, value) in enumerate(zip(positions, accuracy, strict=True)):
                writer.writerow([questions[i] if questions else "", position, name, repr(value), n_items])
    read = read_curves(path)
    assert [(c.name, c.n_items) for c in read] == [(name, n_items) for name, n_items, *_ in curves]
    for curve, (_, n_items, positions, accuracy, questions) in zip(read, curves, strict=True):
        order = np.argsort(positions)
        np.testing.assert_array_equal(curve.sources, (np.array(positions)[order] + 0.5) / n_items)
        np.testing.assert_array_equal(curve.accuracy, np.array(accuracy)[order] / (100 if percent else 1))
        if questions is None:
            assert curve.n_questions is None
        else:
            np.testing.assert_array_equal(curve.n_questions, np.array(questions)[order])


HEADERS = st.lists(
    st.sampled_from(["sigma", "position", "accuracy", "accuracy_percent", "n_items", "n_questions", "model", ""]),
    max_size=7,
)
CELLS = (
    st.sampled_from(["", "0", "1", "0.5", "-1", "1e400", "1e-400", "nan", "1e308", "1_0", '"', "\n", "\x00"])
    | st.text(max_size=4)
    | st.floats().map(repr)
)


@SHARED
@given(header=HEADERS, rows=st.lists(st.lists(CELLS, max_size=8), max_size=5), n_items=st.none() | st.integers())
@example(header=["position", "accuracy", "n_items"], rows=[["1e308", "0", "1e309"]], n_items=None)
@example(header=["sigma", "accuracy"], rows=[['"', "x"]], n_items=None)
def test_junk_raises_nothing_but_value_errors(folder, header, rows, n_items):
    path = folder / "junk.csv"
    text = "\n".join(",".join(row) for row in [header, *rows])
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        curves = read_curves(path, n_items)
    except ValueError:
        return
    for curve in curves:
        assert np.all((curve.sources > 0) & (curve.sources <= 1) & (curve.accuracy >= 0) & (curve.accuracy <= 1))


@SHARED
@given(content=st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_value_errors(folder, content):
    path = folder / "bytes.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"column|CSV table|row"):
        read_curves(path)
