"""`mmsearch eval`: files read rightly, figures equal to a slow count and to pytrec_eval, runs compared."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval
from PIL import Image

from mmsearch.api import Index
from mmsearch.core.errors import UsageError
from mmsearch.evaluate import EvaluationOptions, compare_saved, draw_runs, load_run, read_evaluation_set, save_run
from mmsearch.evaluate.metrics import kendall_tau
from mmsearch.evaluate.runs import hit_curve
from mmsearch.models.rerankers.base import Reranker, RerankerSpec
from mmsearch.query import SearchOptions
from mmsearch.store.local.optimize import OptimizeOptions
from tests.support.colours import COLOURS, ColourEncoder, save_colour

NAMES = list(COLOURS)


class LeftFirst(Reranker):
    """Knows which colour is on the left: the distance of the left half to the colour that the question names first."""

    spec = RerankerSpec("left first", "l" * 64, (3,), mix=100.0)

    def prepare_image(self, image: Image.Image) -> np.ndarray:
        return np.asarray(image.convert("RGB"))[:, : image.width // 2].reshape(-1, 3).mean(axis=0)

    def tokens_of_prepared(self, inputs: np.ndarray) -> np.ndarray:
        return inputs.astype(np.float16)

    def image_tokens(self, images: Sequence[Image.Image]) -> np.ndarray:
        return np.asarray([self.prepare_image(one) for one in images], dtype=np.float16).reshape(-1, 3)

    def score_tokens(self, text: str, tokens: np.ndarray) -> np.ndarray:
        wanted = np.asarray(COLOURS[text.split()[0]], dtype=np.float32)
        return -np.linalg.norm(tokens.astype(np.float32) - wanted, axis=1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    random = np.random.default_rng(2)
    for number in range(40):
        colours = [NAMES[i] for i in random.choice(8, 2, replace=False)]
        pixels = np.concatenate(
            [np.full((12, int(w), 3), COLOURS[c]) for c, w in zip(colours, (14, 10), strict=True)], 1
        )
        path = folder / "photos" / f"s{number % 3}" / f"p{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(pixels + random.integers(-20, 20, pixels.shape), 0, 255).astype(np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def opened(place: Path) -> Index:
    with Index.open(place / "index", create=True, encoder=ColourEncoder()) as index:
        index.add(place / "photos")
        yield index


def questions(place: Path) -> tuple[Path, Path, dict[str, dict[str, int]]]:
    random = np.random.default_rng(3)
    texts, qrels, judged = [], [], {}
    for number in range(20):
        texts.append(f"q{number}\t{' '.join(NAMES[i] for i in random.choice(8, 2, replace=False))}")
        chosen = {int(i): int(random.integers(0, 4)) for i in random.choice(40, 6, replace=False)}
        judged[f"q{number}"] = {f"p{i:02d}.png": grade for i, grade in chosen.items()}
        qrels += [f"q{number} 0 p{i:02d}.png {grade}" for i, grade in chosen.items()]
    (place / "queries.tsv").write_text("\n".join(texts) + "\n")
    (place / "qrels.txt").write_text("\n".join(qrels) + "\n")
    return place / "queries.tsv", place / "qrels.txt", judged


@pytest.mark.parametrize("alpha", [0.0, 0.25])
def test_the_figures_are_those_of_pytrec_eval(opened: Index, place: Path, alpha: float) -> None:
    queries, qrels, judged = questions(place)
    run = opened.evaluate(queries, qrels=qrels, options=EvaluationOptions(alpha=alpha))
    assert run.gallery == 40
    encoder = ColourEncoder()
    texts = dict(line.split("\t") for line in queries.read_text().splitlines())
    ranked = {}
    for key, text in texts.items():
        from mmsearch.query import SearchOptions

        hits = opened.search(text, raw=True, options=SearchOptions(k=40, hubness=alpha, words=0))
        ranked[key] = {Path(hit.path).name: 1.0 - place / 100 for place, hit in enumerate(hits)}
    assert encoder.spec.describe() == run.encoder
    reference = pytrec_eval.RelevanceEvaluator(
        judged, {"map", "recip_rank", "ndcg_cut.10", "recall.1,5,10", "success.1,5,10"}
    )
    found = reference.evaluate(ranked)
    names = {"mAP": "map", "MRR": "recip_rank", "nDCG@10": "ndcg_cut_10"}
    names |= {f"recall@{k}": f"recall_{k}" for k in (1, 5, 10)} | {f"hit@{k}": f"success_{k}" for k in (1, 5, 10)}
    for ours, theirs in names.items():
        for key, value in run.per_question[ours].items():
            assert value == pytest.approx(found[key][theirs], abs=1e-6), (ours, key)


def test_captions_both_ways_against_a_count_by_hand(opened: Index, place: Path) -> None:
    lines = [f"p{i:02d}.png\t{NAMES[i % 8]} {NAMES[(3 * i) % 8]}" for i in range(40)] + ["gone.png\tred"]
    file = place / "captions.tsv"
    file.write_text("image\tcaption\n" + "\n".join(lines) + "\n")
    run = opened.evaluate(file, options=EvaluationOptions(alpha=0.0))
    assert (run.gallery, run.left_out, len(run.per_question["MRR"])) == (40, 1, 40)
    encoder = ColourEncoder()
    texts = encoder.encode_texts([line.split("\t")[1] for line in lines[:40]])
    images = encoder.encode_images([Image.open(place / "photos" / f"s{i % 3}" / f"p{i:02d}.png") for i in range(40)])
    scores = texts @ images.astype(np.float16).astype(np.float32).T
    by_hand = float(np.mean([(scores[i] > scores[i, i] + 1e-6).sum() < 5 for i in range(40)]))
    assert abs(run.two_way["R@5 text→image"] / 100 - by_hand) <= 0.051  # equal captions tie
    assert run.figures["hit@5"]["low"] <= run.figures["hit@5"]["estimate"] <= run.figures["hit@5"]["high"]
    assert run.index_recall == 1.0 and run.recipe == "exact"


def test_kinds_of_files(tmp_path: Path) -> None:
    file = tmp_path / "set"
    file.write_text('{"image": "a.jpg", "objects": ["dog", "cat"]}\n{"image": "b.jpg", "objects": ["dog"]}\n')
    read = read_evaluation_set(file, template="a photo of a {}.")
    assert read.kind == "labels" and read.questions[1].text == "a photo of a dog."
    assert read.questions[1].relevant == {"a.jpg": 1.0, "b.jpg": 1.0}
    file.write_text('{"image": "a.jpg", "captions": ["one", "two"]}\n')
    assert [one.text for one in read_evaluation_set(file).questions] == ["one", "two"]
    file.write_text("a.jpg#0\tA dog .\na.jpg#1\tA cat .\n")
    assert {tuple(one.relevant) for one in read_evaluation_set(file).questions} == {("a.jpg",)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("no tab here\n", "line 1: expected image<TAB>caption"),
        ('{"image": 3}\n', '"image" is missing'),
        ('{"image": "a.jpg"}\n', "line 1"),
        ("{broken\n", "no JSON"),
        ('{"image": "a", "objects": "dog"}\n', "list of names"),
    ],
)
def test_broken_files_say_where(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "set"
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_evaluation_set(file)


def test_answers_that_are_not_indexed_are_an_error_and_ambiguous_names_too(opened: Index, place: Path) -> None:
    file = place / "other.tsv"
    file.write_text("nowhere.jpg\tred\n")
    with pytest.raises(UsageError, match="none of the right answers"):
        opened.evaluate(file)
    save_colour(place / "more" / "x" / "same.png", "red")
    save_colour(place / "more" / "y" / "same.png", "blue")
    with Index.open(place / "index2", create=True, encoder=ColourEncoder()) as index:
        index.add(place / "more")
        file.write_text("same.png\tred\n")
        with pytest.raises(UsageError, match="2 indexed files are called same"):
            index.evaluate(file)
        file.write_text("y/same.png\tblue\n")
        assert index.evaluate(file).figures["hit@1"]["estimate"] == 1.0


def test_runs_are_saved_compared_and_drawn(opened: Index, place: Path, tmp_path: Path) -> None:
    queries, qrels, _ = questions(place)
    plain = opened.evaluate(queries, qrels=qrels, options=EvaluationOptions(alpha=0.0))
    other = opened.evaluate(queries, qrels=qrels, options=EvaluationOptions(alpha=2.0))
    save_run(plain, tmp_path / "a.json")
    assert load_run(tmp_path / "a.json") == plain
    same = compare_saved(plain, load_run(tmp_path / "a.json"))
    assert same["mAP"].difference.estimate == 0 and same["mAP"].p_value == 1.0
    compared = compare_saved(other, plain)["mAP"]
    expected = np.mean([other.per_question["mAP"][q] - plain.per_question["mAP"][q] for q in plain.per_question["mAP"]])  # type: ignore[operator]
    assert compared.difference.estimate == pytest.approx(expected)
    assert compared.wins + compared.draws + compared.losses == len(plain.per_question["mAP"])
    curve = hit_curve(plain)
    assert curve == sorted(curve) and curve[9] == pytest.approx(plain.figures["hit@10"]["estimate"])
    draw_runs([("a", plain), ("b", other)], tmp_path / "plot.png")
    assert np.asarray(Image.open(tmp_path / "plot.png")).std() > 5
    (tmp_path / "bad.json").write_text(json.dumps({"schema": 9}))
    with pytest.raises(UsageError, match="no saved run"):
        load_run(tmp_path / "bad.json")


def test_agreement_with_judgements_is_kendalls_tau(opened: Index, place: Path) -> None:
    random = np.random.default_rng(4)
    rows = [
        (f"p{int(random.integers(40)):02d}.png", NAMES[int(random.integers(8))], *random.integers(1, 5, 3))
        for _ in range(60)
    ]
    file = place / "judged.tsv"
    file.write_text("\n".join("\t".join(map(str, row)) for row in rows) + "\nnone.png\tred\t3\n")
    found = opened.agreement(file)
    assert (found["judgements"], found["left_out"]) == (180, 1)
    encoder = ColourEncoder()
    scores, grades = [], []
    for name, caption, *given in rows:
        number = int(name[1:3])
        image = encoder.encode_images([Image.open(place / "photos" / f"s{number % 3}" / name)])[0]
        value = float(image.astype(np.float16).astype(np.float32) @ encoder.encode_texts([caption])[0])
        scores += [value] * 3
        grades += [float(grade) for grade in given]
    assert found["tau_c"] == pytest.approx(kendall_tau(scores, grades, "c"), abs=1e-3)
    assert not math.isnan(found["tau_b"])


def test_judgements_may_name_captions_by_number(opened: Index, place: Path) -> None:
    captions, judged, plain = place / "token.txt", place / "expert.txt", place / "plain.tsv"
    captions.write_text("".join(f"p{i:02d}.png#0\t{NAMES[i % 8]}\n" for i in range(40)))
    rows = [(i, (i * 7) % 40, (i * 5) % 4 + 1) for i in range(40)]
    judged.write_text(
        "".join(f"p{i:02d}.png\tp{j:02d}.png#0\t{g}\t{g}\n" for i, j, g in rows) + "p01.png\tx.png#0\t1\n"
    )
    plain.write_text("".join(f"p{i:02d}.png\t{NAMES[j % 8]}\t{g}\t{g}\n" for i, j, g in rows))
    found, expected = opened.agreement(judged, captions=captions), opened.agreement(plain)
    assert (found["tau_b"], found["tau_c"]) == (expected["tau_b"], expected["tau_c"])
    assert (found["judgements"], found["left_out"]) == (80, 1)
    with pytest.raises(UsageError, match="name the file of captions"):
        opened.agreement(judged)
    with pytest.raises(UsageError, match="image#number"):
        opened.agreement(judged, captions=plain)


def test_what_a_vector_index_loses_stands_apart(place: Path, tmp_path: Path) -> None:
    """A recipe with coarse codes and no re-scoring of much loses something; figures are those of exact search."""
    random = np.random.default_rng(5)
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        vectors = random.normal(size=(3000, 4)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        index.add_embeddings(vectors, [{"path": f"v{i}.jpg", "modality": "image"} for i in range(3000)])
        file = tmp_path / "captions.tsv"
        texts = ColourEncoder().encode_texts([f"{a} {b}" for a in NAMES for b in NAMES])
        best = (vectors @ texts.T).argmax(axis=0)
        lines = [f"v{best[n]}.jpg\t{NAMES[n // 8]} {NAMES[n % 8]}" for n in range(64)]
        file.write_text("\n".join(lines) + "\n")
        exact = index.evaluate(file, options=EvaluationOptions(alpha=0.0))
        assert exact.index_loss is None and exact.rerank_gain is None
        index.optimize(OptimizeOptions(recipe="ivf_flat", recall=0.5))
        run = index.evaluate(file, options=EvaluationOptions(alpha=0.0))
        assert run.figures == exact.figures and run.recipe == "ivf_flat"
        loss = run.index_loss
        assert loss is not None and loss["questions"] == 64
        found = [
            index.search(line.split("\t")[1], raw=True, options=SearchOptions(k=10, words=0, hubness=0))
            for line in lines
        ]
        by_search = np.mean(
            [Path(hits[0].path).name == line.split("\t")[0] for hits, line in zip(found, lines, strict=True)]
        )
        assert loss["after"]["hit@1"] == pytest.approx(by_search)
        assert loss["before"]["hit@1"] == pytest.approx(run.figures["hit@1"]["estimate"])
        assert loss["change"]["hit@1"]["difference"]["estimate"] <= 0


def test_what_a_reranker_gains_stands_apart(opened: Index, place: Path, tmp_path: Path) -> None:
    """Questions name the left colour first, which mean colours cannot know; the reranker looks at the left."""
    gallery = tmp_path / "photos"
    lines = []
    for number, (left, right) in enumerate((a, b) for a in NAMES[:5] for b in NAMES[:5] if a != b):
        pixels = np.concatenate([np.full((16, 16, 3), COLOURS[c], dtype=np.uint8) for c in (left, right)], 1)
        gallery.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(gallery / f"{number}.png")
        lines.append(f"{number}.png\t{left} {right}")
    (tmp_path / "set.tsv").write_text("\n".join(lines) + "\n")
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        index.add(gallery)
        told: list[tuple[int, int]] = []
        run = index.evaluate(
            tmp_path / "set.tsv", options=EvaluationOptions(alpha=0.0), reranker=LeftFirst(), rerank_depth=10,
            progress=lambda done, total: told.append((done, total)),
        )  # fmt: skip
    assert run.figures["hit@1"]["estimate"] < 1.0, "the first stage alone, as without a reranker"
    gain = run.rerank_gain
    assert gain is not None and gain["questions"] == 20 and told[-1] == (20, 20)
    assert gain["before"]["hit@1"] == pytest.approx(run.figures["hit@1"]["estimate"])
    assert gain["after"]["hit@1"] == 1.0
    change = gain["change"]["hit@1"]
    assert change["difference"]["estimate"] == pytest.approx(1.0 - gain["before"]["hit@1"]) and change["p_value"] < 0.01
    assert len(gain["seconds"]) == 2 and min(gain["seconds"]) > 0
    save_run(run, tmp_path / "run.json")
    assert load_run(tmp_path / "run.json") == run


def test_captions_beside_the_files_are_a_set_of_their_own(tmp_path: Path) -> None:
    for number, colour in enumerate(NAMES):
        photo = save_colour(tmp_path / "photos" / f"x{number}.png", colour, seed=number)
        photo.with_suffix(".txt").write_text(f"something {colour}")
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        index.add(tmp_path / "photos")
        assert index.evaluate().figures["hit@1"]["estimate"] == 1.0
