"""A reward of your own. Run this, then name it in a job:

    python my_reward.py 127.0.0.1:7500          # rewards: [{remote: "127.0.0.1:7500", name: near}]
"""
import re
import sys

import rein


@rein.reward
def near(prompt, completion, answer, columns):
    """1 for the right number, less the further it is away, 0 without a number."""
    numbers = re.findall(r"-?[0-9]+", completion)
    return 1 / (1 + abs(int(numbers[-1]) - int(answer))) if numbers else 0.0


if __name__ == "__main__":
    near.serve(sys.argv[1])
