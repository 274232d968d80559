"""One run, from its start to its result: supervisor, control socket, scoring, sandbox, clock, slots. It knows no ledger."""
