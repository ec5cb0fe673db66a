"""Expectations of our own."""

from __future__ import annotations

from typing import Any

import great_expectations.expectations as gxe


class ExpectColumnQuantilesBetween(gxe.ExpectColumnQuantileValuesToBeBetween):
    """Quantiles within ranges.

    The original returns numpy booleans, which Great Expectations' own JSON writer refuses
    (great_expectations 1.24 with numpy 2).
    """

    def _validate(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        result = dict(super()._validate(*args, **kwargs))
        result["success"] = bool(result["success"])
        details = result["result"]["details"]
        details["success_details"] = [bool(value) for value in details["success_details"]]
        return result
