"""By where a picture was taken."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mmsearch.core.errors import UsageError
from mmsearch.filters.base import MAX_NUMBER, Filter, Parameters

EARTH_RADIUS_KM = 6371.0088
"""Mean radius of the Earth, (2a + b)/3 of WGS 84 (Moritz, Geodetic Reference System 1980, 2000)."""


@dataclass(frozen=True)
class NearFilter(Filter):
    """Documents taken at most ``radius_km`` from a place, along the surface of the Earth.

    ``latitude`` and ``longitude`` are degrees, north and east positive; the distance is ``distance_km``.
    """

    latitude: float
    longitude: float
    radius_km: float

    def __post_init__(self) -> None:
        if not (abs(self.latitude) <= 90 and abs(self.longitude) <= 180):
            raise UsageError(
                f"latitude {self.latitude:g}, longitude {self.longitude:g}; "
                "expected degrees from -90 to 90 and from -180 to 180"
            )
        if not 0 < self.radius_km <= MAX_NUMBER:
            raise UsageError(f"the radius is {self.radius_km:g} km; expected more than 0")

    def condition(self, parameters: Parameters) -> str:
        """Inside a box around the circle, which is cheap, and then inside the circle, which is exact."""
        place = f"c.latitude, c.longitude, {parameters.add(self.latitude)}, {parameters.add(self.longitude)}"
        distance = f"mmsearch_distance_km({place}) <= {parameters.add(self.radius_km)}"
        return " AND ".join([*self._box(parameters), distance])

    def _box(self, parameters: Parameters) -> list[str]:
        """Bounds that no point of the circle is outside of (law of sines where a meridian touches it)."""
        margin = 1e-4  # degrees, some ten metres: far more than rounding can take away
        angle = self.radius_km / EARTH_RADIUS_KM
        south = self.latitude - math.degrees(angle) - margin
        north = self.latitude + math.degrees(angle) + margin
        bounds = [f"c.latitude BETWEEN {parameters.add(south)} AND {parameters.add(north)}"]
        if south <= -90 or north >= 90:
            return bounds  # a pole is inside, so every meridian is
        ratio = math.sin(angle) / math.cos(math.radians(self.latitude))
        if ratio >= 1:
            return bounds
        width = math.degrees(math.asin(ratio)) + margin
        west, east = self.longitude - width, self.longitude + width
        if west >= -180 and east <= 180:
            return [*bounds, f"c.longitude BETWEEN {parameters.add(west)} AND {parameters.add(east)}"]
        west, east = (west + 360, east) if west < -180 else (west, east - 360)
        return [*bounds, f"(c.longitude >= {parameters.add(west)} OR c.longitude <= {parameters.add(east)})"]


def distance_km(latitude_a: float, longitude_a: float, latitude_b: float, longitude_b: float) -> float:
    """Great-circle distance in km between two places in degrees, on a sphere of ``EARTH_RADIUS_KM``.

    Haversine formula (Sinnott, Virtues of the Haversine, Sky and Telescope 68, 1984); it differs from the
    distance on the ellipsoid by up to 0.6 %.
    """
    phi_a, phi_b = math.radians(latitude_a), math.radians(latitude_b)
    half_phi = (phi_b - phi_a) / 2
    half_lambda = math.radians(longitude_b - longitude_a) / 2
    h = math.sin(half_phi) ** 2 + math.cos(phi_a) * math.cos(phi_b) * math.sin(half_lambda) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(math.sqrt(min(1.0, h)))


def distance_or_null(*degrees: float | None) -> float | None:
    """``distance_km`` as SQL's ``mmsearch_distance_km``: NULL where a coordinate is."""
    a, b, c, d = degrees
    return None if a is None or b is None or c is None or d is None else distance_km(a, b, c, d)
