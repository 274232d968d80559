"""What counts as the same change, and which places it is in."""

import time

import pytest

from autoresearch_mcp.loop.changes import MOST_TOKENS, Change, between, places_of

MODEL = '''\
"""A model."""
import torch

LR = 0.04  # found by search
DEPTH: int = 4


class MLP(nn.Module):
    """Two layers."""

    def __init__(self, width):
        super().__init__()
        self.fc = nn.Linear(width, 4 * width)

    def forward(self, x):
        return self.fc(x)


@torch.compile
def train():
    for step in range(10):
        print("step", step)
'''


def change(old: str, new: str, text: str = MODEL, path: str = "train.py") -> Change | None:
    assert old in text
    return between(path, text, text.replace(old, new))


def test_comments_layout_and_docstrings_are_no_change():
    assert change("  # found by search", "  # a guess") is None
    assert change('"step", step', "'step',\n              step") is None
    assert change("0.04", "4e-2") is None
    assert change('    """Two layers."""\n', "") is None
    assert change("import torch\n", "import torch\n\n\n\n") is None


def test_the_same_idea_written_in_another_way_is_the_same_change():
    plain = change("LR = 0.04  # found by search", "LR = 0.05")
    assert plain == change("LR = 0.04  # found by search", "# higher\nLR = (5e-2)") and plain is not None
    assert plain.digest != change("LR = 0.04", "LR = 0.06").digest  # type: ignore[union-attr]


def test_the_same_idea_on_another_best_is_the_same_change():
    deeper = MODEL.replace("DEPTH: int = 4", "DEPTH: int = 8")
    assert change("0.04", "0.05") == change("0.04", "0.05", deeper)


def test_the_same_line_in_another_place_is_another_change():
    one = change("super().__init__()", "super().__init__()\n        x = 1")
    other = change("return self.fc(x)", "x = 1\n        return self.fc(x)")
    assert one and other and one.digest != other.digest


def test_places_are_what_encloses_the_change():
    assert places_of("train.py", MODEL) == ["LR", "DEPTH", "MLP", "MLP.__init__", "MLP.forward", "train"]
    both = between("train.py", MODEL, MODEL.replace("0.04", "0.05").replace("range(10)", "range(20)"))
    assert both and both.places == ["LR", "train"]
    assert change("nn.Module", "nn.Sequential").places == ["MLP"]  # type: ignore[union-attr]
    assert change("@torch.compile\n", "").places == ["train"]  # type: ignore[union-attr]
    assert change("import torch\n", "import torch\nimport math\n").places == []  # type: ignore[union-attr]


def test_other_files_are_compared_by_words_under_their_headings():
    notes = "# Loop\n\nRun,  then judge.\n\n## Budget\n\nFive minutes.\n"
    assert between("notes.md", notes, "# Loop\nRun, then judge.\n## Budget\n\nFive   minutes.") is None
    assert change("Five", "Ten", notes, "notes.md").places == ["Budget"]  # type: ignore[union-attr]
    assert change("c: 2", "c: 3", ".a { x: 1 }\n.b {\n  c: 2\n}\n", "page.css").places == [".b"]  # type: ignore[union-attr]
    assert change("= 2", "= 3", "[a]\nx = 1\n[b]\ny = 2\n", "weights.toml").places == ["b"]  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_large_file_is_compared_in_a_moment():
    lines = [f"value_{i} = {i}" for i in range(20_000)]
    new = [*lines[:10_000], "extra = 1", *lines[10_000:]]
    assert between("big.py", "\n".join(lines), "\n".join(new)).places == ["extra"]  # type: ignore[union-attr]


def test_a_python_file_that_does_not_parse_or_is_huge_is_compared_by_words_with_the_other():
    broken = MODEL.replace("def train():", "def train(:")
    fixed = between("train.py", broken, MODEL)
    assert fixed and fixed.places == ["def train(", "def train()"]  # the one line, not the whole file
    huge = "a = 1\n" * (MOST_TOKENS // 3 + 1)
    assert between("big.py", huge, huge + "b = 2  # new\n").digest != between("big.py", huge, huge + "b = 2\n").digest  # type: ignore[union-attr]


def test_what_splits_lines_elsewhere_opens_no_place():
    assert places_of("notes.md", "# One\x0c# two\n## Three\u2028## four\n") == ["One\x0c# two", "Three\u2028## four"]
    assert places_of("notes.md", "#   Wide   \n[[table]]  \n.style  {\n  inside:\nend of it\n#none\n") == [
        "Wide",
        "table",
        ".style",
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x\n" * 6_000, "y\n" + "x\n" * 3_000 + "z\n" + "x\n" * 3_001),
        ("#" + " " * 900_000 + "x\n", "a" + " " * 900_000 + "x\n"),
        ("a" + ":" * 1_000_000, "[" * 500_000 + "]" * 500_000 + "x"),
        ("# " + "h" * 500_000 + "\na" * 200_000, "# " + "g" * 500_000 + "\nb" * 200_000),
        ("f(x)\n" * 200_000, "g(x)\n" * 200_000),
    ],
)
@pytest.mark.slow
def test_no_two_files_take_long_to_compare(old: str, new: str):
    started = time.process_time()
    for path in ("a.md", "a.py"):
        between(path, old, new)
        places_of(path, old)
    assert time.process_time() - started < 8  # of four calls; single ones took 5 s to hours, or 100 GB
