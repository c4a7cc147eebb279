"""The `switch` line: contents without vectors of an encoder → the pipeline → let it answer."""

from mmsearch.switch.run import SwitchOptions, SwitchReport, switch

__all__ = ["SwitchOptions", "SwitchReport", "switch"]
