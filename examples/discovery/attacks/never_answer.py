# Tries: to hold the scoring up for as long as it likes.
# Ends: refused, "too long to answer"
import time


def recommend(history, count):
    time.sleep(3600)
