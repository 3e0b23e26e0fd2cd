"""Which parameters a model has, and from which tensors of a checkpoint each is made."""
