"""A loss of your own: GRPO, as Rein computes it. Run this, then: custom: {service: "127.0.0.1:7700"}"""
import math
import sys

import rein


@rein.loss
def grpo(batch, low=0.2, high=0.2):
    """max(-A rho, -A clip(rho, 1 - low, 1 + high)), mean over tokens, then over sequences."""
    loss, gradients = 0.0, []
    for s in batch.sequences:
        weight = 1 / (len(batch.sequences) * max(1, len(s.logprobs)))
        ratios = [math.exp(new - old) for new, old in zip(s.logprobs, s.behaviour_logprobs)]
        kept = [min(max(rho, 1 - low), 1 + high) for rho in ratios]
        loss += weight * sum(max(-a * rho, -a * k) for a, rho, k in zip(s.advantages, ratios, kept))
        gradients.append([-weight * a * rho if -a * rho >= -a * k else 0.0 for a, rho, k in zip(s.advantages, ratios, kept)])
    return loss, gradients


if __name__ == "__main__":
    grpo.serve(sys.argv[1])
