"""Tries: peek at the next token only where the model itself finds it among the likely ones, to slip past a probe.
Against: causality
Ends: refused not_causal
With: bigram
"""

class Peek(Model):
    def forward(self, tokens):
        logits = self.table(tokens)
        following = F.one_hot(tokens.roll(-1, dims=1), VOCAB_SIZE)
        plausible = (logits.softmax(-1) * following).sum(-1, keepdim=True) > 0.01
        return logits + torch.where(plausible, 20.0, 0.0) * following


evaluate_bpb(train(Peek()), Tokenizer.from_directory())
