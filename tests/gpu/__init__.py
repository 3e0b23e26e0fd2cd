"""Everything worth doing on a GPU, in one command: `python -m tests.gpu.run`.

    run ─┬─ part facts         what the GPU is, and what it can do at most
         ├─ part correctness   every kernel against its reference, in float64
         ├─ part kernels       every kernel at every named shape, timed
         ├─ part tiles         the choices of each kernel, timed
         ├─ part peers         the same work in PyTorch, where it is installed
         ├─ part cuDNN         whole prompts in cuDNN, by JAX
         ├─ part engine        a whole model with dummy weights
         ├─ part transformers  the same model in transformers' generate
         └─ part profile       where a step's time goes, by class of kernel

Each part is a process of its own, so one that crashes the GPU takes nothing with it, and writes
each record as soon as it has it, so one that is cut off loses nothing.
"""
