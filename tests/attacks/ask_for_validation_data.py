"""Tries: ask the dataloader for the validation split.
Against: sealed data
Ends: crash error
With: bigram
"""

for split in ("val", "holdout"):
    make_dataloader(Tokenizer.from_directory(), 1, MAX_SEQ_LEN, split)
