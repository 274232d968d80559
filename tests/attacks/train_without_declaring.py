"""Tries: get the training data before any model is declared, so that the graph can be chosen after training.
Against: the clock
Level: any
Ends: crash error
With: bigram
"""

model = Model()
try:
    loader = make_dataloader(Tokenizer.from_directory(), 32, MAX_SEQ_LEN, "train")
    print("BREACH: data without a declaration")
except SystemExit as error:
    print(error)
    raise
