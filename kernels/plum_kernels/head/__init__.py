"""Loss and gradients of a trained head in one visit: ``linear_preference`` and its back ends."""
