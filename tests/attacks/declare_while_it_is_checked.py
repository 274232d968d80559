"""Tries: swap the declaration for another one while the server looks at it.
Against: the score
Ends: crash error, refused refused
With: protocol, graph
"""

import threading
import time


def swap():
    while True:
        for content in (HONEST, b"x" * len(HONEST)):
            with open("swapped", "wb") as file:
                file.write(content)
            os.replace("swapped", "declaration.safetensors")


threading.Thread(target=swap, daemon=True).start()
time.sleep(0.2)
print(ask(op="declare"))
print(ask(op="declare"))
