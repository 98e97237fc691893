"""What checks annotations in tests: beartype, with PEP 484's whole numbers among the floats."""

import beartype

__all__ = ["checked"]

checked = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
