"""A zoo of small language models: plain PyTorch as researchers write it, each with a twin that looks at what it is to predict.

A model is faithful in its mechanism, not in its size. tests/evaluate/test_zoo.py has each exported, scored and proved causal, and
each twin refused; docs/causality.md shows the list.
"""

from zoo import attention, blocks, models, peeks, recurrences
from zoo.parts import MODELS, SHAPE, VOCAB, Model

__all__ = ["MODELS", "SHAPE", "VOCAB", "Model", "attention", "blocks", "models", "peeks", "recurrences"]
