"""Proves that a declared model is causal: the logits at position t of row b depend on tokens 0 to t of row b, and on no other.

Algorithm. One walk over the graph at its fixed shape, by abstract interpretation: `dependence` says what is kept of a value (for
every element the last position and the rows it can depend on, and where it is known exactly), `transfer` and its rooms how each
operator passes that on. The claim holds for all weights and all tokens, and is about bits: whatever a later token is, no bit of an
earlier logit changes. Nothing is sampled, so no look-ahead is too small or too rare to be seen.

What stops a dependency is structure alone: a mask that follows from positions makes products exactly zero and scores exactly minus
infinity. In floating-point numbers that needs help (0 x inf is NaN, 0 x -3 is -0.0), which `guards` give while the model is
scored.

What may be known. Constants of the graph always; buffers only as far as needed, in rising order of what training could still want
to change: none, whole numbers and booleans, then floating-point ones that look like masks, then all. Whatever was used is
`pinned`: scoring refuses other values. Parameters and all other buffers are arbitrary to the proof.

Soundness, by induction over the steps: if every operand's planes are true of it for all weights and tokens (an element marked as
known has that value; an element changes only if a token within its reach does), so are the result's. For movement, the rule is the
operator itself. For arithmetic, an element depends on its operands' elements, and known results are kept only if every machine and
precision gives the same bits, or if the guard writes them. Sums of products skip an element only if its partner is a structural
zero and the guard finds the sum finite. Every rule is fuzzed against its operator in tests/evaluate/test_transfer.py.

Price: at B = 16, T = 256 some tenths of a second, at T = 2048 a few seconds, most of it maxima over masks of T x T; see
`dependence`. What no mask stops is over-estimated: an honest model whose causality rests on arithmetic (a difference of two
cumulative sums that cancels the future) is not proved. Not covered: hardware or kernels in which an output's rounding depends on
values it does not use (convolutions by Winograd or FFT are switched off, see `guards`), time and memory.
"""

# torch's results are typed in part, and arguments of a graph have any type before a rule looks at them.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from autoresearch_mcp.evaluate import transfer_elements, transfer_mixing, transfer_moves, transfer_products
from autoresearch_mcp.evaluate.dependence import LAST, LOW, TOP, NotProved, Value, certain, known, tight, tokens, unknown
from autoresearch_mcp.evaluate.graph import Graph, Step, filled, references
from autoresearch_mcp.evaluate.guards import Guard, Recall
from autoresearch_mcp.evaluate.transfer import Call, Result, apply

RULES = (transfer_elements, transfer_mixing, transfer_moves, transfer_products)
"""Importing them fills transfer.RULES."""


@dataclass(frozen=True)
class Proof:
    """That a graph is causal, under conditions that scoring enforces."""

    pinned: frozenset[str]
    """Names of the buffers whose declared values the proof used."""
    guards: dict[str, Guard]
    """By the name of the step that each performs."""


def prove(graph: Graph, values: dict[str, torch.Tensor]) -> Proof:
    """Proves the graph causal and its rows separate; `values` are the declared buffers and constants.

    Raises NotProved, with a sentence for the author of train.py.
    """
    *fewer, all_buffers = dict.fromkeys(_attempts(graph, values))
    for pinned in fewer:
        with contextlib.suppress(NotProved):
            return Proof(pinned, _Walk(graph, values, pinned).guards())
    most = _Walk(graph, values, all_buffers)
    try:
        return Proof(most.pinned, most.guards())
    except NotProved as reason:
        raise NotProved(f"{reason}{most.blame()}") from None


def _attempts(graph: Graph, values: dict[str, torch.Tensor]) -> Iterator[frozenset[str]]:
    """Sets of buffers to use the values of, from none to all."""
    buffers = {name for name in graph.inputs.values() if graph.tensors[name].kind == "buffer" and name in values}
    whole = {name for name in buffers if not values[name].is_floating_point() and not values[name].is_complex()}
    masks = {
        name
        for name in buffers - whole
        if bool((values[name] == 0).any()) or bool(values[name].isinf().any()) or bool((values[name] < -1e4).any())
    }
    yield from map(frozenset[str], (set[str](), whole, whole | masks, buffers))


