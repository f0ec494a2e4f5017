"""An environment of your own: find a number by "+" (it is higher) and "-". Run this, then name it in a job:

    python my_environment.py 127.0.0.1:7600     # environment: {remote: "127.0.0.1:7600"}, rewards: [{environment: {}}]
"""
import random
import re
import sys

import rein


@rein.environment
class GuessTheNumber:
    """A number from 1 to 5: 1 for finding it at once, 0.2 less for each wrong guess, three guesses."""

    def reset(self, seed):
        self.number, self.guesses = random.Random(seed).randint(1, 5), 0
        return None  # nothing follows the prompt, which says what the game is

    def step(self, text):
        self.guesses += 1
        found = re.search(r"[0-9]+", text)
        if found and int(found[0]) == self.number:
            return None, 1 - 0.2 * (self.guesses - 1), True
        shown = "?" if not found else "+" if int(found[0]) < self.number else "-"
        return shown, 0.0, self.guesses == 3


if __name__ == "__main__":
    GuessTheNumber.serve(sys.argv[1])
