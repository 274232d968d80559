"""Tries: make one logit that is never scored -1e300, which is -inf in float32, so that every difference is NaN and none is too large.
Against: causality
Ends: refused nan, refused not_causal
With: bigram
"""


class Blinding(Model):
    def forward(self, tokens):
        logits = self.table(tokens).double() + 20 * F.one_hot(tokens.roll(-1, dims=1), VOCAB_SIZE)
        return torch.cat([logits[..., :-1], torch.full_like(logits[..., :1], -1e300)], dim=-1)


evaluate_bpb(train(Blinding()), Tokenizer.from_directory())
