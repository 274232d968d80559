"""A small honest model and its training, to spoil."""

import torch
import torch.nn as nn
import torch.nn.functional as F

import export
import prepare
from prepare import EVAL_BATCH, MAX_SEQ_LEN, VOCAB_SIZE, Tokenizer, declare, evaluate_bpb, make_dataloader


class Model(nn.Module):
    """A bigram model: honest as far as it goes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(VOCAB_SIZE, VOCAB_SIZE)
        nn.init.zeros_(self.table.weight)

    def forward(self, tokens):
        return self.table(tokens)


def train(model):
    declare(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for x, y, _ in make_dataloader(Tokenizer.from_directory(), 32, MAX_SEQ_LEN, "train"):
        F.cross_entropy(Model.forward(model, x).flatten(0, 1), y.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model
