"""Tries: put another function in the place of evaluate_bpb.
Against: the score
Ends: crash error
With: bigram
"""

prepare.evaluate_bpb = lambda *_: 0.01
print("val_bpb:", prepare.evaluate_bpb(train(Model()), None))
