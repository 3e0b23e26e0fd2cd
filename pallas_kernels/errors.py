"""The error of a kernel that does not take what it was given."""


class KernelError(ValueError):
    """No kernel of this machine takes an array; the message names the limit it breaks."""
