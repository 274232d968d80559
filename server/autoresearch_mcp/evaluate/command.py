"""The metric of any task: runs its scoring command in a process of its own and reads the score from the last line it prints,
a number or a JSON object {"score": number, "holdout": number, "details": {name: number}} or {"refused": reason, "failure": name}.
"""

import json
import math
from dataclasses import dataclass, field
from typing import Any, cast

from autoresearch_mcp.errors import EvaluationError, RefusedError
from autoresearch_mcp.task import FAILURES


@dataclass
class Score:
    score: float
    holdout: float | None = None
    details: dict[str, float] = field(default_factory=dict[str, float])


def parse_score(output: bytes, returncode: int | None) -> Score:
    """The score in a scoring command's output. Raises RefusedError or EvaluationError."""
    if returncode != 0:
        raise EvaluationError(f"the scoring command ended with exit status {returncode}")
    lines = output.decode("utf-8", errors="replace").strip().splitlines()
    if not lines:
        raise EvaluationError("the scoring command printed nothing; its last line must be the score")
    try:
        answer: Any = json.loads(lines[-1])
    except ValueError as error:
        raise EvaluationError(f"the scoring command's last line is no number and no JSON: {lines[-1][:200]!r}") from error
    answer = cast("dict[str, Any]", answer) if isinstance(answer, dict) else {"score": answer}
    if "refused" in answer:
        failure = answer.get("failure", "refused")
        raise RefusedError(str(answer["refused"])[:2000], failure if failure in FAILURES else "refused")
    score = _number(answer.get("score"), "score")
    holdout = None if answer.get("holdout") is None else _number(answer["holdout"], "holdout")
    details = {str(name)[:40]: _number(value, str(name)) for name, value in dict(answer.get("details") or {}).items()}
    return Score(score, holdout, details)


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise EvaluationError(f"the scoring command gave {value!r} as {name}; it must be a number")
    if not math.isfinite(value):
        raise RefusedError(f"the {name} is {value}: the result is not a finite number", "nan")
    return float(value)
