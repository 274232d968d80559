"""Scores notes.md: one point for each word of outline.txt that it mentions, a hundredth less for every word it has."""

import re
from pathlib import Path

words = re.findall(r"[a-z]+", Path("notes.md").read_text(encoding="utf-8").lower())
points = Path("outline.txt").read_text(encoding="utf-8").split()
print(sum(point in words for point in points) - len(words) / 100)
