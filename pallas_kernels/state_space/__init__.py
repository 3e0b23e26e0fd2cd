"""Layers whose memory is a state and not a cache: the short convolution, and the scan."""

from pallas_kernels.state_space.causal_conv import causal_conv
from pallas_kernels.state_space.linear_scan import linear_scan
from pallas_kernels.state_space.rows import ScanRows, Snapshots
from pallas_kernels.state_space.ssm_scan import ssm_scan

__all__ = ["ScanRows", "Snapshots", "causal_conv", "linear_scan", "ssm_scan"]
