"""Tries: remember what was seen in a buffer, from one scored batch to the next.
Against: causality
Ends: crash export, refused refused
With: bigram
"""

class Stateful(Model):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(VOCAB_SIZE))

    def forward(self, tokens):
        self.seen += F.one_hot(tokens, VOCAB_SIZE).sum((0, 1))
        return self.table(tokens) + self.seen


evaluate_bpb(train(Stateful()), Tokenizer.from_directory())
