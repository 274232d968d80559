"""Tries: say that training has ended, train on, and submit the better weights.
Ends: refused refused
With: bigram
"""

import export

model = train(Model())
prepare._server.ask(op="trained", digests=export.digests(model))
with torch.no_grad():
    model.table.weight += 0.01
prepare._server.ask(op="trained", digests=export.digests(model))  # a second word does not count
export.export_model(model.eval(), prepare.Path("submission.safetensors"), (prepare.EVAL_BATCH, MAX_SEQ_LEN))
print(prepare._server.ask(op="submit"))
