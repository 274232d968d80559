"""One run, from its start to its recorded result: supervisor, sandbox, clock, slots, limits."""
