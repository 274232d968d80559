"""Tries: change torch's losses and softmax before an otherwise honest run.
Against: the score
Ends: score
With: bigram
"""

model = train(Model())
F.cross_entropy = lambda *_, **__: torch.zeros(())
torch.log_softmax = F.log_softmax = lambda x, *_, **__: x * 0
print("val_bpb:", evaluate_bpb(model, Tokenizer.from_directory()))
