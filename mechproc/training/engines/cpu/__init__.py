"""The C++ kernel for CPUs and what calls it."""
