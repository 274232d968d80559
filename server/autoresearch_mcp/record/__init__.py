"""The durable record: events, the state that follows from them, the ledger that holds them, and its exports."""
