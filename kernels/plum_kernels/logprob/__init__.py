"""Log-probabilities straight from hidden states and head weight: ``linear_logprob`` and its back ends."""
