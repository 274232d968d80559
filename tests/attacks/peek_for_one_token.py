"""Tries: look ahead at the first position alone, where a probe of random positions seldom looks.
Against: causality
Ends: refused not_causal
With: bigram
Proved: yes
"""


class Peek(Model):
    def forward(self, tokens):
        first = torch.arange(MAX_SEQ_LEN, device=tokens.device).view(1, -1, 1) == 0
        return self.table(tokens) + 20 * first * F.one_hot(tokens.roll(-1, dims=1), VOCAB_SIZE)


evaluate_bpb(train(Peek()), Tokenizer.from_directory())
