"""Tries: say that training has ended, train on, and submit the better weights.
Ends: refused refused
With: bigram
"""

model = train(Model())
prepare._server.ask(op="trained", digests=prepare.digests(model))
with torch.no_grad():
    model.table.weight += 0.01
prepare._server.ask(op="trained", digests=prepare.digests(model))  # a second word does not count
prepare.export_model(model.eval(), prepare.Path("submission.safetensors"))
print(prepare._server.ask(op="submit"))
