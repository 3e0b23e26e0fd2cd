"""From a step's logits to its tokens: options, their state on the device, edits, draws."""
