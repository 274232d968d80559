"""The loop: one session's steps, what is allowed when, and what patches and changes are. Knows git and the record, no client."""
