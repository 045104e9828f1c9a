"""C++ that is compiled where it runs: for CPUs, where torch has no operator for it."""
