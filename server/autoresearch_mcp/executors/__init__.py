"""Where a run is started: on this machine (local)."""
