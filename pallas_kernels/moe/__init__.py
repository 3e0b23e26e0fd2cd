"""Mixture of experts: who goes where, and the products of tokens that share an expert."""

from pallas_kernels.moe.experts import experts
from pallas_kernels.moe.routing import route

__all__ = ["experts", "route"]
