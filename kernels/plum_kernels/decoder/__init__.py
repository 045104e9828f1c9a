"""Small kernels of a decoder layer: SwiGLU, RMSNorm with residual add, rotary positions with a norm before them."""
