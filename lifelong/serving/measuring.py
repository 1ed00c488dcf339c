"""What the server counts, as text for Prometheus."""

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds at which the histogram of answers is cut."""


class Measured:
    """Counts requests and predictions, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began = time.time()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: dict[str, list[int]] = {}
        self._sum: dict[str, float] = {}
        self._images: Counter[str] = Counter()

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            route: what answered it.
            status: of the answer.
            seconds: that it took.
        """
        with self._lock:
            self._requests[route, status] += 1
            self._seconds.setdefault(route, [0] * (len(BOUNDS) + 1))[bisect_left(BOUNDS, seconds)] += 1
            self._sum[route] = self._sum.get(route, 0.0) + seconds

    def images(self, known: int, strange: int, unusable: int) -> None:
        """Count images: like those learned, unlike them, and unusable."""
        with self._lock:
            self._images.update({"known": known, "strange": strange, "unusable": unusable})

    def text(self, now: Mapping[str, int]) -> str:
        """Write everything in Prometheus' text format.

        Args:
            now: further values by name, such as the number of tasks.
        """
        with self._lock:
            lines = ["# TYPE lifelong_requests_total counter"]
            lines += [
                f'lifelong_requests_total{{route="{route}",status="{status}"}} {count}'
                for (route, status), count in sorted(self._requests.items())
            ]
            lines.append("# TYPE lifelong_request_seconds histogram")
            for route, counts in sorted(self._seconds.items()):
                below = 0
                for bound, count in zip([*map(str, BOUNDS), "+Inf"], counts, strict=True):
                    below += count
                    lines.append(f'lifelong_request_seconds_bucket{{route="{route}",le="{bound}"}} {below}')
                lines.append(f'lifelong_request_seconds_sum{{route="{route}"}} {self._sum[route]:.6f}')
                lines.append(f'lifelong_request_seconds_count{{route="{route}"}} {below}')
            lines.append("# TYPE lifelong_images_total counter")
            lines += [f'lifelong_images_total{{kind="{kind}"}} {count}' for kind, count in sorted(self._images.items())]
            lines += ["# TYPE lifelong_start_time_seconds gauge", f"lifelong_start_time_seconds {self._began:.3f}"]
        for name, value in now.items():
            lines += [f"# TYPE lifelong_{name} gauge", f"lifelong_{name} {value}"]
        return "\n".join(lines) + "\n"


def resident_bytes() -> int:
    """Bytes of memory that this process has; 0 where the system does not say."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS:")), 0)
    except OSError:
        return 0
