import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong.report.lettering import face

LETTERS = face(13)
REPLACED = "\N{REPLACEMENT CHARACTER}"


def test_characters_that_the_font_lacks_are_replaced():
    assert LETTERS.clean("猫 naïve Ω жук\x1b[31m") == f"{REPLACED} naïve Ω жук{REPLACED}[31m"
    assert LETTERS.clean("a\n\t b") == "a b"


@given(st.text(max_size=60), st.integers(20, 200))
def test_a_fitted_line_fits_and_is_the_longest_beginning_that_does(text, width):
    whole, fitted = LETTERS.clean(text), LETTERS.fit(text, width)
    assert LETTERS.width(fitted) <= width
    if LETTERS.width(whole) <= width:
        assert fitted == whole
    else:
        kept = fitted.removesuffix("…")
        assert whole.startswith(kept)
        longer = [f"{whole[:end].rstrip()}…" for end in range(len(kept) + 1, len(whole))]
        assert all(line == fitted or LETTERS.width(line) > width for line in longer)


@given(st.text(max_size=60), st.integers(20, 200), st.integers(1, 3))
def test_wrapped_lines_fit_and_hold_the_text_in_order(text, width, lines):
    wrapped = LETTERS.wrap(text, width, lines)
    assert 1 <= len(wrapped) <= lines
    assert all(LETTERS.width(line) <= width for line in wrapped)
    whole = LETTERS.clean(text).replace(" ", "")
    assert whole.startswith("".join(wrapped).replace(" ", "").removesuffix("…"))


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("cat", ["cat"]),
        ("aquarium_fish", ["aquarium_", "fish"]),
        ("large_omnivores_and_herbivores", ["large_", "omnivores…"]),
        ("chimpanzeechimpanzee", ["chimpanzee…"]),
    ],
)
def test_class_names_are_broken_after_signs(text, lines):
    wrapped = LETTERS.wrap(text, 90, 2)
    assert len(wrapped) == len(lines)
    assert all(line.rstrip("…").startswith(want.rstrip("…")[:7]) for line, want in zip(wrapped, lines, strict=True))
    assert [line.endswith("…") for line in wrapped] == [line.endswith("…") for line in lines]


def test_a_face_is_made_once():
    assert face(13) is LETTERS
    assert face(13, "bold").width("cat") > LETTERS.width("cat")
