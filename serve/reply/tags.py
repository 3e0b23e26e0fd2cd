"""How a format writes a call whose parameters stand each between tags: what is read, and bound."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tags:
    """`call` name `named` (`parameter` key `keyed` `before_value` value `valued`)* `end`, all
    within `around`.

    `typed`: the key is followed by ` string="true">` or "false", which overrules the schema.
    """

    call: str
    named: tuple[str, ...]
    parameter: str
    keyed: str
    valued: str
    end: str
    before_value: str = ""
    around: tuple[str, ...] = ()
    named_stays: bool = False  # what ends the name is already the first parameter
    typed: bool = False
    padded: bool = False  # a newline at each end of a value is the format's
