"""The `switch` line: contents without vectors of an encoder → the pipeline → let it answer."""

from typing import TYPE_CHECKING

from mmsearch.core.lazy import lazily

if TYPE_CHECKING:
    from mmsearch.switch.options import SwitchOptions as SwitchOptions
    from mmsearch.switch.run import SwitchReport as SwitchReport
    from mmsearch.switch.run import switch as switch

_HOMES = {
    "SwitchOptions": "mmsearch.switch.options",
    "SwitchReport": "mmsearch.switch.run",
    "switch": "mmsearch.switch.run",
}
__all__ = [*_HOMES]
__getattr__ = lazily(__name__, _HOMES)
