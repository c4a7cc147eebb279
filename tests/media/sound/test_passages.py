"""Cues to passages: cut at pauses and sentences, with the times of what they hold, and nothing lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mmsearch.media.sound.passages import FEW, MOST, Cue, Word, spoken_passages


def passages(cues: list[Cue], most: int = 64) -> list[Cue]:
    return list(spoken_passages(cues, most, lambda text: len(text.split()) + 2))


def test_a_sentence_over_two_cues_is_one_passage_with_exact_times() -> None:
    cues = [
        Cue(1.0, 3.0, "She talks about"),
        Cue(3.1, 5.25, "the old harbour."),
        Cue(5.3, 7.0, "Then she leaves town."),
    ]
    found = passages(cues)
    assert [(one.start_s, one.end_s, one.text) for one in found] == [
        (1.0, 5.25, "She talks about the old harbour."), (5.3, 7.0, "Then she leaves town."),
    ]  # fmt: skip


def test_a_pause_divides_and_short_sentences_stay_together() -> None:
    cues = [Cue(0, 1, "Yes. No. Good morning to you."), Cue(1.2, 2, "Well"), Cue(9, 10, "here we are again")]
    assert [one.text for one in passages(cues)] == ["Yes. No. Good morning to you.", "Well", "here we are again"]


def test_two_sentences_in_a_cue_share_its_time_by_their_letters() -> None:
    [first, second] = passages([Cue(0.0, 10.0, "One two three four. Five six seven eigh.")])
    assert first.start_s == 0.0 and second.end_s == 10.0 and first.end_s == second.start_s
    assert 4.5 < second.start_s < 5.5


def test_known_times_of_words_are_kept() -> None:
    words = tuple(Word(f" {text}", n * 0.5, n * 0.5 + 0.4) for n, text in enumerate(["we", "are", "here", "now."]))
    [one] = passages([Cue(0.0, 2.0, "we are here now.", "en", words)])
    assert (one.start_s, one.end_s, one.words, one.language) == (0.0, 1.9, words, "en")


def test_scripts_without_spaces() -> None:
    found = passages([Cue(0, 4, "大家早上好，欢迎来到这里。开往港口的火车九点出发。")])
    assert [one.text for one in found] == ["大家早上好，欢迎来到这里。", "开往港口的火车九点出发。"]


def test_abbreviations_end_no_sentence() -> None:
    [one] = passages([Cue(0, 4, "This is our old Dr. Miller from the U. S. of A")])
    assert one.text == "This is our old Dr. Miller from the U. S. of A"


def test_without_full_stops_a_passage_ends_all_the_same() -> None:
    cues = [Cue(float(n), n + 1.0, "and so it goes on and on") for n in range(60)]
    found = passages(cues)
    assert len(found) > 5 and all(len(one.text.split()) <= MOST for one in found)
    assert all(one.start_s == int(one.start_s) for one in found), "each begins with a cue"


texts = st.text(alphabet="ab .!?,—字。é", min_size=1, max_size=40)


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 5), texts), max_size=12), st.integers(4, 30))
def test_nothing_is_lost_and_times_ascend(rows: list[tuple[float, float, str]], most: int) -> None:
    cues, at = [], 0.0
    for gap, length, text in rows:
        cues.append(Cue(at + gap, at + gap + length, text))
        at += gap + length
    found = passages(cues, most)
    letters = "".join(char for cue in cues for char in cue.text if char.isalnum())
    assert "".join(char for one in found for char in one.text if char.isalnum()) == letters
    assert all(one.end_s >= one.start_s for one in found)
    assert [one.start_s for one in found] == sorted(one.start_s for one in found)
    assert all(len(one.text.split()) + 2 <= max(most, FEW) or len(one.text.split()) == 1 for one in found)
