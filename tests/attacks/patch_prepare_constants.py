"""Tries: score fewer tokens by changing the constants of prepare.py.
Against: the score
Ends: score, refused refused
With: bigram
"""

prepare.EVAL_TOKENS = 64
prepare.token_byte_lengths = lambda _: None
print("val_bpb:", evaluate_bpb(train(Model()), Tokenizer.from_directory()))
