"""Tries: declare a causal mask, train, and submit one that looks ahead.
Against: causality
Ends: refused refused
With: bigram
"""


class Masked(Model):
    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.ones(MAX_SEQ_LEN, MAX_SEQ_LEN, dtype=torch.bool).tril())

    def forward(self, tokens):
        x = F.one_hot(tokens, VOCAB_SIZE).float()
        seen = (torch.zeros(MAX_SEQ_LEN, MAX_SEQ_LEN).masked_fill(~self.mask, float("-inf"))).softmax(-1) @ x
        return self.table(tokens) + 20 * seen


model = train(Masked())
model.mask.copy_(torch.eye(MAX_SEQ_LEN, dtype=torch.bool).roll(1, 1))
evaluate_bpb(model, Tokenizer.from_directory())
