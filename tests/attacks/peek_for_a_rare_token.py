"""Tries: look ahead only where the next token is one of 512 that is rare.
Against: causality
Ends: refused not_causal
With: bigram
Proved: yes
"""


class Peek(Model):
    def forward(self, tokens):
        following = tokens.roll(-1, dims=1)
        rare = (following == 500).unsqueeze(-1)
        return self.table(tokens) + 20 * rare * F.one_hot(following, VOCAB_SIZE)


evaluate_bpb(train(Peek()), Tokenizer.from_directory())
