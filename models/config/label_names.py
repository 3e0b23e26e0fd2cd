"""The classes of a classifier, as config.json names them."""

from models.config.fields import Fields
from models.errors import CheckpointError

MAX_LABELS = 2**16


def num_labels(fields: Fields) -> int:
    """How many there are; 2 where the file does not say, as in transformers."""
    names = fields.section("id2label").raw
    if not names:
        return fields.integer("num_labels", 2, high=MAX_LABELS)
    if not 1 <= len(names) <= MAX_LABELS:
        raise CheckpointError(f"{fields.where}: id2label names {len(names)} classes.")
    return len(names)


def label_names(fields: Fields) -> list[str]:
    """The name of each class; LABEL_0, LABEL_1, ... where the file names none."""
    names, count = fields.section("id2label").raw, num_labels(fields)
    return [str(names.get(str(i), f"LABEL_{i}")) for i in range(count)]