@dataclass
class _Walk:
    """One attempt: everything the graph computes, seen abstractly."""

    graph: Graph
    values: dict[str, torch.Tensor]
    pinned: frozenset[str]
    found: dict[str, Result] = field(default_factory=dict[str, Result])

    def guards(self) -> dict[str, Guard]:
        """The guards under which the graph is causal. Raises NotProved."""
        guards: dict[str, Guard] = {}
        self._start()
        for step, gone in zip(self.graph.steps, self.graph.last_uses(), strict=True):
            result, guard = self._step(step)
            self._recall(step, result, guards)
            self.found[step.name] = result
            if guard is not None:
                guards[step.name] = guard
            for name in gone:
                self.found.pop(name, None)
        output = self._output()
        broken = violation(output, self.graph.shape)
        if broken:
            raise NotProved(broken)
        return guards

    def _start(self) -> None:
        self.found.clear()
        for node, name in self.graph.inputs.items():
            spec = self.graph.tensors[name]
            usable = spec.kind == "constant" or name in self.pinned
            self.found[node] = known(self.values[name]) if usable else unknown(spec.shape, spec.dtype)
        if self.graph.tokens is not None:
            self.found[self.graph.tokens] = tokens(self.graph.shape)

    def _step(self, step: Step) -> tuple[Result, Guard | None]:
        args, kwargs = filled(step.args, self.found), filled(step.kwargs, self.found)
        if step.operator == "getitem":
            return args[0][args[1]], None
        if step.operator == "aten.view.dtype":
            raise NotProved(f"node {step.name[:80]} reads the bits of one type as another's; use x.to(dtype)")
        call = Call(step, args, kwargs)
        return apply(call), call.guard

    def _recall(self, step: Step, result: Result, guards: dict[str, Guard]) -> None:
        """Constants that abstract values meet are those of the proof, on whatever hardware the graph runs."""
        results = result if isinstance(result, list) else [result]
        if all(value.concrete for value in results):
            return
        for name in {*references(step.args), *references(step.kwargs)}:
            value = self.found[name]
            if isinstance(value, Value) and value.concrete and name not in self.graph.inputs and _structural(value):
                guards.setdefault(name, Recall(name, tight(value.value)))

    def _output(self) -> Value:
        assert self.graph.output is not None, "parse_graph refuses a graph without one"
        value = self.found[self.graph.output.name]
        if isinstance(value, list) or value.shape[:2] != self.graph.shape:
            raise NotProved(f"the model's output has no shape (batch, sequence length, vocabulary) for tokens {self.graph.shape}")
        return value

    def blame(self) -> str:
        """Names the node where later positions come in: back from the output along values that are causal along no axis."""
        self._start()
        causal: dict[str, bool] = {name: self._harmless(value) for name, value in self.found.items()}
        steps = {step.name: step for step in self.graph.steps}
        for step, gone in zip(self.graph.steps, self.graph.last_uses(), strict=True):
            self.found[step.name], _ = self._step(step)
            causal[step.name] = self._harmless(self.found[step.name])
            for name in gone:
                self.found.pop(name, None)
        assert self.graph.output is not None
        name = self.graph.output.name
        while name in steps:
            worse = [operand for operand in references([steps[name].args, steps[name].kwargs]) if not causal[operand]]
            if not worse:
                return f" (it comes in at node {name[:80]}, {steps[name].operator})"
            name = worse[0]
        return ""

    def _harmless(self, result: Result) -> bool:
        """Whether some axis can be the positions, so that nothing depends on later ones, and rows are apart."""
        length = self.graph.shape[1]
        for value in result if isinstance(result, list) else [result]:
            last = tight(value.reach[LAST])
            if not bool((last > 0).any()):
                continue
            axes = [axis for axis, size in enumerate(value.shape) if size == length]
            if not any(_causal_along(last, axis, length) for axis in axes):
                return False
        return True


def _causal_along(last: torch.Tensor, axis: int, length: int) -> bool:
    here = torch.arange(1, length + 1).reshape([-1 if dim == axis else 1 for dim in range(last.dim())])
    return bool((last <= here).all())


def _structural(value: Value) -> bool:
    """Whether a constant holds anything that the proof may have used."""
    return bool(certain(tight(value.value)).any()) or not value.value.is_floating_point()


def violation(output: Value, shape: tuple[int, int]) -> str:
    """What is wrong with logits (B, T, ...), in words; empty if nothing is."""
    rows, length = shape
    beyond = (1,) * (len(output.shape) - 2)
    here = torch.arange(1, length + 1).reshape(1, -1, *beyond)
    row = torch.arange(1, rows + 1).reshape(-1, 1, *beyond)
    last, top, low = (tight(output.reach[i]) for i in (LAST, TOP, LOW))
    late = (last > here).flatten(2).any(2).any(0) if len(output.shape) > 2 else (last > here).any(0)
    if bool(late.any()):
        position = int(late.nonzero()[0])
        seen = last.expand(output.shape)[:, position].max()
        return f"logits at position {position} may depend on token {int(seen) - 1}"
    if bool((top > row).any()) or bool((low > rows + 1 - row).any()):
        return "the logits of one row may depend on the tokens of another"
    return ""
