"""The `switch` line: contents without vectors of an encoder → read again → encode → commit → let it answer.

files       where contents lie, and what reads them      moments     frames for segments that are there already
filling     batches, encodes, commits                    run         the line itself
"""

from mmsearch.switch.run import SwitchOptions, SwitchReport, switch

__all__ = ["SwitchOptions", "SwitchReport", "switch"]
