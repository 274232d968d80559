"""Tries: ignore the end of the budget and train on with data already read.
Against: the clock
Level: any
Ends: timeout timeout
With: bigram
"""

model = Model()
declare(model)
batches = [(x, y) for x, y, _ in make_dataloader(Tokenizer.from_directory(), 32, MAX_SEQ_LEN, "train")]
optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
while True:
    for x, y in batches:
        F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
        optimizer.step()
