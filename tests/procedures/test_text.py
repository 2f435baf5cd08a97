"""``language`` against plain Python, on a text whose every document is known."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechproc.errors import ConfigError
from mechproc.procedures import SPLITS, UNDEFINED, Fixed, Language, Procedure, Uniform, corpora
from mechproc.procedures.text import BLANK, DIGIT, LETTER, PUNCTUATION


def plain(tokens: np.ndarray) -> str:
    known = {corpora.NEWLINE: "\n", corpora.OTHER: "?"}
    return "".join(known.get(t, chr(t - corpora.SPACE + 32)) for t in tokens.tolist())


def by_split(known: corpora.Corpus) -> dict[str, list[str]]:
    parts = np.split(known.tokens, known.ends[:-1])
    return {
        split: [plain(part) for part, index in zip(parts, known.splits, strict=True) if index == i]
        for i, split in enumerate(SPLITS)
    }


# ---- the text -------------------------------------------------------------------------------------------------------


def test_characters_and_their_names():
    everything = "\n" + "".join(map(chr, range(32, 127)))
    assert plain(corpora.encode(everything)) == everything
    assert plain(corpora.encode("a\r\nb\tc\u00e9\U0001f600\ud800")) == "a\nb?c???"
    assert corpora.CHARACTER_NAMES[corpora.encode("a_b ~")[1]] == "‿" and corpora.CHARACTER_NAMES[0] == "_"
    assert [corpora.CHARACTER_NAMES[t] for t in corpora.encode("q ~\n\t")] == ["q", "␣", "~", "⏎", "�"]


def test_splits_are_whole_documents_of_the_shares_wanted(documents):
    texts = documents(200)
    known = corpora.corpus([*texts, texts[0]])
    splits = by_split(known)
    assert sorted(itertools.chain.from_iterable(splits.values())) == sorted(set(texts))  # each once
    for split, share in SPLITS.items():
        got = sum(map(len, splits[split])) / sum(map(len, set(texts)))
        assert got == pytest.approx(share, abs=0.01), split
    assert known.sha256 == corpora.corpus(reversed(texts)).sha256 != corpora.corpus(texts[1:]).sha256


def test_a_text_too_small_to_be_split_is_refused():
    with pytest.raises(ConfigError, match="a text of 2 documents cannot be split"):
        corpora.corpus(["abc", "def", "abc", ""])


def test_windows_lie_in_one_document(text):
    ends, starts = text.ends.tolist(), text.starts.tolist()
    expected = [p for a, b in zip(starts, ends, strict=True) for p in range(a, b - 9)]
    assert text.windows(10).tolist() == expected
    assert len(text.windows(10_000)) == 0


@given(st.integers(1, 40), st.integers(0, 60), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_window_hashes_tell_windows_apart_and_nothing_else(length, n, seed):
    tokens = np.random.default_rng(seed).integers(0, 2, n)
    hashes = corpora.window_hashes(tokens, length)
    windows = [tuple(tokens[i : i + length].tolist()) for i in range(n - length + 1)]
    assert len(hashes) == len(windows)
    assert [[a == b for a in windows] for b in windows] == (hashes == hashes[:, None]).tolist()


def test_the_texts_that_python_brings_along():
    assert 300_000 < len(corpora.docs().tokens) < 1_000_000
    assert "mutable" in plain(corpora.docs().tokens)
    sources = corpora.stdlib()
    assert 300 < len(sources.ends) < 2_000 and "class TestCase(object):" in plain(sources.tokens)


def test_a_data_set_by_name(documents, tmp_path):
    for i, sentence in enumerate(documents()):
        (tmp_path / f"{i}.txt").write_text(sentence.replace("\n", " "))
    task = Language(Fixed(16), source="dataset", dataset=str(tmp_path))
    assert len(task.text.ends) == 60
    assert Procedure.from_dict(task.to_dict()) == task
    assert len(Language(Fixed(16), source="dataset", dataset=str(tmp_path), n_documents=40).text.ends) == 40
    for wrong, said in [
        ({"column": "txt"}, "column = 'txt' is not allowed: a column of text, of text"),
        ({"part": "tset"}, "Bad split: tset"),
        ({"dataset": str(tmp_path / "lost")}, "cannot be had: FileNotFoundError"),
        ({"dataset": ""}, "dataset = '' is not allowed: a name with source"),
        ({"source": "docs"}, "is not allowed: a name with source = 'dataset', and empty with another"),
        ({"source": "wiki"}, "source = 'wiki' is not allowed: one of 'docs', 'stdlib', 'dataset'"),
        ({"n_documents": 2}, "n_documents = 2 is not allowed: at least 3"),
        ({"lengths": Fixed(1)}, "lengths = 1 is not allowed: at least 2 characters"),
        ({"source": "docs", "dataset": "", "column": "x"}, "column = 'x' is not allowed: 'text' unless source"),
    ]:
        with pytest.raises(ConfigError, match=said):
            Language(**{"lengths": Fixed(16), "source": "dataset", "dataset": str(tmp_path), **wrong})


# ---- items ----------------------------------------------------------------------------------------------------------


def test_items_are_windows_of_the_documents_of_their_split(text):
    splits = by_split(text)
    task = Language(Uniform(5, 12))
    for split, mine in splits.items():
        block = task.block(0, split, 0)
        for row, n in zip(block.tokens, block.n_tokens, strict=True):
            window = plain(row[:n])
            assert any(window in document for document in mine)
            if split != "test":
                assert not any(window in document for document in splits["test"])
            if split == "train":
                assert not any(window in document for document in splits["validation"])
    assert np.array_equal(block.scored, np.arange(12) < block.n_tokens[:, None] - 1)


def test_windows_of_a_length_are_drawn_uniformly(text):
    task = Language(Fixed(12))
    rng = np.random.default_rng(0)
    tokens, _ = task.draw(rng, np.full(50_000, 12))
    first = np.bincount(tokens[:, 0], minlength=task.d_vocab) / len(tokens)
    expected = np.bincount(text.tokens[text.windows(12)], minlength=task.d_vocab) / len(text.windows(12))
    assert np.abs(first - expected).max() < 0.01


def test_another_text_is_another_run(text, documents, monkeypatch):
    task = Language(Fixed(8))
    assert task.sha256 == text.sha256 and task.digest() != Language(Fixed(8), sha256="0" * 64).digest()
    other = corpora.corpus(documents(seed=1))
    monkeypatch.setattr(corpora, "docs", lambda: other)
    again = Procedure.from_dict(task.to_dict())
    with pytest.raises(
        ConfigError, match=r"sha256 = '\w{12}\.\.\.' is not allowed: docs has \w{12}\.\.\. here \(Python 3"
    ):
        again.block(0, "test", 0)
    with pytest.raises(ConfigError, match="lengths = 9000 is not allowed: no longer than the longest document"):
        Language(Fixed(9_000)).block(0, "test", 0)


def test_another_source_brings_its_own_hash(text, documents, monkeypatch):
    monkeypatch.setattr(corpora, "stdlib", lambda: corpora.corpus(documents(seed=2)))
    task = Language(Fixed(8))
    assert task.replace(source="stdlib").items(4).tokens.shape == (4, 8)
    assert task.replace(lengths=Fixed(9)).sha256 == task.sha256 != task.replace(source="stdlib").sha256


def test_what_cannot_be_known_is_refused(text):
    task = Language(Fixed(8))
    block = task.items(4)
    assert task.ceiling(block) is None
    for ask in (task.next_probabilities, task.legal_next):
        with pytest.raises(ConfigError, match="language has no oracle: nothing decides which character comes next"):
            ask(block)


# ---- latents and masks ----------------------------------------------------------------------------------------------


@given(st.text(alphabet="ab1 \n,_é", min_size=2, max_size=24))
@settings(deadline=None)
def test_latents_and_masks_as_plain_python_has_them(string):
    task = Language(Fixed(24), sha256="0" * 64)
    n = len(string)
    tokens = np.zeros((1, 24), dtype=np.int64)
    tokens[0, :n] = corpora.encode(string)
    block = task.annotate(tokens, np.array([n]))
    seen = {name: values[0, :n].tolist() for name, values in block.latents.items()}
    kinds = {**dict.fromkeys("ab", LETTER), "1": DIGIT, " ": BLANK, "\n": BLANK}
    assert seen["class"] == [kinds.get(c, PUNCTUATION) for c in string]
    in_word = [1]
    for c in string:
        in_word.append(in_word[-1] + 1 if c in "ab1" else 1)
    assert seen["in_word"] == [k if c in "ab1" else UNDEFINED for k, c in zip(in_word, string, strict=False)]
    newlines = [string.rfind("\n", 0, p + 1) for p in range(n)]
    assert seen["column"] == [p - at if at >= 0 else UNDEFINED for p, at in enumerate(newlines)]
    other = string.replace("é", "?")
    repeat = [
        max((q for q in range(1, p) if other[q - 1 : q + 1] == other[p - 1 : p + 1]), default=-1) for p in range(n)
    ]
    repeat[0] = UNDEFINED
    assert seen["repeat"] == repeat
    cells = {name: np.argwhere(mask[0]).tolist() for name, mask in task.attention_targets(block).items()}
    assert cells["previous"] == [[p, p - 1] for p in range(1, n)]
    assert cells["induction"] == [[p, q + 1] for p, q in enumerate(repeat) if q >= 0]
    words = [k if c in "ab1" else 0 for k, c in zip(in_word, string, strict=False)]
    assert cells["word"] == [[p, q] for p in range(n) for q in range(p) if p - q < words[p]]


# ---- predictors -----------------------------------------------------------------------------------------------------


def test_the_trigram_as_plain_python_has_it(text):
    task = Language(Uniform(3, 10))
    train = by_split(text)["train"]
    grams = [Counter(d[i : i + k] for d in train for i in range(len(d) - k + 1)) for k in (1, 2, 3)]

    def chance(context: str, following: str) -> float:
        """Witten and Bell's interpolation, one context at a time."""
        if not context:
            counts, shorter = grams[0], None
        else:
            counts, shorter = grams[len(context)], chance(context[1:], following)
        after = {g[-1]: c for g, c in counts.items() if g[:-1] == context}
        if shorter is None:  # every character but the padding may come: one is added to each
            return (after.get(following, 0) + 1) / (sum(after.values()) + task.d_vocab - 1)
        if not after:
            return shorter
        return (after.get(following, 0) + len(after) * shorter) / (sum(after.values()) + len(after))

    block = task.items(40)
    losses: dict[str, list[float]] = {"most frequent character": [], "bigram": [], "trigram": []}
    for row, n in zip(block.tokens, block.n_tokens, strict=True):
        window = plain(row[:n])
        for p in range(1, n):
            for name, k in zip(losses, range(3), strict=True):
                losses[name].append(-math.log(chance(window[max(0, p - k) : p], window[p])))
    assert task.baseline_losses(block) == pytest.approx({name: np.mean(some) for name, some in losses.items()})
    for table in task._fitted:
        assert np.allclose(table.sum(axis=-1), 1) and (table[..., 1:] > 0).all() and (table[..., 0] == 0).all()


def test_longer_contexts_predict_better(text):
    task = Language(Fixed(32))
    block = task.items(500)
    losses, accuracies = list(task.baseline_losses(block).values()), list(task.baselines(block).values())
    assert losses == sorted(losses, reverse=True) and accuracies == sorted(accuracies)


def test_a_model_learns_it_past_the_most_frequent_character(text):
    from mechproc.model.config import ModelConfig
    from mechproc.model.state import init_state
    from mechproc.training.config import TrainingConfig
    from mechproc.training.engines import choose
    from mechproc.training.loop import train

    task = Language(Fixed(24))
    cfg = ModelConfig(1, 2, 16, task.n_ctx, task.d_vocab)
    training = TrainingConfig(
        steps=150, batch_size=32, learning_rate=1e-2, warmup_steps=10, evaluate_every=150, n_validation=64, n_test=300
    )
    test = train(task, cfg, init_state(cfg, 0), training, 0, engine=choose("auto", cfg).make).test
    losses = task.baseline_losses(task.items(300))
    assert losses["bigram"] < losses["most frequent character"] and test.loss < losses["most frequent character"] - 0.5
