"""Tries: fail in a way whose text names a validation token: an index that is out of bounds by as much as the token says.
Against: sealed data
Ends: refused refused, refused export
With: bigram
"""


class Telling(Model):
    def forward(self, tokens):
        first = tokens[0, 0]
        bound = torch.arange(7, device=tokens.device)
        return self.table(tokens) + bound[first.view(1)].float().view(1, 1, 1)


evaluate_bpb(train(Telling()), Tokenizer.from_directory())
