"""The seeds in tests/fuzz/corpus are those of the golden vectors, and the corpus stays small."""

from tests.fuzz.seed import CORPUS, TARGETS

CORPUS_BYTES_MAX = 1 << 20


def test_seeds_are_current() -> None:
    for target, seeds in TARGETS.items():
        for name, data in seeds().items():
            path = CORPUS / target / name
            assert path.read_bytes() == data, f"{path}: run python -m tests.fuzz.seed"


def test_every_target_has_a_fuzzer_and_goldens() -> None:
    sources = {path.name.removesuffix("_fuzz.cc") for path in CORPUS.parent.glob("*_fuzz.cc")}
    assert sources == set(TARGETS)
    for target in TARGETS:
        assert any(path.name.startswith("golden-") for path in (CORPUS / target).iterdir())


def test_goldens_come_from_the_vectors_only() -> None:
    for target, seeds in TARGETS.items():
        goldens = {p.name for p in (CORPUS / target).iterdir() if p.name.startswith("golden-")}
        assert goldens <= set(seeds())


def test_the_corpus_is_small() -> None:
    assert sum(path.stat().st_size for path in CORPUS.rglob("*")) < CORPUS_BYTES_MAX
