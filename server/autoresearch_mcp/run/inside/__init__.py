"""The few files that run inside the sandbox: standard library only. This folder is the trust boundary."""
