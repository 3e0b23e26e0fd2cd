"""What the kernels do not take is refused by name, before anything is compiled."""

import jax.numpy as jnp
import pytest

from pallas_kernels.attention.limits import (
    AttentionShape,
    check_attention,
    check_biases,
    check_pages,
    check_pool,
    page_head_dim,
)
from pallas_kernels.dispatch import Backend, backend_for, resolve
from pallas_kernels.errors import KernelError

LLAMA = AttentionShape(128, 64, jnp.bfloat16)


@pytest.mark.parametrize(
    "change, limit",
    [
        ({"head_dim": 320}, "a head dim of 64, 128, 192, 256, 512, not 320"),
        ({"head_dim": 256, "dtype": jnp.int8}, "up to 192 in pages of int8, not 256"),
        ({"page_size": 8}, "page size in .*, not 8"),
        ({"dtype": jnp.float32}, "bfloat16, float16, int8, float8_e4m3fn, not float32"),
    ],
)
def test_refuses_by_name(change, limit):
    with pytest.raises(KernelError, match=limit):
        check_attention(LLAMA._replace(**change), Backend.MOSAIC)
    check_attention(LLAMA._replace(**change), Backend.XLA)


def test_refuses_sinks_with_slopes():
    check_biases(None, jnp.ones(4))
    with pytest.raises(KernelError, match="not both"):
        check_biases(jnp.ones(4), jnp.ones(4))


def test_takes_llama():
    check_attention(LLAMA, Backend.MOSAIC)


@pytest.mark.parametrize(
    "queries, pages, limit",
    [
        (jnp.float16, jnp.bfloat16, "bfloat16 with pages of bfloat16, not float16"),
        (jnp.float32, jnp.int8, "bfloat16 or float16 with pages of int8, not float32"),
    ],
)
def test_queries_go_with_pages(queries, pages, limit):
    q, pages = jnp.zeros((1, 2, 64), queries), jnp.zeros((2, 1, 16, 64), pages)
    scales = jnp.zeros(pages.shape[:3]) if pages.dtype == jnp.int8 else None
    with pytest.raises(KernelError, match=limit):
        check_pages(q, pages, scales, scales, Backend.MOSAIC)
    check_pages(q, pages, scales, scales, Backend.XLA)
    check_pages(q.astype(jnp.bfloat16), pages, scales, scales, Backend.MOSAIC)


@pytest.mark.parametrize(
    "gib, dtype, backend, fits",
    [
        (2, "int8", Backend.TRITON, True),
        (3, "int8", Backend.TRITON, False),
        (4, "float8_e4m3fn", Backend.TRITON, False),
        (4.1, "int8", Backend.TRITON, True),
        (3, "bfloat16", Backend.TRITON, True),
        (3, "int8", Backend.MOSAIC, True),
    ],
)
def test_pools_that_pallas_triton_cannot_count(gib, dtype, backend, fits):
    entries = int(gib * 2**30) // jnp.dtype(dtype).itemsize
    if fits:
        check_pool(entries, dtype, backend)
        return
    with pytest.raises(KernelError, match=f"or of more than 4 GiB, .* {dtype}, not {gib}.0 GiB"):
        check_pool(entries, dtype, backend)


@pytest.mark.parametrize("head_dim, width", [(32, 64), (64, 64), (80, 128), (96, 128), (256, 256)])
def test_heads_are_wider_in_pages(head_dim, width):
    assert page_head_dim(head_dim, Backend.MOSAIC) == width
    assert page_head_dim(head_dim, Backend.XLA) == head_dim


@pytest.mark.parametrize(
    "platform, kind, backend",
    [
        ("cpu", "cpu", Backend.XLA),
        ("gpu", "NVIDIA H200", Backend.MOSAIC),
        ("gpu", "NVIDIA H100 80GB HBM3", Backend.MOSAIC),
        ("gpu", "NVIDIA GH200 480GB", Backend.MOSAIC),
        ("gpu", "NVIDIA A100-SXM4-80GB", Backend.TRITON),
        ("gpu", "NVIDIA A100 80GB PCIe", Backend.TRITON),
        ("gpu", "NVIDIA A10G", Backend.TRITON),
        ("gpu", "NVIDIA RTX A6000", Backend.TRITON),
        ("gpu", "NVIDIA GeForce RTX 3090 Ti", Backend.TRITON),
        ("gpu", "NVIDIA GeForce RTX 4090", Backend.TRITON),
        ("gpu", "NVIDIA RTX 6000 Ada Generation", Backend.TRITON),
        ("gpu", "NVIDIA L4", Backend.TRITON),
        ("gpu", "NVIDIA L40S", Backend.TRITON),
    ],
)
def test_the_device_decides(platform, kind, backend):
    assert backend_for(platform, kind) is backend


def test_other_gpus_are_named():
    for kind in ("NVIDIA B200", "Tesla V100-SXM2-32GB", "Quadro RTX 6000", "NVIDIA RTX PRO 6000"):
        with pytest.raises(KernelError, match=f"no kernels for {kind}"):
            backend_for("gpu", kind)


def test_what_cuda_says_goes_before_the_name():
    assert backend_for("gpu", "NVIDIA H100", "8.6") is Backend.TRITON
    assert backend_for("gpu", "a new board", "9.0") is Backend.MOSAIC
    with pytest.raises(KernelError, match="no kernels for NVIDIA A1000000"):
        backend_for("gpu", "NVIDIA A1000000", "12.0")


def test_a_kernel_without_a_version_for_the_gpu_is_left_to_xla():
    assert resolve(Backend.TRITON) is Backend.XLA
    assert resolve(Backend.TRITON, (Backend.MOSAIC, Backend.TRITON)) is Backend.TRITON
    assert resolve(Backend.MOSAIC) is Backend.MOSAIC
    assert resolve(None) is Backend.XLA
